// Which ops run as one kernel: products with a norm before them or not, each reading what the one before wrote or not.

#include "device/cuda/chain.cuh"

#include <algorithm>

#include "core/dtype.h"

namespace fastllm::cuda {
namespace {

bool aligned(const View& v, std::int64_t stride, std::size_t bytes) {
  return stride * core::dtype_size(v.dtype) % bytes == 0 && reinterpret_cast<std::uintptr_t>(v.data) % bytes == 0;
}

// Whether rows of two matrices may share memory, between the first byte of each and its last.
bool overlap(const View& a, const View& b) {
  const auto ends = [](const View& v) {
    const auto begin = reinterpret_cast<std::uintptr_t>(v.data);
    const std::int64_t last = (v.shape[0] - 1) * v.stride[0] + v.shape.back();
    return std::pair{begin, begin + static_cast<std::size_t>(last) * core::dtype_size(v.dtype)};
  };
  const auto [a_begin, a_end] = ends(a);
  const auto [b_begin, b_end] = ends(b);
  return a_begin < b_end && b_begin < a_end;
}

bool is_rows(const View& v) {
  return v.shape.rank() == 2 && v.shape[0] > 0 && v.stride[1] == 1;
}

const device::RmsNorm* norm_of(const device::OpCall& call) {
  const auto* op = std::get_if<device::RmsNorm>(&call.op);
  if (!op) return nullptr;
  const View &x = call.in[0], &weight = call.in[1], &out = call.out[0];
  const bool fits = is_rows(x) && is_rows(out) && x.dtype == out.dtype && weight.dtype == core::DType::f32 &&
                    aligned(x, x.stride[0], 16) && aligned(out, out.stride[0], 16) && aligned(weight, 0, 16) &&
                    x.shape[1] % 8 == 0 && !overlap(x, out);
  return fits ? op : nullptr;
}

// The product of `call`, with `norm` in front of it.
bool link_of(const device::OpCall& call, const device::OpCall* norm, ChainLink& link, const DeviceLinear*& weight) {
  const auto* op = std::get_if<device::Linear>(&call.op);
  if (!op) return false;
  const auto* l = dynamic_cast<const DeviceLinear*>(call.linear);
  if (!l || (!l->tiled && !l->format)) return false;
  const View& x = norm ? norm->in[0] : call.in[0];
  const View& out = call.out[0];
  const bool floats = out.dtype == core::DType::f32 && !op->add_residual && !l->gated;
  if (!is_rows(x) || !is_rows(out) || x.shape[0] > kChainTokens || x.dtype != l->dtype ||
      (out.dtype != l->dtype && !floats) || l->in_features % 8 != 0 || !aligned(x, x.stride[0], 16) || overlap(x, out))
    return false;
  if (norm) {
    const View& normed = norm->out[0];
    const View& read = call.in[0];
    if (read.data != normed.data || read.stride[0] != normed.stride[0] || read.shape[0] != normed.shape[0] ||
        overlap(normed, out))
      return false;
  }
  link = {};
  link.tiles = static_cast<const char*>(l->data);
  link.tokens = static_cast<int>(x.shape[0]);
  link.rows = static_cast<int>(l->rows());
  link.depth = static_cast<int>(l->in_features);
  link.gated = l->gated;
  link.floats = out.dtype == core::DType::f32;
  link.x = x.data;
  link.x_stride = x.stride[0];
  if (norm) {
    const auto& rms = std::get<device::RmsNorm>(norm->op);
    link.norm = static_cast<const float*>(norm->in[1].data);
    link.eps = rms.eps;
    link.offset = rms.weight_offset;
    link.normed = norm->out[0].data;
    link.normed_stride = norm->out[0].stride[0];
  }
  link.out = out.data;
  link.out_stride = out.stride[0];
  link.epilogue = epilogue_of(*op, op->add_residual ? &call.in[1] : nullptr, *l);
  if (l->format) {
    link.lines = l->format->scales_sums() ? 0 : l->format->group == 0 ? 1 : 128 / l->format->group;
    link.zeros = l->format->asymmetric;
    link.row_scales = l->format->scales_sums() ? static_cast<const float*>(l->scales->data()) : nullptr;
  }
  weight = l;
  return true;
}

bool same_kind(const DeviceLinear& a, const DeviceLinear& b) {
  return a.dtype == b.dtype && a.format == b.format;
}

}  // namespace

std::size_t run_chain(const Context& c, std::span<const device::OpCall> calls) {
  if (!c.hopper || c.deterministic) return 0;
  ChainCall chain{};
  const DeviceLinear* weight = nullptr;
  std::size_t taken = 0;
  while (chain.links < kMostLinks && taken < calls.size()) {
    const device::OpCall* norm = norm_of(calls[taken]) ? &calls[taken] : nullptr;
    const std::size_t at = taken + (norm ? 1 : 0);
    const DeviceLinear* next = nullptr;
    if (at >= calls.size() || !link_of(calls[at], norm, chain.link[chain.links], next)) break;
    if (weight && !same_kind(*weight, *next)) break;
    weight = next;
    ++chain.links;
    taken = at + 1;
  }
  if (!weight) return 0;
  chain.tile_bytes = weight->format ? static_cast<int>(code_tile_bytes(*weight->format)) : 64 * 64 * 2;
  chain.meeting = c.meeting;
  launch_chain(c, chain, *weight);
  return taken;
}

}  // namespace fastllm::cuda
