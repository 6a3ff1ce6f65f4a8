#include "engine/probe.h"

#include <algorithm>
#include <new>

namespace fastllm::engine {

using core::cat;
using core::ErrorCode;

void Tape::append(std::span<const float> values) {
  while (!values.empty()) {
    const std::size_t used = size_ % kBlock;
    if (used == 0) {
      auto block = std::make_unique<float[]>(kBlock);
      const std::lock_guard lock(mutex_);
      blocks_.push_back(std::move(block));
    }
    const std::size_t some = std::min(values.size(), kBlock - used);
    std::copy_n(values.data(), some, blocks_.back().get() + used);
    values = values.subspan(some);
    size_ += some;
  }
}

void Tape::copy(float* to, std::size_t count) const {
  std::vector<const float*> blocks;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t b = 0; b * kBlock < count; ++b) blocks.push_back(blocks_[b].get());
  }
  for (std::size_t b = 0; b < blocks.size(); ++b)
    std::copy_n(blocks[b], std::min(kBlock, count - b * kBlock), to + b * kBlock);
}

RequestProbe::RequestProbe(std::shared_ptr<StepModel> model, ProbeSpec spec)
    : model_(std::move(model)), spec_(std::move(spec)), tapes_(spec_.reads.size()), rows_(spec_.reads.size()) {
  const auto taps = model_->taps();
  const int count = static_cast<int>(taps.size());
  for (std::size_t i = 0; i < spec_.reads.size(); ++i) {
    const int tap = spec_.reads[i];
    if (tap < 0 || tap > count || (i > 0 && tap <= spec_.reads[i - 1]))
      core::fail(ErrorCode::invalid_request,
                 cat("[probe] read ", i, " is tap ", tap, " of ", count, "; taps are named once, in ascending order."));
    reads_logits_ = reads_logits_ || tap == count;
  }
  tap_reads_ = spec_.reads.size() - (reads_logits_ ? 1 : 0);
  for (const device::TapEdit& edit : spec_.edits) {
    if (edit.tap < 0 || edit.tap > count)
      core::fail(ErrorCode::invalid_request, cat("[probe] an edit names tap ", edit.tap, " of ", count, "."));
    const bool logits = edit.tap == count;
    if (!logits && taps[static_cast<std::size_t>(edit.tap)].pattern)
      core::fail(ErrorCode::invalid_request,
                 cat("[probe] '", taps[static_cast<std::size_t>(edit.tap)].name, "' can be read but not edited."),
                 "Edit the heads' results (z), or the queries and keys.");
    const std::int64_t row = logits ? model_->vocab_size() : taps[static_cast<std::size_t>(edit.tap)].row.numel();
    const auto added = static_cast<std::int64_t>(edit.add.size());
    if (edit.begin < 0 || edit.end > row || edit.begin >= edit.end || edit.first < 0 || edit.first >= edit.last)
      core::fail(ErrorCode::shape_error, cat("[probe] an edit of elements ", edit.begin, ":", edit.end,
                                             " at positions ", edit.first, ":", edit.last, " of a row of ", row, "."));
    if (added != 0 && added != edit.width() && added != edit.width() * (edit.last - edit.first))
      core::fail(ErrorCode::shape_error, cat("[probe] an edit of ", edit.width(), " elements at ",
                                             edit.last - edit.first, " positions brings ", added, " numbers."));
  }
}

std::int64_t RequestProbe::row_elements(std::size_t index) const {
  const auto tap = static_cast<std::size_t>(spec_.reads[index]);
  return tap < model_->taps().size() ? model_->taps()[tap].row.numel() : model_->vocab_size();
}

bool RequestProbe::is_pattern(std::size_t index) const {
  const auto tap = static_cast<std::size_t>(spec_.reads[index]);
  return tap < model_->taps().size() && model_->taps()[tap].pattern;
}

// A position's pattern is kept without what it cannot see: [heads, position + 1].
std::size_t RequestProbe::floats(std::size_t index, std::int64_t positions) const {
  const std::int64_t per_row = is_pattern(index) ? positions * (positions + 1) / 2 : positions;
  return static_cast<std::size_t>(row_elements(index) * per_row);
}

void RequestProbe::take(std::size_t index, std::int64_t position, std::span<const float> rows,
                        std::int64_t count) noexcept {
  if (failure_ || count < 1) return;
  try {
    const std::int64_t end = position + count;
    const std::int64_t from = rows_[index];  // a preempted request computes again what is here already
    if (end <= from) return;
    if (position > from)
      core::fail(ErrorCode::internal,
                 cat("[capture] positions ", from, " to ", position, " of read ", index, " were never computed."));
    const std::size_t more = (floats(index, end) - floats(index, from)) * sizeof(float);
    if (bytes_ + more > spec_.max_bytes)
      core::fail(ErrorCode::capture_too_large,
                 cat("[capture] what is captured takes ", bytes_.load() + more, " bytes at position ", end - 1,
                     ", but max_capture_bytes is ", spec_.max_bytes, "."),
                 "Capture fewer names or tokens, or raise max_capture_bytes.");
    if (is_pattern(index)) {
      const std::int64_t heads = row_elements(index);
      const std::int64_t keys = static_cast<std::int64_t>(rows.size()) / (count * heads);
      for (std::int64_t p = from; p < end; ++p)
        for (std::int64_t h = 0; h < heads; ++h)
          tapes_[index].append(rows.subspan(static_cast<std::size_t>(((p - position) * heads + h) * keys),
                                            static_cast<std::size_t>(p + 1)));
    } else {
      const std::int64_t row = static_cast<std::int64_t>(rows.size()) / count;
      tapes_[index].append(rows.subspan(static_cast<std::size_t>((from - position) * row)));
    }
    rows_[index] = end;
    bytes_.fetch_add(more, std::memory_order_relaxed);
  } catch (const core::Error& error) {
    fail(error);
  } catch (const std::bad_alloc&) {
    fail({ErrorCode::out_of_memory, cat("[capture] the system has no memory beyond ", bytes_.load(), " bytes."),
          "Capture fewer names or tokens."});
  }
}

void RequestProbe::pass_logits(std::int64_t position, std::span<float> rows) {
  const std::int64_t vocab = model_->vocab_size();
  const auto logits = static_cast<int>(model_->taps().size());
  for (const device::TapEdit& edit : spec_.edits)
    if (edit.tap == logits) edit.apply(rows, vocab, position);
  if (reads_logits_) take(tap_reads_, position, rows, static_cast<std::int64_t>(rows.size()) / vocab);
}

void RequestProbe::finish_step(std::int64_t end, std::span<const std::int32_t> tokens) {
  if (failure_) return;
  for (const std::int64_t rows : rows_) end = std::min(end, rows);
  {
    const std::lock_guard lock(mutex_);
    while (static_cast<std::int64_t>(tokens_.size()) < end) tokens_.push_back(tokens[tokens_.size()]);
  }
  if (end > done_) done_.store(end, std::memory_order_release);
}

std::vector<std::int32_t> RequestProbe::tokens() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

void RequestProbe::fail(core::Error error) noexcept {
  if (!failure_) failure_.emplace(std::move(error));
}

void RequestProbe::copy(std::size_t index, std::int64_t positions, float* to) const {
  const std::size_t count = floats(index, positions);
  if (!is_pattern(index)) return tapes_[index].copy(to, count);
  std::vector<float> flat(count);
  tapes_[index].copy(flat.data(), count);
  const std::int64_t heads = row_elements(index);
  std::fill_n(to, heads * positions * positions, 0.0f);
  const float* from = flat.data();
  for (std::int64_t p = 0; p < positions; ++p)
    for (std::int64_t h = 0; h < heads; ++h, from += p + 1)
      std::copy_n(from, p + 1, to + (h * positions + p) * positions);
}

}  // namespace fastllm::engine
