#pragma once
// THE product of Hopper (sm_90a): out[T, N] = act(scale * x W^T + bias) + residual, one kernel from a single token to
// thousands, for weights as 16-bit numbers or as codes (`quant::Code`).
//
// The weight is the left operand: a block takes kRows rows of W and kTokens tokens, so that one token wastes nothing but
// idle product columns and the tile that streams from memory is always full. One warp keeps kStages tiles of W and x on
// their way (TMA), a warpgroup per 64 rows multiplies (wgmma). A small product is cut along K over the blocks of a
// cluster, which add their sums through shared memory in a fixed order: no workspace, no atomics, the same bits every
// time. Weights do not depend on the kernel before, so the first tiles are under way before that one has ended
// (programmatic dependent launch).
//
// Numbers (`Numbers`) are read from shared memory by the product itself. Codes (`Codes`) become numbers on their way through
// registers, the product's left operand: a tile holds for each thread, in the order in which it needs them, the codes of its
// fragments, so that nothing is shuffled and every load takes 16 bytes.
//
// gated: W holds gate and up rows in alternating groups of 8; out[T, N / 2] = act(gate) * up.

#include "device/cuda/common.cuh"
#include "device/cuda/epilogue.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/launch.h"
#include "device/cuda/mma.cuh"
#include "device/cuda/tensor_map.h"
#include "quant/format.h"

namespace fastllm::cuda {
namespace {

constexpr int kSwizzleDepth = 64;  // 16-bit numbers in a row of 128 bytes
constexpr int kTargetBlocks = 132;

// How 64 rows of a tile of W lie in shared memory: kDepth numbers of K, kTileBytes at most.
struct Numbers {
  static constexpr int kDepth = kSwizzleDepth;
  static constexpr int kTileBytes = 64 * kDepth * 2;
  static constexpr bool kCodes = false;
};

// A tile of codes: [kPlanes][128 threads] of 16 bytes, then up to four lines of scales and (int4) as many of zero points. Each
// line is [4 warps][8] pairs of 16-bit numbers, for rows 16 warp + i and + 8.
template <quant::Code kCode_>
struct Codes {
  static constexpr quant::Code kCode = kCode_;
  static constexpr int kDepth = 128;
  static constexpr int kPlanes = kCode == quant::Code::int4 ? 2 : 4;
  static constexpr int kCodeBytes = kPlanes * 2048;
  static constexpr int kLine = 128;
  static constexpr int kTileBytes = kCodeBytes + 1024;
  static constexpr bool kCodes = true;
};

template <class W_, int kRows_, int kTokens_, int kStages_, int kPerSm_>
struct Shape {
  using W = W_;
  static constexpr int kRows = kRows_, kTokens = kTokens_, kStages = kStages_, kPerSm = kPerSm_;
  static constexpr int kGroups = kRows / 64;  // warpgroups that multiply
  static constexpr int kThreads = kGroups * 128 + 32;
  static constexpr int kWeightBytes = kGroups * W::kTileBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * W::kDepth * 2;
  static constexpr int kPitch =
      kRows + 4;  // floats between tokens of the sums, so that a warp's stores touch all banks
  static constexpr int kSumBytes = kTokens * kPitch * 4;
  static constexpr int kShared = (kStages * kStageBytes > kSumBytes ? kStages * kStageBytes : kSumBytes) + 1024;
};

struct Product {
  int tokens, rows, depth;  // T, N (rows of W), K
  void* out;
  std::int64_t out_stride;
  Epilogue epilogue;
  bool gated, wide, floats;  // wide: four outputs can be stored at once; floats: out is float32
  bool direct;  // eight can, and neither N nor the residual stands against it
  const void* tiles;  // W as tiles (DeviceLinear::tiled), or null: W is rows, read through its map
  int tile_bytes;     // of 64 rows
  int lines;          // of scales in a tile of codes: 0, 1, 2 or 4
  bool zeros;         // as many lines of zero points follow
  const float* row_scales;  // [N] that multiply sums, or null
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
    finish_pairs<T, S>(sums, pairs, p.gated, e.scale, low, high, [](float x) { return x / (1.0f + __expf(-x)); });
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
  asm volatile("bar.sync 1, %0;" ::"n"(S::kGroups * 128) : "memory");
  const int tokens = min(S::kTokens, p.tokens - first_token);
  const int first_column = p.gated ? first_row / 2 : first_row;
  const int width = min(columns, (p.gated ? p.rows / 2 : p.rows) - first_column);
  const int eights = columns / 8;
  for (int i = threadIdx.x; i < tokens * eights; i += S::kGroups * 128) {
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

// Bits of bfloat16 pairs.
constexpr std::uint32_t kOnes = 0x3f803f80;
constexpr std::uint32_t kFp8Unit = 0x7b807b80;  // 2^120: from the exponent of e4m3 to that of bfloat16
constexpr std::uint32_t kInt4Zero = 0x43084308;  // 128 + 8

__device__ inline std::uint32_t times(std::uint32_t a, std::uint32_t b) {
  const __nv_bfloat162 product =
      __hmul2(*reinterpret_cast<__nv_bfloat162*>(&a), *reinterpret_cast<__nv_bfloat162*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&product);
}
__device__ inline std::uint32_t minus(std::uint32_t a, std::uint32_t b) {
  const __nv_bfloat162 rest = __hsub2(*reinterpret_cast<__nv_bfloat162*>(&a), *reinterpret_cast<__nv_bfloat162*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&rest);
}

// The scale and the zero point of a thread's two rows, each twice.
struct Factors {
  std::uint32_t scale[2], zero[2];
};
template <class W>
__device__ inline Factors factors_at(const Product& p, std::uint32_t line) {
  constexpr std::uint32_t plain = W::kCode == quant::Code::fp8 ? kFp8Unit : kOnes;
  const std::uint32_t scale = p.lines ? load_shared_word(line) : plain;
  const std::uint32_t zero = p.zeros ? load_shared_word(line + p.lines * W::kLine) : kInt4Zero;
  return {{__byte_perm(scale, 0, 0x1010), __byte_perm(scale, 0, 0x3232)},
          {__byte_perm(zero, 0, 0x1010), __byte_perm(zero, 0, 0x3232)}};
}

// The left operand of one product of depth 16, a[4] as ProductsLeft wants it, number `step` of a plane.
// int4: one word, number j of the low and of the high half are a[j]. A nibble in the mantissa of 128 is 128 + code.
// 8 bits: two words, bytes 0 and 2 are a[2 h], bytes 1 and 3 a[2 h + 1].
template <class W>
__device__ inline void fragment(std::uint32_t (&a)[4], const uint4& v, int step, const Factors& f) {
  const auto word = [&](int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; };
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    std::uint32_t number;
    if constexpr (W::kCode == quant::Code::int4) {
      const std::uint32_t shifted = word(step) >> (4 * j);
      number = minus((shifted & 0x000f000f) | 0x43004300, f.zero[j % 2]);
    } else if constexpr (W::kCode == quant::Code::int8) {
      // Low seven bits in the mantissa of 128; the sign bit makes 256 of 128.
      const std::uint32_t shifted = word(step * 2 + j / 2) >> (8 * (j % 2));
      number = minus((shifted & 0x007f007f) | 0x43004300, (shifted & 0x00800080) | 0x43004300);
    } else {
      const std::uint32_t shifted = word(step * 2 + j / 2) << (8 * (1 - j % 2));
      number = (shifted & 0x80008000) | ((shifted & 0x7f007f00) >> 4);
    }
    a[j] = times(number, f.scale[j % 2]);
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
  const std::uint32_t full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
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
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;

  const bool direct = S::kTokens >= 64 && splits == 1 && p.direct;

  let_next_start();
  if (threadIdx.x == 0) {
    if (!p.tiles) prefetch_map(w_map);
    prefetch_map(x_map);
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, S::kGroups);
    }
    barrier_init_done();
  }
  __syncthreads();

  float sums[S::kTokens / 2];
  if (warp == S::kGroups * 4) {  // the warp that copies
    if (lane == 0) {
      const auto copy_weights = [&](int i) {
        const int slot = i % S::kStages;
        const std::uint32_t to = tiles + slot * S::kStageBytes;
        if (p.tiles) {
          barrier_expect(full + slot * 8, S::kGroups * p.tile_bytes + S::kTokens * kDepth * 2);
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
        for (int h = 0; h < kDepth / kSwizzleDepth; ++h)
          copy_box(tiles + slot * S::kStageBytes + S::kWeightBytes + h * S::kTokens * 128, x_map, full + slot * 8,
                   (begin + i) * kDepth + h * kSwizzleDepth, first_token);
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
    const int group = warp / 4;
#pragma unroll
    for (int i = 0; i < S::kTokens / 2; ++i) sums[i] = 0.0f;
    for (int i = 0; i < count; ++i) {
      const int slot = i % S::kStages;
      barrier_wait(full + slot * 8, (i / S::kStages) & 1);
      const std::uint32_t w_at = tiles + slot * S::kStageBytes + group * W::kTileBytes;
      const std::uint32_t x_at = tiles + slot * S::kStageBytes + S::kWeightBytes;
      const auto release_last = [&] {
        if (i > 0 && threadIdx.x % 128 == 0) barrier_arrive(empty + (i - 1) % S::kStages * 8);
      };
      if constexpr (W::kCodes) {
        // Products of depth 16 in batches, each of two with registers of its own: while one is multiplied the next
        // becomes numbers.
        constexpr int kBatch = S::kTokens > 64 ? 2 : 4;
        constexpr int kPlaneSteps = 8 / W::kPlanes;
        const std::uint32_t codes = w_at + threadIdx.x % 128 * 16;
        const std::uint32_t line = w_at + W::kCodeBytes + (warp % 4 * 8 + lane / 4) * 4;
        std::uint32_t a[2][kBatch][4];
#pragma unroll
        for (int batch = 0; batch < 8 / kBatch; ++batch) {
          products_wait<1>();  // the batch that had these registers
          if (batch == 1) release_last();
          uint4 words;
          Factors f;
#pragma unroll
          for (int i_step = 0; i_step < kBatch; ++i_step) {
            const int step = batch * kBatch + i_step;
            if (i_step == 0 || step % kPlaneSteps == 0) words = load_shared_words(codes + step / kPlaneSteps * 2048);
            if (step % 2 == 0) f = factors_at<W>(p, line + step * p.lines / 8 * W::kLine);
            fragment<W>(a[batch % 2][i_step], words, step % kPlaneSteps, f);
          }
          products_begin();
#pragma unroll
          for (int i_step = 0; i_step < kBatch; ++i_step) {
            const int step = batch * kBatch + i_step;
            ProductsLeft<T, S::kTokens>::add(sums, a[batch % 2][i_step],
                                             tile_descriptor(x_at + step / 4 * S::kTokens * 128 + step % 4 * 32));
          }
          products_commit();
        }
      } else {
        products_begin();
#pragma unroll
        for (int kk = 0; kk < kDepth / 16; ++kk)
          Products<T, S::kTokens>::add(sums, tile_descriptor(w_at + kk * 32), tile_descriptor(x_at + kk * 32), 1);
        products_commit();
        products_wait<1>();  // the tile before this one has been read
        release_last();
      }
    }
    products_wait<0>();
    const int row = group * 64 + warp % 4 * 16 + lane / 4;
    if (W::kCodes && p.row_scales) {
      const float low = first_row + row < p.rows ? p.row_scales[first_row + row] : 0.0f;
      const float high = first_row + row + 8 < p.rows ? p.row_scales[first_row + row + 8] : 0.0f;
#pragma unroll
      for (int i = 0; i < S::kTokens / 2; ++i) sums[i] *= i / 2 % 2 ? high : low;
    }
    // The tiles are done with; the sums take their place.
    asm volatile("bar.sync 1, %0;" ::"n"(S::kGroups * 128) : "memory");
    if constexpr (S::kTokens >= 64) {
      if (direct) {
        wait_for_previous();
        return store_direct<T, S>(p, sums, tiles, first_token, first_row);
      }
    }
#pragma unroll
    for (int i = 0; i < S::kTokens / 8; ++i) {
      const std::uint32_t to = tiles + ((i * 8 + lane % 4 * 2) * S::kPitch + row) * 4;
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
    add_parts(values, at, splits);
    if (p.gated) add_parts(ups, at + 32, splits);
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
      l.tiled ? CUtensorMap{} : tensor_map(l.dtype, l.data, product.rows, product.depth, product.depth, S::kRows);
  const CUtensorMap x_map = tensor_map(x.dtype, x.data, product.tokens, product.depth, x.stride[0], S::kTokens);
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>((product.tokens + S::kTokens - 1) / S::kTokens),
                  static_cast<unsigned>((product.rows + S::kRows - 1) / S::kRows));
  launch(c, hopper_kernel<T, S>, grid, S::kThreads, S::kShared, splits, w_map, x_map, product);
}

// Parts of K: 2, 4 or 8, as long as the blocks stay within `per_sm` for a multiprocessor (one, for 8: larger clusters
// wait longer for each other) and each has 4 tiles to stream.
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
