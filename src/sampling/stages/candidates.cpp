#include <algorithm>

#include "sampling/stages/stages.h"

namespace fastllm::sampling {

float Candidates::max() const { return extremes(logits).max; }

double Candidates::softmax() {
  probabilities.resize(size());
  return exp_shifted(logits, max(), probabilities);
}

void Candidates::retain_from(float threshold) {
  keep.resize(size());
  for (std::size_t i = 0; i < size(); ++i) keep[i] = logits[i] >= threshold ? 1 : 0;
  retain_kept();
}

void Candidates::retain_kept() {
  const std::size_t before = size();
  if (ids.empty()) {
    const auto kept = static_cast<std::size_t>(std::ranges::count(keep, 1));
    if (kept == before) return;
    ids.reserve(kept);
    std::size_t out = 0;
    for (std::size_t i = 0; i < before; ++i) {
      if (keep[i] == 0) continue;
      ids.push_back(static_cast<std::int32_t>(i));
      logits[out++] = logits[i];
    }
    logits.resize(out);
    return;
  }
  std::size_t out = 0;
  for (std::size_t i = 0; i < before; ++i) {
    if (keep[i] == 0) continue;
    ids[out] = ids[i];
    logits[out++] = logits[i];
  }
  ids.resize(out);
  logits.resize(out);
}

}  // namespace fastllm::sampling
