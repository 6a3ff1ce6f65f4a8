#pragma once
// A Linear's dense weight on the CPU: row-major blocks where they are mapped, side by side in the output. Nothing is
// copied except biases (to float32) and weights whose rows are not contiguous or whose dtype no kernel reads.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "device/backend.h"

namespace fastllm::cpu {

struct LinearBlock {
  const void* weight = nullptr;  // [rows, K], row_stride elements apart
  core::DType dtype = core::DType::f32;  // f32, f16 or bf16
  std::int64_t rows = 0;
  std::int64_t row_stride = 0;
  const float* bias = nullptr;  // [rows] or none
};

class CpuLinear final : public device::PackedLinear {
 public:
  // Error(shape_error/dtype_error) when the parts make no product.
  explicit CpuLinear(std::span<const device::LinearPart> parts);
  std::span<const LinearBlock> blocks() const { return blocks_; }
  bool rounds_inputs = false;  // quant::Format::dynamic

 private:
  std::vector<LinearBlock> blocks_;
  std::vector<core::Tensor> owned_;  // keeps weights and converted biases alive
};

}  // namespace fastllm::cpu
