#pragma once
// Numbers of every dtype as double or int64, one at a time: what the scalar references read and write with.
// Narrow floats are encoded straight from double with round to nearest even, so nothing is rounded twice.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/dtype.h"
#include "device/op.h"

namespace fastllm::cpu::reference {

// A binary float format narrower than 32 bits: `exponent` and `mantissa` bits and one sign bit. Formats without
// infinities keep only the all-ones code for NaN (e4m3fn); overflow becomes infinity, or NaN where there is none.
template <int exponent, int mantissa, bool has_infinity>
struct NarrowFloat {
  static constexpr int kBias = (1 << (exponent - 1)) - 1;
  static constexpr int kMinExponent = 1 - kBias;  // of the smallest normal number
  static constexpr std::int64_t kInfinity = ((std::int64_t{1} << exponent) - 1) << mantissa;
  static constexpr std::int64_t kNan =
      has_infinity ? kInfinity + (std::int64_t{1} << (mantissa - 1)) : kInfinity + (std::int64_t{1} << mantissa) - 1;
  static constexpr int kBits = 1 + exponent + mantissa;

  static std::uint32_t encode(double value) {
    const std::uint32_t sign = std::signbit(value) ? 1u << (kBits - 1) : 0u;
    if (std::isnan(value)) return sign | static_cast<std::uint32_t>(kNan);
    const double magnitude = std::fabs(value);
    std::int64_t code = 0;
    if (std::isinf(magnitude)) {
      code = has_infinity ? kInfinity : kNan;
    } else if (magnitude > 0) {
      int e = 0;
      std::frexp(magnitude, &e);  // magnitude in [2^(e-1), 2^e)
      e = e - 1 < kMinExponent ? kMinExponent : e - 1;
      // In units of the last place; a carry out of the mantissa moves the code to the next exponent by itself.
      code = (static_cast<std::int64_t>(e - kMinExponent) << mantissa) +
             static_cast<std::int64_t>(std::nearbyint(std::ldexp(magnitude, mantissa - e)));
    }
    if (has_infinity ? code >= kInfinity : code >= kNan) code = has_infinity ? kInfinity : kNan;
    return sign | static_cast<std::uint32_t>(code);
  }

  static double decode(std::uint32_t bits) {
    const bool negative = (bits >> (kBits - 1) & 1u) != 0;
    const std::int64_t code = bits & ((1u << (kBits - 1)) - 1u);
    const std::int64_t e = code >> mantissa;
    const std::int64_t m = code & ((std::int64_t{1} << mantissa) - 1);
    double value = 0;
    if (has_infinity ? code > kInfinity : code == kNan) {
      value = std::numeric_limits<double>::quiet_NaN();
    } else if (has_infinity && code == kInfinity) {
      value = std::numeric_limits<double>::infinity();
    } else if (e == 0) {
      value = std::ldexp(static_cast<double>(m), kMinExponent - mantissa);
    } else {
      value = std::ldexp(static_cast<double>(m + (std::int64_t{1} << mantissa)),
                         static_cast<int>(e) - 1 + kMinExponent - mantissa);
    }
    return negative ? -value : value;
  }
};

using Float16 = NarrowFloat<5, 10, true>;
using BFloat16 = NarrowFloat<8, 7, true>;
using Float8E4M3 = NarrowFloat<4, 3, false>;
using Float8E5M2 = NarrowFloat<5, 2, true>;

inline bool is_integer(core::DType dtype) {
  return !core::is_floating(dtype);
}

template <class T>
T peek(const void* base, std::int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(base) + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}
template <class T>
void poke(void* base, std::int64_t index, T value) {
  std::memcpy(static_cast<char*>(base) + index * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
}

// Element `index` of an integer (or bool) array.
inline std::int64_t load_integer(const void* base, core::DType dtype, std::int64_t index) {
  using core::DType;
  switch (dtype) {
    case DType::i8:
      return peek<std::int8_t>(base, index);
    case DType::u8:
      return peek<std::uint8_t>(base, index);
    case DType::i16:
      return peek<std::int16_t>(base, index);
    case DType::i32:
      return peek<std::int32_t>(base, index);
    case DType::i64:
      return peek<std::int64_t>(base, index);
    case DType::boolean:
      return peek<std::uint8_t>(base, index) != 0;
    default:
      return 0;
  }
}

// Element `index` of an array of any dtype.
inline double load(const void* base, core::DType dtype, std::int64_t index) {
  using core::DType;
  switch (dtype) {
    case DType::f32:
      return peek<float>(base, index);
    case DType::f64:
      return peek<double>(base, index);
    case DType::f16:
      return Float16::decode(peek<std::uint16_t>(base, index));
    case DType::bf16:
      return BFloat16::decode(peek<std::uint16_t>(base, index));
    case DType::f8_e4m3:
      return Float8E4M3::decode(peek<std::uint8_t>(base, index));
    case DType::f8_e5m2:
      return Float8E5M2::decode(peek<std::uint8_t>(base, index));
    default:
      return static_cast<double>(load_integer(base, dtype, index));
  }
}

// An integer stored as any dtype: wraps into narrower integers as numpy does.
inline void store_integer(void* base, core::DType dtype, std::int64_t index, std::int64_t value) {
  using core::DType;
  switch (dtype) {
    case DType::i8:
      return poke(base, index, static_cast<std::int8_t>(value));
    case DType::u8:
      return poke(base, index, static_cast<std::uint8_t>(value));
    case DType::i16:
      return poke(base, index, static_cast<std::int16_t>(value));
    case DType::i32:
      return poke(base, index, static_cast<std::int32_t>(value));
    case DType::i64:
      return poke(base, index, value);
    case DType::boolean:
      return poke(base, index, static_cast<std::uint8_t>(value != 0));
    case DType::f32:
      return poke(base, index, static_cast<float>(value));
    case DType::f64:
      return poke(base, index, static_cast<double>(value));
    case DType::f16:
      return poke(base, index, static_cast<std::uint16_t>(Float16::encode(static_cast<double>(value))));
    case DType::bf16:
      return poke(base, index, static_cast<std::uint16_t>(BFloat16::encode(static_cast<double>(value))));
    case DType::f8_e4m3:
      return poke(base, index, static_cast<std::uint8_t>(Float8E4M3::encode(static_cast<double>(value))));
    case DType::f8_e5m2:
      return poke(base, index, static_cast<std::uint8_t>(Float8E5M2::encode(static_cast<double>(value))));
  }
}

// A float truncated to an integer of type T; out of range saturates and NaN gives 0 (where numpy leaves it undefined).
template <class T>
T saturate(double value) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (value >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

// A float stored as any dtype: round to nearest even into floats, towards zero into integers.
inline void store(void* base, core::DType dtype, std::int64_t index, double value) {
  using core::DType;
  switch (dtype) {
    case DType::f32:
      return poke(base, index, static_cast<float>(value));
    case DType::f64:
      return poke(base, index, value);
    case DType::f16:
      return poke(base, index, static_cast<std::uint16_t>(Float16::encode(value)));
    case DType::bf16:
      return poke(base, index, static_cast<std::uint16_t>(BFloat16::encode(value)));
    case DType::f8_e4m3:
      return poke(base, index, static_cast<std::uint8_t>(Float8E4M3::encode(value)));
    case DType::f8_e5m2:
      return poke(base, index, static_cast<std::uint8_t>(Float8E5M2::encode(value)));
    case DType::i8:
      return poke(base, index, saturate<std::int8_t>(value));
    case DType::u8:
      return poke(base, index, saturate<std::uint8_t>(value));
    case DType::i16:
      return poke(base, index, saturate<std::int16_t>(value));
    case DType::i32:
      return poke(base, index, saturate<std::int32_t>(value));
    case DType::i64:
      return poke(base, index, saturate<std::int64_t>(value));
    case DType::boolean:
      return poke(base, index, static_cast<std::uint8_t>(value != 0));
  }
}

inline double load(const device::View& view, std::int64_t offset) {
  return load(view.data, view.dtype, offset);
}
inline void store(const device::View& view, std::int64_t offset, double value) {
  store(view.data, view.dtype, offset, value);
}

// Calls f(index) for every index of the first `axes` axes of `shape`, in row-major order; index: array of coordinates.
template <class F>
void for_each_index(const core::Shape& shape, int axes, F f) {
  std::int64_t index[core::kMaxRank] = {};
  for (int a = 0; a < axes; ++a)
    if (shape[a] == 0) return;
  for (;;) {
    f(static_cast<const std::int64_t*>(index));
    int a = axes - 1;
    for (; a >= 0; --a) {
      if (++index[a] < shape[a]) break;
      index[a] = 0;
    }
    if (a < 0) return;
  }
}

// Offset in elements of `index`'s first `axes` coordinates.
inline std::int64_t offset_of(const device::View& view, const std::int64_t* index, int axes) {
  std::int64_t offset = 0;
  for (int a = 0; a < axes; ++a) offset += index[a] * view.stride[a];
  return offset;
}

}  // namespace fastllm::cpu::reference
