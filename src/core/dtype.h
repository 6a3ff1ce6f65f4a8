#pragma once
// Element types of dense tensors. Block formats (int4 groups, GGML types ...) are quant::Format, not dtypes.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fastllm::core {

enum class DType : std::uint8_t { f32, f16, bf16, f64, i8, u8, i16, i32, i64, boolean, f8_e4m3, f8_e5m2 };

std::size_t dtype_size(DType dtype);                            // bytes of one element
const char* dtype_name(DType dtype);  // "float32", "bfloat16", "int8", "bool", "float8_e4m3" ...
std::optional<DType> dtype_from_name(
    std::string_view name);  // long, short ("f32", "bf16") and safetensors ("F32", "BF16") names
inline bool is_floating(DType d) {
  return d == DType::f32 || d == DType::f16 || d == DType::bf16 || d == DType::f64 || d == DType::f8_e4m3 ||
         d == DType::f8_e5m2;
}

inline bool is_half(DType d) {
  return d == DType::f16 || d == DType::bf16;
}

}  // namespace fastllm::core
