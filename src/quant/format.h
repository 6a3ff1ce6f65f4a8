#pragma once
// Weight formats: what a Linear's rows become when fewer bits must do. A format is a code of 4 or 8 bits and how many
// numbers along a row share a scale. Backends read formats with kernels of their own, or fall back to `dequantize`.
//
//   fp8   fp8_g128                     float8 e4m3, a scale per row or per 32, 64, 128 numbers of a row
//   fp8_dynamic                        fp8, and inputs become float8, too, with a scale per token (below)
//   int8  int8_g32 int8_g64 int8_g128  -127 to 127 steps, a scale per row or group
//   int4  int4_g32 int4_g64 int4_row   16 levels, a scale per group (128 where no other is named) or row
//   int4_asym ...                      the same with a zero point: for weights that lean to one side
//
// Scales of rows are float32 and multiply the sum of a product; scales of groups are bfloat16 and multiply the number, which is
// then rounded to the weight's dtype: reference and kernels alike.
//
// fp8_dynamic (compressed-tensors' FP8_DYNAMIC): a product first makes e4m3 codes of its inputs, with a float32 scale a
// token that is the largest size in it over 448 (`TokenScale` of encode.h), and multiplies codes with codes. Inputs are
// rounded on every device, so that a model answers the same everywhere.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/target.h"
#include "core/tensor.h"

namespace fastllm::quant {

enum class Code : std::uint8_t { fp8, int8, int4 };

struct Format {
  Code code = Code::int8;
  int group = 0;  // numbers that share a scale; 0: a whole row
  bool asymmetric = false;  // int4 alone
  bool dynamic = false;     // inputs become codes as well; fp8 with a scale per row alone

  FASTLLM_BOTH_MEMBER int bits() const { return code == Code::int4 ? 4 : 8; }
  // A scale per row that multiplies sums. int4 has none such: its rows are groups that share one scale.
  FASTLLM_BOTH_MEMBER bool scales_sums() const { return group == 0 && code != Code::int4; }
  bool operator==(const Format&) const = default;
};

// Error(invalid_config) that names the formats there are.
Format format_of(std::string_view name);
std::string name_of(const Format& format);
std::vector<std::string> format_names();

// Bits that one number of a row of `depth` takes, scales and zero points included.
double bits_per_weight(const Format& format, std::int64_t depth);

// No number of a group comes back further from itself than this times the largest size in the group (asymmetric: the
// span of the group, 0 included), before the result is rounded to a 16-bit dtype.
double error_bound(const Format& format);

struct Quantized {
  Format format;
  std::int64_t rows = 0, depth = 0;
  std::vector<std::uint8_t> codes;  // [rows, depth], a byte each
  std::vector<float> scales;  // [rows, groups]
  std::vector<float> zeros;   // [rows, groups]: codes; empty but for int4

  std::int64_t groups() const { return format.group == 0 ? 1 : (depth + format.group - 1) / format.group; }
};

// The reference. `rows` is [N, K] in host memory, f32, f16 or bf16, any strides. Error(dtype_error) otherwise;
// Error(invalid_request) for a number that is not finite.
Quantized quantize(const Format& format, const core::Tensor& rows);
// [N, K] of `dtype` (f32, f16, bf16).
core::Tensor dequantize(const Quantized& quantized, core::DType dtype);
// dequantize(quantize()): what a product with the format computes with, for backends without a kernel for it.
core::Tensor rounded(const Format& format, const core::Tensor& rows);
// What a product with `fp8_dynamic` makes of `count` inputs, those of one token: codes times their scale. All are NaN
// where one is not finite. `to` may be `from`.
void round_token(const float* from, float* to, std::int64_t count);

}  // namespace fastllm::quant
