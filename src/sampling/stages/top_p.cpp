// Nucleus: the fewest tokens, best first, whose probabilities reach p (Holtzman et al. 2020). At least one stays.
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void top_p(Candidates& candidates, float p) {
  const double total = candidates.softmax();
  const float max = candidates.max();
  candidates.keys.resize(candidates.size());
  candidates.keep.resize(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates.keys[i] = max - candidates.logits[i];
  keep_mass(candidates.keys, candidates.probabilities, static_cast<double>(p) * total, candidates.keep, candidates.mass);
  candidates.retain_kept();
}

}  // namespace fastllm::sampling
