#pragma once
// The arithmetic of weight formats, one number and one group at a time, written once for the host's reference and for
// kernels: the same operations in the same order, each rounded once, so that both make the same bits.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/target.h"
#include "quant/format.h"

namespace fastllm::quant {

FASTLLM_BOTH std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
FASTLLM_BOTH float float_of(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// To bfloat16 and back, to nearest even. Finite numbers.
FASTLLM_BOTH float round_bf16(float x) {
  const std::uint32_t bits = bits_of(x);
  return float_of((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

// float8 e4m3 (Micikevicius et al. 2022, "FP8 formats for deep learning": no infinities, 448 the largest), to nearest
// even; what is larger becomes the largest.
FASTLLM_BOTH std::uint8_t to_e4m3(float x) {
  const std::uint32_t sign = bits_of(x) >> 24 & 0x80;
  float size = fabsf(x);
  if (size > 448.0f) size = 448.0f;
  std::uint32_t code;
  if (size < 0.015625f) {  // below 2^-6: steps of 2^-9; a carry gives the smallest normal number
    code = static_cast<std::uint32_t>(rintf(size * 512.0f));
  } else {
    const std::uint32_t bits = bits_of(size);
    code = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120u << 3);
  }
  return static_cast<std::uint8_t>(sign | code);
}
FASTLLM_BOTH float from_e4m3(std::uint8_t code) {
  const std::uint32_t exponent = code >> 3 & 15;
  const std::uint32_t mantissa = code & 7;
  const float size =
      exponent == 0 ? static_cast<float>(mantissa) * 0.001953125f : float_of((exponent + 120) << 23 | mantissa << 20);
  return code & 0x80 ? -size : size;
}

// What one group of numbers shares.
struct Group {
  float scale = 0.0f;
  float zero = 0.0f;  // a code: that of 0
};

// The extremes of a group: its smallest and largest number.
FASTLLM_BOTH Group group_of(Code code, bool asymmetric, bool rounded, float low, float high) {
  Group g;
  if (code == Code::int4 && asymmetric) {
    low = low < 0.0f ? low : 0.0f;
    high = high > 0.0f ? high : 0.0f;
    g.scale = (high - low) / 15.0f;
  } else if (code == Code::int4) {
    g.scale = (-low > high ? low : high) / -8.0f;  // the number of largest size is code 0 exactly
    g.zero = 8.0f;
  } else {
    const float size = -low > high ? -low : high;
    g.scale = size / (code == Code::int8 ? 127.0f : 448.0f);
  }
  if (rounded) g.scale = round_bf16(g.scale);
  if (code == Code::int4 && asymmetric && g.scale > 0.0f) {
    const float zero = rintf(-low / g.scale);
    g.zero = zero < 0.0f ? 0.0f : zero > 15.0f ? 15.0f : zero;
  }
  return g;
}

// What turns a token's numbers into e4m3 codes: code = e4m3(x * inverse), and a sum of products of codes times `scale`
// is one of numbers. `most`: the largest size among them; where that is not finite nothing is, and both are NaN. Sizes
// below 2^-64 count as 0.
struct TokenScale {
  float scale, inverse;
};
FASTLLM_BOTH TokenScale token_scale(float most) {
  if (!(most <= 3.4028235e38f)) return {float_of(0x7fc00000u), float_of(0x7fc00000u)};
  const float size = most < 0x1p-64f ? 0x1p-64f : most;
  return {size / 448.0f, 448.0f / size};
}

// One byte a number; int4: 0 to 15, int8: two's complement, fp8: e4m3.
FASTLLM_BOTH std::uint8_t encode(Code code, const Group& g, float x) {
  const float q = g.scale != 0.0f ? x / g.scale : 0.0f;
  if (code == Code::fp8) return to_e4m3(q);
  const float least = code == Code::int8 ? -127.0f : 0.0f;
  const float most = code == Code::int8 ? 127.0f : 15.0f;
  float c = rintf(q) + (code == Code::int8 ? 0.0f : g.zero);
  c = c < least ? least : c > most ? most : c;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(c));
}

// The number without its scale: exact in bfloat16.
FASTLLM_BOTH float unscaled(Code code, const Group& g, std::uint8_t byte) {
  if (code == Code::fp8) return from_e4m3(byte);
  if (code == Code::int8) return static_cast<float>(static_cast<std::int8_t>(byte));
  return static_cast<float>(byte) - g.zero;
}

}  // namespace fastllm::quant
