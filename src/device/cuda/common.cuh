#pragma once
// What every CUDA kernel file shares: views by value, element access for any float dtype, warp and block sums, launch
// checks.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <utility>

#include "core/error.h"
#include "device/cuda/launch.h"
#include "device/op.h"
#include "device/step.h"

namespace fastllm::cuda {

// Throws core::Error: out_of_memory for a failed allocation, device_lost for everything that leaves the context
// unusable.
void check(cudaError_t status, const char* what);

// device::View in a form kernels take by value.
struct KView {
  void* data;
  core::DType dtype;
  int rank;
  std::int64_t shape[core::kMaxRank];
  std::int64_t stride[core::kMaxRank];
};

inline KView kview(const device::View& v) {
  KView k{v.data, v.dtype, v.shape.rank(), {}, {}};
  for (int i = 0; i < k.rank; ++i) {
    k.shape[i] = v.shape[i];
    k.stride[i] = v.stride[i];
  }
  return k;
}

// Rows of a view whose last axis is the vector: the product of the leading axes.
inline std::int64_t row_count(const device::View& v) {
  std::int64_t n = 1;
  for (int i = 0; i + 1 < v.shape.rank(); ++i) n *= v.shape[i];
  return n;
}

// Offset, in elements, of row `row` (leading axes in row-major order).
__device__ inline std::int64_t row_offset(const KView& v, std::int64_t row) {
  std::int64_t offset = 0;
  for (int i = v.rank - 2; i >= 0; --i) {
    offset += (row % v.shape[i]) * v.stride[i];
    row /= v.shape[i];
  }
  return offset;
}

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// One element of a small operand (norm weight, bias) whose dtype is known at run time; the branch is uniform.
__device__ inline float load_any(const void* data, core::DType dtype, std::int64_t i) {
  switch (dtype) {
    case core::DType::f16:
      return __half2float(static_cast<const __half*>(data)[i]);
    case core::DType::bf16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

struct Sum {
  __device__ static float identity() { return 0.0f; }
  __device__ static float warp(float x) { return warp_sum(x); }
};
struct Max {
  __device__ static float identity() { return -INFINITY; }
  __device__ static float warp(float x) { return warp_max(x); }
};

// The same value in every thread of the block; `scratch` holds 32 floats and may be reused after the call.
template <class R>
__device__ inline float block_reduce(float x, float* scratch) {
  x = R::warp(x);
  const int warps = (blockDim.x + 31) / 32;
  if (warps == 1) return x;
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  return R::warp(threadIdx.x % 32 < warps ? scratch[threadIdx.x % 32] : R::identity());
}

// Two units in the last place; the way that a division takes for denominators as large as e^87 costs a product's
// epilogue more than the product.
__device__ inline float silu(float x) {
  return __fdividef(x, 1.0f + __expf(-x));
}

__device__ inline float activate(device::Activation kind, float x, float param) {
  using device::Activation;
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::silu:
      return silu(x);
    case Activation::gelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Activation::gelu_tanh: {
      const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + tanhf(inner));
    }
    case Activation::relu:
      return fmaxf(x, 0.0f);
    case Activation::tanh:
      return tanhf(x);
    case Activation::sigmoid:
      return 1.0f / (1.0f + __expf(-x));
    case Activation::exp:
      return expf(x);
    case Activation::square:
      return x * x;
    case Activation::rsqrt:
      return rsqrtf(x);
    case Activation::neg:
      return -x;
    case Activation::softcap:
      return tanhf(x / param) * param;
  }
  return x;
}

template <class T>
struct Type {
  using type = T;
};

// Calls f(Type<T>{}) for a float dtype.
template <class F>
void dispatch_float(core::DType dtype, const char* op, F&& f) {
  switch (dtype) {
    case core::DType::f32:
      f(Type<float>{});
      return;
    case core::DType::f16:
      f(Type<__half>{});
      return;
    case core::DType::bf16:
      f(Type<__nv_bfloat16>{});
      return;
    default:
      core::fail(core::ErrorCode::dtype_error,
                 core::cat("[", op, "] the CUDA backend computes in float32, float16 and bfloat16, not in ",
                           core::dtype_name(dtype), "."));
  }
}

inline void check_launch(const char* op) {
  check(cudaGetLastError(), op);
}

// Programmatic dependent launch: a kernel that begins with these may be resident while the one before it still runs.
// Before wait_for_previous() it touches only what no kernel writes (weights); every kernel launched by launch() calls
// it.
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// `cluster`: blocks along x that form a cluster.
template <class... P, class... A>
void launch(const Context& c, void (*kernel)(P...), dim3 grid, unsigned threads, std::size_t shared, int cluster,
            A&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (c.overlapped) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = static_cast<unsigned>(cluster);
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = c.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...), "launch");
}

inline int block_threads(std::int64_t n, int most = 1024) {
  int threads = 32;
  while (threads < most && threads < n) threads *= 2;
  return threads;
}

}  // namespace fastllm::cuda
