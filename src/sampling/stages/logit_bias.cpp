// A number added to single logits, as the OpenAI API's logit_bias; -100 or less bans a token in practice, -inf in fact.
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void logit_bias(std::span<float> logits, const SamplingParams& params) {
  for (const auto& [token, bias] : params.logit_bias) logits[static_cast<std::size_t>(token)] += bias;
}

}  // namespace fastllm::sampling
