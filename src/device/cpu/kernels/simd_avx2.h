#pragma once
// Vec on AVX2 + FMA + F16C: 8 lanes. Included by simd.h.

#include <immintrin.h>

namespace fastllm::cpu::FASTLLM_ISA_NS {

constexpr int kLanes = 8;

struct Vec {
  __m256 r;
};

static inline Vec set1(float v) {
  return {_mm256_set1_ps(v)};
}
static inline Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
static inline Vec widen_brain(__m128i bits) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
static inline Vec load(const Brain16* p) {
  return widen_brain(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline Vec load(const Half16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
// e4m3 has float16's layout with three exponent bits less at the top and its bias 8 smaller: times 2^8 it is right.
static inline Vec widen_float8(__m128i bytes) {  // in its low half
  const __m128i words = _mm_slli_epi16(_mm_cvtepi8_epi16(bytes), 7);
  const __m128i magnitude = _mm_and_si128(words, _mm_set1_epi16(0x3f80));
  const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x3f80));
  const __m128i half = _mm_or_si128(_mm_and_si128(words, _mm_set1_epi16(static_cast<short>(0xbf80))), nan);
  return {_mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f))};
}
static inline Vec load(const Float8* p) {
  return widen_float8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
static inline void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.r);
}

static inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline __m128i first_words(const void* p, int n) {
  __m128i bits = _mm_setzero_si128();
  std::memcpy(&bits, p, static_cast<std::size_t>(n) * 2);
  return bits;
}
// The first n < kLanes elements, the rest 0; nothing beyond them is read.
static inline Vec load_n(const float* p, int n) {
  return {_mm256_maskload_ps(p, first_lanes(n))};
}
static inline Vec load_n(const Brain16* p, int n) {
  return widen_brain(first_words(p, n));
}
static inline Vec load_n(const Half16* p, int n) {
  return {_mm256_cvtph_ps(first_words(p, n))};
}
static inline Vec load_n(const Float8* p, int n) {
  __m128i bytes = _mm_setzero_si128();
  std::memcpy(&bytes, p, static_cast<std::size_t>(n));
  return widen_float8(bytes);
}
static inline void store_n(float* p, Vec v, int n) {
  _mm256_maskstore_ps(p, first_lanes(n), v.r);
}

static inline Vec add(Vec a, Vec b) {
  return {_mm256_add_ps(a.r, b.r)};
}
static inline Vec sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.r, b.r)};
}
static inline Vec mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.r, b.r)};
}
static inline Vec div(Vec a, Vec b) {
  return {_mm256_div_ps(a.r, b.r)};
}
static inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.r, b.r, c.r)};
}
static inline Vec vmax(Vec a, Vec b) {
  return {_mm256_max_ps(a.r, b.r)};
}
static inline Vec vmin(Vec a, Vec b) {
  return {_mm256_min_ps(a.r, b.r)};
}
static inline Vec sqrt(Vec a) {
  return {_mm256_sqrt_ps(a.r)};
}
static inline Vec abs(Vec a) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.r)};
}
static inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, magnitude.r), _mm256_and_ps(bit, sign.r))};
}
// Lane by lane a < b ? yes : no (no for NaN).
static inline Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.r, yes.r, _mm256_cmp_ps(a.r, b.r, _CMP_LT_OQ))};
}

// Lane by lane a, unless it is NaN, ? yes : no.
static inline Vec select_ordered(Vec a, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.r, yes.r, _mm256_cmp_ps(a.r, a.r, _CMP_ORD_Q))};
}

// p * 2^n, n in the low bits of `shifted` (see exp), in two halves so that no power leaves float's range.
static inline Vec scale_by_power(Vec p, Vec shifted) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted.r), _mm256_set1_epi32(0x4b400000));
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256i rest = _mm256_sub_epi32(n, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(p.r, a), b)};
}

static inline __m128 fold(__m256 v) {
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
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
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v.r), _mm256_extractf128_ps(v.r, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline __m128i narrow_half(Vec v) {
  return _mm256_cvtps_ph(v.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline __m128i narrow_brain(Vec v) {
  const __m256i bits = _mm256_castps_si256(v.r);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));  // NaN stays NaN
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v.r, v.r, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
// To nearest even. Below 2^-6 the ulp of 2^14 is e4m3's step: adding rounds, and the sum's low bits are the code.
static inline __m128i narrow_float8(Vec v) {  // in the low half
  const __m256i all = _mm256_castps_si256(v.r);
  const __m256 size = _mm256_castsi256_ps(_mm256_and_si256(all, _mm256_set1_epi32(0x7fffffff)));
  const __m256 capped = _mm256_min_ps(size, _mm256_set1_ps(448.0f));
  const __m256i bits = _mm256_castps_si256(capped);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
  const __m256i normal =
      _mm256_sub_epi32(_mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff))), 20),
                       _mm256_set1_epi32(120 << 3));
  const __m256 magic = _mm256_set1_ps(16384.0f);
  const __m256i small = _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(capped, magic)), _mm256_castps_si256(magic));
  __m256 code = _mm256_blendv_ps(_mm256_castsi256_ps(normal), _mm256_castsi256_ps(small),
                                 _mm256_cmp_ps(capped, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ));
  code = _mm256_blendv_ps(code, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f)), _mm256_cmp_ps(v.r, v.r, _CMP_UNORD_Q));
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(all, 24), _mm256_set1_epi32(0x80));
  const __m256i whole = _mm256_or_si256(_mm256_castps_si256(code), sign);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  return _mm_packus_epi16(words, words);
}
static inline void store(Float8* p, Vec v) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), narrow_float8(v));
}
static inline void store_n(Float8* p, Vec v, int n) {
  const __m128i bytes = narrow_float8(v);
  std::memcpy(p, &bytes, static_cast<std::size_t>(n));
}
static inline void store(Half16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_half(v));
}
static inline void store(Brain16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_brain(v));
}
static inline void store_n(Half16* p, Vec v, int n) {
  const __m128i bits = narrow_half(v);
  std::memcpy(p, &bits, static_cast<std::size_t>(n) * 2);
}
static inline void store_n(Brain16* p, Vec v, int n) {
  const __m128i bits = narrow_brain(v);
  std::memcpy(p, &bits, static_cast<std::size_t>(n) * 2);
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
