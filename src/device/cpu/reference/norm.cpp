// RmsNorm (Zhang & Sennrich 2019), AddRmsNorm, LayerNorm (Ba et al. 2016) and Softmax over the last axis. Each row is
// read whole before it is written, so exact aliases are safe.
#include <cmath>
#include <vector>

#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::View;

namespace {

// Calls f(row, input offset, output offset) for every row; row: [N] doubles read from x.
template <class F>
void for_each_row(const View& x, const View& y, F f) {
  const int lead = y.shape.rank() - 1;
  const std::int64_t n = y.shape.back();
  std::vector<double> row(static_cast<std::size_t>(n));
  for_each_index(y.shape, lead, [&](const std::int64_t* index) {
    const std::int64_t from = offset_of(x, index, lead);
    for (std::int64_t i = 0; i < n; ++i) row[static_cast<std::size_t>(i)] = load(x, from + i * x.stride[lead]);
    f(row, index, offset_of(y, index, lead));
  });
}

void write_rms_norm(const std::vector<double>& row, const View& weight, const View& y, std::int64_t to, double eps,
                    double weight_offset) {
  double sum = 0;
  for (const double v : row) sum += v * v;
  const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(row.size()) + eps);
  const std::int64_t step = y.stride[y.stride.rank() - 1];
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto k = static_cast<std::int64_t>(i);
    store(y, to + k * step, row[i] * inverse * (weight_offset + load(weight, k * weight.stride[0])));
  }
}

}  // namespace

void rms_norm(const device::RmsNorm& op, Views in, Views out) {
  for_each_row(in[0], out[0], [&](const std::vector<double>& row, const std::int64_t*, std::int64_t to) {
    write_rms_norm(row, in[1], out[0], to, op.eps, op.weight_offset);
  });
}

void add_rms_norm(const device::AddRmsNorm& op, Views in, Views out) {
  const View& residual = in[1];  // [T, N]
  const View& sum = out[0];  // [T, N]
  const int lead = sum.shape.rank() - 1;
  std::vector<double> total;
  for_each_row(in[0], out[1], [&](const std::vector<double>& row, const std::int64_t* index, std::int64_t to) {
    total = row;
    const std::int64_t from = offset_of(residual, index, lead);
    const std::int64_t at = offset_of(sum, index, lead);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const auto k = static_cast<std::int64_t>(i);
      total[i] += load(residual, from + k * residual.stride[lead]);
      store(sum, at + k * sum.stride[lead], total[i]);
      total[i] = load(sum, at + k * sum.stride[lead]);  // the norm sees the sum as it was stored
    }
    write_rms_norm(total, in[2], out[1], to, op.eps, op.weight_offset);
  });
}

void layer_norm(const device::LayerNorm& op, Views in, Views out) {
  const View& weight = in[1];  // [N]
  const View& bias = in[2];  // [N]
  const View& y = out[0];
  for_each_row(in[0], y, [&](const std::vector<double>& row, const std::int64_t*, std::int64_t to) {
    double mean = 0;
    for (const double v : row) mean += v;
    mean /= static_cast<double>(row.size());
    double variance = 0;
    for (const double v : row) variance += (v - mean) * (v - mean);
    const double inverse = 1.0 / std::sqrt(variance / static_cast<double>(row.size()) + op.eps);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const auto k = static_cast<std::int64_t>(i);
      store(y, to + k * y.stride[y.stride.rank() - 1],
            (row[i] - mean) * inverse * load(weight, k * weight.stride[0]) + load(bias, k * bias.stride[0]));
    }
  });
}

void softmax(const device::Softmax&, Views in, Views out) {
  const View& y = out[0];
  for_each_row(in[0], y, [&](std::vector<double>& row, const std::int64_t*, std::int64_t to) {
    double top = -std::numeric_limits<double>::infinity();
    for (const double v : row) top = std::isnan(v) || v > top ? v : top;
    double sum = 0;
    for (double& v : row) sum += v = std::exp(v - top);
    for (std::size_t i = 0; i < row.size(); ++i)
      store(y, to + static_cast<std::int64_t>(i) * y.stride[y.stride.rank() - 1], row[i] / sum);
  });
}

}  // namespace fastllm::cpu::reference
