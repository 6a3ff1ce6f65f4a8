// Rotary position embedding (Su et al. 2021): channel pairs of each head turned by position * inv_freq. The angle is
// rounded to float32 before its sine is taken, as every published float32 implementation does; sine and cosine
// themselves are exact.
#include <cmath>

#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::RopeLength;
using device::View;

void rope(const device::Rope& op, Views in, Views out, const device::StepView* step) {
  const View& x = in[0];  // [T, H, D]
  const View& positions = in[1];  // [T]
  const View& y = out[0];  // [T, H, D]
  const int half = op.rotary_dim / 2;
  for (std::int64_t t = 0; t < x.shape[0]; ++t) {
    const auto position = static_cast<float>(load_integer(positions.data, positions.dtype, t * positions.stride[0]));
    const int length = op.length == RopeLength::fixed ? 0 : step->rope_len[step->sequence_of[t]];
    const bool stretched = op.length != RopeLength::fixed && length > op.original_max;
    double base = op.base;
    if (stretched && op.length == RopeLength::dynamic_ntk)
      base *= std::pow(double(op.factor) * length / op.original_max - (double(op.factor) - 1.0),
                       double(op.rotary_dim) / (op.rotary_dim - 2));
    for (int i = 0; i < half; ++i) {
      const View& table = stretched && op.length == RopeLength::long_short ? in[3] : in[2];
      auto inv_freq = static_cast<float>(load(table, i * table.stride[0]));
      if (stretched && op.length == RopeLength::dynamic_ntk) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(op.rotary_dim);
        inv_freq = 1.0f / static_cast<float>(std::pow(static_cast<double>(static_cast<float>(base)), double(exponent)));
      }
      const float angle = position * inv_freq;
      const double c = std::cos(static_cast<double>(angle)) * op.attention_factor;
      const double s = std::sin(static_cast<double>(angle)) * op.attention_factor;
      const std::int64_t first = op.interleaved ? 2 * i : i;
      const std::int64_t second = op.interleaved ? 2 * i + 1 : i + half;
      for (std::int64_t h = 0; h < x.shape[1]; ++h) {
        const std::int64_t from = t * x.stride[0] + h * x.stride[1];
        const std::int64_t to = t * y.stride[0] + h * y.stride[1];
        const double a = load(x, from + first * x.stride[2]);
        const double b = load(x, from + second * x.stride[2]);
        store(y, to + first * y.stride[2], a * c - b * s);
        store(y, to + second * y.stride[2], b * c + a * s);
      }
    }
    for (std::int64_t h = 0; h < x.shape[1]; ++h)
      for (std::int64_t d = op.rotary_dim; d < x.shape[2]; ++d)
        store(y, t * y.stride[0] + h * y.stride[1] + d * y.stride[2],
              load(x, t * x.stride[0] + h * x.stride[1] + d * x.stride[2]));
  }
}

}  // namespace fastllm::cpu::reference
