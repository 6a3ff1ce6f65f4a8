#include "sampling/chain.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "sampling/rng.h"

namespace fastllm::sampling {

namespace {

void apply_mask(std::span<float> logits, std::span<const std::uint32_t> mask) {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const bool allowed = i / 32 < mask.size() && (mask[i / 32] >> (i % 32) & 1) != 0;
    if (!allowed) logits[i] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace

bool has_processors(const History& history, const SamplingParams& params, const Constraint* constraint) {
  return constraint != nullptr || !params.logit_bias.empty() || params.repetition_penalty != 1.0f ||
         params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f || params.no_repeat_ngram > 0 ||
         !params.bad_words.empty() || history.generated() < static_cast<std::size_t>(params.min_new_tokens);
}

void fail_not_finite(std::size_t position, bool nan) {
  core::fail(core::ErrorCode::internal,
             core::cat("[sample] the logits of token ", position, " hold ", nan ? "NaN" : "+inf", "."),
             "An activation overflowed or the weights are damaged: try dtype \"float32\", and check the checkpoint.");
}

void fail_nothing_left(std::size_t position, bool processed, std::size_t vocab) {
  if (!processed) {
    core::fail(core::ErrorCode::internal, "[sample] every logit is -inf.",
               "The weights are damaged: check the checkpoint.");
  }
  core::fail(core::ErrorCode::invalid_config,
             core::cat("[sample] logit_bias, bad_words, no_repeat_ngram and min_new_tokens leave none of ", vocab,
                       " tokens for position ", position, "."),
             "Loosen one of them.");
}

Chain::Chain(int vocab_size) : vocab_(static_cast<std::size_t>(vocab_size)), counts_(vocab_) {}

Extremes Chain::checked(std::span<const float> logits, const History& history) const {
  const Extremes found = extremes(logits);
  if (found.has_nan || found.max == std::numeric_limits<float>::infinity()) {
    fail_not_finite(history.tokens.size(), found.has_nan);
  }
  return found;
}

void Chain::process(const History& history, const SamplingParams& params, Constraint* constraint) {
  const std::span<float> logits(candidates_.logits);
  logit_bias(logits, params);
  penalties(logits, history, params, counts_);
  if (params.no_repeat_ngram > 0) no_repeat_ngram(logits, history, params.no_repeat_ngram);
  bad_words(logits, history, params);
  min_new_tokens(logits, history, params);
  if (constraint != nullptr) apply_mask(logits, constraint->mask());
}

void Chain::warp(const SamplingParams& params) {
  if (params.temperature != 1.0f) temperature(candidates_, params.temperature);
  if (params.top_k > 0) top_k(candidates_, params.top_k);
  if (params.top_p < 1.0f) top_p(candidates_, params.top_p);
  if (params.min_p > 0.0f) min_p(candidates_, params.min_p);
  if (params.typical_p < 1.0f) typical_p(candidates_, params.typical_p);
}

void Chain::raw_logprobs(std::span<const float> logits, float max, int count, std::vector<TopLogprob>& top,
                         double& log_sum) {
  log_sum = log_sum_exp(logits, max, scratch_);
  largest(logits, count, ranked_);
  for (const Ranked& entry : ranked_) {
    top.push_back({entry.index, static_cast<float>(static_cast<double>(entry.value) - log_sum)});
  }
}

void Chain::sample(std::span<const float> logits, const History& history, const SamplingParams& params, Sampled& out,
                   Constraint* constraint) {
  out.top.clear();
  out.logprob = 0.0f;
  const Extremes raw = checked(logits, history);
  const bool raw_wanted = params.logprobs >= 0 && params.logprobs_mode == LogprobsMode::raw;
  const bool sampled_wanted = params.logprobs >= 0 && params.logprobs_mode == LogprobsMode::sampled;
  double log_sum = 0.0;
  if (raw_wanted) raw_logprobs(logits, raw.max, params.logprobs, out.top, log_sum);

  const bool greedy = params.temperature <= 0.0f;
  const bool processed = has_processors(history, params, constraint);
  if (!processed && raw.max == -std::numeric_limits<float>::infinity()) {
    fail_nothing_left(history.tokens.size(), processed, vocab_);
  }
  if (greedy && !processed && !sampled_wanted) {
    out.id = raw.argmax;
    if (raw_wanted) out.logprob = static_cast<float>(static_cast<double>(raw.max) - log_sum);
    return;
  }

  candidates_.ids.clear();
  candidates_.logits.assign(logits.begin(), logits.end());
  Extremes now = raw;
  if (processed) {
    process(history, params, constraint);
    now = extremes(candidates_.logits);
    if (now.max == -std::numeric_limits<float>::infinity() || now.has_nan) {
      fail_nothing_left(history.tokens.size(), processed, vocab_);
    }
  }

  if (greedy) {
    out.id = now.argmax;
    if (raw_wanted) {
      out.logprob = static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(out.id)]) - log_sum);
    } else if (sampled_wanted) {
      const double total = log_sum_exp(candidates_.logits, now.max, scratch_);
      largest(candidates_.logits, params.logprobs, ranked_);
      for (const Ranked& entry : ranked_) {
        out.top.push_back({entry.index, static_cast<float>(static_cast<double>(entry.value) - total)});
      }
      out.logprob = static_cast<float>(static_cast<double>(now.max) - total);
    }
    return;
  }

  warp(params);
  // Inverse CDF in the order of ids: the draw does not depend on how the stages found the candidates.
  const double total = candidates_.softmax();
  const double mark = uniform(params.seed, history.tokens.size()) * total;
  double cumulative = 0.0;
  std::size_t block = 0;
  while (block + 1 < candidates_.sums.size() && cumulative + candidates_.sums[block] <= mark) {
    cumulative += candidates_.sums[block++];
  }
  std::size_t chosen = candidates_.size();
  for (std::size_t i = block * kSumBlock; i < candidates_.size(); ++i) {  // leaves within the block, or just after it
    if (candidates_.probabilities[i] <= 0.0f) continue;
    chosen = i;
    cumulative += candidates_.probabilities[i];
    if (cumulative > mark) break;
  }
  // Rounding may leave the mark beyond the sum, with nothing possible after it: then the best one.
  if (chosen == candidates_.size()) chosen = static_cast<std::size_t>(extremes(candidates_.logits).argmax);
  out.id = candidates_.id(chosen);
  if (raw_wanted) {
    out.logprob = static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(out.id)]) - log_sum);
  } else if (sampled_wanted) {
    const double log_total = std::log(total) + candidates_.max();
    largest(candidates_.logits, params.logprobs, ranked_);
    for (const Ranked& entry : ranked_) {
      out.top.push_back({candidates_.id(static_cast<std::size_t>(entry.index)),
                         static_cast<float>(static_cast<double>(entry.value) - log_total)});
    }
    out.logprob = static_cast<float>(static_cast<double>(candidates_.logits[chosen]) - log_total);
  }
}

RowLogprob Chain::logprob_of(std::span<const float> logits, std::int32_t id, int top) {
  const Extremes raw = checked(logits, History{});
  RowLogprob out;
  out.id = id;
  double log_sum = 0.0;
  raw_logprobs(logits, raw.max, top, out.top, log_sum);
  const float own = logits[static_cast<std::size_t>(id)];
  out.logprob = static_cast<float>(static_cast<double>(own) - log_sum);
  std::int32_t above = 0;
  for (const float logit : logits) above += logit > own ? 1 : 0;
  out.rank = above + 1;
  return out;
}

}  // namespace fastllm::sampling
