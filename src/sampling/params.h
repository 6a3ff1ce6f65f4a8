#pragma once
// The native half of GenerationConfig: plain data, checked by validate(), the same names and meanings as in Python.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fastllm::sampling {

enum class LogprobsMode : std::uint8_t { raw, sampled };  // softmax of raw logits, or of the filtered distribution

struct SamplingParams {
  int max_new_tokens = 256;  // -1: until the context is full
  int min_new_tokens = 0;    // end tokens and stop strings are held off until then
  float temperature = 1.0f;  // 0: greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;
  float repetition_penalty = 1.0f;  // Keskar et al. 2019, over prompt and output
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;   // presence and frequency: over output tokens, as the OpenAI API defines them
  int penalty_window = 0;           // > 0: only the last so many tokens count for penalties
  int no_repeat_ngram = 0;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;           // UTF-8 stop strings
  std::vector<std::int32_t> stop_token_ids;
  std::vector<std::int32_t> eos_token_ids;  // the model's own; ignored with ignore_eos
  bool include_stop = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  std::vector<std::pair<std::int32_t, float>> logit_bias;
  std::vector<std::vector<std::int32_t>> bad_words;  // token sequences that must not appear
  int logprobs = -1;         // -1: none; k: the chosen token's and the k best
  LogprobsMode logprobs_mode = LogprobsMode::raw;
  int prompt_logprobs = -1;  // likewise for every prompt token after the first
  double max_time_s = 0.0;   // 0: no limit
};

// Error(invalid_config) naming the field, its value and what is allowed; vocab_size bounds the ids.
void validate(const SamplingParams& params, int vocab_size);

}  // namespace fastllm::sampling
