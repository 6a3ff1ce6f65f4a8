#pragma once
// A number of a float8 cache of keys and values: e4m3 (quant/encode.h has the arithmetic), too large ones saturated, NaN kept.
// float16 holds each exactly; GPUs before compute capability 8.9 convert by shifting bits.

#include "device/cuda/common.cuh"
#include "quant/encode.h"

namespace fastllm::cuda {

struct E4m3 {
  std::uint8_t bits;
};

template <class C>
constexpr bool kIsCode = std::is_same_v<C, E4m3>;

// Two codes, in the low half of `codes`, as two float16 in one register.
__device__ inline std::uint32_t to_half2(std::uint32_t codes) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  std::uint32_t numbers;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(numbers) : "h"(static_cast<std::uint16_t>(codes)));
  return numbers;
#else
  // The exponent of float16 is a bit longer and its bias 8 larger.
  const std::uint32_t spread = __byte_perm(codes, 0, 0x1404);
  std::uint32_t magnitude = (spread >> 1) & 0x3f803f80;
  const std::uint32_t nan = __vcmpeq2(magnitude, 0x3f803f80) & 0x7fff7fff;
  std::uint32_t factor = 0x5c005c00;  // 2^8
  const __half2 number =
      __hmul2(*reinterpret_cast<const __half2*>(&magnitude), *reinterpret_cast<const __half2*>(&factor));
  return *reinterpret_cast<const std::uint32_t*>(&number) | nan | (spread & 0x80008000);
#endif
}

__device__ inline float to_float(E4m3 x) {
  const std::uint32_t both = to_half2(x.bits);
  return __low2float(*reinterpret_cast<const __half2*>(&both));
}

template <>
__device__ inline E4m3 from_float<E4m3>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  std::uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.0f), "f"(x));
  return {static_cast<std::uint8_t>(codes)};
#else
  return {isnan(x) ? std::uint8_t{0x7f} : quant::to_e4m3(x)};
#endif
}

// dispatch_float() for the element of a cache.
template <class F>
void dispatch_cache(core::DType dtype, const char* op, F&& f) {
  if (dtype == core::DType::f8_e4m3) {
    f(Type<E4m3>{});
    return;
  }
  dispatch_float(dtype, op, f);
}

}  // namespace fastllm::cuda
