#pragma once
// What happens to a product's sums on their way out: out = act(scale * sum + bias) + residual.

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

struct Epilogue {
  const float* bias;     // [N] or null
  const void* residual;  // [T, N] in the output's dtype, or null
  std::int64_t residual_stride;
  device::Activation activation;
  float scale;
};

inline Epilogue epilogue_of(const device::Linear& op, const View* residual, const DeviceLinear& l) {
  return {l.bias ? static_cast<const float*>(l.bias->data()) : nullptr, residual ? residual->data : nullptr,
          residual ? residual->stride[0] : 0, op.activation, op.scale};
}

template <class T>
__device__ inline void store(T* out, std::int64_t stride, std::int64_t m, std::int64_t n, float value,
                             const Epilogue& e) {
  value *= e.scale;
  if (e.bias) value += e.bias[n];
  value = activate(e.activation, value, 0.0f);
  if (e.residual) value += to_float(static_cast<const T*>(e.residual)[m * e.residual_stride + n]);
  out[m * stride + n] = from_float<T>(value);
}

template <class T>
struct alignas(8) Four {
  T v[4];
};

// The residual of columns n to n + 3, aligned to their size.
template <class T>
__device__ inline Four<T> load_four(const Epilogue& e, std::int64_t m, std::int64_t n) {
  return *reinterpret_cast<const Four<T>*>(static_cast<const T*>(e.residual) + m * e.residual_stride + n);
}

// Columns n to n + 3 at once, of which `inside` are there; `residual` is used if there is one.
template <class T>
__device__ inline void finish4(const Epilogue& e, std::int64_t n, float (&values)[4], const Four<T>& residual,
                               int inside) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float value = values[j] * e.scale;
    if (e.bias && j < inside) value += e.bias[n + j];
    value = activate(e.activation, value, 0.0f);
    if (e.residual) value += to_float(residual.v[j]);
    values[j] = value;
  }
}

template <class T>
__device__ inline void store4(T* to, const float (&values)[4], bool aligned) {
  Four<T> four;
#pragma unroll
  for (int j = 0; j < 4; ++j) four.v[j] = from_float<T>(values[j]);
  if (aligned) {
    *reinterpret_cast<Four<T>*>(to) = four;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) to[j] = four.v[j];
  }
}

}  // namespace fastllm::cuda
