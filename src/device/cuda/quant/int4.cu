// linear with weights of 4-bit integers: their own file, for they compile side by side.

#include "device/cuda/quant/linear.cuh"

namespace fastllm::cuda {

void linear_int4(const Context& c, const device::Linear& op, const View& x, const View* residual, const DeviceLinear& l,
                 const View& out) {
  launch_codes<quant::Code::int4>(c, op, x, residual, l, out);
}

}  // namespace fastllm::cuda
