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

// sums[i * stride + j] += dot(x row i, w row j) over `size` columns. x: MR rows, w: NR rows. `ahead`: also asks for the
// memory prefetch_distance elements further on in each row of w.
template <int MR, int NR, bool ahead, class W>
static inline void dot_tile(const float* x, std::int64_t x_stride, const W* w, std::int64_t w_stride, std::int64_t size,
                            float* sums, std::int64_t sums_stride, std::int64_t prefetch_distance = 0) {
  Vec acc[MR][NR];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NR; ++j) acc[i][j] = set1(0.0f);
  const std::int64_t whole = size / kLanes * kLanes;
  const auto step = [&](auto load_x, auto load_w) {
    Vec row[MR];
    for (int i = 0; i < MR; ++i) row[i] = load_x(x + i * x_stride);
    for (int j = 0; j < NR; ++j) {
      const Vec column = load_w(w + j * w_stride);
      for (int i = 0; i < MR; ++i) acc[i][j] = fma(row[i], column, acc[i][j]);
    }
  };
  if constexpr (ahead) {
    constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(W));  // elements of a cache line
    std::int64_t k = 0;
    for (; k + kLine <= whole; k += kLine) {
      for (int j = 0; j < NR; ++j) prefetch(w + j * w_stride + k + prefetch_distance);
      for (std::int64_t l = 0; l < kLine; l += kLanes)
        step([&](const float* p) { return load(p + k + l); }, [&](const W* p) { return load(p + k + l); });
    }
    for (; k < whole; k += kLanes)
      step([&](const float* p) { return load(p + k); }, [&](const W* p) { return load(p + k); });
  } else {
    for (std::int64_t k = 0; k < whole; k += kLanes)
      step([&](const float* p) { return load(p + k); }, [&](const W* p) { return load(p + k); });
  }
  if (const int rest = static_cast<int>(size - whole); rest > 0)
    step([&](const float* p) { return load_n(p + whole, rest); }, [&](const W* p) { return load_n(p + whole, rest); });
  for (int i = 0; i < MR; ++i) {
    float* to = sums + i * sums_stride;
    int j = 0;
    if constexpr (NR >= 4) {
      for (; j + 4 <= NR; j += 4) {
        float four[4];
        reduce_add4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3], four);
        for (int l = 0; l < 4; ++l) to[j + l] += four[l];
      }
    }
    for (; j < NR; ++j) to[j] += reduce_add(acc[i][j]);
  }
}

// Calls dot_tile with `rows` as a compile-time number in 1 .. kTileM.
template <int NR, class W>
static inline void dot_rows(int rows, const float* x, std::int64_t x_stride, const W* w, std::int64_t w_stride,
                            std::int64_t size, float* sums, std::int64_t sums_stride) {
  switch (rows) {
    case 1:
      return dot_tile<1, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
    case 2:
      return dot_tile<2, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
    case 3:
      return dot_tile<3, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
#if FASTLLM_ISA_LEVEL == 2
    case 4:
      return dot_tile<4, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
    case 5:
      return dot_tile<5, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
    case 6:
      return dot_tile<6, NR, false>(x, x_stride, w, w_stride, size, sums, sums_stride);
#endif
    default:
      return;
  }
}

template <class W>
static inline void dot_columns(int rows, int columns, const float* x, std::int64_t x_stride, const W* w,
                               std::int64_t w_stride, std::int64_t size, float* sums, std::int64_t sums_stride) {
  if (columns == kTileN) return dot_rows<kTileN>(rows, x, x_stride, w, w_stride, size, sums, sums_stride);
  for (int j = 0; j < columns; ++j)
    dot_rows<1>(rows, x, x_stride, w + j * w_stride, w_stride, size, sums + j, sums_stride);
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
