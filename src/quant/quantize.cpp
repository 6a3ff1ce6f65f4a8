// The reference of every weight format: scalar, in the order of the definition. Kernels are checked against it.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "core/threads.h"
#include "quant/encode.h"
#include "quant/format.h"

namespace fastllm::quant {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::Tensor;

namespace {

float from_f16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = bits >> 10 & 31;
  const std::uint32_t mantissa = bits & 1023;
  if (exponent == 0) {
    const float size = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -size : size;
  }
  if (exponent == 31) return float_of(sign | 0x7f800000u | mantissa << 13);
  return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

// To nearest even; what is too large becomes infinity.
std::uint16_t to_f16(float x) {
  const std::uint32_t bits = bits_of(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const float size = std::fabs(x);
  if (!(size < 65520.0f)) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (size < 0x1p-14f) return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::rint(size * 0x1p24f)));
  const std::uint32_t b = bits_of(size);
  return static_cast<std::uint16_t>(sign | (((b + 0xfff + (b >> 13 & 1)) >> 13) - (112u << 10)));
}

float number(const Tensor& t, std::int64_t row, std::int64_t column) {
  const std::int64_t at = row * t.strides()[0] + column * t.strides()[1];
  switch (t.dtype()) {
    case DType::f32:
      return t.as<float>()[at];
    case DType::bf16:
      return float_of(static_cast<std::uint32_t>(t.as<std::uint16_t>()[at]) << 16);
    default:
      return from_f16(t.as<std::uint16_t>()[at]);
  }
}

void store(const Tensor& t, std::int64_t at, float x) {
  if (t.dtype() == DType::f32)
    t.as<float>()[at] = x;
  else
    t.as<std::uint16_t>()[at] =
        t.dtype() == DType::bf16 ? static_cast<std::uint16_t>(bits_of(round_bf16(x)) >> 16) : to_f16(x);
}

// Rows are independent: as many threads as there are cores, for a model's weights are billions of numbers.
template <class F>
void for_rows(std::int64_t rows, std::int64_t depth, F&& f) {
  const std::int64_t most = std::max(1, core::usable_cores());
  const std::int64_t threads = std::min({most, rows, 1 + rows * depth / (1 << 18)});
  std::vector<std::thread> others;
  const auto part = [&](std::int64_t i) {
    for (std::int64_t row = rows * i / threads; row < rows * (i + 1) / threads; ++row) f(row);
  };
  for (std::int64_t i = 1; i < threads; ++i) others.emplace_back(part, i);
  part(0);
  for (std::thread& thread : others) thread.join();
}

}  // namespace

Quantized quantize(const Format& format, const Tensor& rows) {
  if (rows.dtype() != DType::f32 && !core::is_half(rows.dtype()))
    core::fail(
        ErrorCode::dtype_error,
        cat("[quant] a weight of dtype ", core::dtype_name(rows.dtype()), " cannot become ", name_of(format), "."),
        "float32, float16 and bfloat16 can.");
  Quantized q{format, rows.shape()[0], rows.shape()[1], {}, {}, {}};
  const std::int64_t groups = q.groups();
  const std::int64_t width = format.group == 0 ? q.depth : format.group;
  q.codes.resize(static_cast<std::size_t>(q.rows * q.depth));
  q.scales.resize(static_cast<std::size_t>(q.rows * groups));
  if (format.code == Code::int4) q.zeros.resize(q.scales.size());
  std::atomic<std::int64_t> bad{-1};
  for_rows(q.rows, q.depth, [&](std::int64_t row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = g * width;
      const std::int64_t last = std::min(q.depth, first + width);
      float low = number(rows, row, first);
      float high = low;
      for (std::int64_t k = first; k < last; ++k) {
        const float x = number(rows, row, k);
        if (!std::isfinite(x)) bad = row;
        low = std::min(low, x);
        high = std::max(high, x);
      }
      if (bad >= 0) return;
      const Group group = group_of(format.code, format.asymmetric, !format.scales_sums(), low, high);
      const auto at = static_cast<std::size_t>(row * groups + g);
      q.scales[at] = group.scale;
      if (!q.zeros.empty()) q.zeros[at] = group.zero;
      for (std::int64_t k = first; k < last; ++k)
        q.codes[static_cast<std::size_t>(row * q.depth + k)] = encode(format.code, group, number(rows, row, k));
    }
  });
  if (bad >= 0)
    core::fail(ErrorCode::invalid_request,
               cat("[quant] row ", bad.load(), " of a weight holds a number that is not finite, which ",
                   name_of(format), " has no code for."),
               "The checkpoint is damaged, or was saved from a training that diverged.");
  return q;
}

Tensor dequantize(const Quantized& q, DType dtype) {
  Tensor out = Tensor::empty(dtype, {q.rows, q.depth});
  const std::int64_t groups = q.groups();
  const std::int64_t width = q.format.group == 0 ? q.depth : q.format.group;
  for_rows(q.rows, q.depth, [&](std::int64_t row) {
    for (std::int64_t k = 0; k < q.depth; ++k) {
      const auto at = static_cast<std::size_t>(row * groups + k / width);
      const Group group{q.scales[at], q.zeros.empty() ? 0.0f : q.zeros[at]};
      const std::int64_t i = row * q.depth + k;
      store(out, i, unscaled(q.format.code, group, q.codes[static_cast<std::size_t>(i)]) * group.scale);
    }
  });
  return out;
}

Tensor rounded(const Format& format, const Tensor& rows) {
  return dequantize(quantize(format, rows), rows.dtype());
}

void round_token(const float* from, float* to, std::int64_t count) {
  float most = 0.0f;
  for (std::int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(from[i]);
    if (!(size <= most)) most = size;  // takes a NaN, and a NaN stays
    if (std::isnan(most)) break;
  }
  const TokenScale t = token_scale(most);
  for (std::int64_t i = 0; i < count; ++i) {
    const float scaled = from[i] * t.inverse;
    to[i] = std::isnan(scaled) ? scaled : from_e4m3(to_e4m3(scaled)) * t.scale;
  }
}

}  // namespace fastllm::quant
