// rms_norm, add_rms_norm, layer_norm. One block a row; the row is read twice, the second time from cache. Sums are
// float32. RMSNorm: Zhang & Sennrich 2019. LayerNorm: Ba, Kiros & Hinton 2016 (two-pass variance).

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {
namespace {

template <class T>
__global__ void rms_norm_kernel(KView x, KView weight, KView out, float eps, float offset) {
  __shared__ float scratch[32];
  const std::int64_t n = x.shape[x.rank - 1];
  const T* in = static_cast<const T*>(x.data) + row_offset(x, blockIdx.x);
  T* to = static_cast<T*>(out.data) + row_offset(out, blockIdx.x);
  float square = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = to_float(in[i]);
    square += v * v;
  }
  const float scale = rsqrtf(block_reduce<Sum>(square, scratch) / n + eps);
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)
    to[i] = from_float<T>(to_float(in[i]) * scale * (offset + load_any(weight.data, weight.dtype, i)));
}

template <class T>
__global__ void add_rms_norm_kernel(KView x, KView residual, KView weight, KView sum, KView normed, float eps,
                                    float offset) {
  __shared__ float scratch[32];
  const std::int64_t n = x.shape[x.rank - 1];
  const T* a = static_cast<const T*>(x.data) + row_offset(x, blockIdx.x);
  const T* b = static_cast<const T*>(residual.data) + row_offset(residual, blockIdx.x);
  T* total = static_cast<T*>(sum.data) + row_offset(sum, blockIdx.x);
  T* to = static_cast<T*>(normed.data) + row_offset(normed, blockIdx.x);
  float square = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const T rounded = from_float<T>(to_float(a[i]) + to_float(b[i]));
    const float v = to_float(rounded);
    total[i] = rounded;
    square += v * v;
  }
  const float scale = rsqrtf(block_reduce<Sum>(square, scratch) / n + eps);
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)  // each thread reads back what it wrote
    to[i] = from_float<T>(to_float(total[i]) * scale * (offset + load_any(weight.data, weight.dtype, i)));
}

template <class T>
__global__ void layer_norm_kernel(KView x, KView weight, KView bias, KView out, float eps) {
  __shared__ float scratch[32];
  const std::int64_t n = x.shape[x.rank - 1];
  const T* in = static_cast<const T*>(x.data) + row_offset(x, blockIdx.x);
  T* to = static_cast<T*>(out.data) + row_offset(out, blockIdx.x);
  float sum = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += to_float(in[i]);
  const float mean = block_reduce<Sum>(sum, scratch) / n;
  float square = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = to_float(in[i]) - mean;
    square += v * v;
  }
  const float scale = rsqrtf(block_reduce<Sum>(square, scratch) / n + eps);
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)
    to[i] = from_float<T>((to_float(in[i]) - mean) * scale * load_any(weight.data, weight.dtype, i) +
                          load_any(bias.data, bias.dtype, i));
}

}  // namespace

void rms_norm(const Context& c, const device::RmsNorm& op, const View& x, const View& weight, const View& out) {
  const std::int64_t rows = row_count(x);
  if (rows == 0) return;
  dispatch_float(x.dtype, "rms_norm", [&](auto t) {
    using T = typename decltype(t)::type;
    rms_norm_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(kview(x), kview(weight), kview(out),
                                                                                 op.eps, op.weight_offset);
  });
  check_launch("rms_norm");
}

void add_rms_norm(const Context& c, const device::AddRmsNorm& op, const View& x, const View& residual,
                  const View& weight, const View& sum, const View& normed) {
  const std::int64_t rows = row_count(x);
  if (rows == 0) return;
  dispatch_float(x.dtype, "add_rms_norm", [&](auto t) {
    using T = typename decltype(t)::type;
    add_rms_norm_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(
        kview(x), kview(residual), kview(weight), kview(sum), kview(normed), op.eps, op.weight_offset);
  });
  check_launch("add_rms_norm");
}

void layer_norm(const Context& c, const device::LayerNorm& op, const View& x, const View& weight, const View& bias,
                const View& out) {
  const std::int64_t rows = row_count(x);
  if (rows == 0) return;
  dispatch_float(x.dtype, "layer_norm", [&](auto t) {
    using T = typename decltype(t)::type;
    layer_norm_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(kview(x), kview(weight), kview(bias),
                                                                                   kview(out), op.eps);
  });
  check_launch("layer_norm");
}

}  // namespace fastllm::cuda
