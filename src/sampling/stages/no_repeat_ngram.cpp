// No n tokens in a row twice: bans each token that followed the last n - 1 tokens before, in prompt or output.
#include <limits>

#include "sampling/stages/bans.h"

namespace fastllm::sampling {

void no_repeat_ngram(std::span<float> logits, const History& history, int n) {
  each_repeated_ngram_end(history, n, [&](std::int32_t token) {
    logits[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
  });
}

}  // namespace fastllm::sampling
