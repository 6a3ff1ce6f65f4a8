#pragma once
// The product of hopper_product.cuh for float8 times float8 and many tokens: blocks that stay. A tile of the output is
// 128 rows of W by kTokens tokens; a block takes one after the other, and the warp that copies goes on to the next tile
// while the sums of the last are on their way out, so that neither waits for the other. Blocks at work at one time
// share eight tiles of tokens, which stay in L2. On an H200, pairs of blocks that copy tokens for each other
// (multicast) were slower by a quarter.
//
// Sums stay in the tensor cores for the whole of K: quant/fp8_dynamic.cu says what that costs.

#include "device/cuda/hopper_product.cuh"

namespace fastllm::cuda {
namespace {

template <int kTokens_>
struct Staying {
  static constexpr int kRows = 128, kTokens = kTokens_, kGroups = 2;
  static constexpr int kThreads =
      kGroups * 128 + 128;  // a warpgroup for the warp that copies: registers move by warpgroups
  static constexpr int kPart = 128;                     // tokens that leave at a time
  static constexpr int kParts = kTokens / kPart;
  static constexpr int kStages = kParts == 1 ? 6 : 4;
  static constexpr int kTile = 64 * kSwizzleBytes;
  static constexpr int kWeightBytes = kGroups * kTile;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kSwizzleBytes;
  static constexpr int kOutBytes = kPart * 64 * 2;  // of a warpgroup
  static constexpr int kShared = kStages * kStageBytes + kGroups * kOutBytes + 1024;
  using W = Float8;
};

// Where tile number `i` lies.
struct Place {
  int row, token;
};
__device__ inline Place place_of(int i, int row_tiles, int token_tiles) {
  constexpr int kTogether = 8;
  const int all = row_tiles * kTogether;
  const int first = i / all * kTogether;
  const int wide = min(kTogether, token_tiles - first);
  const int rest = i % all;
  return {rest / wide, first + rest % wide};
}

#if FASTLLM_HOPPER_CODE
__device__ inline float2 load_shared_pair(std::uint32_t shared) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(shared) : "memory");
  return v;
}
#endif

template <class T, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    staying_kernel(const __grid_constant__ CUtensorMap x_map, Product p, int row_tiles, int token_tiles) {
#if FASTLLM_HOPPER_CODE
  extern __shared__ unsigned char shared_memory[];
  __shared__ std::uint64_t barriers[2 * S::kStages];
  __shared__ float token_scales[S::kGroups][S::kPart];
  const std::uint32_t tiles =
      (static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory)) + 1023) & ~std::uint32_t{1023};
  const std::uint32_t full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
  const std::uint32_t empty = full + S::kStages * 8;
  const int count = row_tiles * token_tiles;
  const int depth_tiles = (p.depth + kSwizzleBytes - 1) / kSwizzleBytes;
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int lane = threadIdx.x % 32;

  let_next_start();
  if (threadIdx.x == 0) {
    prefetch_map(x_map);
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, S::kGroups);
    }
    barrier_init_done();
  }
  __syncthreads();

  if (warp >= S::kGroups * 4) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (warp == S::kGroups * 4 && lane == 0) {
      int slot = 0;
      std::uint32_t parity = 1;  // the first round finds every slot empty
      bool waited = false;
      for (int i = blockIdx.x; i < count; i += gridDim.x) {
        const Place place = place_of(i, row_tiles, token_tiles);
        const int row = place.row * S::kGroups;  // in tiles of 64
        const int last = (p.rows - 1) / 64;
        const auto* low =
            static_cast<const char*>(p.tiles) + static_cast<std::int64_t>(min(row, last)) * depth_tiles * S::kTile;
        const auto* high =
            static_cast<const char*>(p.tiles) + static_cast<std::int64_t>(min(row + 1, last)) * depth_tiles * S::kTile;
        const auto copy_weights = [&](int k, int to) {
          barrier_expect(full + to * 8, S::kStageBytes);
          copy_bytes(tiles + to * S::kStageBytes, low + static_cast<std::int64_t>(k) * S::kTile, S::kTile,
                     full + to * 8);
          copy_bytes(tiles + to * S::kStageBytes + S::kTile, high + static_cast<std::int64_t>(k) * S::kTile, S::kTile,
                     full + to * 8);
        };
        int begun = 0;
        if (!waited) {  // weights do not depend on the kernel before
          begun = min(depth_tiles, S::kStages);
          for (int k = 0; k < begun; ++k) copy_weights(k, k);
          wait_for_previous();
          waited = true;
        }
        for (int k = 0; k < depth_tiles; ++k) {
          barrier_wait(empty + slot * 8, parity);
          if (k >= begun) copy_weights(k, slot);
          copy_box(tiles + slot * S::kStageBytes + S::kWeightBytes, x_map, full + slot * 8, k * kSwizzleBytes,
                   place.token * S::kTokens);
          if (++slot == S::kStages) {
            slot = 0;
            parity ^= 1;
          }
        }
      }
    }
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int group = warp / 4;
    const int thread = threadIdx.x % 128;
    const std::uint32_t staged = tiles + S::kStages * S::kStageBytes + group * S::kOutBytes;
    const std::uint32_t scales_at =
        static_cast<std::uint32_t>(__cvta_generic_to_shared(token_scales[group])) + lane % 4 * 8;
    const Epilogue& e = p.epilogue;
    const auto release = [&](int done) {
      if (thread == 0) barrier_arrive(empty + done * 8);
    };
    const auto meet = [&] { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); };
    int slot = 0;
    std::uint32_t parity = 0;
    float sums[S::kTokens / 2] = {};
    wait_for_previous();
    for (int i = blockIdx.x; i < count; i += gridDim.x) {
      const Place place = place_of(i, row_tiles, token_tiles);
      const int first_row = place.row * S::kRows + group * 64;
      const int first_token = place.token * S::kTokens;
      const int row = first_row + warp % 4 * 16 + lane / 4;
      const auto at_row = [&](const float* from, int r, float otherwise) {
        return from && r < p.rows ? from[r] : otherwise;
      };
      const auto at_token = [&](int t) { return t < p.tokens ? p.token_scales[t] : 0.0f; };
      float of_token[S::kParts];
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) of_token[part] = at_token(first_token + part * S::kPart + thread);
      const float low_scale = at_row(p.row_scales, row, 0.0f);
      const float high_scale = at_row(p.row_scales, row + 8, 0.0f);
      for (int k = 0; k < depth_tiles; ++k) {
        barrier_wait(full + slot * 8, parity);
        add_tile<E4m3, S>(sums, tiles + slot * S::kStageBytes, group, k > 0);
        products_wait<1>();  // the tile before this one has been read
        if (k > 0) release(slot == 0 ? S::kStages - 1 : slot - 1);
        if (++slot == S::kStages) {
          slot = 0;
          parity ^= 1;
        }
      }

      products_wait<0>();
#pragma unroll
      for (int j = 0; j < S::kTokens / 2; ++j) asm volatile("" : "+f"(sums[j])::"memory");  // not read before
      release(slot == 0 ? S::kStages - 1 : slot - 1);

      const int columns = p.gated ? 32 : 64;
      const int first_column = p.gated ? first_row / 2 : first_row;
      const int width = min(columns, (p.gated ? p.rows / 2 : p.rows) - first_column);
      const int pitch = columns * 2;     // bytes; columns of 16 bytes are permuted by the token
      const int shift = p.gated ? 2 : 3;  // eights of columns
      const int swizzle = (1 << shift) - 1;
      const int matrix = lane / 8;
      // What a thread stores of a part: piece i is 8 columns of one token.
      constexpr int kPieces = S::kPart * 8 / 128;
      const auto token_of = [&](int i) { return (thread + i * 128) >> shift; };
      const auto eight_of = [&](int i) { return (thread + i * 128) & swizzle; };
      const auto inside = [&](int part, int i) {
        return token_of(i) < min(S::kPart, p.tokens - first_token - part * S::kPart) && eight_of(i) * 8 < width;
      };
      const auto residual_at = [&](int part, int i) {
        return static_cast<const T*>(e.residual) + (first_token + part * S::kPart + token_of(i)) * e.residual_stride +
               first_column + eight_of(i) * 8;
      };
      const float low_bias = at_row(e.bias, row, 0.0f);
      const float high_bias = at_row(e.bias, row + 8, 0.0f);
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) {
        token_scales[group][thread] = of_token[part];
        meet();  // and what was staged before is gone
        const auto leave = [&](auto&& act) {
#pragma unroll
          for (int j = 0; j < S::kPart / 8; j += 4) {  // 32 tokens at a time
            std::uint32_t pairs[8];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              const float* s = sums + part * (S::kPart / 2) + (j + q) * 4;
              const float2 t = load_shared_pair(scales_at + (j + q) * 32);
              const float a = act(s[0] * low_scale * t.x * e.scale + low_bias);
              const float b = act(s[1] * low_scale * t.y * e.scale + low_bias);
              const float c = s[2] * high_scale * t.x * e.scale + high_bias;
              const float d = s[3] * high_scale * t.y * e.scale + high_bias;
              if (p.gated) {
                pairs[q] = pack2<T>(a * c, b * d);
              } else {
                pairs[q * 2] = pack2<T>(a, b);
                pairs[q * 2 + 1] = pack2<T>(act(c), act(d));
              }
            }
            const int eight = p.gated ? warp % 4 : warp % 4 * 2 + matrix % 2;
            if (p.gated) {
              const int token = j * 8 + matrix * 8 + lane % 8;
              store_matrix_transposed(staged + token * pitch + ((eight ^ (token / 2 & swizzle)) * 16), pairs[0],
                                      pairs[1], pairs[2], pairs[3]);
            } else {
#pragma unroll
              for (int q = 0; q < 2; ++q) {
                const int token = j * 8 + q * 16 + matrix / 2 * 8 + lane % 8;
                store_matrix_transposed(staged + token * pitch + ((eight ^ (token & swizzle)) * 16), pairs[q * 4],
                                        pairs[q * 4 + 1], pairs[q * 4 + 2], pairs[q * 4 + 3]);
              }
            }
          }
        };
        if (e.activation == device::Activation::none)
          leave([](float x) { return x; });
        else if (e.activation == device::Activation::silu)
          leave([](float x) { return silu(x); });
        else
          leave([&](float x) { return activate(e.activation, x, 0.0f); });
        meet();
        constexpr int kBatch = 4;  // residuals on their way together
#pragma unroll 1
        for (int first = 0; first < kPieces; first += kBatch) {
          Eight<T> more[kBatch];
          if (e.residual) {
#pragma unroll
            for (int i = 0; i < kBatch; ++i)
              if (inside(part, first + i)) more[i] = *reinterpret_cast<const Eight<T>*>(residual_at(part, first + i));
          }
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (!inside(part, first + i)) continue;
            const int token = token_of(first + i);
            const int eight = eight_of(first + i);
            const int turned = eight ^ ((p.gated ? token / 2 : token) & swizzle);
            Eight<T> value = load_shared_eight_as<Eight<T>>(staged + token * pitch + turned * 16);
            if (e.residual) {
#pragma unroll
              for (int j = 0; j < 8; ++j) value.v[j] = from_float<T>(to_float(value.v[j]) + to_float(more[i].v[j]));
            }
            const std::int64_t m = first_token + part * S::kPart + token;
            *reinterpret_cast<Eight<T>*>(static_cast<T*>(p.out) + m * p.out_stride + first_column + eight * 8) = value;
          }
        }
      }
    }
  }
#endif
}

// How long such a product takes, in tiles of 128 x 256 one after the other.
template <int kTokens>
double staying_rounds(const Context& c, const Product& p) {
  const int tiles = (p.rows + 127) / 128 * ((p.tokens + kTokens - 1) / kTokens);
  return (tiles + c.multiprocessors - 1) / c.multiprocessors * (kTokens == 256 ? 1.0 : 0.55);
}

// Needs p.direct.
template <class T, int kTokens>
void launch_staying(const Context& c, const View& codes, const Product& p) {
  using S = Staying<kTokens>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(staying_kernel<T, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
  check(allowed, "linear");
  const CUtensorMap x_map = tensor_map(codes.dtype, codes.data, p.tokens, p.depth, codes.stride[0], kTokens);
  const int row_tiles = (p.rows + S::kRows - 1) / S::kRows;
  const int token_tiles = (p.tokens + kTokens - 1) / kTokens;
  const int blocks = std::min(row_tiles * token_tiles, c.multiprocessors);
  launch(c, staying_kernel<T, S>, dim3(static_cast<unsigned>(blocks)), S::kThreads, S::kShared, 1, x_map, p, row_tiles,
         token_tiles);
}

}  // namespace
}  // namespace fastllm::cuda
