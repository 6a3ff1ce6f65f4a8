#include "sampling/stages/stages.h"

namespace fastllm::sampling {

float Candidates::max() const {
  return extremes(logits).max;
}

double Candidates::softmax() {
  probabilities.resize(size());
  return exp_shifted(logits, max(), probabilities, &sums);
}

void Candidates::retain_from(float threshold) {
  indices_from(logits, threshold, picked);
  retain_picked();
}

void Candidates::retain_kept() {
  picked.resize(size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < size(); ++i) {  // without a branch: what is kept has no pattern
    picked[count] = static_cast<std::int32_t>(i);
    count += keep[i] != 0 ? 1 : 0;
  }
  picked.resize(count);
  retain_picked();
}

void Candidates::retain_picked() {
  if (picked.size() == size()) return;
  const bool dense = ids.empty();
  if (dense) ids = picked;
  for (std::size_t i = 0; i < picked.size(); ++i) {
    const auto from = static_cast<std::size_t>(picked[i]);
    if (!dense) ids[i] = ids[from];
    logits[i] = logits[from];
  }
  ids.resize(picked.size());
  logits.resize(picked.size());
}

}  // namespace fastllm::sampling
