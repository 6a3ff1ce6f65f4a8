#pragma once
// The engine's side of looking inside: what one request wants to see and change, and what was seen so far. The step
// thread writes; readers copy what is complete at any time and never hold the step thread up for longer than it takes
// to look at a list.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/error.h"
#include "device/probe.h"
#include "engine/step_model.h"

namespace fastllm::engine {

// Floats that are appended by one thread and copied out by others. What was written never moves.
class Tape {
 public:
  void append(std::span<const float> values);
  std::size_t size() const { return size_; }  // of the writer
  // The first `count` floats; the writer has announced them (see RequestProbe::done).
  void copy(float* to, std::size_t count) const;

 private:
  static constexpr std::size_t kBlock = 4096;
  mutable std::mutex mutex_;  // of the list of blocks
  std::vector<std::unique_ptr<float[]>> blocks_;
  std::size_t size_ = 0;
};

struct ProbeSpec {
  std::vector<int> reads;  // taps, ascending; the index behind the last tap means the logits
  std::vector<device::TapEdit> edits;
  std::size_t max_bytes = 0;
  // Requests of one group share cached prefixes with each other and nobody else; 0: edits nothing, shares with all.
  std::uint64_t group = 0;
};

class RequestProbe final : public device::Probe {
 public:
  // Error(invalid_request) for taps the model does not have and edits beyond a row or of a pattern.
  RequestProbe(std::shared_ptr<StepModel> model, ProbeSpec spec);

  const std::shared_ptr<StepModel>& model() const { return model_; }
  std::uint64_t group() const { return spec_.group; }
  bool reads_logits() const { return reads_logits_; }
  std::size_t read_count() const { return spec_.reads.size(); }
  bool captures() const { return !spec_.reads.empty(); }
  std::size_t max_bytes() const { return spec_.max_bytes; }
  bool claim() { return !claimed_.exchange(true); }  // true once: a probe serves one request

  // The step's.
  std::span<const int> reads() const override { return std::span(spec_.reads).first(tap_reads_); }
  std::span<const device::TapEdit> edits() const override { return spec_.edits; }
  void take(std::size_t index, std::int64_t position, std::span<const float> rows,
            std::int64_t count) noexcept override;
  // Edits the rows [count, vocab] in place, then keeps them if they are wanted.
  void pass_logits(std::int64_t position, std::span<float> rows);
  // Positions below `end` are complete; `tokens` are the sequence's.
  void finish_step(std::int64_t end, std::span<const std::int32_t> tokens);
  void fail(core::Error error) noexcept;
  const std::optional<core::Error>& failure() const { return failure_; }

  // Readers'.
  std::int64_t done() const { return done_.load(std::memory_order_acquire); }
  std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  std::int64_t row_elements(std::size_t index) const;  // of a pattern: its heads
  bool is_pattern(std::size_t index) const;
  std::vector<std::int32_t> tokens() const;  // [done()]
  // [positions, row], or [heads, positions, positions] of a pattern; `positions` is at most done().
  void copy(std::size_t index, std::int64_t positions, float* to) const;

 private:
  // Floats of the first `positions` positions.
  std::size_t floats(std::size_t index, std::int64_t positions) const;

  const std::shared_ptr<StepModel> model_;
  const ProbeSpec spec_;
  std::size_t tap_reads_ = 0;  // of spec_.reads, those that are taps
  bool reads_logits_ = false;
  std::vector<Tape> tapes_;          // by read
  std::vector<std::int64_t> rows_;   // by read: positions in the tape
  std::atomic<std::int64_t> done_{0};
  std::atomic<std::size_t> bytes_{0};
  std::atomic<bool> claimed_{false};
  std::optional<core::Error> failure_;
  mutable std::mutex mutex_;  // of tokens_
  std::vector<std::int32_t> tokens_;
};

}  // namespace fastllm::engine
