// Locally typical sampling (Meister et al. 2022): tokens whose surprise -log p is nearest to the entropy, until their
// mass reaches p. Ties with the last one stay, as in transformers.
#include <algorithm>
#include <cmath>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void typical_p(Candidates& candidates, float p) {
  const double total = candidates.softmax();
  const float max = candidates.max();
  // surprise_i = log(total) - (logit_i - max); entropy = sum p_i surprise_i = log(total) - sum p_i (logit_i - max). The
  // keys |surprise_i - entropy| need only the second terms. A banned token (-inf) has probability 0 and counts for
  // nothing.
  candidates.keys.resize(candidates.size());
  candidates.keep.resize(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates.keys[i] = candidates.probabilities[i] > 0.0f ? candidates.logits[i] - max : -1e30f;
  }
  const auto mean = static_cast<float>(dot(candidates.probabilities, candidates.keys) / total);
  for (float& key : candidates.keys) key = std::abs(mean - key);
  keep_mass(candidates.keys, candidates.probabilities, static_cast<double>(p) * total, candidates.keep,
            candidates.mass);
  float last = 0.0f;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    last = std::max(last, candidates.keep[i] != 0 ? candidates.keys[i] : 0.0f);
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates.keep[i] = candidates.keys[i] <= last ? 1 : 0;
  candidates.retain_kept();
}

}  // namespace fastllm::sampling
