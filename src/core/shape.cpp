#include "core/shape.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace fastllm::core {

Shape::Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  if (dims.size() > static_cast<std::size_t>(kMaxRank))
    fail(ErrorCode::shape_error, cat("[shape] ", dims.size(), " axes, but a tensor has at most ", kMaxRank, "."));
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 0) fail(ErrorCode::shape_error, cat("[shape] axis ", i, " has the negative size ", dims[i], "."));
    dims_[i] = dims[i];
  }
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  bool wrapped = false;
  for (std::int64_t d : dims()) {
    if (d == 0) return 0;
    wrapped = __builtin_mul_overflow(n, d, &n) || wrapped;
  }
  return wrapped ? std::numeric_limits<std::int64_t>::max() : n;  // no memory is that large: whoever allocates it fails
}

bool Shape::operator==(const Shape& other) const {
  return std::ranges::equal(dims(), other.dims());
}

std::string Shape::str() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) out += (i ? ", " : "") + std::to_string((*this)[i]);
  return out + "]";
}

Shape Shape::contiguous_strides() const {
  Shape strides = *this;
  std::uint64_t step = 1;  // unsigned: absurd shapes wrap around, and fail where memory is asked for
  for (int i = rank_ - 1; i >= 0; --i) {
    strides[i] = static_cast<std::int64_t>(step);
    step *= static_cast<std::uint64_t>((*this)[i]);
  }
  return strides;
}

std::optional<Shape> reshape_strides(const Shape& shape, const Shape& strides, const Shape& to) {
  Shape out = to.contiguous_strides();
  if (shape.numel() == 0) return out;
  std::array<std::int64_t, kMaxRank> sizes{};  // the old axes of more than one element, and their strides
  std::array<std::int64_t, kMaxRank> steps{};
  std::size_t axes = 0;
  for (int i = 0; i < shape.rank(); ++i)
    if (shape[i] != 1) {
      sizes[axes] = shape[i];
      steps[axes++] = strides[i];
    }
  // Old and new axes pair up in groups of equal element count. The old axes of a group must lie in memory as one
  // longer axis.
  int next = 0;
  for (std::size_t first = 0, end; first < axes; first = end) {
    end = first + 1;
    std::int64_t old_count = sizes[first];
    std::int64_t new_count = 1;
    const int group = next;
    while (new_count != old_count || next == group) {
      if (new_count < old_count || next == group)
        new_count *= to[next++];
      else
        old_count *= sizes[end++];
    }
    for (std::size_t a = first; a + 1 < end; ++a)
      if (steps[a] != steps[a + 1] * sizes[a + 1]) return std::nullopt;
    std::int64_t step = steps[end - 1];
    for (int a = next - 1; a >= group; --a) {
      out[a] = step;
      step *= to[a];
    }
  }
  return out;
}

}  // namespace fastllm::core
