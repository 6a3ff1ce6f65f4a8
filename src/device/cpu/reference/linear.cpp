// Linear and MatMul: dot products in double, in the order of k.
#include "device/cpu/linear.h"

#include <vector>

#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::View;

void linear(const device::Linear& op, const CpuLinear& weight, Views in, Views out) {
  const View& x = in[0];   // [T, K]
  const View& y = out[0];  // [T, N]
  const std::int64_t k_size = x.shape[1];
  std::vector<double> row(static_cast<std::size_t>(k_size));
  for (std::int64_t t = 0; t < x.shape[0]; ++t) {
    for (std::int64_t k = 0; k < k_size; ++k)
      row[static_cast<std::size_t>(k)] = load(x, t * x.stride[0] + k * x.stride[1]);
    std::int64_t column = 0;
    for (const LinearBlock& block : weight.blocks()) {
      for (std::int64_t n = 0; n < block.rows; ++n, ++column) {
        double sum = 0;
        for (std::int64_t k = 0; k < k_size; ++k)
          sum += row[static_cast<std::size_t>(k)] * load(block.weight, block.dtype, n * block.row_stride + k);
        sum *= op.scale;
        if (block.bias) sum += block.bias[n];
        sum = activate(op.activation, sum);
        if (op.add_residual) sum += load(in[1], t * in[1].stride[0] + column * in[1].stride[1]);
        store(y, t * y.stride[0] + column * y.stride[1], sum);
      }
    }
  }
}

void mat_mul(const device::MatMul&, Views in, Views out) {
  const View& a = in[0];   // [..., M, K]
  const View& b = in[1];   // [..., K, N]
  const View& y = out[0];  // [..., M, N]
  const int rank = y.shape.rank();
  const int lead = rank - 2;
  // Offset of a batch index in an operand whose leading axes may be fewer or of size 1.
  const auto batch_offset = [&](const View& view, const std::int64_t* index) {
    const int own_lead = view.shape.rank() - 2;
    std::int64_t offset = 0;
    for (int axis = 0; axis < own_lead; ++axis)
      if (view.shape[axis] != 1) offset += index[lead - own_lead + axis] * view.stride[axis];
    return offset;
  };
  const int ar = a.shape.rank();
  const int br = b.shape.rank();
  const std::int64_t k_size = a.shape[ar - 1];
  for_each_index(y.shape, rank, [&](const std::int64_t* index) {
    const std::int64_t row = batch_offset(a, index) + index[rank - 2] * a.stride[ar - 2];
    const std::int64_t column = batch_offset(b, index) + index[rank - 1] * b.stride[br - 1];
    double sum = 0;
    for (std::int64_t k = 0; k < k_size; ++k)
      sum += load(a, row + k * a.stride[ar - 1]) * load(b, column + k * b.stride[br - 2]);
    store(y, offset_of(y, index, rank), sum);
  });
}

}  // namespace fastllm::cpu::reference
