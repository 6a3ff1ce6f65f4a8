// CpuBackend::run: from an op and its views to a kernel's arguments, or to the scalar reference.
#include <cstring>

#include "core/error.h"
#include "device/cpu/backend.h"
#include "device/cpu/layout.h"
#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"
#include "quant/format.h"

namespace fastllm::cpu {

using core::cat;
using core::DType;
using core::ErrorCode;
using device::View;

namespace {

const float* floats(const View& view) {
  return static_cast<const float*>(view.data);
}
float* floats_out(const View& view) {
  return static_cast<float*>(view.data);
}
Typed typed(const View& view) {
  return {view.data, view.dtype};
}

const device::StepView& needed(const device::StepView* step, const char* op) {
  if (!step) core::fail(ErrorCode::internal, cat("[", op, "] runs on a step, but none was given."));
  return *step;
}

const device::KvLayer& layer_of(const device::StepView& step, int layer, const char* op) {
  if (layer < 0 || static_cast<std::size_t>(layer) >= step.kv.size())
    core::fail(ErrorCode::internal,
               cat("[", op, "] layer ", layer, " of a step with ", step.kv.size(), " cache layers."));
  return step.kv[static_cast<std::size_t>(layer)];
}

void check_cache(const View& x, std::int64_t dim, const device::KvLayer& cache, const char* op, const char* name) {
  if (x.shape[2] != dim)
    core::fail(ErrorCode::shape_error,
               cat("[", op, "] ", name, " has heads of ", x.shape[2], " channels, but the cache holds ", dim, "."));
  if (cache.dtype != DType::f32 && !core::is_half(cache.dtype) && cache.dtype != DType::f8_e4m3)
    core::fail(ErrorCode::dtype_error, cat("[", op, "] the cache is ", core::dtype_name(cache.dtype),
                                           ", but the CPU kernels know float32, float16, bfloat16 and float8_e4m3."));
}

}  // namespace

struct CpuBackend::Call {
  CpuBackend& self;
  const device::OpCall& call;
  const device::StepView* step;
  std::span<const View> in = call.in;
  std::span<const View> out = call.out;
  core::ThreadPool& pool = self.threads_;
  const KernelTable& kernels = *self.kernels_;

  void operator()(const device::Embedding& op) const {
    const View& ids = in[0];
    const View& weight = in[1];
    const View& y = out[0];
    for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
      const std::int64_t id = reference::load_integer(ids.data, ids.dtype, t * ids.stride[0]);
      if (id < 0 || id >= weight.shape[0])
        core::fail(ErrorCode::invalid_request, cat("[embedding] id ", id, " at index ", t,
                                                   " lies outside the table of ", weight.shape[0], " rows."));
    }
    if (ids.dtype != DType::i32 || !typed_rows(weight) || !float_rows(y)) return reference::embedding(op, in, out);
    EmbeddingArgs args;
    args.ids = static_cast<const std::int32_t*>(ids.data);
    args.ids_stride = ids.stride[0];
    args.tokens = y.shape[0];
    args.weight = typed(weight);
    args.weight_stride = weight.stride[0];
    args.n = y.shape[1];
    args.y = floats_out(y);
    args.y_stride = y.stride[0];
    args.scale = op.scale;
    kernels.embedding(args, pool);
  }

  // [T, K] in float32 as quant::round_token makes it.
  View rounded_tokens(const View& x) const {
    const std::int64_t depth = x.shape[1];
    const View rows{self.partials(static_cast<std::size_t>(x.shape[0] * depth)), DType::f32, x.shape, {depth, 1}};
    if (x.dtype == DType::f32)
      strided_copy(x, rows, &pool);
    else
      reference::copy({}, {&x, 1}, {&rows, 1});
    pool.parallel_for(x.shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        quant::round_token(floats(rows) + t * depth, floats_out(rows) + t * depth, depth);
    });
    return rows;
  }

  void operator()(const device::Linear& op) const {
    const auto* weight = dynamic_cast<const CpuLinear*>(call.linear);
    if (!weight) core::fail(ErrorCode::internal, "[linear] the weight was not packed by the CPU backend.");
    View x = in[0];
    const View& y = out[0];
    if (weight->rounds_inputs) x = rounded_tokens(x);
    if (!float_rows(x) || !float_rows(y) || (op.add_residual && !float_rows(in[1])) ||
        op.activation == device::Activation::softcap) {
      const View operands[] = {x, op.add_residual ? in[1] : x};
      return reference::linear(op, *weight, operands, out);
    }
    LinearArgs args;
    args.x = floats(x);
    args.x_stride = x.stride[0];
    args.m = x.shape[0];
    args.k = x.shape[1];
    args.blocks = weight->blocks().data();
    args.block_count = static_cast<int>(weight->blocks().size());
    args.y = floats_out(y);
    args.y_stride = y.stride[0];
    if (op.add_residual) {
      args.residual = floats(in[1]);
      args.residual_stride = in[1].stride[0];
    }
    args.scale = op.scale;
    args.activation = op.activation;
    args.scratch = self.scratch(kLinearScratch);
    kernels.linear(args, pool);
  }

  void operator()(const device::MatMul& op) const {
    const View& a = in[0];   // [..., M, K]
    const View& b = in[1];   // [..., K, N]
    const View& y = out[0];  // [..., M, N]
    const int rank = y.shape.rank();
    const int b_rank = b.shape.rank();
    const bool by_rows = b.dtype == DType::f32 && (b.stride[b_rank - 1] == 1 || b.shape[b_rank - 1] == 1);
    const bool by_columns = b.dtype == DType::f32 && b.stride[b_rank - 2] == 1;
    if (!float_rows(a) || !float_rows(y) || !(by_rows || by_columns)) return reference::mat_mul(op, in, out);
    const auto wide = [&](const View& view) {  // leading axes as those of y
      core::Shape shape = y.shape;
      shape[rank - 2] = view.shape[view.shape.rank() - 2];
      shape[rank - 1] = view.shape[view.shape.rank() - 1];
      return broadcast(view, shape);
    };
    const View left = wide(a);
    const View right = wide(b);
    reference::for_each_index(y.shape, rank - 2, [&](const std::int64_t* index) {
      const float* from = floats(a) + reference::offset_of(left, index, rank - 2);
      const float* by = floats(b) + reference::offset_of(right, index, rank - 2);
      float* to = floats_out(y) + reference::offset_of(y, index, rank - 2);
      const std::int64_t m = y.shape[rank - 2];
      const std::int64_t n = y.shape[rank - 1];
      const std::int64_t k = left.shape[rank - 1];
      if (by_rows) {
        kernels.mat_mul({from, left.stride[rank - 2], by, right.stride[rank - 2], to, y.stride[rank - 2], m, k, n},
                        pool);
      } else {
        const LinearBlock block{by, DType::f32, n, right.stride[rank - 1], nullptr};
        LinearArgs args;
        args.x = from;
        args.x_stride = left.stride[rank - 2];
        args.m = m;
        args.k = k;
        args.blocks = &block;
        args.block_count = 1;
        args.y = to;
        args.y_stride = y.stride[rank - 2];
        args.scratch = self.scratch(kLinearScratch);
        kernels.linear(args, pool);
      }
    });
  }

  // Fills args for rows of x, y (and residual, sum) with weight vectors; false: no kernel fits.
  bool norm_args(std::span<const View* const> rows, std::span<const View> weights, NormArgs* args) const {
    for (const View* view : rows)
      if (!float_rows(*view)) return false;
    for (const View& weight : weights)
      if (!typed_rows(weight)) return false;
    if (!row_layout(rows, false, &args->rows)) return false;
    args->x = floats(*rows[0]);
    args->y = floats_out(*rows[1]);
    args->weight = typed(weights[0]);
    return true;
  }

  void operator()(const device::RmsNorm& op) const {
    NormArgs args;
    if (!norm_args(std::array{&in[0], &out[0]}, in.subspan(1, 1), &args)) return reference::rms_norm(op, in, out);
    args.eps = op.eps;
    args.weight_offset = op.weight_offset;
    kernels.rms_norm(args, pool);
  }

  void operator()(const device::AddRmsNorm& op) const {
    NormArgs args;
    if (!norm_args(std::array{&in[0], &out[1], &in[1], &out[0]}, in.subspan(2, 1), &args))
      return reference::add_rms_norm(op, in, out);
    args.residual = floats(in[1]);
    args.sum = floats_out(out[0]);
    args.eps = op.eps;
    args.weight_offset = op.weight_offset;
    kernels.rms_norm(args, pool);
  }

  void operator()(const device::LayerNorm& op) const {
    NormArgs args;
    if (!norm_args(std::array{&in[0], &out[0]}, in.subspan(1, 2), &args)) return reference::layer_norm(op, in, out);
    args.bias = typed(in[2]);
    args.eps = op.eps;
    kernels.layer_norm(args, pool);
  }

  void operator()(const device::Softmax& op) const {
    SoftmaxArgs args;
    if (!float_rows(in[0]) || !float_rows(out[0]) || !row_layout(std::array{&in[0], &out[0]}, false, &args.rows))
      return reference::softmax(op, in, out);
    args.x = floats(in[0]);
    args.y = floats_out(out[0]);
    kernels.softmax(args, pool);
  }

  void operator()(const device::Rope& op) const {
    if (op.length != device::RopeLength::fixed) needed(step, "rope");
    const bool tables = in[1].dtype == DType::i32 && in[2].dtype == DType::f32 &&
                        (op.length != device::RopeLength::long_short || in[3].dtype == DType::f32);
    if (!tables || !float_rows(in[0]) || !float_rows(out[0])) return reference::rope(op, in, out, step);
    const RopeTables::Table& table = self.rope_tables_.get(op, in, step, pool);
    RopeArgs args;
    args.x = floats(in[0]);
    args.x_token = in[0].stride[0];
    args.x_head = in[0].stride[1];
    args.y = floats_out(out[0]);
    args.y_token = out[0].stride[0];
    args.y_head = out[0].stride[1];
    args.tokens = in[0].shape[0];
    args.heads = in[0].shape[1];
    args.dim = in[0].shape[2];
    args.rotary = op.rotary_dim;
    args.interleaved = op.interleaved;
    args.cos = table.cos.data();
    args.sin = table.sin.data();
    kernels.rope(args, pool);
  }

  void operator()(const device::KvWrite& op) const {
    const device::StepView& now = needed(step, "kv_write");
    const device::KvLayer& cache = layer_of(now, op.layer, "kv_write");
    check_cache(in[0], cache.head_dim, cache, "kv_write", "k");
    check_cache(in[1], cache.v_head_dim, cache, "kv_write", "v");
    if (!float_rows(in[0]) || !float_rows(in[1])) return reference::kv_write(op, in, now);
    KvWriteArgs args;
    args.k = floats(in[0]);
    args.k_token = in[0].stride[0];
    args.k_head = in[0].stride[1];
    args.v = floats(in[1]);
    args.v_token = in[1].stride[0];
    args.v_head = in[1].stride[1];
    args.tokens = in[0].shape[0];
    args.cache = cache;
    args.block_tokens = now.block_tokens;
    args.slots = now.slots;
    kernels.kv_write(args, pool);
  }

  void operator()(const device::RopeKvWrite&) const {
    core::fail(ErrorCode::internal, "[rope_kv_write] the CPU runs rope and kv_write; its compiler does not fuse them.");
  }

  void operator()(const device::RopeAttention&) const {
    core::fail(ErrorCode::internal, "[rope_attention] the CPU runs rope, kv_write and attention one by one.");
  }

  void operator()(const device::Attention& op) const {
    const device::StepView& now = needed(step, "attention");
    const device::KvLayer& cache = layer_of(now, op.layer, "attention");
    const View& q = in[0];
    check_cache(q, cache.head_dim, cache, "attention", "q");
    if (q.shape[1] % cache.kv_heads != 0)
      core::fail(ErrorCode::shape_error,
                 cat("[attention] ", q.shape[1], " query heads cannot share ", cache.kv_heads, " key heads evenly."));
    if (!float_rows(q) || !float_rows(out[0])) return reference::attention(op, in, out, now);
    AttentionArgs args;
    args.q = floats(q);
    args.q_token = q.stride[0];
    args.q_head = q.stride[1];
    args.y = floats_out(out[0]);
    args.y_token = out[0].stride[0];
    args.y_head = out[0].stride[1];
    args.heads = q.shape[1];
    args.cache = cache;
    args.step = &now;
    args.scale = op.scale;
    args.window = op.window;
    args.softcap = op.softcap;
    args.scratch = self.scratch(kernels.attention_scratch(args));
    if (const std::size_t needed_floats = kernels.attention_partials(args, pool.threads()); needed_floats > 0)
      args.partials = self.partials(needed_floats);
    kernels.attention(args, pool);
  }

  // Rows of a, y and possibly b for an elementwise kernel; false: none fits.
  bool element_args(const View* b, ElementArgs* args) const {
    if (!float_rows(in[0]) || !float_rows(out[0])) return false;
    if (!b) {
      if (!row_layout(std::array{&in[0], &out[0]}, true, &args->rows)) return false;
    } else {
      const int last = b->shape.rank() - 1;
      if (b->dtype != DType::f32 || last < 0) return false;
      args->b_scalar = b->stride[last] == 0 && b->shape[last] != 1;
      if (!args->b_scalar && !float_rows(*b)) return false;
      if (!row_layout(std::array{&in[0], &out[0], b}, true, &args->rows)) return false;
      args->b = floats(*b);
    }
    args->a = floats(in[0]);
    args->y = floats_out(out[0]);
    return true;
  }

  void operator()(const device::Unary& op) const {
    ElementArgs args;
    if (!element_args(nullptr, &args)) return reference::unary(op, in, out);
    args.activation = op.kind;
    args.param = op.param;
    kernels.unary(args, pool);
  }

  void operator()(const device::Affine& op) const {
    ElementArgs args;
    if (!element_args(nullptr, &args)) return reference::affine(op, in, out);
    args.param = op.scale;
    args.shift = op.shift;
    kernels.affine(args, pool);
  }

  void operator()(const device::Binary& op) const {
    ElementArgs args;
    const View b = broadcast(in[1], out[0].shape);
    if (in[0].shape != out[0].shape || !element_args(&b, &args)) return reference::binary(op, in, out);
    args.binary = op.kind;
    kernels.binary(args, pool);
  }

  void operator()(const device::GatedActivation& op) const {
    ElementArgs args;
    if (op.activation == device::Activation::softcap || !element_args(&in[1], &args))
      return reference::gated_activation(op, in, out);
    args.activation = op.activation;
    kernels.gated(args, pool);
  }

  void operator()(const device::SelectRows& op) const {
    if (in.size() < 2) needed(step, "select_rows");
    const View& x = in[0];
    const View& y = out[0];
    const auto row_at = [&](std::int64_t r) -> std::int64_t {
      return in.size() > 1 ? reference::load_integer(in[1].data, in[1].dtype, r * in[1].stride[0])
                           : step->selected_rows[r];
    };
    for (std::int64_t r = 0; r < y.shape[0]; ++r)
      if (row_at(r) < 0 || row_at(r) >= x.shape[0])
        core::fail(ErrorCode::invalid_request,
                   cat("[select_rows] row ", row_at(r), " at index ", r, " lies outside the ", x.shape[0], " rows."));
    const auto contiguous = [](const View& v) { return v.stride[1] == 1 || v.shape[1] == 1; };
    if (x.dtype != y.dtype || !contiguous(x) || !contiguous(y)) return reference::select_rows(op, in, out, step);
    const auto size = static_cast<std::int64_t>(core::dtype_size(x.dtype));
    for (std::int64_t r = 0; r < y.shape[0]; ++r)
      std::memmove(static_cast<char*>(y.data) + r * y.stride[0] * size,
                   static_cast<const char*>(x.data) + row_at(r) * x.stride[0] * size,
                   static_cast<std::size_t>(y.shape[1] * size));
  }

  void operator()(const device::Copy& op) const {
    if (in[0].dtype == out[0].dtype) return strided_copy(in[0], out[0], &pool);
    ConvertArgs args;
    if (!typed_rows(in[0]) || !typed_rows(out[0]) || !row_layout(std::array{&in[0], &out[0]}, true, &args.rows))
      return reference::copy(op, in, out);
    args.x = typed(in[0]);
    args.y = out[0].data;
    args.y_dtype = out[0].dtype;
    kernels.convert(args, pool);
  }
};

void CpuBackend::run(const device::OpCall& call, const device::StepView* step) {
  std::visit(Call{*this, call, step}, call.op);
}

}  // namespace fastllm::cpu
