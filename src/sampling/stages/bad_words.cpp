// Token sequences that must not appear: the last token of one is banned while the text ends in the tokens before it.
#include <limits>

#include "sampling/stages/bans.h"

namespace fastllm::sampling {

void bad_words(std::span<float> logits, const History& history, const SamplingParams& params) {
  each_bad_word_end(history, params, [&](std::int32_t token) {
    logits[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
  });
}

}  // namespace fastllm::sampling
