// attention, one query a sequence, cache of 16 bits or of float8, head sizes 64 and 128, compute capability 9.0 and above.
//
// The query heads that share a key head are the 16 rows of a tensor-core tile, so keys and values are read once (GQA:
// Ainslie et al. 2023). A block takes a range of keys of one sequence and key head; its four warps take tiles of 32 keys
// in turn, each with its own double buffer (cp.async) and its own online softmax, and are merged through shared memory.
// What does not depend on the kernel before is under way before that one ends: the step's arrays and the keys and values of
// earlier steps. With a RopeKv the block also turns its queries and the new key, which then goes from shared memory into
// the tile and the cache. Long sequences are cut into up to 8 blocks of a cluster, merged through each other's shared memory (split keys as in
// Dao et al. 2023, "Flash-Decoding", without its second kernel). How a sequence is cut depends on
// its own length and on whether the step has few sequences or many.

#include "device/cuda/attention.cuh"
#include "device/cuda/cache_tile.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/rope.cuh"

namespace fastllm::cuda {
namespace {

template <class C>
constexpr int kTileKeys = 32 / static_cast<int>(sizeof(C));  // of a tile: as many bytes, whatever a number has
constexpr int kWarps = 4;
constexpr int kFewKeys = 128;  // of a block, while there are multiprocessors to spare
constexpr int kManyKeys = 256;
constexpr int kMostSplits = 8;

__device__ inline int keys_per_block(int keys, int least) {
  const int share = (keys + kMostSplits - 1) / kMostSplits;
  return share <= least ? least : (share + least - 1) / least * least;
}

template <class C, int kD>
constexpr int kTilesShared = kWarps * 2 * 2 * kTileKeys<C> * kD * static_cast<int>(sizeof(C));
template <class C, int kD>
constexpr int kDecodeShared =
    kTilesShared<C, kD> > kWarps * 16 * (kD + 4) * 4 ? kTilesShared<C, kD> : kWarps * 16 * (kD + 4) * 4;

// Blocks that a multiprocessor's registers are to hold; turning codes of heads of 128 into numbers takes more of them.
template <class C, int kD>
constexpr int kResident = kIsCode<C> && kD == 128 ? 3 : 4;

template <class T, class C, int kD, bool kRope>
__global__ void __launch_bounds__(kWarps * 32, kResident<C, kD>)
    decode_kernel(AttentionCall c, RopeKv r, int least_keys) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kKeys = kTileKeys<C>;
  constexpr bool kCode = kIsCode<C>;
  using Tile = CacheTile<T, C, kKeys, kD>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  __shared__ float tops[kWarps][16];
  __shared__ float totals[kWarps][16];
  __shared__ float top[16];
  __shared__ float normaliser[16];
  __shared__ float2 turns[kRope ? kD / 2 : 1];
  __shared__ T
      fresh[kRope ? 18 : 1][kRope ? kD + 8 : 1];  // the turned queries, the new key and the new value (or their codes)
  let_next_start();
  const int sequence = blockIdx.z;
  const int token = c.query_start[sequence];
  if (c.query_start[sequence + 1] - token != 1) {  // all blocks of the cluster alike
    wait_for_previous();  // a launch that ends early would let the next one start before the one before has ended
    return;
  }
  const int splits = gridDim.x;
  const int cuts = (c.group + 15) / 16;
  const int kv_head = blockIdx.y / cuts;
  const int first_head = kv_head * c.group + blockIdx.y % cuts * 16;
  const int group = min(16, (kv_head + 1) * c.group - first_head);
  const int length = c.kv_len[sequence];
  const int oldest = c.window > 0 ? max(0, length - c.window) : 0;
  const int origin = oldest / least_keys * least_keys;
  const int share = keys_per_block(length - origin, least_keys);
  const int begin = max(oldest, origin + static_cast<int>(blockIdx.x) * share);
  const int end = min(length, origin + static_cast<int>(blockIdx.x + 1) * share);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;

  constexpr int kColumns = Tile::kColumns;
  constexpr int kTileBytes = Tile::kBytes;
  const std::uint32_t base =
      static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory)) + warp * (4 * kTileBytes);

  const auto fill = [&](int tile, int buffer) {
    const int first = tile * kKeys;
    if (first < end) {
      const int mine = min(first + lane % kKeys, end - 1);
      const std::int64_t row_of_lane = cache_row(c, sequence, kv_head, mine) * kD;
      const std::uint32_t k_at = base + buffer * (2 * kTileBytes);
#pragma unroll
      for (int i = 0; i < kKeys * kColumns / 32; ++i) {
        const int piece = i * 32 + lane;
        const int row = piece / kColumns;
        const int column = piece % kColumns;
        const std::int64_t from = __shfl_sync(0xffffffffu, row_of_lane, row) + column * Tile::kEach;
        copy_async16(k_at + Tile::offset(row, column), static_cast<const C*>(c.k) + from, true);
        copy_async16(k_at + kTileBytes + Tile::offset(row, column), static_cast<const C*>(c.v) + from, true);
      }
    }
    commit_async();
  };

  float out[kD / 8][4] = {};
  float best[2] = {-INFINITY, -INFINITY};
  float total[2] = {};
  int tile = begin / kKeys + warp;
  const auto fill_two = [&] {
    fill(tile, 0);
    fill(tile + kWarps, 1);
  };
  if constexpr (kRope) {
    for (int i = threadIdx.x; i < r.op.rope.rotary_dim / 2; i += kWarps * 32) turns[i] = turn_of(r, token, i);
    fill_two();  // the row of the new key holds anything yet
    __syncthreads();
    wait_for_previous();
    const bool newest = begin < end && end == length;  // this block has the new key
    for (int job = warp; job < (newest ? group + 2 : group); job += kWarps) {
      const bool is_query = job < group;
      const KView& x = is_query ? r.q : job == group ? r.k : r.v;
      const T* from =
          static_cast<const T*>(x.data) + token * x.stride[0] + (is_query ? first_head + job : kv_head) * x.stride[1];
      T* to = fresh[is_query ? job : 16 + job - group];
      if constexpr (kCode) {
        if (!is_query) {
          C* codes = reinterpret_cast<C*>(to);
          if (job == group)
            turn_head(r, from, kD, r.k_norm, turns, [&](int i, T value) { codes[i] = from_float<C>(to_float(value)); });
          else
            for (int i = lane; i < kD; i += 32) codes[i] = from_float<C>(to_float(from[i]));
          continue;
        }
      }
      if (job == group + 1)
        for (int i = lane; i < kD; i += 32) to[i] = from[i];
      else
        turn_head(r, from, kD, is_query ? r.q_norm : r.k_norm, turns, [&](int i, T value) { to[i] = value; });
    }
    for (int row = group + warp; row < 16; row += kWarps)
      for (int i = lane; i < kD; i += 32) fresh[row][i] = from_float<T>(0.0f);
    __syncthreads();
    if (newest && blockIdx.y % cuts == 0) {
      const std::int64_t at = cache_row(c, sequence, kv_head, length - 1) * kD;
      for (int i = threadIdx.x; i < 2 * kColumns; i += kWarps * 32) {
        void* cache = i < kColumns ? r.k_cache : r.v_cache;
        *reinterpret_cast<uint4*>(static_cast<C*>(cache) + at + i % kColumns * Tile::kEach) =
            *reinterpret_cast<const uint4*>(&fresh[16 + i / kColumns][i % kColumns * 8]);
      }
    }
  } else {
    wait_for_previous();
    fill_two();
  }

  std::uint32_t q[kD / 16][4];
  {
    const auto pair = [&](int row, int column) {
      if constexpr (kRope) return Tile::numbers(*reinterpret_cast<const std::uint32_t*>(&fresh[row][column]));
      const T* from = static_cast<const T*>(c.q.data) + token * c.q.stride[0] + (first_head + row) * c.q.stride[1];
      return row < group ? Tile::numbers(*reinterpret_cast<const std::uint32_t*>(from + column)) : 0u;
    };
#pragma unroll
    for (int kk = 0; kk < kD / 16; ++kk) {
      const int low = Tile::channel(lane, kk, 0);
      const int high = Tile::channel(lane, kk, 1);
      q[kk][0] = pair(lane / 4, low);
      q[kk][1] = pair(lane / 4 + 8, low);
      q[kk][2] = pair(lane / 4, high);
      q[kk][3] = pair(lane / 4 + 8, high);
    }
  }
  for (int turn = 0; tile * kKeys < end; tile += kWarps, ++turn) {
    wait_async<1>();
    __syncwarp();
    const std::uint32_t k_at = base + turn % 2 * (2 * kTileBytes);
    const std::uint32_t v_at = k_at + kTileBytes;
    if constexpr (kRope) {
      const int row = length - 1 - tile * kKeys;  // of the new key, if it is in this tile
      if (row >= 0 && row < kKeys) {
        for (int i = lane; i < 2 * kColumns; i += 32)
          store_shared_eight((i < kColumns ? k_at : v_at) + Tile::offset(row, i % kColumns),
                             &fresh[16 + i / kColumns][i % kColumns * 8]);
        // The rows after it repeat the cache's row of the new key, which nobody had written: zero times NaN is NaN.
        const uint4 zeros{};
        for (int i = lane; i < (kKeys - 1 - row) * kColumns; i += 32)
          store_shared_eight(v_at + Tile::offset(row + 1 + i / kColumns, i % kColumns), &zeros);
        __syncwarp();
      }
    }
    float s[kKeys / 8][4] = {};
    Tile::scores(s, q, k_at, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float higher = best[h];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int f = 0; f < 2; ++f) {
          const int at = tile * kKeys + j * 8 + lane % 4 * 2 + f;
          float& x = s[j][h * 2 + f];
          x = capped(c, x * c.scale) * kLog2E;
          if (at >= end || at < begin) x = -INFINITY;
          higher = fmaxf(higher, x);
        }
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
          float& x = s[j][h * 2 + f];
          x = exp2_fast(x - level);
          sum += x;
        }
      total[h] = total[h] * keep + sum;
#pragma unroll
      for (int d = 0; d < kD / 8; ++d) {
        out[d][h * 2] *= keep;
        out[d][h * 2 + 1] *= keep;
      }
    }
    Tile::sums(out, s, v_at, lane);
    __syncwarp();  // all lanes have read the buffer that is filled now
    fill(tile + 2 * kWarps, turn % 2);
  }
  wait_async<0>();
  __syncthreads();

  // The four warps' sums, then the cluster's. kPitch floats a row; rows of a warp lie together.
  constexpr int kPitch = kD + 4;
  float* sums = reinterpret_cast<float*>(shared_memory);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane / 4 + h * 8;
    float sum = total[h];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (lane % 4 == 0) {
      tops[warp][row] = best[h];
      totals[warp][row] = sum;
    }
    if constexpr (kCode) {
      float* to = sums + (warp * 16 + row) * kPitch + lane % 4 * 4;
#pragma unroll
      for (int d = 0; d < kD / 8; d += 2)
        *reinterpret_cast<float4*>(to + d * 8) =
            make_float4(out[d][h * 2], out[d + 1][h * 2], out[d][h * 2 + 1], out[d + 1][h * 2 + 1]);
    } else {
      float* to = sums + (warp * 16 + row) * kPitch + lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kD / 8; ++d)
        *reinterpret_cast<float2*>(to + d * 8) = make_float2(out[d][h * 2], out[d][h * 2 + 1]);
    }
  }
  __syncthreads();
  T* to = static_cast<T*>(c.out.data) + token * c.out.stride[0];
  for (int i = threadIdx.x; i < group * (kD / 4); i += kWarps * 32) {
    const int row = i / (kD / 4);
    const int d = i % (kD / 4) * 4;
    float highest = tops[0][row];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) highest = fmaxf(highest, tops[w][row]);
    float4 merged = {};
    float weight = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = tops[w][row] == -INFINITY ? 0.0f : exp2_fast(tops[w][row] - highest);
      const float4 part = *reinterpret_cast<const float4*>(sums + (w * 16 + row) * kPitch + d);
      merged.x += factor * part.x;
      merged.y += factor * part.y;
      merged.z += factor * part.z;
      merged.w += factor * part.w;
      weight += factor * totals[w][row];
    }
    if (splits == 1) {
      const uint2 packed{pack2<T>(merged.x / weight, merged.y / weight),
                         pack2<T>(merged.z / weight, merged.w / weight)};
      *reinterpret_cast<uint2*>(to + (first_head + row) * c.out.stride[1] + d) = packed;
    } else {
      // In place: this thread alone reads and writes these four columns of the row.
      *reinterpret_cast<float4*>(sums + row * kPitch + d) = merged;
      if (d == 0) {
        top[row] = highest;
        normaliser[row] = weight;
      }
    }
  }
  if (splits == 1) return;
  cluster_sync();
  const std::uint32_t sums_at = static_cast<std::uint32_t>(__cvta_generic_to_shared(sums));
  const std::uint32_t top_at = static_cast<std::uint32_t>(__cvta_generic_to_shared(top));
  const std::uint32_t normaliser_at = static_cast<std::uint32_t>(__cvta_generic_to_shared(normaliser));
  for (int i = blockIdx.x * kWarps * 32 + threadIdx.x; i < group * (kD / 4); i += splits * kWarps * 32) {
    const int row = i / (kD / 4);
    const int d = i % (kD / 4) * 4;
    float highest = -INFINITY;
    for (int s = 0; s < splits; ++s) highest = fmaxf(highest, load_shared_float_of(shared_of(top_at + row * 4, s)));
    float4 merged = {};
    float weight = 0.0f;
    for (int s = 0; s < splits; ++s) {
      const float level = load_shared_float_of(shared_of(top_at + row * 4, s));
      const float factor = level == -INFINITY ? 0.0f : exp2_fast(level - highest);
      const float4 part = load_shared_of(shared_of(sums_at + (row * kPitch + d) * 4, s));
      merged.x += factor * part.x;
      merged.y += factor * part.y;
      merged.z += factor * part.z;
      merged.w += factor * part.w;
      weight += factor * load_shared_float_of(shared_of(normaliser_at + row * 4, s));
    }
    const uint2 packed{pack2<T>(merged.x / weight, merged.y / weight), pack2<T>(merged.z / weight, merged.w / weight)};
    *reinterpret_cast<uint2*>(to + (first_head + row) * c.out.stride[1] + d) = packed;
  }
  cluster_sync();  // the others may still read this block's sums
#endif
}

template <class T, class C, int kD>
void launch_decode(const Context& c, const AttentionCall& call, const RopeKv* rope, int max_kv) {
  const int cuts = (call.group + 15) / 16;
  const int least = call.sequences * call.kv_heads * cuts >= c.multiprocessors ? kManyKeys : kFewKeys;
  const int keys = call.window > 0 ? std::min(max_kv, call.window + least) : max_kv;
  int splits = 1;
  while (splits < kMostSplits && splits * least < keys) splits *= 2;
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(call.kv_heads * cuts),
                  static_cast<unsigned>(call.sequences));
  const auto start = [&](auto kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kDecodeShared<C, kD>), "attention");
    launch(c, kernel, grid, kWarps * 32, kDecodeShared<C, kD>, splits, call, rope ? *rope : RopeKv{}, least);
  };
  rope ? start(&decode_kernel<T, C, kD, true>) : start(&decode_kernel<T, C, kD, false>);
}

}  // namespace

bool attention_decode(const Context& c, const AttentionCall& call, const RopeKv* rope, core::DType q, core::DType cache,
                      int max_kv) {
  const auto even = [](const KView& v, int elements) {
    return v.stride[0] % elements == 0 && v.stride[1] % elements == 0 &&
           reinterpret_cast<std::uintptr_t>(v.data) % (static_cast<std::size_t>(elements) * 2) == 0;
  };
  const bool coded = cache == core::DType::f8_e4m3;
  if (!c.overlapped || !(q == cache || coded) || !core::is_half(q) || call.head_dim != call.v_head_dim ||
      call.sequences > 65535 || !even(call.q, 2) || !even(call.out, 4))
    return false;
  if (call.head_dim != 64 && call.head_dim != 128) return false;
  const auto start = [&](auto t, auto u) {
    using T = typename decltype(t)::type;
    using C = typename decltype(u)::type;
    if (call.head_dim == 64)
      launch_decode<T, C, 64>(c, call, rope, max_kv);
    else
      launch_decode<T, C, 128>(c, call, rope, max_kv);
  };
  const auto with = [&](auto t) { coded ? start(t, Type<E4m3>{}) : start(t, t); };
  q == core::DType::bf16 ? with(Type<__nv_bfloat16>{}) : with(Type<__half>{});
  return true;
}

}  // namespace fastllm::cuda
