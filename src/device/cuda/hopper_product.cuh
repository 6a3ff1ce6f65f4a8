#pragma once
// THE product of Hopper (sm_90a): out[T, N] = act(scale * x W^T + bias) + residual, one kernel from a single token to
// thousands, for weights as 16-bit numbers, as codes (`quant::Code`), and for both operands as float8.
//
// The weight is the left operand: a block takes kRows rows of W and kTokens tokens, so that one token wastes nothing but
// idle product columns and the tile that streams from memory is always full. One warp keeps kStages tiles of W and x on
// their way (TMA), a warpgroup per 64 rows multiplies (wgmma). A small product is cut along K over the blocks of a
// cluster, which add their sums through shared memory in a fixed order: no workspace, no atomics, the same bits every
// time. Weights do not depend on the kernel before, so the first tiles are under way before that one has ended
// (programmatic dependent launch).
//
// Numbers and float8 are read from shared memory by the product itself. Other codes become numbers on their way through
// registers, the product's left operand (hopper_codes.cuh).
//
// gated: W holds gate and up rows in alternating groups of 8; out[T, N / 2] = act(gate) * up.

#include "device/cuda/common.cuh"
#include "device/cuda/epilogue.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/hopper_codes.cuh"
#include "device/cuda/launch.h"
#include "device/cuda/mma.cuh"
#include "device/cuda/tensor_map.h"
#include "quant/format.h"

namespace fastllm::cuda {
namespace {

constexpr int kSwizzleDepth = 64;  // 16-bit numbers in a row of 128 bytes
constexpr int kSwizzleBytes = 128;
constexpr int kTargetBlocks = 132;

// How 64 rows of a tile of W lie in shared memory: kDepth numbers of K, kTileBytes at most.
struct Numbers {
  static constexpr int kDepth = kSwizzleDepth;
  static constexpr int kNumberBytes = 2;
  static constexpr int kTileBytes = 64 * kDepth * 2;
  static constexpr bool kCodes = false;
};

// W and x as float8 e4m3, multiplied as they are.
struct Float8 {
  static constexpr int kDepth = kSwizzleBytes;
  static constexpr int kNumberBytes = 1;
  static constexpr int kTileBytes = 64 * kDepth;
  static constexpr bool kCodes = false;
};

// kTeams: warpgroups that take the tiles of the same rows in turn and add their sums at the end: what a warp does to a tile of
// codes takes longer than the tile to arrive.
template <class W_, int kRows_, int kTokens_, int kStages_, int kPerSm_, int kTeams_ = 1>
struct Shape {
  using W = W_;
  static constexpr int kRows = kRows_, kTokens = kTokens_, kStages = kStages_, kPerSm = kPerSm_;
  static constexpr int kTeams = kTeams_;
  static constexpr int kGroups = kRows / 64;
  static constexpr int kWorkers = kGroups * kTeams * 128;  // threads that multiply
  static constexpr int kThreads = kWorkers + 32;
  static constexpr int kWeightBytes = kGroups * W::kTileBytes;
  static constexpr int kTokenBytes = kTokens * W::kDepth * W::kNumberBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  static constexpr int kPitch =
      kRows + 4;  // floats between tokens of the sums, so that a warp's stores touch all banks
  static constexpr int kSumBytes = kTokens * kPitch * 4;
  static constexpr int kAllSums = kTeams * kSumBytes;
  static constexpr int kShared = (kStages * kStageBytes > kAllSums ? kStages * kStageBytes : kAllSums) + 1024;
};

#if FASTLLM_HOPPER_CODE
// Adds what lies at `at` in the shared memory of every block of the cluster, in their order. All loads are under way
// before the first is needed.
__device__ inline void add_parts(float (&values)[4], std::uint32_t at, int splits) {
  float4 parts[8];
#pragma unroll
  for (int s = 0; s < 8; ++s)
    if (s < splits) parts[s] = splits > 1 ? load_shared_of(shared_of(at, s)) : load_shared(at);
#pragma unroll
  for (int s = 0; s < 8; ++s)
    if (s < splits) {
      values[0] += parts[s].x;
      values[1] += parts[s].y;
      values[2] += parts[s].z;
      values[3] += parts[s].w;
    }
}

// sums (+)= 64 rows of the tile of W at `stage`, number `group`, times the tokens behind them. To be waited for.
template <class O, class S>
__device__ inline void add_tile(float (&sums)[S::kTokens / 2], std::uint32_t stage, int group, bool accumulate) {
  const std::uint32_t w_at = stage + group * S::W::kTileBytes;
  const std::uint32_t x_at = stage + S::kWeightBytes;
  products_begin();
#pragma unroll
  for (int kk = 0; kk < kSwizzleBytes / 32; ++kk)
    Products<O, S::kTokens>::add(sums, tile_descriptor(w_at + kk * 32), tile_descriptor(x_at + kk * 32),
                                 kk > 0 || accumulate);
  products_commit();
}

// The sums of one warpgroup's thread: act(scale * sum + bias), gated or not, as pairs of neighbouring tokens.
template <class T, class S, class F>
__device__ inline void finish_pairs(float (&sums)[S::kTokens / 2], std::uint32_t (&pairs)[S::kTokens / 4], bool gated,
                                    float scale, float low_bias, float high_bias, F&& act) {
#pragma unroll
  for (int j = 0; j < S::kTokens / 8; ++j) {
    const float a = act(sums[j * 4] * scale + low_bias);
    const float b = act(sums[j * 4 + 1] * scale + low_bias);
    const float c = sums[j * 4 + 2] * scale + high_bias;
    const float d = sums[j * 4 + 3] * scale + high_bias;
    if (gated) {
      pairs[j] = pack2<T>(a * c, b * d);
    } else {
      pairs[j * 2] = pack2<T>(a, b);
      pairs[j * 2 + 1] = pack2<T>(act(c), act(d));
    }
  }
}

// The way out without a cut along K: results are rounded in registers, turned by the matrix store and leave as whole
// rows. The residual is added to the rounded result, as separate ops would.
template <class T, class S>
__device__ inline void store_direct(const Product& p, float (&sums)[S::kTokens / 2], std::uint32_t tile,
                                    int first_token, int first_row) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int row = warp * 16 + lane / 4;
  const Epilogue& e = p.epilogue;
  const auto bias = [&](int r) { return e.bias && first_row + r < p.rows ? e.bias[first_row + r] : 0.0f; };
  const float low = bias(row);
  const float high = bias(row + 8);
  std::uint32_t pairs[S::kTokens / 4];
  if (e.activation == device::Activation::none)
    finish_pairs<T, S>(sums, pairs, p.gated, e.scale, low, high, [](float x) { return x; });
  else if (e.activation == device::Activation::silu)
    finish_pairs<T, S>(sums, pairs, p.gated, e.scale, low, high, [](float x) { return silu(x); });
  else
    finish_pairs<T, S>(sums, pairs, p.gated, e.scale, low, high,
                       [&](float x) { return activate(e.activation, x, 0.0f); });
  const int columns = p.gated ? S::kRows / 2 : S::kRows;
  const int pitch = columns * 2 + 16;  // bytes: rows of 8 tokens touch all banks
  const int matrix = lane / 8;
  if (p.gated) {
    const std::uint32_t to = tile + (matrix * 8 + lane % 8) * pitch + warp * 16;
#pragma unroll
    for (int j = 0; j < S::kTokens / 32; ++j)
      store_matrix_transposed(to + j * 32 * pitch, pairs[j * 4], pairs[j * 4 + 1], pairs[j * 4 + 2], pairs[j * 4 + 3]);
  } else {
    const std::uint32_t to = tile + (matrix / 2 * 8 + lane % 8) * pitch + warp * 32 + matrix % 2 * 16;
#pragma unroll
    for (int j = 0; j < S::kTokens / 16; ++j)
      store_matrix_transposed(to + j * 16 * pitch, pairs[j * 4], pairs[j * 4 + 1], pairs[j * 4 + 2], pairs[j * 4 + 3]);
  }
  asm volatile("bar.sync 1, %0;" ::"n"(S::kWorkers) : "memory");
  const int tokens = min(S::kTokens, p.tokens - first_token);
  const int first_column = p.gated ? first_row / 2 : first_row;
  const int width = min(columns, (p.gated ? p.rows / 2 : p.rows) - first_column);
  const int eights = columns / 8;
  for (int i = threadIdx.x; i < tokens * eights; i += S::kWorkers) {
    const int token = i / eights;
    const int column = i % eights * 8;
    if (column >= width) continue;
    Eight<T> value = load_shared_eight_as<Eight<T>>(tile + token * pitch + column * 2);
    const std::int64_t m = first_token + token;
    if (e.residual) {
      const Eight<T> add = *reinterpret_cast<const Eight<T>*>(static_cast<const T*>(e.residual) +
                                                              m * e.residual_stride + first_column + column);
#pragma unroll
      for (int j = 0; j < 8; ++j) value.v[j] = from_float<T>(to_float(value.v[j]) + to_float(add.v[j]));
    }
    *reinterpret_cast<Eight<T>*>(static_cast<T*>(p.out) + m * p.out_stride + first_column + column) = value;
  }
}
#endif

template <class T, class S>
__global__ void __launch_bounds__(S::kThreads, S::kPerSm)
    hopper_kernel(const __grid_constant__ CUtensorMap w_map, const __grid_constant__ CUtensorMap x_map, Product p) {
#if FASTLLM_HOPPER_CODE
  extern __shared__ unsigned char shared_memory[];
  __shared__ std::uint64_t barriers[2 * S::kStages];
  const std::uint32_t tiles =
      (static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory)) + 1023) & ~std::uint32_t{1023};
  std::uint32_t full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
  asm volatile("" : "+r"(full));  // kept, not computed again at each use
  const std::uint32_t empty = full + S::kStages * 8;
  const int splits = gridDim.x;
  const int split = blockIdx.x;
  const int first_token = blockIdx.y * S::kTokens;
  const int first_row = blockIdx.z * S::kRows;
  using W = typename S::W;
  constexpr int kDepth = W::kDepth;
  const int steps = (p.depth + kDepth - 1) / kDepth;
  const int begin = steps * split / splits;
  const int count = steps * (split + 1) / splits - begin;
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);  // one for the whole warp, and the compiler knows it
  const int lane = threadIdx.x % 32;

  constexpr bool kFloat8 = W::kNumberBytes == 1;
  __shared__ float token_scales[kFloat8 ? S::kTokens : 1];

  const bool direct = S::kTokens >= 64 && S::kTeams == 1 && splits == 1 && p.direct;

  let_next_start();
  if (threadIdx.x == 0) {
    if (!p.tiles) prefetch_map(w_map);
    prefetch_map(x_map);
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, S::W::kCodes ? S::kGroups * 4 : S::kGroups);
    }
    barrier_init_done();
  }
  __syncthreads();

  float sums[S::kTokens / 2];
  if (warp == S::kWorkers / 32) {  // the warp that copies
    if (lane == 0) {
      const auto copy_weights = [&](int i) {
        const int slot = i % S::kStages;
        const std::uint32_t to = tiles + slot * S::kStageBytes;
        if (p.tiles) {
          barrier_expect(full + slot * 8, S::kGroups * p.tile_bytes + S::kTokenBytes);
#pragma unroll
          for (int g = 0; g < S::kGroups;
               ++g) {  // a group past the end of W copies the last tile: nobody stores its sums
            const std::int64_t tile =
                static_cast<std::int64_t>(min(first_row / 64 + g, (p.rows - 1) / 64)) * steps + begin + i;
            copy_bytes(to + g * W::kTileBytes, static_cast<const char*>(p.tiles) + tile * p.tile_bytes, p.tile_bytes,
                       full + slot * 8);
          }
        } else {
          barrier_expect(full + slot * 8, S::kStageBytes);
          copy_box(to, w_map, full + slot * 8, (begin + i) * kDepth, first_row);
        }
      };
      const auto copy_tokens = [&](int i) {
        const int slot = i % S::kStages;
#pragma unroll
        for (int h = 0; h < kDepth * W::kNumberBytes / kSwizzleBytes; ++h)
          copy_box(tiles + slot * S::kStageBytes + S::kWeightBytes + h * S::kTokens * kSwizzleBytes, x_map,
                   full + slot * 8, (begin + i) * kDepth + h * (kSwizzleBytes / W::kNumberBytes), first_token);
      };
      const int ahead = min(count, S::kStages);
      for (int i = 0; i < ahead; ++i) copy_weights(i);
      wait_for_previous();
      for (int i = 0; i < ahead; ++i) copy_tokens(i);
      for (int i = ahead; i < count; ++i) {
        barrier_wait(empty + i % S::kStages * 8, (i / S::kStages - 1) & 1);
        copy_weights(i);
        copy_tokens(i);
      }
    }
    __syncwarp();
  } else {
    const int group = warp / 4 % S::kGroups;
    const int team = warp / 4 / S::kGroups;
#pragma unroll
    for (int i = 0; i < S::kTokens / 2; ++i) sums[i] = 0.0f;
    if constexpr (kFloat8) {
      static_assert(S::kTokens <= S::kWorkers);
      const int token = threadIdx.x;
      wait_for_previous();
      if (token < S::kTokens)
        token_scales[token] = first_token + token < p.tokens ? p.token_scales[first_token + token] : 0.0f;
    }
    if constexpr (W::kCodes) {
      multiply_codes<T, S>(p, sums, tiles, full, empty, count, group, team);
    } else {
      int slot = 0;
      std::uint32_t parity = 0;
      for (int i = 0; i < count; ++i) {
        barrier_wait(full + slot * 8, parity);
        add_tile<std::conditional_t<kFloat8, E4m3, T>, S>(sums, tiles + slot * S::kStageBytes, group, true);
        products_wait<1>();  // the tile before this one has been read
        if (i > 0 && threadIdx.x % 128 == 0) barrier_arrive(empty + (slot == 0 ? S::kStages - 1 : slot - 1) * 8);
        if (++slot == S::kStages) {
          slot = 0;
          parity ^= 1;
        }
      }
    }
    products_wait<0>();
    const int row = group * 64 + warp % 4 * 16 + lane / 4;
    if ((W::kCodes || kFloat8) && p.row_scales) {
      const float low = first_row + row < p.rows ? p.row_scales[first_row + row] : 0.0f;
      const float high = first_row + row + 8 < p.rows ? p.row_scales[first_row + row + 8] : 0.0f;
#pragma unroll
      for (int i = 0; i < S::kTokens / 2; ++i) sums[i] *= i / 2 % 2 ? high : low;
    }
    // The tiles are done with; the sums take their place.
    asm volatile("bar.sync 1, %0;" ::"n"(S::kWorkers) : "memory");
    if constexpr (kFloat8) {
#pragma unroll
      for (int i = 0; i < S::kTokens / 2; ++i) sums[i] *= token_scales[i / 4 * 8 + lane % 4 * 2 + i % 2];
    }
    if constexpr (S::kTokens >= 64 && S::kTeams == 1) {
      if (direct) {
        wait_for_previous();
        return store_direct<T, S>(p, sums, tiles, first_token, first_row);
      }
    }
#pragma unroll
    for (int i = 0; i < S::kTokens / 8; ++i) {
      const std::uint32_t to = tiles + team * S::kSumBytes + ((i * 8 + lane % 4 * 2) * S::kPitch + row) * 4;
      store_shared(to, sums[i * 4]);
      store_shared(to + S::kPitch * 4, sums[i * 4 + 1]);
      store_shared(to + 32, sums[i * 4 + 2]);
      store_shared(to + S::kPitch * 4 + 32, sums[i * 4 + 3]);
    }
  }
  if (direct) return;  // the warp that copies
  wait_for_previous();
  // Four rows of W at a time for one token; the blocks of the cluster share the work. Gated: 8 rows, gate and up.
  const int quads = p.gated ? S::kRows / 8 : S::kRows / 4;
  const int items = min(S::kTokens, p.tokens - first_token) * quads;
  const int first_item = split * S::kThreads + threadIdx.x;
  // What is to be added arrives while the cluster meets.
  const bool whole = p.wide && !p.gated && p.epilogue.residual != nullptr;
  const auto residual_at = [&](int item) {
    const int n = first_row + item % quads * 4;
    return whole && item < items && n + 3 < p.rows ? load_four<T>(p.epilogue, first_token + item / quads, n)
                                                   : Four<T>{};
  };
  const Four<T> early = residual_at(first_item);
  if (splits > 1)
    cluster_sync();
  else
    __syncthreads();

  for (int item = first_item; item < items; item += splits * S::kThreads) {
    const int token = item / quads;
    const int quad = item % quads;
    const int row = p.gated ? quad / 2 * 16 + quad % 2 * 4 : quad * 4;
    if (first_row + row >= p.rows) continue;
    const std::uint32_t at = tiles + (token * S::kPitch + row) * 4;
    float values[4] = {};
    float ups[4] = {};
#pragma unroll
    for (int team = 0; team < S::kTeams; ++team) {
      add_parts(values, at + team * S::kSumBytes, splits);
      if (p.gated) add_parts(ups, at + team * S::kSumBytes + 32, splits);
    }
    const int m = first_token + token;
    const int n = first_row + row;
    if (p.gated) {
      const int column = n / 16 * 8 + n % 8;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float gate = values[j] * p.epilogue.scale;
        float up = ups[j] * p.epilogue.scale;
        if (p.epilogue.bias) {
          gate += p.epilogue.bias[n + j];
          up += p.epilogue.bias[n + 8 + j];
        }
        values[j] = activate(p.epilogue.activation, gate, 0.0f) * up;
      }
      store4(static_cast<T*>(p.out) + m * p.out_stride + column, values, p.wide);
    } else if (p.floats) {
      float* to = static_cast<float*>(p.out) + m * p.out_stride + n;
      finish4<T>(p.epilogue, n, values, Four<T>{}, p.rows - n);
      if (p.wide && n + 3 < p.rows)
        *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
      else
        for (int j = 0; j < min(4, p.rows - n); ++j) to[j] = values[j];
    } else if (p.wide && n + 3 < p.rows) {
      finish4<T>(p.epilogue, n, values, item == first_item ? early : residual_at(item), 4);
      store4(static_cast<T*>(p.out) + m * p.out_stride + n, values, true);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (n + j < p.rows) store(static_cast<T*>(p.out), p.out_stride, m, n + j, values[j], p.epilogue);
    }
  }
  if (splits > 1) cluster_sync();  // the others may still read this block's sums
#endif
}

template <class T, class S>
void launch_shape(const Context& c, const View& x, const DeviceLinear& l, const Product& product, int splits) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(hopper_kernel<T, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
  check(allowed, "linear");
  const CUtensorMap w_map =
      product.tiles ? CUtensorMap{} : tensor_map(l.dtype, l.data, product.rows, product.depth, product.depth, S::kRows);
  const CUtensorMap x_map = tensor_map(x.dtype, x.data, product.tokens, product.depth, x.stride[0], S::kTokens);
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>((product.tokens + S::kTokens - 1) / S::kTokens),
                  static_cast<unsigned>((product.rows + S::kRows - 1) / S::kRows));
  launch(c, hopper_kernel<T, S>, grid, S::kThreads, S::kShared, splits, w_map, x_map, product);
}

// Parts of K: 2, 4 or 8, as long as the blocks stay within `per_sm` for a multiprocessor (one, for 8: larger clusters
// wait longer for each other) and each has 4 tiles to stream. For codes, clusters of any size that made the rounds of blocks
// even were slower on an H200.
int splits_for(int blocks, int tiles, int most, int per_sm = 2) {
  int splits = 1;
  while (splits < most) {
    const int next = splits * 2;
    if (blocks * next > (next > 4 ? kTargetBlocks : per_sm * kTargetBlocks) || tiles < next * 4) break;
    splits = next;
  }
  return splits;
}

// Whether dtypes and alignment are such as the kernel reads and writes.
inline bool product_fits(const View& x, const View* residual, const DeviceLinear& l, const View& out) {
  const bool floats = out.dtype == core::DType::f32 && !residual && !l.gated;
  return x.dtype == l.dtype && (out.dtype == l.dtype || floats) && l.in_features % 8 == 0 && x.stride[0] % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && reinterpret_cast<std::uintptr_t>(l.data) % 16 == 0;
}

// All but what says how W lies.
inline Product product_of(const device::Linear& op, const View& x, const View* residual, const DeviceLinear& l,
                          const View& out) {
  const auto aligned = [](const View& v, int count) {
    return v.stride[0] % count == 0 &&
           reinterpret_cast<std::uintptr_t>(v.data) % (count * core::dtype_size(v.dtype)) == 0;
  };
  Product product{};
  product.tokens = static_cast<int>(x.shape[0]);
  product.rows = static_cast<int>(l.rows());
  product.depth = static_cast<int>(l.in_features);
  product.out = out.data;
  product.out_stride = out.stride[0];
  product.epilogue = epilogue_of(op, residual, l);
  product.gated = l.gated;
  product.floats = out.dtype == core::DType::f32;
  product.direct = !product.floats && aligned(out, 8) &&
                   (!residual || (aligned(*residual, 8) && op.activation == device::Activation::none)) &&
                   out.shape[1] % 8 == 0;
  product.wide = aligned(out, 4) && (!residual || aligned(*residual, 4));
  return product;
}

}  // namespace
}  // namespace fastllm::cuda
