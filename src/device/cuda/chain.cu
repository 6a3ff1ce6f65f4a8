// Which ops run as one kernel: products of few tokens, each behind the one before, and norms between them that nobody else
// reads.

#include "device/cuda/chain.cuh"

#include <algorithm>
#include <vector>

#include "core/dtype.h"

namespace fastllm::cuda {
namespace {

bool aligned(const View& v, std::int64_t stride, std::size_t bytes) {
  return static_cast<std::size_t>(stride) * core::dtype_size(v.dtype) % bytes == 0 &&
         reinterpret_cast<std::uintptr_t>(v.data) % bytes == 0;
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

bool same(const View& a, const View& b) {
  return a.data == b.data && a.dtype == b.dtype && a.shape[0] == b.shape[0] && a.shape[1] == b.shape[1] &&
         a.stride[0] == b.stride[0];
}

bool is_rows(const View& v) {
  return v.shape.rank() == 2 && v.shape[0] > 0 && v.stride[1] == 1;
}

// A norm whose result is the next op's alone.
const device::RmsNorm* norm_of(const device::OpCall& call) {
  const auto* op = std::get_if<device::RmsNorm>(&call.op);
  const bool fits = op && call.passing && is_rows(call.in[0]) && is_rows(call.out[0]) &&
                    call.in[1].dtype == core::DType::f32 && call.in[0].dtype == core::DType::bf16;
  return fits ? op : nullptr;
}

class Gathering final : public Chain {
 public:
  explicit Gathering(const Context& c) : multiprocessors_(c.multiprocessors) {}

  // The product of `call`, with `norm` in front of it; false: it cannot be the next link.
  bool add(const device::OpCall& call, const device::OpCall* norm);
  int links() const { return chain_.links; }
  void place(char* here, char* before, bool alone) {
    chain_.here = here;
    chain_.before = before;
    alone_ = alone;
  }
  void run(const Context& c) const override {
    if (alone_) check(cudaMemsetAsync(chain_.here, 0xff, kRegionBytes, c.stream), "linear");
    launch_chain(c, chain_, *kind_);
  }

 private:
  bool find_source(const View& x, const device::OpCall* norm, ChainLink& link);
  int take(int bytes) {
    const int at = used_;
    used_ += (bytes + 127) / 128 * 128;
    return used_ <= kRegionBytes ? at : -1;
  }

  struct Result {
    View view;
    int link;
    bool passing;
  };
  struct Read {  // from memory
    View view;
    int link;
  };

  ChainCall chain_{};
  const DeviceLinear* kind_ = nullptr;  // of all weights
  std::vector<Result> results_;
  std::vector<Read> reads_;
  int blocks_[kMostLinks] = {};  // that have rows of a link
  int used_ = 0;
  int source_link_ = -1;  // of the link being added
  int multiprocessors_;
  bool alone_ = false;
};

// Where x comes from: memory, or a link before.
bool Gathering::find_source(const View& x, const device::OpCall* norm, ChainLink& link) {
  link.source_squares = link.target = link.target_squares = -1;
  source_link_ = -1;
  const auto found =
      std::find_if(results_.rbegin(), results_.rend(), [&](const Result& r) { return overlap(r.view, x); });
  if (found == results_.rend()) {
    if (norm) return false;  // its squares are nobody's yet
    link.x = x.data;
    link.x_stride = x.stride[0];
    return true;
  }
  if (!same(found->view, x) || (kind_->format && x.shape[1] % 32 != 0)) return false;
  const int tokens = static_cast<int>(x.shape[0]);
  const int width = static_cast<int>(x.shape[1]);
  ChainLink& from = chain_.link[found->link];
  const float* weight = norm ? static_cast<const float*>(norm->in[1].data) : nullptr;
  if (from.gated && norm) return false;
  if (from.target >= 0) {
    if (from.norm != weight) return false;
  } else {
    from.target = take(tokens * exchange_row(width));
    if (norm) from.target_squares = take(tokens * ((width + 15) / 16) * 4);
    if (from.target < 0 || (norm && from.target_squares < 0)) {
      from.target = from.target_squares = -1;
      return false;
    }
    from.norm = weight;
    from.norm_offset = norm ? std::get<device::RmsNorm>(norm->op).weight_offset : 0.0f;
    if (found->passing && !norm) from.out = nullptr;
  }
  link.source = from.target;
  link.source_squares = from.target_squares;
  link.eps = norm ? std::get<device::RmsNorm>(norm->op).eps : 0.0f;
  source_link_ = found->link;
  return true;
}

bool Gathering::add(const device::OpCall& call, const device::OpCall* norm) {
  const auto* op = std::get_if<device::Linear>(&call.op);
  if (!op || chain_.links == kMostLinks) return false;
  const auto* l = dynamic_cast<const DeviceLinear*>(call.linear);
  if (!l || (!l->tiled && !l->format) || (kind_ && (kind_->dtype != l->dtype || kind_->format != l->format)))
    return false;
  if (l->rounds_inputs || (l->format && l->format->dynamic)) return false;  // its inputs are codes, or rounded to them
  const View& x = norm ? norm->in[0] : call.in[0];
  const View& out = call.out[0];
  const bool floats = out.dtype == core::DType::f32 && !op->add_residual && !l->gated;
  if (!is_rows(x) || !is_rows(out) || x.shape[0] > kChainTokens || x.dtype != l->dtype ||
      (out.dtype != l->dtype && !floats) || l->in_features % 8 != 0 || !aligned(x, x.stride[0], 16) || overlap(x, out))
    return false;
  if (norm && !same(norm->out[0], call.in[0])) return false;
  if (op->add_residual) {
    // One that a link wrote must be this thread's own: the same rows in the same blocks.
    const View& residual = call.in[1];
    for (const Result& r : results_)
      if (overlap(r.view, residual) && (!same(r.view, residual) || chain_.link[r.link].gated)) return false;
  }
  ChainLink& link = chain_.link[chain_.links];
  link = {};
  const DeviceLinear* const kind = kind_;
  kind_ = l;
  if (!find_source(x, norm, link)) {
    kind_ = kind;
    return false;
  }
  // Blocks run ahead of each other as far as no result stops them: memory that one reads may not be another's to write yet.
  const int blocks = static_cast<int>(std::min<std::int64_t>(multiprocessors_, (l->rows() + 15) / 16));
  for (const Read& r : reads_)
    if (overlap(r.view, out) && (source_link_ < r.link || blocks_[source_link_] < blocks_[r.link])) return false;
  link.tiles = static_cast<const char*>(l->data);
  link.tokens = static_cast<int>(x.shape[0]);
  link.rows = static_cast<int>(l->rows());
  link.depth = static_cast<int>(l->in_features);
  link.gated = l->gated;
  link.floats = out.dtype == core::DType::f32;
  link.out = out.data;
  link.out_stride = out.stride[0];
  link.epilogue = epilogue_of(*op, op->add_residual ? &call.in[1] : nullptr, *l);
  if (l->format) {
    link.lines = l->format->scales_sums() ? 0 : l->format->group == 0 ? 1 : 128 / l->format->group;
    link.zeros = l->format->asymmetric;
    link.row_scales = l->format->scales_sums() ? static_cast<const float*>(l->scales->data()) : nullptr;
  }
  results_.push_back({out, chain_.links, call.passing});
  if (link.x) reads_.push_back({x, chain_.links});
  blocks_[chain_.links++] = blocks;
  chain_.tile_bytes = l->format ? static_cast<int>(code_tile_bytes(*l->format)) : 64 * 64 * 2;
  return true;
}

}  // namespace

std::vector<std::unique_ptr<Chain>> find_chains(const Context& c, std::span<const device::OpCall> calls) {
  std::vector<std::unique_ptr<Chain>> chains;
  if (!c.hopper || c.deterministic) return chains;
  std::vector<Gathering*> found;
  for (std::size_t at = 0; at < calls.size();) {
    if (!std::holds_alternative<device::Linear>(calls[at].op)) {  // no chain begins with anything else
      ++at;
      continue;
    }
    auto chain = std::make_unique<Gathering>(c);
    std::size_t end = at;
    while (end < calls.size()) {
      const device::OpCall* norm = chain->links() > 0 && norm_of(calls[end]) ? &calls[end] : nullptr;
      const std::size_t product = end + (norm ? 1 : 0);
      if (product >= calls.size() || !chain->add(calls[product], norm)) break;
      end = product + 1;
    }
    if (chain->links() == 0) {
      ++at;
      continue;
    }
    chain->first = at;
    chain->count = end - at;
    at = end;
    found.push_back(chain.get());
    chains.push_back(std::move(chain));
  }
  // Regions 0 and 1 in turn, each cleared by the chain behind; the last of a list has region 2, cleared by the first of the next
  // list. A chain that is alone clears region 3 before.
  const auto region = [&](std::size_t r) { return c.exchange + r * kRegionBytes; };
  if (found.size() == 1) {
    found[0]->place(region(3), nullptr, true);
  } else {
    for (std::size_t i = 0; i < found.size(); ++i)
      found[i]->place(region(i + 1 == found.size() ? 2 : i % 2), region(i == 0 ? 2 : (i - 1) % 2), false);
  }
  return chains;
}

void reset_exchange(const Context& c) {
  check(cudaMemsetAsync(c.exchange, 0xff, kExchangeBytes, c.stream), "linear");
}

}  // namespace fastllm::cuda
