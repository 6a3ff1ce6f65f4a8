// MatMul with the right operand's rows contiguous: y tiles of 4 rows by 2 vectors of columns, a chain of fma along K
// for each lane. (A right operand whose columns are contiguous goes to linear.cpp instead.) For eager use; a row's
// result depends on that row alone.
#include <algorithm>

#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

template <int MR, int NV, class Lanes>
FASTLLM_INLINE void tile(const MatMulArgs& args, const float* a, const float* b, float* y, Lanes lanes) {
  Vec acc[MR][NV];
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = set1(0.0f);
  }
  for (std::int64_t k = 0; k < args.k; ++k) {
    Vec row[NV];
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) row[j] = read(b + k * args.b_stride + j * kLanes, lanes);
    FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
      const Vec left = set1(a[i * args.a_stride + k]);
      FASTLLM_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = fma(left, row[j], acc[i][j]);
    }
  }
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) write(y + i * args.y_stride + j * kLanes, acc[i][j], lanes);
  }
}

template <int NV, class Lanes>
inline void column(const MatMulArgs& args, std::int64_t m, const float* a, const float* b, float* y, Lanes lanes) {
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4) tile<4, NV>(args, a + i * args.a_stride, b, y + i * args.y_stride, lanes);
  for (; i < m; ++i) tile<1, NV>(args, a + i * args.a_stride, b, y + i * args.y_stride, lanes);
}

}  // namespace

void mat_mul(const MatMulArgs& args, core::ThreadPool& pool) {
  constexpr std::int64_t kBlock = 16;  // rows of one piece of work
  const std::int64_t pieces = (args.m + kBlock - 1) / kBlock;
  share_rows(pool, pieces, kBlock * args.n, args.k / 8 + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t first = piece * kBlock;
      const std::int64_t m = std::min(kBlock, args.m - first);
      const float* a = args.a + first * args.a_stride;
      float* y = args.y + first * args.y_stride;
      std::int64_t j = 0;
      for (; j + 2 * kLanes <= args.n; j += 2 * kLanes) column<2>(args, m, a, args.b + j, y + j, Whole{});
      for_lanes(args.n - j,
                [&](std::int64_t i, auto lanes) { column<1>(args, m, a, args.b + j + i, y + j + i, lanes); });
    }
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
