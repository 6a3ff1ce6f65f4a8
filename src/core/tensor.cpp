#include "core/tensor.h"

#include <cstdlib>
#include <new>
#include <span>

#include "core/error.h"

namespace fastllm::core {

std::shared_ptr<Storage> Storage::host(std::size_t bytes) {
  constexpr std::size_t kAlign = 64;
  const std::size_t padded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* data = std::aligned_alloc(kAlign, padded ? padded : kAlign);
  if (!data)
    fail(ErrorCode::out_of_memory, cat("[allocate] the system has no ", bytes, " bytes of memory to give."),
         "Use a smaller batch or context, or a lower-bit model.");
  return std::make_shared<Storage>(data, bytes, Place{}, [data] { std::free(data); });
}

Tensor::Tensor(std::shared_ptr<Storage> storage, DType dtype, Shape shape)
    : Tensor(std::move(storage), dtype, shape, shape.contiguous_strides(), 0) {}

Tensor::Tensor(std::shared_ptr<Storage> storage, DType dtype, Shape shape, Shape strides, std::int64_t offset_bytes)
    : storage_(std::move(storage)), dtype_(dtype), shape_(shape), strides_(strides), offset_bytes_(offset_bytes) {
  std::int64_t last = 0;  // index of the furthest element
  for (int i = 0; i < shape_.rank(); ++i) last += (shape_[i] > 0 ? shape_[i] - 1 : 0) * strides_[i];
  const std::int64_t need = shape_.numel() ? offset_bytes_ + (last + 1) * std::int64_t(dtype_size(dtype_)) : offset_bytes_;
  if (offset_bytes_ < 0 || need > static_cast<std::int64_t>(storage_->bytes()))
    fail(ErrorCode::shape_error, cat("[tensor] a ", dtype_name(dtype_), " tensor of shape ", shape_.str(), " needs ", need,
                                     " bytes, but its storage has ", storage_->bytes(), "."));
}

Tensor Tensor::empty(DType dtype, Shape shape) {
  return Tensor(Storage::host(static_cast<std::size_t>(shape.numel()) * dtype_size(dtype)), dtype, shape);
}

bool Tensor::contiguous() const {
  const Shape want = shape_.contiguous_strides();
  for (int i = 0; i < shape_.rank(); ++i)
    if (shape_[i] != 1 && strides_[i] != want[i]) return false;
  return true;
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.numel() != numel())
    fail(ErrorCode::shape_error, cat("[reshape] shape ", shape.str(), " has ", shape.numel(), " elements, but the tensor ",
                                     shape_.str(), " has ", numel(), "."));
  if (contiguous()) return Tensor(storage_, dtype_, shape, shape.contiguous_strides(), offset_bytes_);
  // Match old and new axes group by group; a group whose old axes are not adjacent in memory has no view.
  Shape strides = shape;
  int old_axis = 0;
  int new_axis = 0;
  while (new_axis < shape.rank() || old_axis < shape_.rank()) {
    std::int64_t old_count = old_axis < shape_.rank() ? shape_[old_axis] : 1;
    std::int64_t new_count = new_axis < shape.rank() ? shape[new_axis] : 1;
    const int old_first = old_axis++;
    const int new_first = new_axis++;
    while (old_count != new_count) {
      if (old_count < new_count) {
        if (old_axis >= shape_.rank()) break;
        old_count *= shape_[old_axis++];
      } else {
        if (new_axis >= shape.rank()) break;
        new_count *= shape[new_axis++];
      }
    }
    for (int a = old_first; a + 1 < old_axis && a + 1 < shape_.rank(); ++a)
      if (shape_[a] != 1 && strides_[a] != strides_[a + 1] * shape_[a + 1])
        fail(ErrorCode::shape_error,
             cat("[reshape] a strided tensor of shape ", shape_.str(), " has no view of shape ", shape.str(), "."),
             "Make it contiguous first.");
    std::int64_t step = old_axis - 1 < shape_.rank() && old_axis > 0 ? strides_[old_axis - 1] : 1;
    for (int a = new_axis - 1; a >= new_first && a < shape.rank(); --a) {
      strides[a] = step;
      step *= shape[a];
    }
  }
  return Tensor(storage_, dtype_, shape, strides, offset_bytes_);
}

Tensor Tensor::slice(int axis, std::int64_t start, std::int64_t stop) const {
  if (axis < 0 || axis >= shape_.rank())
    fail(ErrorCode::shape_error, cat("[slice] axis ", axis, " of a tensor with ", shape_.rank(), " axes."));
  if (start < 0 || stop < start || stop > shape_[axis])
    fail(ErrorCode::shape_error,
         cat("[slice] range ", start, ":", stop, " lies outside axis ", axis, " of size ", shape_[axis], "."));
  Shape shape = shape_;
  shape[axis] = stop - start;
  const std::int64_t offset = offset_bytes_ + start * strides_[axis] * static_cast<std::int64_t>(dtype_size(dtype_));
  return Tensor(storage_, dtype_, shape, strides_, shape.numel() ? offset : offset_bytes_);
}

Tensor Tensor::permute(std::span<const int> axes) const {
  if (static_cast<int>(axes.size()) != shape_.rank())
    fail(ErrorCode::shape_error, cat("[permute] ", axes.size(), " axes named for a tensor with ", shape_.rank(), "."));
  Shape shape = shape_;
  Shape strides = strides_;
  unsigned seen = 0;
  for (int i = 0; i < shape_.rank(); ++i) {
    const int a = axes[static_cast<std::size_t>(i)];
    if (a < 0 || a >= shape_.rank() || (seen >> a & 1u))
      fail(ErrorCode::shape_error, cat("[permute] axis ", a, " is out of range or named twice."));
    seen |= 1u << a;
    shape[i] = shape_[a];
    strides[i] = strides_[a];
  }
  return Tensor(storage_, dtype_, shape, strides, offset_bytes_);
}

}  // namespace fastllm::core
