// Repetition penalty (Keskar et al. 2019, CTRL): logits of seen tokens are divided by it when positive, multiplied when
// negative; prompt and output count. Presence and frequency (OpenAI API): logit -= presence + frequency * count, over
// output tokens. penalty_window > 0: only the last so many tokens of the text count for either.
#include <algorithm>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void penalties(std::span<float> logits, const History& history, const SamplingParams& params, TokenCounts& counts) {
  const std::size_t size = history.tokens.size();
  const std::size_t window = params.penalty_window > 0 ? static_cast<std::size_t>(params.penalty_window) : size;
  const std::size_t start = size - std::min(window, size);
  if (params.repetition_penalty != 1.0f) {
    const float penalty = params.repetition_penalty;
    counts.begin();
    for (const std::int32_t token : history.tokens.subspan(start)) {
      if (counts.add(token) > 1) continue;
      float& logit = logits[static_cast<std::size_t>(token)];
      logit = logit < 0.0f ? logit * penalty : logit / penalty;
    }
  }
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    const auto output = history.tokens.subspan(std::max(start, history.prompt_tokens));
    counts.begin();
    for (const std::int32_t token : output) counts.add(token);
    for (const std::int32_t token : output) {
      const std::uint32_t count = counts.count(token);
      if (count == 0) continue;
      logits[static_cast<std::size_t>(token)] -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
      counts.clear(token);
    }
  }
}

}  // namespace fastllm::sampling
