#pragma once
// A tile of keys or values in shared memory as an operand of tensor-core products of 16 x 8 x 16 (mma.sync).
//
// Numbers of 16 bits: matrices are loaded as the products want them. Codes of 8 bits: the same instructions move pairs of
// codes, which become float16 in registers, exactly, and the products are of float16 whatever the activations are. A register then
// holds four neighbouring channels of a key, so the products take channels in another order: a lane has channels 4 (lane % 4)
// ... + 3 of each 16, where it would have 2 (lane % 4), + 1 and these + 8. Queries are loaded in that order and results are
// stored in it. Of values a register has two channels of two keys; the even channels go into one product, the odd ones into the next.

#include "device/cuda/attention.cuh"
#include "device/cuda/fp8.cuh"
#include "device/cuda/mma.cuh"

namespace fastllm::cuda {

// T: of activations, C: of the cache. kRows keys of kD channels.
template <class T, class C, int kRows, int kD>
struct CacheTile {
  static constexpr bool kCode = kIsCode<C>;
  using Number = std::conditional_t<kCode, __half, T>;  // what the products multiply
  static constexpr int kEach = 16 / static_cast<int>(sizeof(C));  // elements of a column
  static constexpr int kColumns = kD / kEach;
  static constexpr int kBytes = kRows * kD * static_cast<int>(sizeof(C));

  // Swizzled, so that eight rows of a column touch all banks.
  static __device__ std::uint32_t offset(int row, int column) {
    if constexpr (!kCode) return tile_offset<kRows>(row, column);
    if constexpr (kD == 64) return row * 64 + ((column ^ (row / 2 % 4)) * 16);
    return row * 128 + ((column ^ (row % 8)) * 16);
  }

  // The channel of a lane's pair `which` (0 or 1) of the kkth 16.
  static __device__ int channel(int lane, int kk, int which) {
    return kCode ? kk * 16 + lane % 4 * 4 + which * 2 : kk * 16 + lane % 4 * 2 + which * 8;
  }

  // A pair of activations as the products' numbers.
  static __device__ std::uint32_t numbers(std::uint32_t pair) {
    if constexpr (std::is_same_v<Number, T>) return pair;
    const __nv_bfloat162 both = *reinterpret_cast<const __nv_bfloat162*>(&pair);
    const auto within = [](float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; };
    return pack2<__half>(within(__low2float(both)), within(__high2float(both)));
  }

  // s += q k^T for the tile of keys at `k_at`.
  static __device__ void scores(float (&s)[kRows / 8][4], const std::uint32_t (&q)[kD / 16][4], std::uint32_t k_at,
                                int lane) {
    if constexpr (!kCode) {
#pragma unroll
      for (int kk = 0; kk < kD / 16; ++kk)
#pragma unroll
        for (int j = 0; j < kRows / 16; ++j) {
          std::uint32_t b[4];
          load_matrix(b, k_at + tile_offset<kRows>(j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
          mma_16816<T>(s[j * 2], q[kk][0], q[kk][1], q[kk][2], q[kk][3], b[0], b[1]);
          mma_16816<T>(s[j * 2 + 1], q[kk][0], q[kk][1], q[kk][2], q[kk][3], b[2], b[3]);
        }
    } else {
#pragma unroll
      for (int two = 0; two < kD / 32; ++two)
#pragma unroll
        for (int j = 0; j < kRows / 16; ++j) {
          std::uint32_t b[4];
          load_matrix(b, k_at + offset(j * 16 + lane % 8 + lane / 16 * 8, two * 2 + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const std::uint32_t (&a)[4] = q[two * 2 + i % 2];
            mma_16816<__half>(s[j * 2 + i / 2], a[0], a[1], a[2], a[3], to_half2(b[i]), to_half2(b[i] >> 16));
          }
        }
    }
  }

  // out += p v for the tile of values at `v_at`; p: as scores, exponentials.
  static __device__ void sums(float (&out)[kD / 8][4], const float (&p)[kRows / 8][4], std::uint32_t v_at, int lane) {
#pragma unroll
    for (int kk = 0; kk < kRows / 16; ++kk) {
      const std::uint32_t a0 = pack2<Number>(p[kk * 2][0], p[kk * 2][1]);
      const std::uint32_t a1 = pack2<Number>(p[kk * 2][2], p[kk * 2][3]);
      const std::uint32_t a2 = pack2<Number>(p[kk * 2 + 1][0], p[kk * 2 + 1][1]);
      const std::uint32_t a3 = pack2<Number>(p[kk * 2 + 1][2], p[kk * 2 + 1][3]);
      if constexpr (!kCode) {
#pragma unroll
        for (int d = 0; d < kD / 16; ++d) {
          std::uint32_t b[4];
          load_matrix_transposed(b, v_at + tile_offset<kRows>(kk * 16 + lane % 16, d * 2 + lane / 16));
          mma_16816<T>(out[d * 2], a0, a1, a2, a3, b[0], b[1]);
          mma_16816<T>(out[d * 2 + 1], a0, a1, a2, a3, b[2], b[3]);
        }
      } else {
#pragma unroll
        for (int two = 0; two < kD / 32; ++two) {
          std::uint32_t b[4];
          load_matrix_transposed(b, v_at + offset(kk * 16 + lane % 16, two * 2 + lane / 16));
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const std::uint32_t low = __byte_perm(b[i * 2], 0, 0x3120);  // even channels of two keys, then the odd ones
            const std::uint32_t high = __byte_perm(b[i * 2 + 1], 0, 0x3120);
            const int d = (two * 2 + i) * 2;
            mma_16816<__half>(out[d], a0, a1, a2, a3, to_half2(low), to_half2(high));
            mma_16816<__half>(out[d + 1], a0, a1, a2, a3, to_half2(low >> 16), to_half2(high >> 16));
          }
        }
      }
    }
  }
};

}  // namespace fastllm::cuda
