#include "device/probe.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace fastllm::device {

void TapEdit::apply(std::span<float> rows, std::int64_t elements, std::int64_t position) const {
  const std::int64_t count = elements > 0 ? static_cast<std::int64_t>(rows.size()) / elements : 0;
  const std::int64_t from = std::max(first, position);
  const std::int64_t to = std::min(last, position + count);
  const bool by_position = static_cast<std::int64_t>(add.size()) > width();
  for (std::int64_t p = from; p < to; ++p) {
    float* row = rows.data() + (p - position) * elements + begin;
    const float* extra = add.empty() ? nullptr : add.data() + (by_position ? (p - first) * width() : 0);
    for (std::int64_t i = 0; i < width(); ++i) {
      const float kept = scale == 0.0f ? 0.0f : row[i] * scale;
      row[i] = extra ? kept + extra[i] : kept;
    }
  }
}

void attention_pattern(const PatternCall& call) {
  const std::int64_t group = call.heads / call.kv_heads;
  std::fill_n(call.out, call.count * call.heads * call.keys, 0.0f);
  std::vector<double> scores;
  for (std::int64_t t = 0; t < call.count; ++t) {
    const std::int64_t last = call.position + t;
    const std::int64_t first = call.op.window > 0 ? std::max<std::int64_t>(0, last - call.op.window + 1) : 0;
    scores.resize(static_cast<std::size_t>(last - first + 1));
    for (std::int64_t h = 0; h < call.heads; ++h) {
      const float* query = call.q + (t * call.heads + h) * call.dim;
      double top = -std::numeric_limits<double>::infinity();
      for (std::int64_t p = first; p <= last; ++p) {
        const float* key = call.k + (p * call.kv_heads + h / group) * call.dim;
        double score = 0.0;
        for (std::int64_t d = 0; d < call.dim; ++d)
          score += static_cast<double>(query[d]) * static_cast<double>(key[d]);
        score *= static_cast<double>(call.op.scale);
        if (call.op.softcap > 0.0f)
          score = std::tanh(score / static_cast<double>(call.op.softcap)) * static_cast<double>(call.op.softcap);
        scores[static_cast<std::size_t>(p - first)] = score;
        top = std::max(top, score);
      }
      double total = 0.0;
      for (double& score : scores) total += score = std::exp(score - top);
      float* out = call.out + (t * call.heads + h) * call.keys + first;
      for (std::size_t i = 0; i < scores.size(); ++i) out[i] = static_cast<float>(scores[i] / total);
    }
  }
}

}  // namespace fastllm::device
