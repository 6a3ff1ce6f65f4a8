// attention, many queries a sequence, on Hopper: 16-bit cache, head sizes 64 and 128, paged blocks of 8 to 128 tokens.
//
// A piece of work is one query head of 128 queries. One block a multiprocessor takes pieces in turn, the longest of each
// sequence first; two warpgroups have 64 rows each, and one warp fetches queries and tiles of 128 keys and values, block
// by block of the paged cache (TMA), into rings of their own: it is at the next piece while this one ends. Scores and
// sums are warpgroup products (wgmma); probabilities go from the scores' registers straight into the second product.
//
// Online softmax in base 2 (Dao et al. 2022). As in Shah et al. 2024 ("FlashAttention-3"), the scores of the next tile
// are asked for before the sums of this one, so that a warpgroup's exponentials run beside its own second product, and
// the two warpgroups take turns at the tensor cores, so that one's softmax runs beside the other's products. Tiles lie
// at fixed positions and are walked from the newest keys to the oldest: only the first ones, and the last ones of a
// window, need a mask.

#include "device/cuda/attention.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/tensor_map.h"

namespace fastllm::cuda {
namespace {

constexpr int kRows = 128;
constexpr int kKeys = 128;
constexpr int kGroups = 2;
constexpr int kThreads = (kGroups + 1) * 128;

template <int kD>
constexpr int kStages = kD == 64 ? 4 : 2;  // of keys, and of values
template <int kD>
constexpr int kTileBytes = kKeys * kD * 2;
template <int kD>
constexpr int kShared = kRows * kD * 2 + kStages<kD> * 2 * kTileBytes<kD> + 1024;

// What there is to do: for sequences with more than one query, each tile of their rows for each head, the longest rows
// first; for those with one query, where they run here (AttentionCall::every), each key head: the rows are then heads.
struct Piece {
  int sequence = 0;
  int first = 0;  // token of the first row
  int rows = 0;
  int head = 0;  // of the first row
  int position = 0;  // of the first row
  int visible = 0;  // keys that the last row sees
  int begin = 0, end = 0;  // tiles of keys
  bool heads = false;  // rows are heads
  bool found = false;
};

#if FASTLLM_HOPPER_CODE
__device__ inline Piece find_piece(const AttentionCall& c, int index, int heads, int tokens) {
  Piece piece;
  int s = 0;
  if (tokens == c.sequences) {  // every one has one query
    s = index / c.kv_heads;
    index %= c.kv_heads;
  }
  for (; s < c.sequences; ++s) {
    const int begin = c.query_start[s];
    const int queries = c.query_start[s + 1] - begin;
    const int tiles = queries > 1 ? (queries + kRows - 1) / kRows : 0;
    const int count = tiles > 0 ? tiles * heads : c.every ? c.kv_heads : 0;
    if (index >= count) {
      index -= count;
      continue;
    }
    piece.heads = tiles == 0;
    piece.sequence = s;
    piece.head = piece.heads ? index * c.group : index % heads;
    const int done = piece.heads ? 0 : (tiles - 1 - index / heads) * kRows;  // rows before these
    piece.first = begin + done;
    piece.rows = piece.heads ? c.group : min(kRows, queries - done);
    piece.position = c.kv_len[s] - queries + done;
    piece.visible = piece.position + (piece.heads ? 1 : piece.rows);
    piece.begin = (c.window > 0 ? max(0, piece.position + 1 - c.window) : 0) / kKeys;
    piece.end = (piece.visible + kKeys - 1) / kKeys;
    piece.found = true;
    break;
  }
  return piece;
}

// Round `round` of this block: rounds go back and forth, so that nobody has the longer piece every time.
__device__ inline int piece_index(int round) {
  const int blocks = gridDim.x;
  return round * blocks + (round % 2 == 0 ? static_cast<int>(blockIdx.x) : blocks - 1 - static_cast<int>(blockIdx.x));
}

// The slot of a ring's nth tile and the parity of its use.
template <int kSlots>
struct Turn {
  int slot = 0;
  int parity = 0;
  __device__ void next() {
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// Registers that products write must not be touched before they are waited for, which the compiler cannot know.
template <int N>
__device__ inline void hold(float (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

__device__ inline void meet(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void pass_on(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// What a warpgroup has of the multiprocessor's registers: those that fetch need few, those that compute many.
template <int kCount>
__device__ inline void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

__device__ inline float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

template <class T, int kD>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap heads_map,
                   const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                   AttentionCall c, int heads, int tokens, int pieces) {
#if FASTLLM_HOPPER_CODE
  constexpr int kSlots = kStages<kD>;
  constexpr int kQueryBytes = 64 * kD * 2;  // of one warpgroup
  extern __shared__ unsigned char shared_memory[];
  __shared__ std::uint64_t barriers[4 * kSlots + 2 * kGroups];
  __shared__ volatile float ordered[kGroups * 128];
  const std::uint32_t queries_at =
      (static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory)) + 1023) & ~std::uint32_t{1023};
  const std::uint32_t keys_at = queries_at + kGroups * kQueryBytes;
  const std::uint32_t values_at = keys_at + kSlots * kTileBytes<kD>;
  const std::uint32_t k_full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
  const std::uint32_t k_empty = k_full + kSlots * 8;
  const std::uint32_t v_full = k_empty + kSlots * 8;
  const std::uint32_t v_empty = v_full + kSlots * 8;
  const std::uint32_t q_full = v_empty + kSlots * 8;
  const std::uint32_t q_empty = q_full + kGroups * 8;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  let_next_start();
  if (threadIdx.x == 0) {
    prefetch_map(q_map);
    prefetch_map(heads_map);
    prefetch_map(k_map);
    prefetch_map(v_map);
    for (int s = 0; s < kSlots; ++s) {
      barrier_init(k_full + s * 8, 1);
      barrier_init(k_empty + s * 8, kGroups);
      barrier_init(v_full + s * 8, 1);
      barrier_init(v_empty + s * 8, kGroups);
    }
    for (int g = 0; g < kGroups; ++g) {
      barrier_init(q_full + g * 8, 1);
      barrier_init(q_empty + g * 8, 1);
    }
    barrier_init_done();
  }
  __syncthreads();
  wait_for_previous();

  if (warp >= kGroups * 4) {  // an empty slot's first use waits for the phase before the first
    shrink_registers<56>();
    if (warp > kGroups * 4) return;  // one warp fetches
    Turn<kSlots> k_turn, v_turn;
    int q_parity = 1;
    k_turn.parity = v_turn.parity = 1;
    const int box = c.block_tokens;
    const int boxes_of_tile = kKeys / box;
    for (int round = 0; round * static_cast<int>(gridDim.x) < pieces; ++round) {
      const Piece piece = find_piece(c, piece_index(round), heads, tokens);
      if (!piece.found) continue;
      const int kv_head = piece.head / c.group;
      const std::int32_t* table = c.block_table + static_cast<std::int64_t>(piece.sequence) * c.max_blocks;
      const auto fetch = [&](int tile, const CUtensorMap& map, std::uint32_t at, std::uint32_t full,
                             std::uint32_t empty, Turn<kSlots>& turn) {
        const int boxes = (min(kKeys, piece.visible - tile * kKeys) + box - 1) / box;
        const int jobs = boxes * (kD / 64);
        int row = lane < jobs ? table[tile * boxes_of_tile + lane / (kD / 64)] : 0;
        barrier_wait(empty + turn.slot * 8, turn.parity);
        if (lane == 0) barrier_expect(full + turn.slot * 8, boxes * box * kD * 2);
        __syncwarp();
        const std::uint32_t to = at + turn.slot * kTileBytes<kD>;
        if (lane < jobs)
          copy_box(to + lane % (kD / 64) * (kKeys * 128) + lane / (kD / 64) * box * 128, map, full + turn.slot * 8,
                   lane % (kD / 64) * 64, (row * c.kv_heads + kv_head) * box);
        turn.next();
      };
      if (lane < kGroups) {
        barrier_wait(q_empty + lane * 8, q_parity);
        barrier_expect(q_full + lane * 8, kQueryBytes);
#pragma unroll
        for (int half = 0; half < kD / 64; ++half) {
          const std::uint32_t to = queries_at + lane * kQueryBytes + half * (64 * 128);
          if (piece.heads)
            copy_box(to, heads_map, q_full + lane * 8, half * 64,
                     piece.first * static_cast<int>(c.q.stride[0] / kD) + piece.head + lane * 64);
          else
            copy_box(to, q_map, q_full + lane * 8, piece.head * static_cast<int>(c.q.stride[1]) + half * 64,
                     piece.first + lane * 64);
        }
      }
      __syncwarp();
      q_parity ^= 1;
      fetch(piece.end - 1, k_map, keys_at, k_full, k_empty, k_turn);
      for (int tile = piece.end - 2; tile >= piece.begin; --tile) {
        fetch(tile, k_map, keys_at, k_full, k_empty, k_turn);
        fetch(tile + 1, v_map, values_at, v_full, v_empty, v_turn);
      }
      fetch(piece.begin, v_map, values_at, v_full, v_empty, v_turn);
    }
  } else {
    grow_registers<224>();
    const int group = warp / 4;
    const int row = warp % 4 * 16 + lane / 4;  // of the group, and row + 8
    const std::uint32_t q_at = queries_at + group * kQueryBytes;
    const bool leader = threadIdx.x % 128 == 0;
    const float factor = c.softcap > 0.0f ? kLog2E : c.scale * kLog2E;
    const float inside = c.softcap > 0.0f ? 2.0f * kLog2E * c.scale / c.softcap : 0.0f;
    Turn<kSlots> k_turn, v_turn;
    int q_parity = 0;
    float s[kKeys / 2];
    float out[kD / 2];
    std::uint32_t p[kKeys / 16][4];
    float best[2];
    float total[2];
    float keep[2];
    if (group == 1) pass_on(3, kGroups * 128);  // the first turn is group 0's
    for (int round = 0; round * static_cast<int>(gridDim.x) < pieces; ++round) {
      const Piece piece = find_piece(c, piece_index(round), heads, tokens);
      if (!piece.found) continue;
      const int lowest = piece.position + (piece.heads ? 0 : group * 64);  // position of the group's first row

      const auto ask_scores = [&] {
        const std::uint32_t k_at = keys_at + k_turn.slot * kTileBytes<kD>;
        products_begin();
#pragma unroll
        for (int kk = 0; kk < kD / 16; ++kk) {
          const int half = kk / 4;
          Products<T, kKeys>::add(s, tile_descriptor(q_at + half * (64 * 128) + kk % 4 * 32),
                                  tile_descriptor(k_at + half * (kKeys * 128) + kk % 4 * 32), kk > 0);
        }
        products_commit();
      };
      const auto ask_sums = [&] {
        const std::uint32_t v_at = values_at + v_turn.slot * kTileBytes<kD>;
        products_begin();
#pragma unroll
        for (int kk = 0; kk < kKeys / 16; ++kk)
          ProductsTurned<T, kD>::add(out, p[kk], transposed_descriptor(v_at + kk * (16 * 128), kKeys * 128));
        products_commit();
      };
      // Scores into probabilities; `keep` is what earlier sums are worth now.
      const auto soften = [&](int tile) {
        const int first_key = tile * kKeys;
        if (c.softcap > 0.0f) {  // cap * tanh(x) = cap * (1 - 2 / (1 + e^(2 x)))
#pragma unroll
          for (int i = 0; i < kKeys / 2; ++i)
            s[i] = c.softcap - 2.0f * c.softcap * reciprocal_fast(1.0f + exp2_fast(s[i] * inside));
        }
        if (first_key + kKeys - 1 > lowest || (c.window > 0 && first_key <= lowest + 63 - c.window)) {
          const int lane_key = first_key + lane % 4 * 2;
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int newest = lowest + (piece.heads ? 0 : row + h * 8) -
                               lane_key;  // the last key that the row sees, from the lane's first
            const int oldest = c.window > 0 ? newest - c.window : -1 - kKeys;
#pragma unroll
            for (int i = h * 2; i < kKeys / 2; i += i % 2 ? 3 : 1) {
              const int key = i / 4 * 8 + i % 2;
              if (key > newest || key <= oldest) s[i] = -INFINITY;
            }
          }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float higher = best[h];
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j) higher = fmaxf(higher, fmaxf(s[j * 4 + h * 2], s[j * 4 + h * 2 + 1]));
          higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 1));
          higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 2));
          const float top = higher == -INFINITY ? 0.0f : higher;
          const float level = top * factor;
          keep[h] =
              exp2_fast((best[h] - top) * factor);  // exactly 1 if nothing is higher: a masked tile changes no bit
          best[h] = higher;
          float sum = 0.0f;
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int f = 0; f < 2; ++f) {
              float& x = s[j * 4 + h * 2 + f];
              x = exp2_fast(fmaf(x, factor, -level));
              sum += x;
            }
          total[h] = total[h] * keep[h] + sum;
        }
      };
      const auto round_probabilities = [&] {
#pragma unroll
        for (int kk = 0; kk < kKeys / 16; ++kk)
#pragma unroll
          for (int f = 0; f < 4; ++f) p[kk][f] = pack2<T>(s[kk * 8 + f * 2], s[kk * 8 + f * 2 + 1]);
      };

      best[0] = best[1] = -INFINITY;
      total[0] = total[1] = 0.0f;
#pragma unroll
      for (int i = 0; i < kD / 2; ++i) out[i] = 0.0f;
      barrier_wait(q_full + group * 8, q_parity);
      q_parity ^= 1;
      barrier_wait(k_full + k_turn.slot * 8, k_turn.parity);
      ask_scores();
      if (piece.visible < piece.end * kKeys) {  // rows of the cache that nobody wrote may hold NaN
        barrier_wait(v_full + v_turn.slot * 8, v_turn.parity);
        const int from = piece.visible - (piece.end - 1) * kKeys;
        const std::uint32_t v_at = values_at + v_turn.slot * kTileBytes<kD>;
        for (int i = threadIdx.x % 128; i < (kKeys - from) * (kD / 8); i += 128) {
          const uint4 zeros{};
          store_shared_eight(v_at + tile_offset<kKeys>(from + i / (kD / 8), i % (kD / 8)), &zeros);
        }
        publish_shared();
        meet(1 + group, 128);
      }
      products_wait<0>();
      hold(s);
      if (leader) barrier_arrive(k_empty + k_turn.slot * 8);
      k_turn.next();
      soften(piece.end - 1);
      round_probabilities();
      for (int tile = piece.end - 2; tile >= piece.begin; --tile) {
        barrier_wait(k_full + k_turn.slot * 8, k_turn.parity);
        meet(3 + group, kGroups * 128);
        ask_scores();
        barrier_wait(v_full + v_turn.slot * 8, v_turn.parity);
        ask_sums();
        pass_on(3 + (group ^ 1), kGroups * 128);
        products_wait<1>();
        hold(s);
        if (leader) barrier_arrive(k_empty + k_turn.slot * 8);
        k_turn.next();
        soften(tile);
        // A store that needs them all keeps the exponentials before the wait, beside the product: ptxas moves no store
        // across it, but would move the exponentials behind it.
        ordered[threadIdx.x] = total[0] + total[1];
        products_wait<0>();
        hold(out);
        if (leader) barrier_arrive(v_empty + v_turn.slot * 8);
        v_turn.next();
#pragma unroll
        for (int i = 0; i < kD / 2; ++i) out[i] *= keep[i % 4 / 2];
        round_probabilities();
      }
      if (leader) barrier_arrive(q_empty + group * 8);
      barrier_wait(v_full + v_turn.slot * 8, v_turn.parity);
      ask_sums();
      float scale[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = total[h];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        scale[h] = 1.0f / sum;
      }
      products_wait<0>();
      hold(out);
      if (leader) barrier_arrive(v_empty + v_turn.slot * 8);
      v_turn.next();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int mine = group * 64 + row + h * 8;
        if (mine >= piece.rows) continue;
        T* to = static_cast<T*>(c.out.data) + (piece.first + (piece.heads ? 0 : mine)) * c.out.stride[0] +
                (piece.head + (piece.heads ? mine : 0)) * c.out.stride[1] + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < kD / 8; ++j)
          *reinterpret_cast<std::uint32_t*>(to + j * 8) =
              pack2<T>(out[j * 4 + h * 2] * scale[h], out[j * 4 + h * 2 + 1] * scale[h]);
      }
    }
    if (group == 0) meet(3, kGroups * 128);  // the turn that group 1 passed last
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
  const CUtensorMap q_map =
      tensor_map(dtype, call.q.data, tokens, (heads - 1) * call.q.stride[1] + kD, call.q.stride[0], 64);
  const CUtensorMap heads_map = tensor_map(dtype, call.q.data, tokens * (call.q.stride[0] / kD), kD, kD, 64);
  const CUtensorMap k_map = tensor_map(dtype, call.k, kAnyRows, kD, kD, call.block_tokens);
  const CUtensorMap v_map = tensor_map(dtype, call.v, kAnyRows, kD, kD, call.block_tokens);
  const int pieces = tokens == call.sequences ? tokens * call.kv_heads
                                              : ((tokens + kRows - 1) / kRows + call.sequences) * heads;  // or fewer
  launch(c, prefill_kernel<T, kD>, dim3(static_cast<unsigned>(std::min(pieces, c.multiprocessors))), kThreads,
         kShared<kD>, 1, q_map, heads_map, k_map, v_map, call, heads, tokens, pieces);
}

}  // namespace

bool prefill_fits(const Context& c, const AttentionCall& call, core::DType q, core::DType cache) {
  const auto even = [](const KView& v, int elements) {
    return v.stride[0] % elements == 0 && v.stride[1] % elements == 0 &&
           reinterpret_cast<std::uintptr_t>(v.data) % (static_cast<std::size_t>(elements) * 2) == 0;
  };
  if (!c.hopper || q != cache || !core::is_half(q) || call.head_dim != call.v_head_dim || !even(call.q, 8) ||
      !even(call.out, 2))
    return false;
  if (call.head_dim != 64 && call.head_dim != 128) return false;
  if (call.block_tokens % 8 != 0 || kKeys % call.block_tokens != 0) return false;
  // For heads as rows, the heads of a token must lie end to end, and those of a key head fill no more than a tile.
  return !call.every ||
         (call.q.stride[1] == call.head_dim && call.q.stride[0] % call.head_dim == 0 && call.group <= kRows);
}

bool attention_prefill(const Context& c, const AttentionCall& call, core::DType q, core::DType cache, int tokens,
                       int heads) {
  if (!prefill_fits(c, call, q, cache)) return false;
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
