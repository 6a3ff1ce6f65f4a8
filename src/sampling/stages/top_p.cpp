// Nucleus: the fewest tokens, best first, whose probabilities reach p (Holtzman et al. 2020). At least one stays.
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

namespace {
constexpr float kHead = 8.0f;  // nats below the best: e^-8 is a 3000th of its probability
}

void top_p(Candidates& candidates, float p) {
  const float max = candidates.max();
  const double target = static_cast<double>(p) * candidates.softmax();
  // Of a large vocabulary the nucleus usually lies within a few nats of the best token. If those reach the target, the
  // rest is out.
  indices_from(candidates.logits, max - kHead, candidates.picked);
  double head = 0.0;
  for (const std::int32_t entry : candidates.picked) head += candidates.probabilities[static_cast<std::size_t>(entry)];
  if (head >= target) {
    std::size_t out = 0;
    for (const std::int32_t entry : candidates.picked) {
      candidates.probabilities[out++] = candidates.probabilities[static_cast<std::size_t>(entry)];
    }
    candidates.retain_picked();
    candidates.probabilities.resize(candidates.size());
  }
  candidates.keys.resize(candidates.size());
  candidates.keep.resize(candidates.size());
  subtract_from(max, candidates.logits, candidates.keys);
  keep_mass(candidates.keys, candidates.probabilities, target, candidates.keep, candidates.mass);
  candidates.retain_kept();
}

}  // namespace fastllm::sampling
