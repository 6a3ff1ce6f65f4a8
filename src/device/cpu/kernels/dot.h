#pragma once
// Tiles of dot products, lanes along K: rows of x (float32) by rows of w (any float type), accumulators in registers.
// Each output is one chain of fma along its K and one reduction by simd.h's fixed tree, whatever tile it is computed
// in.

#include <cstdint>

#include "device/cpu/kernels/simd.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {

constexpr int kTileN = 4;
#if FASTLLM_ISA_LEVEL == 2
constexpr int kTileM = 6;  // 24 accumulators of 32 registers
#else
constexpr int kTileM = 3;  // 12 of 16
#endif

// One vector step along K of a tile: acc[i][j] += x row i * w row j. Loops over registers are unrolled by force, since
// an accumulator that is indexed at run time lives in memory.
template <int MR, int NR, class W, class Lanes>
FASTLLM_INLINE void dot_step(Vec (&acc)[MR][NR], const float* x, std::int64_t x_stride, const W* w,
                             std::int64_t w_stride, Lanes lanes) {
  Vec row[MR];
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) row[i] = read(x + i * x_stride, lanes);
  FASTLLM_UNROLL for (int j = 0; j < NR; ++j) {
    const Vec column = read(w + j * w_stride, lanes);
    FASTLLM_UNROLL for (int i = 0; i < MR; ++i) acc[i][j] = fma(row[i], column, acc[i][j]);
  }
}

// sums[i * stride + j] += dot(x row i, w row j) over `size` columns. x: MR rows, w: NR rows. `ahead`: also asks for the
// memory prefetch_distance elements further on in each row of w.
template <int MR, int NR, bool ahead, class W>
FASTLLM_INLINE void dot_tile(const float* x, std::int64_t x_stride, const W* w, std::int64_t w_stride,
                             std::int64_t size, float* sums, std::int64_t sums_stride,
                             std::int64_t prefetch_distance = 0) {
  Vec acc[MR][NR];
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    FASTLLM_UNROLL for (int j = 0; j < NR; ++j) acc[i][j] = set1(0.0f);
  }
  std::int64_t k = 0;
  if constexpr (ahead) {
    constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(W));  // elements of a cache line
    for (; k + kLine <= size; k += kLine) {
      FASTLLM_UNROLL for (int j = 0; j < NR; ++j) prefetch(w + j * w_stride + k + prefetch_distance);
      FASTLLM_UNROLL for (std::int64_t l = 0; l < kLine; l += kLanes)
          dot_step(acc, x + k + l, x_stride, w + k + l, w_stride, Whole{});
    }
  }
  for (; k + kLanes <= size; k += kLanes) dot_step(acc, x + k, x_stride, w + k, w_stride, Whole{});
  if (k < size) dot_step(acc, x + k, x_stride, w + k, w_stride, Part{static_cast<int>(size - k)});
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    float* to = sums + i * sums_stride;
    if constexpr (NR % 4 == 0) {
      FASTLLM_UNROLL for (int j = 0; j < NR; j += 4) {
        add_sums4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3], to + j);
      }
    } else {
      FASTLLM_UNROLL for (int j = 0; j < NR; ++j) to[j] += reduce_add(acc[i][j]);
    }
  }
}

// dot_tile with `rows` in 1 .. kTileM known only at run time.
template <int NR, bool ahead, class W>
FASTLLM_INLINE void dot_rows(int rows, const float* x, std::int64_t x_stride, const W* w, std::int64_t w_stride,
                             std::int64_t size, float* sums, std::int64_t sums_stride, std::int64_t distance) {
  switch (rows) {
    case 1:
      return dot_tile<1, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
    case 2:
      return dot_tile<2, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
    case 3:
      return dot_tile<3, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
    case 4:
      if constexpr (kTileM >= 4 || NR <= 3)
        return dot_tile<4, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
      return;
#if FASTLLM_ISA_LEVEL == 2
    case 5:
      return dot_tile<5, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
    case 6:
      return dot_tile<6, NR, ahead>(x, x_stride, w, w_stride, size, sums, sums_stride, distance);
#endif
    default:
      return;
  }
}

// The same with `columns` rows of w in 1 .. kTileN.
template <bool ahead, class W>
static inline void dot_columns(int rows, int columns, const float* x, std::int64_t x_stride, const W* w,
                               std::int64_t w_stride, std::int64_t size, float* sums, std::int64_t sums_stride,
                               std::int64_t distance = 0) {
  if (columns == kTileN)
    return dot_rows<kTileN, ahead>(rows, x, x_stride, w, w_stride, size, sums, sums_stride, distance);
  for (int j = 0; j < columns; ++j)
    dot_rows<1, false>(rows, x, x_stride, w + j * w_stride, w_stride, size, sums + j, sums_stride, 0);
}

// The next tile's rows out of `left`: never a single row after full tiles, as one row keeps few accumulators busy.
static inline int next_rows(std::int64_t left) {
  if (left == kTileM + 1) return (kTileM + 1) / 2;
  return left < kTileM ? static_cast<int>(left) : kTileM;
}

template <class W>
static inline void widen(const W* from, float* to, std::int64_t size) {
  std::int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) store(to + k, load(from + k));
  if (k < size) store_n(to + k, load_n(from + k, static_cast<int>(size - k)), static_cast<int>(size - k));
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
