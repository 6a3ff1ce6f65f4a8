// linear: out[T, N] = act(scale * x W^T + bias) + residual, with W [N, K] as the checkpoint has it.
//
// Hopper takes 16-bit products to linear_hopper.cu. Here are three kernels, chosen by T and dtype:
//   skinny  (T <= 32, 16-bit): streams W once at memory speed. Tensor-core products with W as the 16-row operand, so
//   that up to 8 tokens ride along
//           for free per product. Both operands use the same permutation of K inside a chunk of 32, which lets every
//           thread load 16 contiguous bytes of a row straight into a fragment. The 8 warps of a block split K; their
//           sums are added in a fixed order.
//   tiled   (T > 32, 16-bit, sm_80+): 128 x 128 x 64 tiles, cp.async in three stages, ldmatrix on swizzled shared
//   memory, mma.sync m16n8k16. plain   (float32, odd strides, K not a multiple of 8): 32 x 32 tiles of fused
//   multiply-adds in float32.

#include "device/cuda/common.cuh"
#include "device/cuda/epilogue.cuh"
#include "device/cuda/launch.h"
#include "device/cuda/mma.cuh"

namespace fastllm::cuda {
namespace {

// ---- skinny
// ---------------------------------------------------------------------------------------------------------------

constexpr int kSkinnyWarps = 8;

// kOctets: groups of 8 tokens; kTiles: groups of 16 rows of W per block.
template <class T, int kOctets, int kTiles>
__global__ void __launch_bounds__(kSkinnyWarps * 32)
    skinny_kernel(const T* x, std::int64_t x_stride, const T* w, T* out, std::int64_t out_stride, int tokens, int n,
                  int k, Epilogue e) {
  __shared__ float partial[kSkinnyWarps][kTiles * 16][kOctets * 8 + 1];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int group = lane / 4;  // row of W, and token
  const int quad = lane % 4;
  const int first_row = blockIdx.x * (kTiles * 16);

  float sums[kTiles][kOctets][4] = {};
  const T* rows[kTiles][2];
#pragma unroll
  for (int r = 0; r < kTiles; ++r)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      rows[r][h] = w + static_cast<std::int64_t>(min(first_row + r * 16 + h * 8 + group, n - 1)) * k;
  const T* tokens_at[kOctets];
#pragma unroll
  for (int o = 0; o < kOctets; ++o) tokens_at[o] = x + min(o * 8 + group, tokens - 1) * x_stride;

  constexpr int kChunk = 64;
  for (int start = warp * kChunk; start < k; start += kSkinnyWarps * kChunk) {
    uint4 a[kTiles][2][2];  // [tile][row half][32-chunk]
    uint4 b[kOctets][2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int at = start + c * 32 + quad * 8;
      const bool inside = at < k;
#pragma unroll
      for (int r = 0; r < kTiles; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) a[r][h][c] = inside ? load_stream(rows[r][h] + at) : uint4{0, 0, 0, 0};
#pragma unroll
      for (int o = 0; o < kOctets; ++o)
        b[o][c] = inside ? *reinterpret_cast<const uint4*>(tokens_at[o] + at) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (int r = 0; r < kTiles; ++r)
#pragma unroll
        for (int o = 0; o < kOctets; ++o) {
          mma_16816<T>(sums[r][o], a[r][0][c].x, a[r][1][c].x, a[r][0][c].y, a[r][1][c].y, b[o][c].x, b[o][c].y);
          mma_16816<T>(sums[r][o], a[r][0][c].z, a[r][1][c].z, a[r][0][c].w, a[r][1][c].w, b[o][c].z, b[o][c].w);
        }
  }
#pragma unroll
  for (int r = 0; r < kTiles; ++r)
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      partial[warp][r * 16 + group][o * 8 + quad * 2] = sums[r][o][0];
      partial[warp][r * 16 + group][o * 8 + quad * 2 + 1] = sums[r][o][1];
      partial[warp][r * 16 + group + 8][o * 8 + quad * 2] = sums[r][o][2];
      partial[warp][r * 16 + group + 8][o * 8 + quad * 2 + 1] = sums[r][o][3];
    }
  __syncthreads();
  for (int i = threadIdx.x; i < kTiles * 16 * kOctets * 8; i += blockDim.x) {
    const int row = i % (kTiles * 16);
    const int token = i / (kTiles * 16);
    if (token >= tokens || first_row + row >= n) continue;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < kSkinnyWarps; ++s) sum += partial[s][row][token];
    store(out, out_stride, token, first_row + row, sum, e);
  }
}

// ---- tiled
// ----------------------------------------------------------------------------------------------------------------

constexpr int kTileM = 128;
constexpr int kTileN = 128;
constexpr int kTileK = 64;
constexpr int kStages = 3;
constexpr int kTileBytes = kTileM * kTileK * 2;  // one operand, one stage
constexpr int kTiledShared = kStages * 2 * kTileBytes;

// Copies rows [first, first + 128) x columns [at, at + 64) of a K-contiguous matrix into a swizzled stage; rows past
// `rows` repeat the last, columns past k become zero.
template <class T>
__device__ inline void fill_stage(std::uint32_t shared, const T* from, std::int64_t stride, int first, int rows, int at,
                                  int k) {
#pragma unroll
  for (int i = 0; i < kTileM * 8 / 256; ++i) {
    const int piece = threadIdx.x + i * 256;
    const int row = piece / 8;
    const int column = piece % 8;
    const bool inside = at + column * 8 < k;
    const T* source =
        from + static_cast<std::int64_t>(min(first + row, rows - 1)) * stride + (inside ? at + column * 8 : 0);
    copy_async16(shared + swizzled(row, column), source, inside);
  }
}

template <class T>
__global__ void __launch_bounds__(256) tiled_kernel(const T* x, std::int64_t x_stride, const T* w, T* out,
                                                    std::int64_t out_stride, int tokens, int n, int k, Epilogue e) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  const std::uint32_t base = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_m = (warp % 2) * 64;
  const int warp_n = (warp / 2) * 32;
  const int first_m = blockIdx.x * kTileM;
  const int first_n = blockIdx.y * kTileN;
  const int steps = (k + kTileK - 1) / kTileK;

  auto fill = [&](int step) {
    if (step < steps) {
      const std::uint32_t stage = base + (step % kStages) * 2 * kTileBytes;
      fill_stage(stage, x, x_stride, first_m, tokens, step * kTileK, k);
      fill_stage(stage + kTileBytes, w, k, first_n, n, step * kTileK, k);
    }
    commit_async();
  };
  for (int s = 0; s < kStages - 1; ++s) fill(s);

  float sums[4][4][4] = {};  // [16-row tile][8-column tile][fragment]
  for (int step = 0; step < steps; ++step) {
    wait_async<kStages - 2>();
    __syncthreads();
    fill(step + kStages - 1);
    const std::uint32_t stage_a = base + (step % kStages) * 2 * kTileBytes;
    const std::uint32_t stage_b = stage_a + kTileBytes;
#pragma unroll
    for (int kk = 0; kk < kTileK / 16; ++kk) {
      std::uint32_t a[4][4];
      std::uint32_t b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        load_matrix(a[i], stage_a + swizzled(warp_m + i * 16 + lane % 16, kk * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < 2; ++j)
        load_matrix(b[j], stage_b + swizzled(warp_n + j * 16 + lane % 8 + (lane / 16) * 8, kk * 2 + (lane / 8) % 2));
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          mma_16816<T>(sums[i][j], a[i][0], a[i][1], a[i][2], a[i][3], b[j / 2][(j % 2) * 2],
                       b[j / 2][(j % 2) * 2 + 1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int f = 0; f < 4; ++f) {
        const int m = first_m + warp_m + i * 16 + lane / 4 + (f / 2) * 8;
        const int column = first_n + warp_n + j * 8 + (lane % 4) * 2 + f % 2;
        if (m < tokens && column < n) store(out, out_stride, m, column, sums[i][j][f], e);
      }
}

// ---- plain
// ----------------------------------------------------------------------------------------------------------------

template <class T, class W>
__global__ void plain_kernel(const T* x, std::int64_t x_stride, const W* w, T* out, std::int64_t out_stride, int tokens,
                             int n, int k, Epilogue e) {
  __shared__ float a[32][33];
  __shared__ float b[32][33];
  const int column = threadIdx.x;
  const int first_m = blockIdx.x * 32;
  const int first_n = blockIdx.y * 32;
  float sums[4] = {};
  for (int at = 0; at < k; at += 32) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = threadIdx.y + i * 8;
      const bool inside = at + column < k;
      a[row][column] = inside && first_m + row < tokens ? to_float(x[(first_m + row) * x_stride + at + column]) : 0.0f;
      b[row][column] =
          inside && first_n + row < n ? to_float(w[static_cast<std::int64_t>(first_n + row) * k + at + column]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 8
    for (int i = 0; i < 32; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r) sums[r] = fmaf(a[threadIdx.y + r * 8][i], b[column][i], sums[r]);
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int m = first_m + threadIdx.y + r * 8;
    if (m < tokens && first_n + column < n) store(out, out_stride, m, first_n + column, sums[r], e);
  }
}

template <class T, int kOctets, int kTiles>
void launch_skinny(const Context& c, const View& x, const DeviceLinear& l, const View& out, const Epilogue& e) {
  const int n = static_cast<int>(l.out_features);
  skinny_kernel<T, kOctets, kTiles><<<(n + kTiles * 16 - 1) / (kTiles * 16), kSkinnyWarps * 32, 0, c.stream>>>(
      static_cast<const T*>(x.data), x.stride[0], static_cast<const T*>(l.data), static_cast<T*>(out.data),
      out.stride[0], static_cast<int>(x.shape[0]), n, static_cast<int>(l.in_features), e);
}

template <class T>
void launch_tiled(const Context& c, const View& x, const DeviceLinear& l, const View& out, const Epilogue& e) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(tiled_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kTiledShared);
  check(allowed, "linear");
  const int tokens = static_cast<int>(x.shape[0]);
  const int n = static_cast<int>(l.out_features);
  const dim3 grid((tokens + kTileM - 1) / kTileM, (n + kTileN - 1) / kTileN);
  tiled_kernel<T><<<grid, 256, kTiledShared, c.stream>>>(static_cast<const T*>(x.data), x.stride[0],
                                                         static_cast<const T*>(l.data), static_cast<T*>(out.data),
                                                         out.stride[0], tokens, n, static_cast<int>(l.in_features), e);
}

template <class T>
void launch_half(const Context& c, const View& x, const DeviceLinear& l, const View& out, const Epilogue& e) {
  const std::int64_t tokens = x.shape[0];
  if (c.deterministic)
    launch_tiled<T>(c, x, l, out, e);
  else if (tokens <= 8)
    launch_skinny<T, 1, 1>(c, x, l, out, e);
  else if (tokens <= 16)
    launch_skinny<T, 2, 2>(c, x, l, out, e);
  else if (tokens <= 32)
    launch_skinny<T, 4, 2>(c, x, l, out, e);
  else
    launch_tiled<T>(c, x, l, out, e);
}

bool aligned16(const void* data, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
}

}  // namespace

void linear(const Context& c, const device::Linear& op, const View& given, const View* residual, const DeviceLinear& l,
            const View& out) {
  const View x = l.rounds_inputs && given.shape[0] > 0 ? rounded_tokens(c, given) : given;
  const std::int64_t tokens = x.shape[0];
  if (tokens == 0 || l.out_features == 0) return;
  if (l.format && l.format->dynamic) return linear_fp8_dynamic(c, op, x, residual, l, out);
  if (l.format) {
    const auto by_code = {linear_fp8, linear_int8, linear_int4};
    return by_code.begin()[static_cast<int>(l.format->code)](c, op, x, residual, l, out);
  }
  if (linear_hopper(c, op, x, residual, l, out)) return;
  if (l.gated || l.tiled)
    core::fail(core::ErrorCode::internal, "[linear] a gated product was packed for a GPU without its kernel.");
  const Epilogue e = epilogue_of(op, residual, l);
  const bool fast = c.tensor_cores && x.dtype == l.dtype && l.in_features % 8 == 0 && aligned16(x.data, x.stride[0]);
  if (fast && x.dtype == core::DType::bf16) {
    launch_half<__nv_bfloat16>(c, x, l, out, e);
  } else if (fast && x.dtype == core::DType::f16) {
    launch_half<__half>(c, x, l, out, e);
  } else {
    const int k = static_cast<int>(l.in_features);
    const int n = static_cast<int>(l.out_features);
    const dim3 grid(static_cast<unsigned>((tokens + 31) / 32), static_cast<unsigned>((n + 31) / 32));
    dispatch_float(x.dtype, "linear", [&](auto t) {
      dispatch_float(l.dtype, "linear", [&](auto u) {
        using T = typename decltype(t)::type;
        using W = typename decltype(u)::type;
        plain_kernel<T, W><<<grid, dim3(32, 8), 0, c.stream>>>(static_cast<const T*>(x.data), x.stride[0],
                                                               static_cast<const W*>(l.data), static_cast<T*>(out.data),
                                                               out.stride[0], static_cast<int>(tokens), n, k, e);
      });
    });
  }
  check_launch("linear");
}

}  // namespace fastllm::cuda
