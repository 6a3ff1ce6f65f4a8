// Token sequences that must not appear: the last token of one is banned while the text ends in the tokens before it.
#include <algorithm>
#include <limits>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void bad_words(std::span<float> logits, const History& history, const SamplingParams& params) {
  for (const auto& word : params.bad_words) {
    const std::size_t prefix = word.size() - 1;
    if (prefix > history.tokens.size()) continue;
    if (!std::ranges::equal(std::span(word).first(prefix), history.tokens.last(prefix))) continue;
    logits[static_cast<std::size_t>(word.back())] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace fastllm::sampling
