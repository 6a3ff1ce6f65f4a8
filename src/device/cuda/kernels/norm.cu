// rms_norm, add_rms_norm, layer_norm. One block a row. 16-bit rows of a multiple of 8 stay in registers between the sum
// and the result; others are read twice, the second time from cache. Sums are float32. RMSNorm: Zhang & Sennrich 2019. LayerNorm: Ba, Kiros & Hinton 2016 (two-pass variance).

#include "device/cuda/common.cuh"
#include "device/cuda/float8.cuh"
#include "device/cuda/launch.h"
#include "device/cuda/mma.cuh"

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

constexpr int kMostChunks = 2;  // of 8 elements a thread, so rows of up to 16384

// x (+ residual) -> sum, normed. kAdd: with the residual, whose sum is rounded to T before it is squared, as the plain
// kernel does. kCodes: the result as float8, too.
template <class T, bool kAdd, bool kCodes>
__global__ void rms_norm_wide_kernel(const T* x, std::int64_t x_stride, const T* residual, std::int64_t residual_stride,
                                     const float* weight, T* sum, std::int64_t sum_stride, T* out,
                                     std::int64_t out_stride, int n, float eps, float offset, TokenCodes codes) {
  __shared__ float scratch[32];
  let_next_start();
  const std::int64_t row = blockIdx.x;
  float values[kMostChunks][8];
  float square = 0.0f;
  wait_for_previous();
#pragma unroll
  for (int c = 0; c < kMostChunks; ++c) {
    const int at = (c * blockDim.x + threadIdx.x) * 8;
    if (at >= n) break;
    const Eight<T> a = *reinterpret_cast<const Eight<T>*>(x + row * x_stride + at);
    if constexpr (kAdd) {
      const Eight<T> b = *reinterpret_cast<const Eight<T>*>(residual + row * residual_stride + at);
      Eight<T> total;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        total.v[j] = from_float<T>(to_float(a.v[j]) + to_float(b.v[j]));
        values[c][j] = to_float(total.v[j]);
      }
      *reinterpret_cast<Eight<T>*>(sum + row * sum_stride + at) = total;
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) values[c][j] = to_float(a.v[j]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) square += values[c][j] * values[c][j];
  }
  const float scale = rsqrtf(block_reduce<Sum>(square, scratch) / n + eps);
  [[maybe_unused]] std::uint32_t most = 0;  // the largest size, as bits
#pragma unroll
  for (int c = 0; c < kMostChunks; ++c) {
    const int at = (c * blockDim.x + threadIdx.x) * 8;
    if (at >= n) break;
    const float4 low = *reinterpret_cast<const float4*>(weight + at);
    const float4 high = *reinterpret_cast<const float4*>(weight + at + 4);
    const float w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    Eight<T> result;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      result.v[j] = from_float<T>(values[c][j] * scale * (offset + w[j]));
      if constexpr (kCodes) {
        values[c][j] = to_float(result.v[j]);
        most = max(most, quant::bits_of(fabsf(values[c][j])));
      }
    }
    *reinterpret_cast<Eight<T>*>(out + row * out_stride + at) = result;
  }
  if constexpr (kCodes) {
    const quant::TokenScale t = quant::token_scale(quant::float_of(block_most(most)));
    if (threadIdx.x == 0) codes.scales[row] = t.scale;
#pragma unroll
    for (int c = 0; c < kMostChunks; ++c) {
      const int at = (c * blockDim.x + threadIdx.x) * 8;
      if (at >= n) break;
      const float (&v)[8] = values[c];
      *reinterpret_cast<uint2*>(codes.codes + row * codes.pitch + at) =
          make_uint2(four_codes(v[0], v[1], v[2], v[3], t.inverse), four_codes(v[4], v[5], v[6], v[7], t.inverse));
    }
  }
}

bool wide_rows(const View& v) {
  return v.shape.rank() == 2 && v.stride[0] % 8 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
}

// residual and sum may be null together.
bool launch_wide(const Context& c, const View& x, const View* residual, const View& weight, const View* sum,
                 const View& out, float eps, float offset, const TokenCodes& codes, bool* coded) {
  const std::int64_t n = x.shape.back();
  if (!core::is_half(x.dtype) || weight.dtype != core::DType::f32 || n % 8 != 0 || n > 1024 * 8 * kMostChunks ||
      !wide_rows(x) || !wide_rows(out) || (residual && (!wide_rows(*residual) || !wide_rows(*sum))) ||
      reinterpret_cast<std::uintptr_t>(weight.data) % 16 != 0)
    return false;
  const auto run = [&](auto t) {
    using T = typename decltype(t)::type;
    const auto start = [&](auto kernel) {
      launch(c, kernel, dim3(static_cast<unsigned>(x.shape[0])), static_cast<unsigned>(block_threads(n / 8)), 0, 1,
             static_cast<const T*>(x.data), x.stride[0], residual ? static_cast<const T*>(residual->data) : nullptr,
             residual ? residual->stride[0] : 0, static_cast<const float*>(weight.data),
             sum ? static_cast<T*>(sum->data) : nullptr, sum ? sum->stride[0] : 0, static_cast<T*>(out.data),
             out.stride[0], static_cast<int>(n), eps, offset, codes);
    };
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      if (codes.codes) {
        *coded = true;
        return residual ? start(&rms_norm_wide_kernel<T, true, true>) : start(&rms_norm_wide_kernel<T, false, true>);
      }
    }
    residual ? start(&rms_norm_wide_kernel<T, true, false>) : start(&rms_norm_wide_kernel<T, false, false>);
  };
  x.dtype == core::DType::bf16 ? run(Type<__nv_bfloat16>{}) : run(Type<__half>{});
  return true;
}

}  // namespace

bool rms_norm(const Context& c, const device::RmsNorm& op, const View& x, const View& weight, const View& out,
              const TokenCodes& codes) {
  const std::int64_t rows = row_count(x);
  bool coded = false;
  if (rows == 0) return coded;
  if (launch_wide(c, x, nullptr, weight, nullptr, out, op.eps, op.weight_offset, codes, &coded)) return coded;
  dispatch_float(x.dtype, "rms_norm", [&](auto t) {
    using T = typename decltype(t)::type;
    rms_norm_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(kview(x), kview(weight), kview(out),
                                                                                 op.eps, op.weight_offset);
  });
  check_launch("rms_norm");
  return coded;
}

bool add_rms_norm(const Context& c, const device::AddRmsNorm& op, const View& x, const View& residual,
                  const View& weight, const View& sum, const View& normed, const TokenCodes& codes) {
  const std::int64_t rows = row_count(x);
  bool coded = false;
  if (rows == 0) return coded;
  if (launch_wide(c, x, &residual, weight, &sum, normed, op.eps, op.weight_offset, codes, &coded)) return coded;
  dispatch_float(x.dtype, "add_rms_norm", [&](auto t) {
    using T = typename decltype(t)::type;
    add_rms_norm_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(
        kview(x), kview(residual), kview(weight), kview(sum), kview(normed), op.eps, op.weight_offset);
  });
  check_launch("add_rms_norm");
  return coded;
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
