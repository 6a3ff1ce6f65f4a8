#pragma once
// Sampling on the device: what a step draws, row by row, and what comes back. The ids a Sampler draws stay on the
// device, where the next step finds them, so that it can be launched before anybody on the host has read them.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace fastllm::device {

// A change to one logit before anything is chosen: logit_bias, penalties, bans (adding -inf).
struct SampleEdit {
  std::int32_t id = 0;
  std::int32_t scales = 0;  // 0: `value` is added; 1: a positive logit is divided by it, a negative one multiplied
  float value = 0.0f;
};

constexpr int kMostSampledTop = 64;  // log-probabilities per row that a device returns

struct SampleRow {
  float temperature = 1.0f;  // 0: the best
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float log_min_p = -std::numeric_limits<float>::infinity();  // -inf: off
  float typical_p = 1.0f;  // 1: off
  std::uint64_t draw = 0;   // a uniform number in [0, 2^53)
  int logprobs = -1;        // -1: none; k: the chosen token's and those of the k best, at most kMostSampledTop
  bool raw_logprobs = true;  // of the logits as they came, or of the distribution that was drawn from
  int first_edit = 0;       // into SampleCall::edits; by id, those of one id in the order in which they apply
  int edits = 0;
};

struct SampleCall {
  std::span<const SampleRow> rows;  // [R], one for each row of logits
  std::span<const SampleEdit> edits;
};

enum class SampleStatus : std::int32_t { ok, not_a_number, infinite, nothing_left };  // of the logits of a row

struct RankedToken {
  std::int32_t id = 0;
  float logprob = 0.0f;
};

struct SampledRow {
  std::int32_t id = 0;
  SampleStatus status = SampleStatus::ok;
  float logprob = 0.0f;
  std::vector<RankedToken> top;  // best first
};

// Draws from the logits of one model, step after step, in the device's order of work. At most two samplings may be
// under way. Used by one thread at a time, under the backend's mutex except for collect().
class Sampler {
 public:
  virtual ~Sampler() = default;
  // Puts the ids drawn by the last sample() in the place of negative ones: -1 - r becomes the id of row r. [count], on
  // the device.
  virtual void fill_ids(std::int32_t* ids, int count) = 0;
  // Queues the sampling of logits [R, vocab] float32 on the device; they may be written over. No rows: collect() then
  // only waits for the work queued so far.
  virtual void sample(float* logits, const SampleCall& call) = 0;
  // Waits for the oldest sample() that was not collected. `out` [R].
  virtual void collect(std::vector<SampledRow>& out) = 0;
};

}  // namespace fastllm::device
