// Rotary position embedding (Su et al. 2021), given a table of cosines and sines that all heads of a step share: the
// pair (a, b) of a head's channels becomes (a cos - b sin, b cos + a sin). Half-split pairs are vectors; interleaved
// ones are turned one by one.
#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {

void rope(const RopeArgs& args, core::ThreadPool& pool) {
  const std::int64_t half = args.rotary / 2;
  share_rows(pool, args.tokens * args.heads, args.dim, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t t = row / args.heads;
      const std::int64_t h = row % args.heads;
      const float* x = args.x + t * args.x_token + h * args.x_head;
      float* y = args.y + t * args.y_token + h * args.y_head;
      const float* cos = args.cos + t * half;
      const float* sin = args.sin + t * half;
      if (args.interleaved) {
        for (std::int64_t i = 0; i < half; ++i) {
          const float a = x[2 * i];
          const float b = x[2 * i + 1];
          y[2 * i] = a * cos[i] - b * sin[i];
          y[2 * i + 1] = b * cos[i] + a * sin[i];
        }
      } else {
        for_lanes(half, [&](std::int64_t i, auto lanes) {
          const Vec a = read(x + i, lanes);
          const Vec b = read(x + half + i, lanes);
          const Vec c = read(cos + i, lanes);
          const Vec s = read(sin + i, lanes);
          write(y + i, a * c - b * s, lanes);
          write(y + half + i, b * c + a * s, lanes);
        });
      }
      if (x != y)
        for (std::int64_t i = args.rotary; i < args.dim; ++i) y[i] = x[i];
    }
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
