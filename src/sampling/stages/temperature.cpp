// Logits divided by the temperature: below 1 sharper, above 1 flatter. 0 means greedy and never comes here.
#include "sampling/stages/stages.h"

namespace fastllm::sampling {

void temperature(Candidates& candidates, float value) {
  divide(candidates.logits, value);
}

}  // namespace fastllm::sampling
