#pragma once
// Which tokens the banning stages ban, for those who apply bans elsewhere than on a row of logits in host memory. The
// function is called with each id, maybe more than once.

#include <algorithm>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

// No n tokens in a row twice: each token that followed the last n - 1 tokens before, in prompt or output. n 0: off.
template <class F>
void each_repeated_ngram_end(const History& history, int n, const F& f) {
  const auto tokens = history.tokens;
  if (n < 1 || tokens.size() < static_cast<std::size_t>(n)) return;
  const std::size_t prefix = static_cast<std::size_t>(n - 1);
  const auto tail = tokens.last(prefix);
  for (std::size_t start = 0; start + prefix < tokens.size(); ++start) {
    if (std::ranges::equal(tokens.subspan(start, prefix), tail)) f(tokens[start + prefix]);
  }
}

// The last token of each of bad_words while the text ends in the tokens before it.
template <class F>
void each_bad_word_end(const History& history, const SamplingParams& params, const F& f) {
  for (const auto& word : params.bad_words) {
    const std::size_t prefix = word.size() - 1;
    if (prefix > history.tokens.size()) continue;
    if (std::ranges::equal(std::span(word).first(prefix), history.tokens.last(prefix))) f(word.back());
  }
}

// Every token that would end the text while fewer than min_new_tokens tokens are written.
template <class F>
void each_early_end(const History& history, const SamplingParams& params, const F& f) {
  if (history.generated() >= static_cast<std::size_t>(params.min_new_tokens)) return;
  if (!params.ignore_eos) {
    for (const std::int32_t token : params.eos_token_ids) f(token);
  }
  for (const std::int32_t token : params.stop_token_ids) f(token);
}

}  // namespace fastllm::sampling
