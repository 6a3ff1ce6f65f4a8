// Tokens at least min_p times as probable as the best one (Nguyen et al. 2024).
#include <cmath>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void min_p(Candidates& candidates, float p) {
  candidates.retain_from(candidates.max() + std::log(p));
}

}  // namespace fastllm::sampling
