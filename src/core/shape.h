#pragma once
// Shapes and strides: up to kMaxRank axes, in elements, held inline so that views are plain values.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

namespace fastllm::core {

constexpr int kMaxRank = 6;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  explicit Shape(std::span<const std::int64_t> dims);  // Error(shape_error) above kMaxRank axes or on a negative size
  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }
  std::int64_t& operator[](int axis) { return dims_[static_cast<std::size_t>(axis)]; }
  std::int64_t back() const { return dims_[static_cast<std::size_t>(rank_ - 1)]; }
  std::int64_t numel() const;
  std::span<const std::int64_t> dims() const { return {dims_.data(), static_cast<std::size_t>(rank_)}; }
  bool operator==(const Shape& other) const;
  std::string str() const;  // "[32, 4096]"
  Shape contiguous_strides() const;  // row-major strides, in elements

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// Strides under which memory laid out as (shape, strides) reads as shape `to` without a copy; nothing when there are
// none. Both shapes have the same number of elements.
std::optional<Shape> reshape_strides(const Shape& shape, const Shape& strides, const Shape& to);

}  // namespace fastllm::core
