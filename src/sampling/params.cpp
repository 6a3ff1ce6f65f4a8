#include "sampling/params.h"

#include <cmath>

#include "core/error.h"

namespace fastllm::sampling {

namespace {

template <class Value>
[[noreturn]] void refuse(const char* field, const Value& value, const char* allowed) {
  core::fail(core::ErrorCode::invalid_config,
             core::cat("[sampling] ", field, " is ", value, "; allowed: ", allowed, "."));
}

void check_id(const char* field, std::int32_t id, int vocab_size) {
  if (id >= 0 && id < vocab_size) return;
  core::fail(core::ErrorCode::invalid_config,
             core::cat("[sampling] ", field, " holds token ", id, "; the vocabulary has ", vocab_size, " tokens."));
}

bool within(double value, double low, double high) {
  return value >= low && value <= high;
}  // false for NaN

}  // namespace

void validate(const SamplingParams& params, int vocab_size) {
  if (params.max_new_tokens < -1)
    refuse("max_new_tokens", params.max_new_tokens, "0 or more, or -1 for the context's rest");
  if (params.min_new_tokens < 0) refuse("min_new_tokens", params.min_new_tokens, "0 or more");
  if (params.max_new_tokens >= 0 && params.min_new_tokens > params.max_new_tokens) {
    core::fail(core::ErrorCode::invalid_config, core::cat("[sampling] min_new_tokens is ", params.min_new_tokens,
                                                          " but max_new_tokens is ", params.max_new_tokens, "."));
  }
  if (!within(params.temperature, 0.0, 1e4)) refuse("temperature", params.temperature, "0 (greedy) to 10000");
  if (params.temperature > 0.0f && params.temperature < 1e-4f) {
    refuse("temperature", params.temperature, "0 (greedy), or 0.0001 and more");
  }
  if (params.top_k < 0) refuse("top_k", params.top_k, "0 (off) or more");
  if (!within(params.top_p, 0.0, 1.0) || params.top_p == 0.0f) refuse("top_p", params.top_p, "above 0, up to 1 (off)");
  if (!within(params.min_p, 0.0, 1.0)) refuse("min_p", params.min_p, "0 (off) to 1");
  if (!within(params.typical_p, 0.0, 1.0) || params.typical_p == 0.0f) {
    refuse("typical_p", params.typical_p, "above 0, up to 1 (off)");
  }
  if (!within(params.repetition_penalty, 1e-3, 1e3)) {
    refuse("repetition_penalty", params.repetition_penalty, "0.001 to 1000; 1 is off");
  }
  if (!within(params.presence_penalty, -100.0, 100.0))
    refuse("presence_penalty", params.presence_penalty, "-100 to 100");
  if (!within(params.frequency_penalty, -100.0, 100.0))
    refuse("frequency_penalty", params.frequency_penalty, "-100 to 100");
  if (params.penalty_window < 0) refuse("penalty_window", params.penalty_window, "0 (everything) or more");
  if (params.no_repeat_ngram < 0) refuse("no_repeat_ngram", params.no_repeat_ngram, "0 (off) or more");
  if (params.logprobs < -1) refuse("logprobs", params.logprobs, "0 or more, or -1 for none");
  if (params.prompt_logprobs < -1) refuse("prompt_logprobs", params.prompt_logprobs, "0 or more, or -1 for none");
  if (!within(params.max_time_s, 0.0, 1e9)) refuse("max_time_s", params.max_time_s, "0 (no limit) or more seconds");
  for (const std::string& stop : params.stop) {
    if (stop.empty()) refuse("stop", "\"\"", "strings of at least one character");
  }
  for (const std::int32_t id : params.stop_token_ids) check_id("stop_token_ids", id, vocab_size);
  for (const std::int32_t id : params.eos_token_ids) check_id("eos_token_ids", id, vocab_size);
  for (const auto& [id, bias] : params.logit_bias) {
    check_id("logit_bias", id, vocab_size);
    if (std::isnan(bias) || bias == HUGE_VALF) refuse("logit_bias", bias, "finite numbers, or -inf");
  }
  for (const auto& word : params.bad_words) {
    if (word.empty()) refuse("bad_words", "[]", "sequences of at least one token");
    for (const std::int32_t id : word) check_id("bad_words", id, vocab_size);
  }
}

}  // namespace fastllm::sampling
