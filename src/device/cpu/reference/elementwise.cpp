// Unary, Binary, Affine, GatedActivation and Copy, one element at a time. Index arithmetic follows the output's shape;
// a broadcast axis of an input has stride 0.
#include <cmath>

#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::Activation;
using device::View;

double activate(Activation kind, double x, double param) {
  constexpr double kSqrtHalf = 0.70710678118654752440;
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x * kSqrtHalf);
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return x < 0 ? 0.0 : x;
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    case Activation::exp:
      return std::exp(x);
    case Activation::square:
      return x * x;
    case Activation::rsqrt:
      return 1.0 / std::sqrt(x);
    case Activation::neg:
      return -x;
    case Activation::softcap:
      return std::tanh(x / param) * param;
  }
  return x;
}

namespace {

double combine(device::BinaryKind kind, double a, double b) {
  using device::BinaryKind;
  switch (kind) {
    case BinaryKind::add:
      return a + b;
    case BinaryKind::sub:
      return a - b;
    case BinaryKind::mul:
      return a * b;
    case BinaryKind::div:
      return a / b;
    case BinaryKind::maximum:
      return std::isnan(a) || a > b ? a : b;  // NaN wins, as in numpy
    case BinaryKind::minimum:
      return std::isnan(a) || a < b ? a : b;
  }
  return a;
}

// The view as if it had `shape`: new leading axes and axes of size 1 get stride 0.
View broadcast(const View& view, const core::Shape& shape) {
  View wide = view;
  wide.shape = shape;
  wide.stride = shape;
  const int lead = shape.rank() - view.shape.rank();
  for (int a = 0; a < shape.rank(); ++a) {
    const int own = a - lead;
    wide.stride[a] = own < 0 || view.shape[own] == 1 ? 0 : view.stride[own];
  }
  return wide;
}

template <class F>
void map_one(const View& x, const View& y, F f) {
  const int rank = y.shape.rank();
  for_each_index(y.shape, rank, [&](const std::int64_t* index) {
    store(y, offset_of(y, index, rank), f(load(x, offset_of(x, index, rank))));
  });
}

template <class F>
void map_two(const View& a, const View& b, const View& y, F f) {
  const int rank = y.shape.rank();
  for_each_index(y.shape, rank, [&](const std::int64_t* index) {
    const double left = load(a, offset_of(a, index, rank));
    store(y, offset_of(y, index, rank), f(left, load(b, offset_of(b, index, rank))));
  });
}

}  // namespace

void unary(const device::Unary& op, Views in, Views out) {
  map_one(in[0], out[0], [&](double x) { return activate(op.kind, x, op.param); });
}

void affine(const device::Affine& op, Views in, Views out) {
  map_one(in[0], out[0], [&](double x) { return x * op.scale + op.shift; });
}

void binary(const device::Binary& op, Views in, Views out) {
  map_two(broadcast(in[0], out[0].shape), broadcast(in[1], out[0].shape), out[0],
          [&](double a, double b) { return combine(op.kind, a, b); });
}

void gated_activation(const device::GatedActivation& op, Views in, Views out) {
  map_two(in[0], in[1], out[0], [&](double gate, double up) { return activate(op.activation, gate) * up; });
}

void copy(const device::Copy&, Views in, Views out) {
  const View& x = in[0];
  const View& y = out[0];
  const int rank = y.shape.rank();
  for_each_index(y.shape, rank, [&](const std::int64_t* index) {
    const std::int64_t from = offset_of(x, index, rank);
    const std::int64_t to = offset_of(y, index, rank);
    if (is_integer(x.dtype))
      store_integer(y.data, y.dtype, to, load_integer(x.data, x.dtype, from));
    else
      store(y, to, load(x, from));
  });
}

}  // namespace fastllm::cpu::reference
