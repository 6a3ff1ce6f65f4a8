#pragma once
// One vector of floats, the width of the instruction set, so that a kernel is written once. Files of this folder are
// compiled once per set (cmake/CpuIsa.cmake); everything here lives in that set's namespace.
//
// `Vec` holds kLanes floats. Narrow numbers are read as Half16, Brain16 and Float8 (their bits; Float8 is e4m3 as in
// quant/encode.h, saturating, but NaN stays NaN) and widened on the way. fma(a,
// b, c) is a * b + c, fused except on plain SSE2. vmax(a, b) and vmin(a, b) give b when either is NaN. reduce_add has
// one fixed tree per set: first halves are added until four lanes are left, then (s0 + s1) + (s2 + s3); add_sums4 is
// four of them with the same tree.

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

#define FASTLLM_INLINE static inline __attribute__((always_inline))
#define FASTLLM_UNROLL _Pragma("GCC unroll 16")

#ifndef FASTLLM_ISA_NS
#error "kernels are compiled through cmake/CpuIsa.cmake"
#endif

namespace fastllm::cpu::FASTLLM_ISA_NS {

struct Half16 {
  std::uint16_t bits;
};
struct Brain16 {
  std::uint16_t bits;
};
struct Float8 {
  std::uint8_t bits;
};

}  // namespace fastllm::cpu::FASTLLM_ISA_NS

#if FASTLLM_ISA_LEVEL == 2
#include "device/cpu/kernels/simd_avx512.h"
#elif FASTLLM_ISA_LEVEL == 1
#include "device/cpu/kernels/simd_avx2.h"
#else
#include "device/cpu/kernels/simd_portable.h"
#endif

namespace fastllm::cpu::FASTLLM_ISA_NS {

static inline Vec operator+(Vec a, Vec b) {
  return add(a, b);
}
static inline Vec operator-(Vec a, Vec b) {
  return sub(a, b);
}
static inline Vec operator*(Vec a, Vec b) {
  return mul(a, b);
}
static inline Vec operator/(Vec a, Vec b) {
  return div(a, b);
}

// Calls f(i, lanes) for i = 0, kLanes, 2 kLanes ... below n: `lanes` is Whole{} for full vectors and a Part{count} for
// the tail, to be handed on to read() and write() below.
struct Whole {};
struct Part {
  int count;
};
template <class F>
static inline void for_lanes(std::int64_t n, F&& f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, Whole{});
  if (i < n) f(i, Part{static_cast<int>(n - i)});
}
template <class T>
static inline Vec read(const T* p, Whole) {
  return load(p);
}
template <class T>
static inline Vec read(const T* p, Part part) {
  return load_n(p, part.count);
}
template <class T>
static inline void write(T* p, Vec v, Whole) {
  store(p, v);
}
template <class T>
static inline void write(T* p, Vec v, Part part) {
  store_n(p, v, part.count);
}

// v, but NaN where a is NaN.
static inline Vec propagate_nan(Vec a, Vec v) {
  return select_ordered(a, v, a);
}

// Asks for the cache line of p; reaching beyond an array is harmless.
static inline void prefetch(const void* p) {
  __builtin_prefetch(p, 0, 3);
}
// The same, but only as near as L2: for what is needed later and should not push out what L1 holds.
static inline void prefetch_l2(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

// e^x within 2 ulp (Cody & Waite's reduction to |r| <= ln 2 / 2, a polynomial of degree 6); 0 and infinity beyond
// float's range.
static inline Vec exp(Vec x) {
  x = vmin(set1(89.0f), vmax(set1(-104.0f), x));
  const Vec magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
  const Vec shifted = fma(x, set1(1.44269504f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, set1(-0.693359375f), x);  // ln 2 in two parts, the first one exact in products with n
  r = fma(n, set1(2.12194440e-4f), r);
  Vec p = set1(0.001381446490995586f);
  p = fma(p, r, set1(0.008368780836462975f));
  p = fma(p, r, set1(0.04166839271783829f));
  p = fma(p, r, set1(0.1666651964187622f));
  p = fma(p, r, set1(0.4999999403953552f));
  p = fma(p, r * r, r);
  return scale_by_power(p + set1(1.0f), shifted);
}

// tanh x: an odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel.
static inline Vec tanh(Vec x) {
  const Vec a = abs(x);
  const Vec z = x * x;
  Vec p = set1(-0.005717036314308643f);
  p = fma(p, z, set1(0.020650578662753105f));
  p = fma(p, z, set1(-0.05374349653720856f));
  p = fma(p, z, set1(0.13331490755081177f));
  p = fma(p, z, set1(-0.3333328366279602f));
  const Vec near = fma(p * z, x, x);
  const Vec far = set1(1.0f) - set1(2.0f) / (exp(a + a) + set1(1.0f));
  return select_less(a, set1(0.625f), near, copy_sign(far, x));
}

static inline Vec sigmoid(Vec x) {
  return set1(1.0f) / (set1(1.0f) + exp(set1(0.0f) - x));
}

// x times the normal distribution at x. erfc(|z|) = e^(-z^2) t Q(t), t = 1 / (1 + 0.4 |z|), Q a minimax fit on |z| <=
// 10.
static inline Vec gelu(Vec x) {
  const Vec z = abs(x) * set1(0.70710678f);
  const Vec t = set1(1.0f) / fma(z, set1(0.4f), set1(1.0f));
  Vec q = set1(-0.029594337567687035f);
  q = fma(q, t, set1(0.19801321625709534f));
  q = fma(q, t, set1(-0.4988114833831787f));
  q = fma(q, t, set1(0.5474354028701782f));
  q = fma(q, t, set1(-0.2843666672706604f));
  q = fma(q, t, set1(0.27206623554229736f));
  q = fma(q, t, set1(0.1296796053647995f));
  q = fma(q, t, set1(0.2149191051721573f));
  q = fma(q, t, set1(0.22495202720165253f));
  q = fma(q, t, set1(0.22570690512657166f));
  const Vec tail = exp(set1(0.0f) - z * z) * (q * t);  // erfc(|z|)
  const Vec both = select_less(x, set1(0.0f), tail, set1(2.0f) - tail);
  return set1(0.5f) * x * both;
}

// 0.5 x (1 + tanh u) is x sigmoid(2 u), which loses nothing where tanh u is near -1.
static inline Vec gelu_tanh(Vec x) {
  const Vec inner = fma(x * x * x, set1(0.044715f), x) * set1(0.79788456f);
  return x * sigmoid(inner + inner);
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
