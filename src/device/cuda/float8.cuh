#pragma once
// Making float8 codes of a token's numbers (quant/encode.h says which): the largest size in a block, four codes in a
// word.

#include <cstdint>

#include "device/cuda/hopper.cuh"
#include "quant/encode.h"

namespace fastllm::cuda {

// The largest of the block's words in every thread.
__device__ inline std::uint32_t block_most(std::uint32_t most) {
  __shared__ std::uint32_t mosts[32];
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  most = __reduce_max_sync(~0u, most);
#else
  for (int offset = 16; offset > 0; offset /= 2) most = max(most, __shfl_xor_sync(~0u, most, offset));
#endif
  if (blockDim.x == 32) return most;
  if (threadIdx.x % 32 == 0) mosts[threadIdx.x / 32] = most;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / 32;
  most = 0;
  for (int w = 0; w < warps; ++w) most = max(most, mosts[w]);
  return most;
}

// e4m3(a * inverse) in the low byte, and so on: to nearest even, as quant::to_e4m3.
__device__ inline std::uint32_t four_codes(float a, float b, float c, float d, float inverse) {
#if FASTLLM_HOPPER_CODE
  std::uint16_t low;
  std::uint16_t high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b * inverse), "f"(a * inverse));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d * inverse), "f"(c * inverse));
  return low | std::uint32_t{high} << 16;
#else
  return quant::to_e4m3(a * inverse) | quant::to_e4m3(b * inverse) << 8 | quant::to_e4m3(c * inverse) << 16 |
         static_cast<std::uint32_t>(quant::to_e4m3(d * inverse)) << 24;
#endif
}

}  // namespace fastllm::cuda
