#pragma once
// Vec in the compiler's vector extensions: 4 lanes, for the x86-64 baseline (SSE2) and for 64-bit Arm (NEON, where fma
// is fused and float16 converts in hardware). Included by simd.h.

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fastllm::cpu::FASTLLM_ISA_NS {

constexpr int kLanes = 4;

using Floats = float __attribute__((vector_size(16)));
using Words = std::uint32_t __attribute__((vector_size(16)));
using Ints = std::int32_t __attribute__((vector_size(16)));

struct Vec {
  Floats r;
};

static inline Words bits_of(Vec v) {
  Words w;
  std::memcpy(&w, &v.r, sizeof(w));
  return w;
}
static inline Vec of_bits(Words w) {
  Vec v;
  std::memcpy(&v.r, &w, sizeof(w));
  return v;
}
static inline Words pick(Ints mask, Words yes, Words no) {
  Words m;
  std::memcpy(&m, &mask, sizeof(m));
  return (yes & m) | (no & ~m);
}
static inline Vec pick(Ints mask, Vec yes, Vec no) {
  return of_bits(pick(mask, bits_of(yes), bits_of(no)));
}

static inline Vec set1(float v) {
  return {Floats{v, v, v, v}};
}
static inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v.r, p, sizeof(v.r));
  return v;
}
static inline void store(float* p, Vec v) {
  std::memcpy(p, &v.r, sizeof(v.r));
}
static inline Words four_words(const std::uint16_t* p) {
  return Words{p[0], p[1], p[2], p[3]};
}

static inline Vec widen_brain(Words bits) {
  return of_bits(bits << 16);
}
// float16 to float32: the exponent is re-biased by one exact multiplication, which makes subnormal numbers right as
// well.
static inline Vec widen_half(Words bits) {
#if defined(__aarch64__)
  const uint16x4_t narrow = vmovn_u32(reinterpret_cast<uint32x4_t>(bits));
  return {reinterpret_cast<Floats>(vcvt_f32_f16(vreinterpret_f16_u16(narrow)))};
#else
  const Words magnitude = bits & 0x7fffu;
  Vec v = of_bits(magnitude << 13);
  v.r *= Floats{0x1p112f, 0x1p112f, 0x1p112f, 0x1p112f};
  const Words special = bits_of(v) | 0x7f800000u;  // infinity and NaN
  const Ints above = magnitude > 0x7bffu;
  return of_bits(pick(above, special, bits_of(v)) | (bits & 0x8000u) << 16);
#endif
}
static inline Vec widen_float8(const std::uint8_t* p) {
  const Words bits{p[0], p[1], p[2], p[3]};
  const Words magnitude = bits & 0x7fu;
  Vec v = of_bits(magnitude << 20);
  v.r *= Floats{0x1p120f, 0x1p120f, 0x1p120f, 0x1p120f};
  const Ints nan = magnitude == 0x7fu;
  return of_bits(pick(nan, bits_of(v) | 0x7fc00000u, bits_of(v)) | (bits & 0x80u) << 24);
}
static inline Vec load(const Float8* p) {
  return widen_float8(&p->bits);
}
static inline Vec load(const Brain16* p) {
  return widen_brain(four_words(&p->bits));
}
static inline Vec load(const Half16* p) {
  return widen_half(four_words(&p->bits));
}

// The first n < kLanes elements, the rest 0; nothing beyond them is read.
static inline Vec load_n(const float* p, int n) {
  Vec v = set1(0.0f);
  std::memcpy(&v.r, p, static_cast<std::size_t>(n) * 4);
  return v;
}
static inline Words first_words(const std::uint16_t* p, int n) {
  std::uint16_t w[4] = {};
  std::memcpy(w, p, static_cast<std::size_t>(n) * 2);
  return four_words(w);
}
static inline Vec load_n(const Brain16* p, int n) {
  return widen_brain(first_words(&p->bits, n));
}
static inline Vec load_n(const Half16* p, int n) {
  return widen_half(first_words(&p->bits, n));
}
static inline Vec load_n(const Float8* p, int n) {
  std::uint8_t b[4] = {};
  std::memcpy(b, p, static_cast<std::size_t>(n));
  return widen_float8(b);
}
static inline void store_n(float* p, Vec v, int n) {
  std::memcpy(p, &v.r, static_cast<std::size_t>(n) * 4);
}

static inline Vec add(Vec a, Vec b) {
  return {a.r + b.r};
}
static inline Vec sub(Vec a, Vec b) {
  return {a.r - b.r};
}
static inline Vec mul(Vec a, Vec b) {
  return {a.r * b.r};
}
static inline Vec div(Vec a, Vec b) {
  return {a.r / b.r};
}
static inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
  return {reinterpret_cast<Floats>(vfmaq_f32(reinterpret_cast<float32x4_t>(c.r), reinterpret_cast<float32x4_t>(a.r),
                                             reinterpret_cast<float32x4_t>(b.r)))};
#else
  return {a.r * b.r + c.r};
#endif
}
static inline Vec vmax(Vec a, Vec b) {
  return pick(a.r > b.r, a, b);
}
static inline Vec vmin(Vec a, Vec b) {
  return pick(a.r < b.r, a, b);
}
static inline Vec sqrt(Vec a) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) v.r[i] = __builtin_sqrtf(a.r[i]);
  return v;
}
static inline Vec abs(Vec a) {
  return of_bits(bits_of(a) & 0x7fffffffu);
}
static inline Vec copy_sign(Vec magnitude, Vec sign) {
  return of_bits((bits_of(magnitude) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
// Lane by lane a < b ? yes : no (no for NaN).
static inline Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return pick(a.r < b.r, yes, no);
}

// Lane by lane a, unless it is NaN, ? yes : no.
static inline Vec select_ordered(Vec a, Vec yes, Vec no) {
  return pick(a.r == a.r, yes, no);
}

// p * 2^n, n in the low bits of `shifted` (see exp), in two halves so that no power leaves float's range.
static inline Vec scale_by_power(Vec p, Vec shifted) {
  Ints n;
  std::memcpy(&n, &shifted.r, sizeof(n));
  n -= 0x4b400000;
  const Ints half = n >> 1;
  const Ints rest = n - half;
  Vec a;
  Vec b;
  const Words high = reinterpret_cast<Words>(half + 127) << 23;
  const Words low = reinterpret_cast<Words>(rest + 127) << 23;
  a = of_bits(high);
  b = of_bits(low);
  return {p.r * a.r * b.r};
}

static inline float reduce_add(Vec v) {
  return (v.r[0] + v.r[1]) + (v.r[2] + v.r[3]);
}
// to[0..3] += the sums of a, b, c, d.
static inline void add_sums4(Vec a, Vec b, Vec c, Vec d, float* to) {
  to[0] += reduce_add(a);
  to[1] += reduce_add(b);
  to[2] += reduce_add(c);
  to[3] += reduce_add(d);
}
static inline float reduce_max(Vec v) {
  const float a = v.r[0] > v.r[1] ? v.r[0] : v.r[1];
  const float b = v.r[2] > v.r[3] ? v.r[2] : v.r[3];
  return a > b ? a : b;
}

static inline std::uint16_t narrow_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude <
      0x38800000u) {  // subnormal: adding 0.5 puts the ulp of the sum at 2^-24, so the adder does the rounding
    float m;
    std::memcpy(&m, &magnitude, 4);
    m += 0.5f;
    std::memcpy(&magnitude, &m, 4);
    return static_cast<std::uint16_t>(sign | (magnitude - 0x3f000000u));
  }
  magnitude += 0xc8000fffu + (magnitude >> 13 & 1u);  // re-bias the exponent by -112 and round to nearest even
  return static_cast<std::uint16_t>(sign | magnitude >> 13);
}
static inline std::uint16_t narrow_brain(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
// To nearest even. Below 2^-6 the ulp of 2^14 is e4m3's step: adding rounds, and the sum's low bits are the code.
static inline std::uint8_t narrow_float8(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = bits >> 24 & 0x80u;
  std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint8_t>(sign | 0x7fu);
  if (magnitude > 0x43e00000u) magnitude = 0x43e00000u;  // 448
  if (magnitude < 0x3c800000u) {                         // 2^-6
    float m;
    std::memcpy(&m, &magnitude, 4);
    m += 16384.0f;
    std::memcpy(&magnitude, &m, 4);
    return static_cast<std::uint8_t>(sign | (magnitude - 0x46800000u));
  }
  return static_cast<std::uint8_t>(sign | (((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3)));
}
static inline void store_n(Float8* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i].bits = narrow_float8(v.r[i]);
}
static inline void store(Float8* p, Vec v) {
  store_n(p, v, kLanes);
}
static inline void store_n(Half16* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i].bits = narrow_half(v.r[i]);
}
static inline void store_n(Brain16* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i].bits = narrow_brain(v.r[i]);
}
static inline void store(Half16* p, Vec v) {
  store_n(p, v, kLanes);
}
static inline void store(Brain16* p, Vec v) {
  store_n(p, v, kLanes);
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
