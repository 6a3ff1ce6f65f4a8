// matmul: out[..., M, N] = a[..., M, K] b[..., K, N] over any strides, leading axes broadcast. 16 x 16 tiles of
// float32 fused multiply-adds: for eager use and teaching, where shapes are small and arbitrary; the products of a
// model go through linear.

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {
namespace {

// Offset of batch `index` (over out's leading axes) in a view whose leading axes are aligned to the right and
// broadcast.
__device__ inline std::int64_t batch_offset(const KView& v, const KView& out, std::int64_t index) {
  std::int64_t offset = 0;
  for (int i = out.rank - 3; i >= 0; --i) {
    const std::int64_t at = index % out.shape[i];
    index /= out.shape[i];
    const int axis = i - (out.rank - v.rank);
    if (axis >= 0 && v.shape[axis] != 1) offset += at * v.stride[axis];
  }
  return offset;
}

template <class T>
__global__ void matmul_kernel(KView a, KView b, KView out) {
  __shared__ float left[16][17];
  __shared__ float right[16][17];
  const std::int64_t m = out.shape[out.rank - 2];
  const std::int64_t n = out.shape[out.rank - 1];
  const std::int64_t k = a.shape[a.rank - 1];
  const T* pa = static_cast<const T*>(a.data) + batch_offset(a, out, blockIdx.z);
  const T* pb = static_cast<const T*>(b.data) + batch_offset(b, out, blockIdx.z);
  const std::int64_t row = blockIdx.y * 16 + threadIdx.y;
  const std::int64_t column = blockIdx.x * 16 + threadIdx.x;
  float sum = 0.0f;
  for (std::int64_t at = 0; at < k; at += 16) {
    const std::int64_t ka = at + threadIdx.x;
    const std::int64_t kb = at + threadIdx.y;
    left[threadIdx.y][threadIdx.x] =
        row < m && ka < k ? to_float(pa[row * a.stride[a.rank - 2] + ka * a.stride[a.rank - 1]]) : 0.0f;
    right[threadIdx.y][threadIdx.x] =
        kb < k && column < n ? to_float(pb[kb * b.stride[b.rank - 2] + column * b.stride[b.rank - 1]]) : 0.0f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; ++i) sum = fmaf(left[threadIdx.y][i], right[i][threadIdx.x], sum);
    __syncthreads();
  }
  if (row < m && column < n)
    static_cast<T*>(out.data)[batch_offset(out, out, blockIdx.z) + row * out.stride[out.rank - 2] +
                              column * out.stride[out.rank - 1]] = from_float<T>(sum);
}

}  // namespace

void matmul(const Context& c, const View& a, const View& b, const View& out) {
  if (out.shape.numel() == 0) return;
  std::int64_t batch = 1;
  for (int i = 0; i + 2 < out.shape.rank(); ++i) batch *= out.shape[i];
  const dim3 grid(static_cast<unsigned>((out.shape.back() + 15) / 16),
                  static_cast<unsigned>((out.shape[out.shape.rank() - 2] + 15) / 16), static_cast<unsigned>(batch));
  dispatch_float(a.dtype, "matmul", [&](auto t) {
    using T = typename decltype(t)::type;
    matmul_kernel<T><<<grid, dim3(16, 16), 0, c.stream>>>(kview(a), kview(b), kview(out));
  });
  check_launch("matmul");
}

}  // namespace fastllm::cuda
