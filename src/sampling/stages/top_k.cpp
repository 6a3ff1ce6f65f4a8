// The k best; ties with the k-th stay (Fan et al. 2018).
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void top_k(Candidates& candidates, int k) {
  if (static_cast<std::size_t>(k) >= candidates.size()) return;
  candidates.retain_from(kth_largest(candidates.logits, k, candidates.spare));
}

}  // namespace fastllm::sampling
