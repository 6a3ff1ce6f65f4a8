// Locally typical sampling (Meister et al. 2022): tokens whose surprise -log p is nearest to the entropy, until their mass reaches p. Ties with
// the last one stay, as in transformers.
#include <cmath>
#include <limits>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void typical_p(Candidates& candidates, float p) {
  const double total = candidates.softmax();
  const double log_total = std::log(total);
  const float max = candidates.max();
  double entropy = 0.0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const double surprise = log_total - (static_cast<double>(candidates.logits[i]) - max);
    if (candidates.probabilities[i] > 0.0f) entropy += candidates.probabilities[i] / total * surprise;
  }
  candidates.keys.resize(candidates.size());
  candidates.keep.resize(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const double surprise = log_total - (static_cast<double>(candidates.logits[i]) - max);
    candidates.keys[i] = static_cast<float>(std::abs(surprise - entropy));
  }
  keep_mass(candidates.keys, candidates.probabilities, static_cast<double>(p) * total, candidates.keep, candidates.mass);
  float last = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (candidates.keep[i] != 0 && candidates.keys[i] > last) last = candidates.keys[i];
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates.keep[i] = candidates.keys[i] <= last ? 1 : 0;
  candidates.retain_kept();
}

}  // namespace fastllm::sampling
