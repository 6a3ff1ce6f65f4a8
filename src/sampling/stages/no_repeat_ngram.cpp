// No n tokens in a row twice: bans each token that followed the last n - 1 tokens before, in prompt or output.
#include <algorithm>
#include <limits>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void no_repeat_ngram(std::span<float> logits, const History& history, int n) {
  const auto tokens = history.tokens;
  const std::size_t prefix = static_cast<std::size_t>(n - 1);
  if (tokens.size() < static_cast<std::size_t>(n)) return;
  const auto tail = tokens.last(prefix);
  for (std::size_t start = 0; start + prefix < tokens.size(); ++start) {
    if (std::ranges::equal(tokens.subspan(start, prefix), tail)) {
      logits[static_cast<std::size_t>(tokens[start + prefix])] = -std::numeric_limits<float>::infinity();
    }
  }
}

}  // namespace fastllm::sampling
