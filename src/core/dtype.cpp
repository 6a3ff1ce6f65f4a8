#include "core/dtype.h"

#include <array>

namespace fastllm::core {
namespace {

struct Row {
  DType dtype;
  std::size_t size;
  const char* name;
  std::string_view brief;
  std::string_view safetensors;
};

constexpr std::array<Row, 12> kRows{{
    {DType::f32, 4, "float32", "f32", "F32"},
    {DType::f16, 2, "float16", "f16", "F16"},
    {DType::bf16, 2, "bfloat16", "bf16", "BF16"},
    {DType::f64, 8, "float64", "f64", "F64"},
    {DType::i8, 1, "int8", "i8", "I8"},
    {DType::u8, 1, "uint8", "u8", "U8"},
    {DType::i16, 2, "int16", "i16", "I16"},
    {DType::i32, 4, "int32", "i32", "I32"},
    {DType::i64, 8, "int64", "i64", "I64"},
    {DType::boolean, 1, "bool", "bool", "BOOL"},
    {DType::f8_e4m3, 1, "float8_e4m3", "f8_e4m3", "F8_E4M3"},
    {DType::f8_e5m2, 1, "float8_e5m2", "f8_e5m2", "F8_E5M2"},
}};

const Row& row(DType dtype) {
  return kRows[static_cast<std::size_t>(dtype)];
}

}  // namespace

std::size_t dtype_size(DType dtype) {
  return row(dtype).size;
}
const char* dtype_name(DType dtype) {
  return row(dtype).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& r : kRows)
    if (name == r.name || name == r.brief || name == r.safetensors) return r.dtype;
  return std::nullopt;
}

}  // namespace fastllm::core
