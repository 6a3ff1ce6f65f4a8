// KvWrite and Attention over the paged cache: for each query the plain two-pass softmax over all keys it may see. What is
// too large for a cache of float8 becomes its largest number.
#include <cmath>
#include <vector>

#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::View;

void kv_write(const device::KvWrite& op, Views in, const device::StepView& step) {
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  const auto write = [&](const View& x, void* cache, std::int64_t dim) {  // x [T, Hkv, dim]
    for (std::int64_t t = 0; t < x.shape[0]; ++t) {
      const std::int64_t block = step.slots[t] / step.block_tokens;
      const std::int64_t place = step.slots[t] % step.block_tokens;
      for (std::int64_t h = 0; h < layer.kv_heads; ++h) {
        const std::int64_t to = ((block * layer.kv_heads + h) * step.block_tokens + place) * dim;
        for (std::int64_t d = 0; d < dim; ++d) {
          double value = load(x, t * x.stride[0] + h * x.stride[1] + d * x.stride[2]);
          if (layer.dtype == core::DType::f8_e4m3 && std::fabs(value) > 448) value = std::copysign(448, value);
          store(cache, layer.dtype, to + d, value);
        }
      }
    }
  };
  write(in[0], layer.k, layer.head_dim);
  write(in[1], layer.v, layer.v_head_dim);
}

void attention(const device::Attention& op, Views in, Views out, const device::StepView& step) {
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  const View& q = in[0];  // [T, Hq, D]
  const View& y = out[0];  // [T, Hq, Dv]
  const std::int64_t group = q.shape[1] / layer.kv_heads;
  std::vector<double> query(static_cast<std::size_t>(layer.head_dim));
  std::vector<double> weights;
  std::vector<double> sum(static_cast<std::size_t>(layer.v_head_dim));
  for (std::int64_t t = 0; t < q.shape[0]; ++t) {
    const std::int64_t sequence = step.sequence_of[t];
    const std::int64_t last = step.positions[t];
    const std::int64_t first = op.window > 0 && last - op.window + 1 > 0 ? last - op.window + 1 : 0;
    const auto row_of = [&](std::int64_t position, std::int64_t head) {  // row of the cache seen as [.., dim]
      const std::int64_t block = step.block_table[sequence * step.max_blocks + position / step.block_tokens];
      return (block * layer.kv_heads + head) * step.block_tokens + position % step.block_tokens;
    };
    for (std::int64_t h = 0; h < q.shape[1]; ++h) {
      const std::int64_t head = h / group;
      for (std::int64_t d = 0; d < layer.head_dim; ++d)
        query[static_cast<std::size_t>(d)] = load(q, t * q.stride[0] + h * q.stride[1] + d * q.stride[2]);
      weights.assign(static_cast<std::size_t>(last - first + 1), 0.0);
      double top = -std::numeric_limits<double>::infinity();
      for (std::int64_t p = first; p <= last; ++p) {
        const std::int64_t row = row_of(p, head) * layer.head_dim;
        double score = 0;
        for (std::int64_t d = 0; d < layer.head_dim; ++d)
          score += query[static_cast<std::size_t>(d)] * load(layer.k, layer.dtype, row + d);
        score *= op.scale;
        if (op.softcap > 0) score = std::tanh(score / op.softcap) * op.softcap;
        weights[static_cast<std::size_t>(p - first)] = score;
        if (score > top) top = score;
      }
      double total = 0;
      for (double& w : weights) total += w = std::exp(w - top);
      sum.assign(sum.size(), 0.0);
      for (std::int64_t p = first; p <= last; ++p) {
        const std::int64_t row = row_of(p, head) * layer.v_head_dim;
        for (std::size_t d = 0; d < sum.size(); ++d)
          sum[d] += weights[static_cast<std::size_t>(p - first)] *
                    load(layer.v, layer.dtype, row + static_cast<std::int64_t>(d));
      }
      for (std::size_t d = 0; d < sum.size(); ++d)
        store(y, t * y.stride[0] + h * y.stride[1] + static_cast<std::int64_t>(d) * y.stride[2], sum[d] / total);
    }
  }
}

}  // namespace fastllm::cpu::reference
