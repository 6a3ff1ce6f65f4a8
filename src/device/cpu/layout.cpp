#include "device/cpu/layout.h"

#include <algorithm>
#include <cstring>

namespace fastllm::cpu {

using core::DType;
using core::Shape;
using device::View;

namespace {

bool last_contiguous(const View& view) {
  const int last = view.shape.rank() - 1;
  return last >= 0 && (view.stride[last] == 1 || view.shape[last] == 1);
}

}  // namespace

bool float_rows(const View& view) {
  return view.dtype == DType::f32 && last_contiguous(view);
}

bool typed_rows(const View& view) {
  return (view.dtype == DType::f32 || view.dtype == DType::f16 || view.dtype == DType::bf16) && last_contiguous(view);
}

View broadcast(const View& view, const Shape& shape) {
  View wide = view;
  wide.shape = shape;
  wide.stride = shape;
  const int lead = shape.rank() - view.shape.rank();
  for (int a = 0; a < shape.rank(); ++a) {
    const int own = a - lead;
    wide.stride[a] = own < 0 || (view.shape[own] == 1 && shape[a] != 1) ? 0 : view.stride[own];
  }
  return wide;
}

bool row_layout(std::span<const View* const> views, bool flatten, RowLayout* rows) {
  const Shape& shape = views[0]->shape;
  const int rank = shape.rank();
  if (rank == 0) return false;
  std::int64_t step[4];  // of the last axis
  rows->n = shape[rank - 1];
  for (std::size_t v = 0; v < views.size(); ++v) step[v] = rows->n == 1 ? 1 : views[v]->stride[rank - 1];
  // Axes from the inside out; `found` of them so far, merged where each view's strides allow.
  std::int64_t size[core::kMaxRank];
  std::int64_t stride[core::kMaxRank][4];
  int found = 0;
  for (int a = rank - 2; a >= 0; --a) {
    if (shape[a] == 1) continue;
    const auto continues = [&](auto inner_stride, std::int64_t inner_size) {
      for (std::size_t v = 0; v < views.size(); ++v)
        if (views[v]->stride[a] != inner_stride(v) * inner_size) return false;
      return true;
    };
    if (found == 0 && flatten && continues([&](std::size_t v) { return step[v]; }, rows->n)) {
      rows->n *= shape[a];
    } else if (found > 0 && continues([&](std::size_t v) { return stride[found - 1][v]; }, size[found - 1])) {
      size[found - 1] *= shape[a];
    } else {
      size[found] = shape[a];
      for (std::size_t v = 0; v < views.size(); ++v) stride[found][v] = views[v]->stride[a];
      ++found;
    }
  }
  if (found > 2) return false;
  rows->inner = found > 0 ? size[0] : 1;
  rows->outer = found > 1 ? size[1] : 1;
  for (std::size_t v = 0; v < views.size(); ++v) {
    rows->inner_stride[v] = found > 0 ? stride[0][v] : 0;
    rows->outer_stride[v] = found > 1 ? stride[1][v] : 0;
  }
  return true;
}

namespace {

constexpr std::int64_t kTile = 32;

template <class T>
void copy_plane(const T* from, T* to, std::int64_t rows, std::int64_t columns, std::int64_t from_row,
                std::int64_t from_column, std::int64_t to_row, std::int64_t to_column) {
  if (from_column == 1 && to_column == 1) {
    for (std::int64_t i = 0; i < rows; ++i)
      std::memcpy(to + i * to_row, from + i * from_row, static_cast<std::size_t>(columns) * sizeof(T));
    return;
  }
  for (std::int64_t j0 = 0; j0 < columns; j0 += kTile)
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = j0; j < std::min(columns, j0 + kTile); ++j)
        to[i * to_row + j * to_column] = from[i * from_row + j * from_column];
}

template <class T>
void copy_typed(const View& from, const View& to, core::ThreadPool* pool) {
  // The last two axes are a plane; planes are cut into bands of kTile rows.
  const int rank = to.shape.rank();
  const auto axis = [&](const Shape& s, int a, std::int64_t none) { return a >= 0 ? s[a] : none; };
  const std::int64_t rows = axis(to.shape, rank - 2, 1);
  const std::int64_t columns = axis(to.shape, rank - 1, 1);
  const std::int64_t bands = (rows + kTile - 1) / kTile;
  std::int64_t planes = 1;
  for (int a = 0; a < rank - 2; ++a) planes *= to.shape[a];
  if (planes * rows * columns == 0) return;
  const auto copy_bands = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t band = begin; band < end; ++band) {
      std::int64_t plane = band / bands;
      const std::int64_t row = band % bands * kTile;
      std::int64_t from_offset = row * axis(from.stride, rank - 2, 0);
      std::int64_t to_offset = row * axis(to.stride, rank - 2, 0);
      for (int a = rank - 3; a >= 0; --a) {
        from_offset += plane % to.shape[a] * from.stride[a];
        to_offset += plane % to.shape[a] * to.stride[a];
        plane /= to.shape[a];
      }
      copy_plane(static_cast<const T*>(from.data) + from_offset, static_cast<T*>(to.data) + to_offset,
                 std::min(kTile, rows - row), columns, axis(from.stride, rank - 2, 0), axis(from.stride, rank - 1, 1),
                 axis(to.stride, rank - 2, 0), axis(to.stride, rank - 1, 1));
    }
  };
  if (pool)
    pool->parallel_for(planes * bands, std::max<std::int64_t>(1, 65536 / (kTile * columns)), copy_bands);
  else
    copy_bands(0, planes * bands);
}

}  // namespace

void strided_copy(const View& from, const View& to, core::ThreadPool* pool) {
  switch (core::dtype_size(to.dtype)) {
    case 1:
      return copy_typed<std::uint8_t>(from, to, pool);
    case 2:
      return copy_typed<std::uint16_t>(from, to, pool);
    case 4:
      return copy_typed<std::uint32_t>(from, to, pool);
    default:
      return copy_typed<std::uint64_t>(from, to, pool);
  }
}

}  // namespace fastllm::cpu
