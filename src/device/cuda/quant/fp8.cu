// linear with weights of float8 e4m3: their own file, for they compile side by side.

#include "device/cuda/quant/linear.cuh"

namespace fastllm::cuda {

void linear_fp8(const Context& c, const device::Linear& op, const View& x, const View* residual, const DeviceLinear& l,
                const View& out) {
  launch_codes<quant::Code::fp8>(c, op, x, residual, l, out);
}

}  // namespace fastllm::cuda
