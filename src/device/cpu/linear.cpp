#include "device/cpu/linear.h"

#include "core/error.h"
#include "device/cpu/layout.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::Tensor;

namespace {

device::View view_of(const Tensor& tensor) {
  return {tensor.data(), tensor.dtype(), tensor.shape(), tensor.strides()};
}

Tensor converted(const Tensor& tensor, DType dtype) {
  Tensor copy = Tensor::empty(dtype, tensor.shape());
  const device::View from = view_of(tensor);
  const device::View to = view_of(copy);
  if (from.dtype == to.dtype)
    strided_copy(from, to, nullptr);
  else
    reference::copy({}, {&from, 1}, {&to, 1});
  return copy;
}

}  // namespace

CpuLinear::CpuLinear(std::span<const device::LinearPart> parts) {
  if (parts.empty()) core::fail(ErrorCode::shape_error, "[linear] no weight was given.");
  for (const device::LinearPart& part : parts) {
    if (!part.weight.defined() || part.weight.shape().rank() != 2)
      core::fail(ErrorCode::shape_error,
                 cat("[linear] the weight has shape ", part.weight.defined() ? part.weight.shape().str() : "(none)",
                     ", but a weight is [out_features, in_features]."));
    Tensor weight = part.weight;
    const std::int64_t rows = weight.shape()[0];
    const std::int64_t columns = weight.shape()[1];
    if (blocks_.empty()) in_features = columns;
    if (columns != in_features)
      core::fail(ErrorCode::shape_error, cat("[linear] one weight has ", in_features, " input features and another ",
                                             columns, ". Parts of one product share their input."));
    if (weight.dtype() == DType::f64) {
      weight = converted(weight, DType::f32);
    } else if (weight.dtype() != DType::f32 && weight.dtype() != DType::f16 && weight.dtype() != DType::bf16) {
      core::fail(ErrorCode::dtype_error,
                 cat("[linear] the weight is ", core::dtype_name(weight.dtype()),
                     ", but the CPU kernels read float32, float16 and bfloat16."),
                 "Cast it first.");
    }
    // A transposed view (Conv1D checkpoints) becomes contiguous here, once.
    if (columns > 1 && weight.strides()[1] != 1) weight = converted(weight, weight.dtype());
    LinearBlock block{weight.data(), weight.dtype(), rows, weight.strides()[0], nullptr};
    if (part.bias.defined()) {
      if (part.bias.shape().rank() != 1 || part.bias.shape()[0] != rows)
        core::fail(ErrorCode::shape_error, cat("[linear] the bias has shape ", part.bias.shape().str(),
                                               ", but the weight has ", rows, " output features."));
      if (!core::is_floating(part.bias.dtype()))
        core::fail(ErrorCode::dtype_error,
                   cat("[linear] the bias is ", core::dtype_name(part.bias.dtype()), ", but must be a float."));
      Tensor bias = part.bias;
      if (bias.dtype() != DType::f32 || !bias.contiguous()) bias = converted(bias, DType::f32);
      block.bias = bias.as<const float>();
      owned_.push_back(std::move(bias));
    }
    owned_.push_back(weight);
    blocks_.push_back(block);
    out_features += rows;
    bytes += static_cast<std::size_t>(rows * columns) * core::dtype_size(weight.dtype());
  }
}

}  // namespace fastllm::cpu
