// The weights of an attention, written out: for people who look at them. Scores by the product kernel, a head at a time
// (its keys are the weight's rows), then the softmax of each row in place. Not part of a plain step.

#include <algorithm>
#include <cmath>

#include "device/cpu/backend.h"
#include "device/cpu/linear.h"

namespace fastllm::cpu {

void CpuBackend::attention_pattern(const device::PatternCall& call) {
  for (std::int64_t h = 0; h < call.heads; ++h) {
    const float* keys = call.k + h / (call.heads / call.kv_heads) * call.dim;
    const LinearBlock block{keys, core::DType::f32, call.keys, call.kv_heads * call.dim, nullptr};
    LinearArgs args;
    args.x = call.q + h * call.dim;
    args.x_stride = call.heads * call.dim;
    args.m = call.count;
    args.k = call.dim;
    args.blocks = &block;
    args.block_count = 1;
    args.y = call.out + h * call.keys;
    args.y_stride = call.heads * call.keys;
    args.scale = call.op.scale;
    args.scratch = scratch(kLinearScratch);
    kernels_->linear(args, threads_);
  }
  threads_.parallel_for(call.count * call.heads, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = call.out + r * call.keys;
      const std::int64_t last = call.position + r / call.heads;
      const std::int64_t first = call.op.window > 0 ? std::max<std::int64_t>(0, last - call.op.window + 1) : 0;
      std::fill(row, row + first, 0.0f);
      std::fill(row + last + 1, row + call.keys, 0.0f);
      const float cap = call.op.softcap;
      if (cap > 0.0f) std::for_each(row + first, row + last + 1, [&](float& x) { x = std::tanh(x / cap) * cap; });
      const float top = *std::max_element(row + first, row + last + 1);
      double total = 0.0;
      for (std::int64_t p = first; p <= last; ++p) total += static_cast<double>(row[p] = std::exp(row[p] - top));
      const auto by = static_cast<float>(1.0 / total);
      for (std::int64_t p = first; p <= last; ++p) row[p] *= by;
    }
  });
}

}  // namespace fastllm::cpu
