#include "engine/runner.h"

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace fastllm::engine {

namespace {
std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

// The longest, rounded up to a power of two of at least 256: devices size and record launches by it.
int longest_rounded(std::span<const std::int32_t> lengths) {
  const std::int32_t longest = lengths.empty() ? 0 : *std::ranges::max_element(lengths);
  return static_cast<int>(std::bit_ceil(static_cast<std::uint32_t>(std::max(longest, std::int32_t{256}))));
}
}  // namespace

std::size_t kv_bytes_per_token(const StepModel& model) {
  std::size_t bytes = 0;
  for (const KvSpec& layer : model.kv_layers()) {
    bytes += at(layer.kv_heads) * at(layer.head_dim + layer.v_head_dim) * core::dtype_size(layer.dtype);
  }
  return bytes;
}

Runner::Runner(std::shared_ptr<StepModel> model, const StepLimits& limits, int blocks, int block_tokens, int max_blocks,
               bool deterministic, bool recorded)
    : model_(std::move(model)),
      limits_(limits),
      block_tokens_(block_tokens),
      max_blocks_(max_blocks),
      deterministic_(deterministic),
      recorded_(recorded) {
  model_->reserve(limits);
  for (const KvSpec& spec : model_->kv_layers()) {
    device::KvLayer layer;
    layer.kv_heads = spec.kv_heads;
    layer.head_dim = spec.head_dim;
    layer.v_head_dim = spec.v_head_dim;
    layer.dtype = spec.dtype;
    const std::size_t rows = at(blocks) * at(block_tokens) * at(spec.kv_heads) * core::dtype_size(spec.dtype);
    memory_.push_back(model_->backend()->allocate(rows * at(spec.head_dim)));
    layer.k = memory_.back()->data();
    memory_.push_back(model_->backend()->allocate(rows * at(spec.v_head_dim)));
    layer.v = memory_.back()->data();
    kv_bytes_ += rows * at(spec.head_dim + spec.v_head_dim);
    kv_.push_back(layer);
  }
  token_ids_.resize(at(limits.max_tokens));
  positions_.resize(at(limits.max_tokens));
  sequence_of_.resize(at(limits.max_tokens));
  slots_.resize(at(limits.max_tokens));
  query_start_.resize(at(limits.max_sequences) + 1);
  kv_len_.resize(at(limits.max_sequences));
  rope_len_.resize(at(limits.max_sequences));
  block_table_.resize(at(limits.max_sequences) * at(max_blocks));
  selected_rows_.resize(at(limits.max_rows));
}

device::StepView Runner::lay_out(std::span<const Work> work) {
  int tokens = 0;
  int rows = 0;
  for (std::size_t s = 0; s < work.size(); ++s) kv_len_[s] = work[s].start + work[s].count;
  const int longest = longest_rounded(std::span(kv_len_).first(work.size()));
  // The table is as wide as this step needs it: it is copied to the device at every step.
  const int columns = std::min((longest + block_tokens_ - 1) / block_tokens_, max_blocks_);
  for (std::size_t s = 0; s < work.size(); ++s) {
    const Work& piece = work[s];
    const Sequence& sequence = *piece.sequence;
    const int end = piece.start + piece.count;
    query_start_[s] = tokens;
    rope_len_[s] = Scheduler::rope_length(sequence, end);
    std::copy_n(sequence.blocks.begin(), std::min(sequence.blocks.size(), at(columns)),
                block_table_.begin() + static_cast<std::ptrdiff_t>(s * at(columns)));
    for (int position = piece.start; position < end; ++position, ++tokens) {
      const std::size_t t = at(tokens);
      const bool known = position < sequence.known();
      token_ids_[t] = known ? sequence.tokens[at(position)] : -1 - sequence.row;
      positions_[t] = position;
      sequence_of_[t] = static_cast<std::int32_t>(s);
      slots_[t] =
          std::int64_t{sequence.blocks[at(position / block_tokens_)]} * block_tokens_ + position % block_tokens_;
      if (position >= piece.first_row) selected_rows_[at(rows++)] = tokens;
    }
  }
  query_start_[work.size()] = tokens;

  device::StepView step;
  step.tokens = tokens;
  step.sequences = static_cast<int>(work.size());
  step.rows = rows;
  step.max_kv_len = longest;
  step.max_blocks = columns;
  step.block_tokens = block_tokens_;
  step.deterministic = deterministic_;
  step.recorded = recorded_;
  step.token_ids = token_ids_.data();
  step.positions = positions_.data();
  step.sequence_of = sequence_of_.data();
  step.query_start = query_start_.data();
  step.kv_len = kv_len_.data();
  step.rope_len = rope_len_.data();
  step.slots = slots_.data();
  step.block_table = block_table_.data();
  step.selected_rows = selected_rows_.data();
  step.kv = kv_;
  return step;
}

std::span<float> Runner::run(std::span<const Work> work) {
  return probed(work) ? run_probed(work) : model_->run(lay_out(work));
}

void Runner::launch(std::span<const Work> work) {
  model_->launch(lay_out(work));
}

}  // namespace fastllm::engine
