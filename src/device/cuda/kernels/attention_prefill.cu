// attention, many queries a sequence, on Hopper: 16-bit cache, head sizes 64 and 128, paged blocks of 8 to 128 tokens.
//
// A block takes one query head of 128 queries: a warpgroup per 64 rows, and one warp that fetches tiles of 128 keys and
// values, block by block of the paged cache (TMA). Scores and sums are warpgroup products (wgmma); probabilities go from
// the scores' registers straight into the second product. Online softmax in base 2 as in Dao et al. 2022; the split of
// work between a fetching warp and computing warpgroups follows Shah et al. 2024 ("FlashAttention-3").

#include "device/cuda/attention.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/tensor_map.h"

namespace fastllm::cuda {
namespace {

constexpr int kRows = 128;
constexpr int kKeys = 128;
constexpr int kGroups = 2;
constexpr int kThreads = kGroups * 128 + 32;

template <int kD>
constexpr int kStages = kD == 64 ? 4 : 2;
template <int kD>
constexpr int kTileBytes = kKeys * kD * 2;
template <int kD>
constexpr int kShared = kRows * kD * 2 + kStages<kD> * 2 * kTileBytes<kD> + 1024;

// Tile y of all sequences with more than one query, the longest rows of each first.
__device__ inline bool find_rows(const AttentionCall& c, int tile, int& sequence, int& first) {
  for (int s = 0; s < c.sequences; ++s) {
    const int begin = c.query_start[s];
    const int queries = c.query_start[s + 1] - begin;
    if (queries <= 1) continue;
    const int tiles = (queries + kRows - 1) / kRows;
    if (tile < tiles) {
      sequence = s;
      first = begin + (tiles - 1 - tile) * kRows;
      return true;
    }
    tile -= tiles;
  }
  return false;
}

template <class T, int kD>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                   AttentionCall c) {
#if FASTLLM_HOPPER_CODE
  extern __shared__ unsigned char shared_memory[];
  __shared__ std::uint64_t barriers[2 * kStages<kD>];
  let_next_start();
  wait_for_previous();
  int sequence = 0;
  int first = 0;
  if (!find_rows(c, blockIdx.y, sequence, first)) return;
  const std::uint32_t q_at =
      (static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory)) + 1023) & ~std::uint32_t{1023};
  const std::uint32_t tiles_at = q_at + kRows * kD * 2;
  const std::uint32_t full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
  const std::uint32_t empty = full + kStages<kD> * 8;
  const int head = blockIdx.x;
  const int rows = min(kRows, c.query_start[sequence + 1] - first);
  const int position = c.positions[first];
  const int visible = position + rows;  // keys the last row sees
  const int oldest = c.window > 0 ? max(0, position + 1 - c.window) : 0;
  const int begin = oldest / kKeys;
  const int end = (visible + kKeys - 1) / kKeys;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages<kD>; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, kGroups);
    }
    barrier_init_done();
  }
  // The queries, swizzled as the products read them: halves of 64 channels one after the other.
  for (int i = threadIdx.x; i < kRows * kD / 8; i += kThreads) {
    const int row = i / (kD / 8);
    const T* from = static_cast<const T*>(c.q.data) + (first + min(row, rows - 1)) * c.q.stride[0] +
                    head * c.q.stride[1] + i % (kD / 8) * 8;
    store_shared_eight(q_at + tile_offset<kRows>(row, i % (kD / 8)), from);
  }
  publish_shared();
  __syncthreads();

  if (warp == kGroups * 4) {  // the warp that fetches
    if (lane == 0) {
      const int kv_head = head / c.group;
      const std::int32_t* table = c.block_table + static_cast<std::int64_t>(sequence) * c.max_blocks;
      const int box = c.block_tokens;
      for (int tile = begin; tile < end; ++tile) {
        const int turn = tile - begin;
        const int slot = turn % kStages<kD>;
        if (turn >= kStages<kD>) barrier_wait(empty + slot * 8, (turn / kStages<kD> - 1) & 1);
        const int boxes = (min(kKeys, visible - tile * kKeys) + box - 1) / box;
        barrier_expect(full + slot * 8, boxes * box * kD * 2 * 2);
        const std::uint32_t k_at = tiles_at + slot * (2 * kTileBytes<kD>);
        for (int b = 0; b < boxes; ++b) {
          const int row = (table[tile * (kKeys / box) + b] * c.kv_heads + kv_head) * box;
#pragma unroll
          for (int half = 0; half < kD / 64; ++half) {
            const std::uint32_t to = k_at + half * (kKeys * 128) + b * box * 128;
            copy_box(to, k_map, full + slot * 8, half * 64, row);
            copy_box(to + kTileBytes<kD>, v_map, full + slot * 8, half * 64, row);
          }
        }
      }
    }
    return;
  }

  const int group = warp / 4;
  const int row = group * 64 + warp % 4 * 16 + lane / 4;  // and row + 8
  const int lowest = position + group * 64;  // position of the group's first row
  const float scale = c.softcap > 0.0f ? c.scale : c.scale * kLog2E;
  float out[kD / 2];
#pragma unroll
  for (int i = 0; i < kD / 2; ++i) out[i] = 0.0f;
  float best[2] = {-INFINITY, -INFINITY};
  float total[2] = {};
  for (int tile = begin; tile < end; ++tile) {
    const int turn = tile - begin;
    const int slot = turn % kStages<kD>;
    const int first_key = tile * kKeys;
    const std::uint32_t k_at = tiles_at + slot * (2 * kTileBytes<kD>);
    const std::uint32_t v_at = k_at + kTileBytes<kD>;
    barrier_wait(full + slot * 8, turn / kStages<kD> & 1);
    if (first_key <= lowest + 63) {  // else in the future of all of the group's rows
      float s[kKeys / 2];
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) s[i] = 0.0f;
      products_begin();
#pragma unroll
      for (int kk = 0; kk < kD / 16; ++kk) {
        const int half = kk / 4;
        Products<T, kKeys>::add(s, tile_descriptor(q_at + half * (kRows * 128) + group * (64 * 128) + kk % 4 * 32),
                                tile_descriptor(k_at + half * (kKeys * 128) + kk % 4 * 32), 1);
      }
      products_commit();
      if (visible < first_key + kKeys) {  // rows of the cache that nobody wrote may hold NaN
        for (int i = threadIdx.x % 128; i < (first_key + kKeys - visible) * (kD / 8); i += 128) {
          const uint4 zeros{};
          store_shared_eight(v_at + tile_offset<kKeys>(visible - first_key + i / (kD / 8), i % (kD / 8)), &zeros);
        }
        publish_shared();
        asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
      }
      products_wait<0>();
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) s[i] *= scale;
      if (c.softcap > 0.0f) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) s[i] = tanhf(s[i] / c.softcap) * c.softcap * kLog2E;
      }
      if (first_key + kKeys - 1 > lowest || (c.window > 0 && first_key <= lowest + 63 - c.window)) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) {
          const int key = first_key + i / 4 * 8 + lane % 4 * 2 + i % 2;
          const int at = position + row + i % 4 / 2 * 8;
          if (key > at || (c.window > 0 && key <= at - c.window)) s[i] = -INFINITY;
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float higher = best[h];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) higher = fmaxf(higher, fmaxf(s[j * 4 + h * 2], s[j * 4 + h * 2 + 1]));
        higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 1));
        higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 2));
        const float level = higher == -INFINITY ? 0.0f : higher;
        const float keep = exp2_fast(best[h] - level);
        best[h] = higher;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
          for (int f = 0; f < 2; ++f) {
            float& x = s[j * 4 + h * 2 + f];
            x = exp2_fast(x - level);
            sum += x;
          }
        total[h] = total[h] * keep + sum;
#pragma unroll
        for (int j = 0; j < kD / 8; ++j) {
          out[j * 4 + h * 2] *= keep;
          out[j * 4 + h * 2 + 1] *= keep;
        }
      }
      std::uint32_t p[kKeys / 16][4];
#pragma unroll
      for (int kk = 0; kk < kKeys / 16; ++kk)
#pragma unroll
        for (int f = 0; f < 4; ++f) p[kk][f] = pack2<T>(s[kk * 8 + f * 2], s[kk * 8 + f * 2 + 1]);
      products_begin();
#pragma unroll
      for (int kk = 0; kk < kKeys / 16; ++kk)
        ProductsTurned<T, kD>::add(out, p[kk], transposed_descriptor(v_at + kk * (16 * 128), kKeys * 128));
      products_commit();
      products_wait<0>();
    }
    if (threadIdx.x % 128 == 0) barrier_arrive(empty + slot * 8);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = total[h];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (row + h * 8 >= rows) continue;
    const float factor = 1.0f / sum;
    T* to =
        static_cast<T*>(c.out.data) + (first + row + h * 8) * c.out.stride[0] + head * c.out.stride[1] + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kD / 8; ++j)
      *reinterpret_cast<std::uint32_t*>(to + j * 8) =
          pack2<T>(out[j * 4 + h * 2] * factor, out[j * 4 + h * 2 + 1] * factor);
  }
#endif
}

template <class T, int kD>
void launch_prefill(const Context& c, const AttentionCall& call, core::DType dtype, int tokens, int heads) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(prefill_kernel<T, kD>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared<kD>);
  check(allowed, "attention");
  // How long the cache is does not matter: the block table names rows that exist.
  constexpr std::int64_t kAnyRows = std::int64_t{1} << 31;
  const CUtensorMap k_map = tensor_map(dtype, call.k, kAnyRows, kD, kD, call.block_tokens);
  const CUtensorMap v_map = tensor_map(dtype, call.v, kAnyRows, kD, kD, call.block_tokens);
  const auto tiles = static_cast<unsigned>((tokens + kRows - 1) / kRows + call.sequences);
  launch(c, prefill_kernel<T, kD>, dim3(static_cast<unsigned>(heads), tiles), kThreads, kShared<kD>, 1, k_map, v_map,
         call);
}

}  // namespace

bool attention_prefill(const Context& c, const AttentionCall& call, core::DType q, core::DType cache, int tokens,
                       int heads) {
  const auto even = [](const KView& v, int elements) {
    return v.stride[0] % elements == 0 && v.stride[1] % elements == 0 &&
           reinterpret_cast<std::uintptr_t>(v.data) % (static_cast<std::size_t>(elements) * 2) == 0;
  };
  if (!c.hopper || q != cache || !core::is_half(q) || call.head_dim != call.v_head_dim || !even(call.q, 8) ||
      !even(call.out, 2))
    return false;
  if (call.head_dim != 64 && call.head_dim != 128) return false;
  if (call.block_tokens % 8 != 0 || kKeys % call.block_tokens != 0) return false;
  const bool bf16 = q == core::DType::bf16;
  if (call.head_dim == 64)
    bf16 ? launch_prefill<__nv_bfloat16, 64>(c, call, q, tokens, heads)
         : launch_prefill<__half, 64>(c, call, q, tokens, heads);
  else
    bf16 ? launch_prefill<__nv_bfloat16, 128>(c, call, q, tokens, heads)
         : launch_prefill<__half, 128>(c, call, q, tokens, heads);
  return true;
}

}  // namespace fastllm::cuda
