// Bans every token that would end the text while fewer than min_new_tokens tokens are written.
#include <limits>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void min_new_tokens(std::span<float> logits, const History& history, const SamplingParams& params) {
  if (history.generated() >= static_cast<std::size_t>(params.min_new_tokens)) return;
  const float banned = -std::numeric_limits<float>::infinity();
  if (!params.ignore_eos) {
    for (const std::int32_t token : params.eos_token_ids) logits[static_cast<std::size_t>(token)] = banned;
  }
  for (const std::int32_t token : params.stop_token_ids) logits[static_cast<std::size_t>(token)] = banned;
}

}  // namespace fastllm::sampling
