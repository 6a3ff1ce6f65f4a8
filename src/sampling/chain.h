#pragma once
// From a row of logits to a token: the stages of stages/stages.h in order, then the best candidate (temperature 0) or
// one drawn by (seed, position). A Chain is working memory: one a thread, any request, nothing carried from one call to
// the next.

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/constraint.h"
#include "sampling/params.h"
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

struct TopLogprob {
  std::int32_t id = 0;
  float logprob = 0.0f;
};

struct Sampled {
  std::int32_t id = 0;
  float logprob = 0.0f;          // with logprobs >= 0
  std::vector<TopLogprob> top;   // the `logprobs` best, best first
};

struct RowLogprob {  // of a token that was given, not drawn: prompt_logprobs, score()
  std::int32_t id = 0;
  float logprob = 0.0f;
  std::int32_t rank = 1;  // 1: the best
  std::vector<TopLogprob> top;
};

// What a row that cannot be sampled throws. `position`: of the token, from the start of the prompt.
[[noreturn]] void fail_not_finite(std::size_t position, bool nan);  // Error(internal)
// Error(invalid_config) where the request's own parameters banned everything, else Error(internal).
[[noreturn]] void fail_nothing_left(std::size_t position, bool processed, std::size_t vocab);

// Whether any stage changes logits before the choice.
bool has_processors(const History& history, const SamplingParams& params, const Constraint* constraint = nullptr);

class Chain {
 public:
  explicit Chain(int vocab_size);

  // Error(internal) if the row holds NaN or +inf, Error(invalid_config) if the stages leave no token. `logits` is not
  // changed.
  void sample(std::span<const float> logits, const History& history, const SamplingParams& params, Sampled& out,
              Constraint* constraint = nullptr);

  RowLogprob logprob_of(std::span<const float> logits, std::int32_t id, int top);

  // The candidates that the last sample() drew from (tests): ids ascending with probabilities; for a greedy request not
  // defined.
  const Candidates& candidates() const { return candidates_; }

 private:
  Extremes checked(std::span<const float> logits, const History& history) const;
  void process(const History& history, const SamplingParams& params, Constraint* constraint);
  void warp(const SamplingParams& params);
  void raw_logprobs(std::span<const float> logits, float max, int count, std::vector<TopLogprob>& top, double& log_sum);

  std::size_t vocab_;
  Candidates candidates_;
  TokenCounts counts_;
  std::vector<float> scratch_;
  std::vector<Ranked> ranked_;
};

}  // namespace fastllm::sampling
