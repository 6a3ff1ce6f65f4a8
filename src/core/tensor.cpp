#include "core/tensor.h"

#include <cstdlib>
#include <optional>
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
  const auto size = static_cast<std::int64_t>(dtype_size(dtype_));
  std::int64_t count = size;  // bytes, guarded against shapes whose product wraps around
  for (std::int64_t dim : shape_.dims())
    if (__builtin_mul_overflow(count, dim, &count))
      fail(ErrorCode::shape_error,
           cat("[tensor] the shape ", shape_.str(), " has more elements than memory could ever hold."));
  std::int64_t low = 0;  // index of the lowest and the highest element (strides may be negative)
  std::int64_t high = 0;
  for (int i = 0; i < shape_.rank(); ++i) {
    const std::int64_t reach = (shape_[i] > 0 ? shape_[i] - 1 : 0) * strides_[i];
    (reach < 0 ? low : high) += reach;
  }
  const std::int64_t need = count ? offset_bytes_ + (high + 1) * size : offset_bytes_;
  if (offset_bytes_ + (count ? low * size : 0) < 0 || need > static_cast<std::int64_t>(storage_->bytes()))
    fail(ErrorCode::shape_error, cat("[tensor] a ", dtype_name(dtype_), " tensor of shape ", shape_.str(), " needs ",
                                     need, " bytes, but its storage has ", storage_->bytes(), "."));
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
    fail(ErrorCode::shape_error, cat("[reshape] shape ", shape.str(), " has ", shape.numel(),
                                     " elements, but the tensor ", shape_.str(), " has ", numel(), "."));
  const std::optional<Shape> strides = reshape_strides(shape_, strides_, shape);
  if (!strides)
    fail(ErrorCode::shape_error,
         cat("[reshape] a strided tensor of shape ", shape_.str(), " has no view of shape ", shape.str(), "."),
         "Make it contiguous first.");
  return Tensor(storage_, dtype_, shape, *strides, offset_bytes_);
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
