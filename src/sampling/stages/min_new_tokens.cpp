// Bans every token that would end the text while fewer than min_new_tokens tokens are written.
#include <limits>

#include "sampling/stages/bans.h"

namespace fastllm::sampling {

void min_new_tokens(std::span<float> logits, const History& history, const SamplingParams& params) {
  each_early_end(history, params, [&](std::int32_t token) {
    logits[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
  });
}

}  // namespace fastllm::sampling
