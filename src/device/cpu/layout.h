#pragma once
// From strided views to the rows that kernels walk.

#include <span>

#include "device/cpu/kernels/kernels.h"
#include "device/op.h"

namespace fastllm::cpu {

// Last axis contiguous float32? Axes of size 1 have no stride that counts.
bool float_rows(const device::View& view);

// The same for f32, f16 and bf16: what kernels read as weights.
bool typed_rows(const device::View& view);

// `view` as if it had `shape` (numpy's broadcasting): new and repeated axes get stride 0.
device::View broadcast(const device::View& view, const core::Shape& shape);

// Folds the outer axes of views of one shape into the two of a RowLayout; false when they need more. Every view's last
// axis has stride 1, or 0 where it repeats one value. With `flatten`, whole rows that lie end to end become longer rows
// (for ops that know no rows).
bool row_layout(std::span<const device::View* const> views, bool flatten, RowLayout* rows);

// Copies elements of one dtype between any strides, in tiles so that a transposition stays in cache; pool may be null.
void strided_copy(const device::View& from, const device::View& to, core::ThreadPool* pool);

}  // namespace fastllm::cpu
