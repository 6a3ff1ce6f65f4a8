#pragma once
// Vec on AVX-512 F/BW/DQ/VL (+ F16C): 16 lanes. Included by simd.h.

#pragma GCC diagnostic push  // g++ 12 takes its own "undefined" registers for mistakes (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace fastllm::cpu::FASTLLM_ISA_NS {

constexpr int kLanes = 16;

struct Vec {
  __m512 r;
};

static inline Vec set1(float v) {
  return {_mm512_set1_ps(v)};
}
static inline Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
static inline Vec widen_brain(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
static inline Vec load(const Brain16* p) {
  return widen_brain(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline Vec load(const Half16* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// e4m3 has float16's layout with three exponent bits less at the top and its bias 8 smaller: times 2^8 it is right.
static inline Vec widen_float8(__m128i bytes) {
  const __m256i words = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
  const __m256i magnitude = _mm256_and_si256(words, _mm256_set1_epi16(0x3f80));
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
  const __m256i half = _mm256_or_si256(_mm256_and_si256(words, _mm256_set1_epi16(static_cast<short>(0xbf80))), nan);
  return {_mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f))};
}
static inline Vec load(const Float8* p) {
  return widen_float8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline void store(float* p, Vec v) {
  _mm512_storeu_ps(p, v.r);
}

static inline __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
// The first n < kLanes elements, the rest 0; nothing beyond them is read.
static inline Vec load_n(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
static inline Vec load_n(const Brain16* p, int n) {
  return widen_brain(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
static inline Vec load_n(const Half16* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
}
static inline Vec load_n(const Float8* p, int n) {
  return widen_float8(_mm_maskz_loadu_epi8(first_lanes(n), p));
}
static inline void store_n(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v.r);
}

static inline Vec add(Vec a, Vec b) {
  return {_mm512_add_ps(a.r, b.r)};
}
static inline Vec sub(Vec a, Vec b) {
  return {_mm512_sub_ps(a.r, b.r)};
}
static inline Vec mul(Vec a, Vec b) {
  return {_mm512_mul_ps(a.r, b.r)};
}
static inline Vec div(Vec a, Vec b) {
  return {_mm512_div_ps(a.r, b.r)};
}
static inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.r, b.r, c.r)};
}
static inline Vec vmax(Vec a, Vec b) {
  return {_mm512_max_ps(a.r, b.r)};
}
static inline Vec vmin(Vec a, Vec b) {
  return {_mm512_min_ps(a.r, b.r)};
}
static inline Vec sqrt(Vec a) {
  return {_mm512_sqrt_ps(a.r)};
}
static inline Vec abs(Vec a) {
  return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.r)};
}
static inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.r), _mm512_and_ps(bit, sign.r))};
}
// Lane by lane a < b ? yes : no (no for NaN).
static inline Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.r, b.r, _CMP_LT_OQ), no.r, yes.r)};
}

// Lane by lane a, unless it is NaN, ? yes : no.
static inline Vec select_ordered(Vec a, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.r, a.r, _CMP_ORD_Q), no.r, yes.r)};
}

// p * 2^n, n in the low bits of `shifted` (see exp), in two halves so that no power leaves float's range.
static inline Vec scale_by_power(Vec p, Vec shifted) {
  const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted.r), _mm512_set1_epi32(0x4b400000));
  const __m512i half = _mm512_srai_epi32(n, 1);
  const __m512i rest = _mm512_sub_epi32(n, half);
  const __m512i bias = _mm512_set1_epi32(127);
  const __m512 a = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  const __m512 b = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
  return {_mm512_mul_ps(_mm512_mul_ps(p.r, a), b)};
}

static inline __m128 fold(__m512 v) {
  const __m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}
static inline float reduce_add(Vec v) {
  const __m128 s = fold(v.r);
  const __m128 pairs = _mm_add_ps(s, _mm_movehdup_ps(s));
  return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehl_ps(pairs, pairs)));
}
// to[0..3] += the sums of a, b, c, d.
static inline void add_sums4(Vec a, Vec b, Vec c, Vec d, float* to) {
  const __m128 ab = _mm_hadd_ps(fold(a.r), fold(b.r));
  const __m128 cd = _mm_hadd_ps(fold(c.r), fold(d.r));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_hadd_ps(ab, cd)));
}
static inline float reduce_max(Vec v) {
  const __m256 s = _mm256_max_ps(_mm512_castps512_ps256(v.r), _mm512_extractf32x8_ps(v.r, 1));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline __m256i narrow_half(Vec v) {
  return _mm512_cvtps_ph(v.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// In integers and not by vcvtneps2bf16, which flushes subnormal numbers to 0.
static inline __m256i narrow_brain(Vec v) {
  const __m512i bits = _mm512_castps_si512(v.r);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));  // NaN stays NaN
  const __mmask16 nan = _mm512_cmp_ps_mask(v.r, v.r, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet));
}
// To nearest even. Below 2^-6 the ulp of 2^14 is e4m3's step: adding rounds, and the sum's low bits are the code.
static inline __m128i narrow_float8(Vec v) {
  const __m512i all = _mm512_castps_si512(v.r);
  const __m512 size = _mm512_castsi512_ps(_mm512_and_si512(all, _mm512_set1_epi32(0x7fffffff)));
  const __m512 capped = _mm512_min_ps(size, _mm512_set1_ps(448.0f));
  const __m512i bits = _mm512_castps_si512(capped);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(1));
  const __m512i normal =
      _mm512_sub_epi32(_mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff))), 20),
                       _mm512_set1_epi32(120 << 3));
  const __m512 magic = _mm512_set1_ps(16384.0f);
  const __m512i small = _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(capped, magic)), _mm512_castps_si512(magic));
  __m512i code =
      _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(capped, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ), normal, small);
  code = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v.r, v.r, _CMP_UNORD_Q), code, _mm512_set1_epi32(0x7f));
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(all, 24), _mm512_set1_epi32(0x80));
  return _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign));
}
static inline void store(Float8* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_float8(v));
}
static inline void store_n(Float8* p, Vec v, int n) {
  _mm_mask_storeu_epi8(p, first_lanes(n), narrow_float8(v));
}
static inline void store(Half16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_half(v));
}
static inline void store(Brain16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_brain(v));
}
static inline void store_n(Half16* p, Vec v, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow_half(v));
}
static inline void store_n(Brain16* p, Vec v, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow_brain(v));
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
