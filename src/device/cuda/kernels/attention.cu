// attention: causal softmax attention of this step's queries over the paged cache, GQA, sliding window, soft cap.
// Online softmax (Milakov & Gimelshein 2018; Dao et al. 2022), float32 sums.
//
// Decode (sequences with one query) on Hopper, 16-bit and float8 caches: attention_decode.cu. Otherwise a block takes one
// (sequence, kv head, split of kSplit keys) and all query heads
// of the group, so that each key and value is read once; splits end at fixed positions and are merged in order by a
// second kernel (Dao et al. 2023, "Flash-Decoding"). Prefill (longer queries): a block takes one query head of one
// token tile. 16-bit caches, and float8 ones of 16-bit activations, with head sizes 64 and 128 run on the tensor cores;
// everything else runs the general kernel, one block per (token, head). On Hopper 16-bit caches go to
// attention_prefill.cu; of a float8 cache the sequences with prompts are widened first, into pages of their own, and then go
// there, too (not in deterministic steps, where room would decide). That costs some 20 us a layer, which long prompts do not
// notice.

#include <bit>

#include "device/cuda/attention.cuh"
#include "device/cuda/attention.h"
#include "device/cuda/cache_tile.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/rope.cuh"

namespace fastllm::cuda {
namespace {

constexpr int kSplit = 256;  // keys per decode block
constexpr int kMaxGroup = 8;  // query heads that share a key head, per decode block
constexpr int kMaxHead = 256;

using Call = AttentionCall;

// ---- decode
// ---------------------------------------------------------------------------------------------------------------

// 128 threads. Scores: 8 lanes a key. Values: one thread a channel. Groups wider than kMaxGroup are cut into several
// blocks (blockIdx.y).
template <class T, class C>
__global__ void __launch_bounds__(128) decode_kernel(Call c) {
  const int sequence = blockIdx.x;
  const int token = c.query_start[sequence];
  if (c.query_start[sequence + 1] - token != 1) return;
  const int cuts = (c.group + kMaxGroup - 1) / kMaxGroup;
  const int head = blockIdx.y / cuts;
  const int first_q = head * c.group + (blockIdx.y % cuts) * kMaxGroup;
  const int group = min(kMaxGroup, head * c.group + c.group - first_q);
  const int length = c.kv_len[sequence];
  const int oldest = c.window > 0 ? max(0, length - c.window) : 0;
  const int begin = max(static_cast<int>(blockIdx.z) * kSplit, oldest);
  const int end = min(static_cast<int>(blockIdx.z + 1) * kSplit, length);
  if (begin >= end) return;

  __shared__ float q[kMaxGroup][kMaxHead];
  __shared__ float p[kMaxGroup][kSplit];
  __shared__ float top[kMaxGroup];
  __shared__ float normaliser[kMaxGroup];
  for (int i = threadIdx.x; i < group * c.head_dim; i += blockDim.x) {
    const int g = i / c.head_dim;
    const T* from = static_cast<const T*>(c.q.data) + token * c.q.stride[0] + (first_q + g) * c.q.stride[1];
    q[g][i % c.head_dim] = to_float(from[i % c.head_dim]) * c.scale;
  }
  __syncthreads();

  const int part = threadIdx.x % 8;
  for (int at = begin + threadIdx.x / 8; at - static_cast<int>(threadIdx.x / 8) < end; at += 16) {
    const bool inside = at < end;
    float dot[kMaxGroup] = {};
    if (inside) {
      const C* key = static_cast<const C*>(c.k) + cache_row(c, sequence, head, at) * c.head_dim;
      for (int d = part * 2; d < c.head_dim; d += 16) {
        const float k0 = to_float(key[d]);
        const float k1 = d + 1 < c.head_dim ? to_float(key[d + 1]) : 0.0f;
#pragma unroll
        for (int g = 0; g < kMaxGroup; ++g)
          if (g < group) dot[g] += q[g][d] * k0 + (d + 1 < c.head_dim ? q[g][d + 1] * k1 : 0.0f);
      }
    }
#pragma unroll
    for (int g = 0; g < kMaxGroup; ++g) {
      float s = dot[g];
      s += __shfl_xor_sync(0xffffffffu, s, 1);
      s += __shfl_xor_sync(0xffffffffu, s, 2);
      s += __shfl_xor_sync(0xffffffffu, s, 4);
      if (inside && part == 0 && g < group) p[g][at - begin] = capped(c, s);
    }
  }
  __syncthreads();
  const int count = end - begin;
  for (int g = threadIdx.x / 32; g < group; g += 4) {
    float best = -INFINITY;
    for (int i = threadIdx.x % 32; i < count; i += 32) best = fmaxf(best, p[g][i]);
    best = warp_max(best);
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < count; i += 32) {
      const float e = __expf(p[g][i] - best);
      p[g][i] = e;
      sum += e;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
      top[g] = best;
      normaliser[g] = sum;
    }
  }
  __syncthreads();
  for (int d = threadIdx.x; d < c.v_head_dim; d += blockDim.x) {
    float sums[kMaxGroup] = {};
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float value =
          to_float(static_cast<const C*>(c.v)[cache_row(c, sequence, head, begin + i) * c.v_head_dim + d]);
#pragma unroll
      for (int g = 0; g < kMaxGroup; ++g)
        if (g < group) sums[g] += p[g][i] * value;
    }
    for (int g = 0; g < group; ++g) {
      float* to = c.partial +
                  ((static_cast<std::int64_t>(sequence) * c.kv_heads * c.group + first_q + g) * c.splits + blockIdx.z) *
                      (c.v_head_dim + 2);
      to[d] = sums[g];
      if (d == 0) {
        to[c.v_head_dim] = top[g];
        to[c.v_head_dim + 1] = normaliser[g];
      }
    }
  }
}

template <class T>
__global__ void merge_kernel(Call c) {
  const int sequence = blockIdx.x;
  const int head = blockIdx.y;
  const int token = c.query_start[sequence];
  if (c.query_start[sequence + 1] - token != 1) return;
  const int length = c.kv_len[sequence];
  const int first = (c.window > 0 ? max(0, length - c.window) : 0) / kSplit;
  const int last = (length + kSplit - 1) / kSplit;
  const int width = c.v_head_dim + 2;
  const float* from = c.partial + (static_cast<std::int64_t>(sequence) * gridDim.y + head) * c.splits * width;
  float best = -INFINITY;
  for (int s = first; s < last; ++s) best = fmaxf(best, from[s * width + c.v_head_dim]);
  for (int d = threadIdx.x; d < c.v_head_dim; d += blockDim.x) {
    float sum = 0.0f;
    float weight = 0.0f;
    for (int s = first; s < last; ++s) {
      const float factor = __expf(from[s * width + c.v_head_dim] - best);
      sum += factor * from[s * width + d];
      weight += factor * from[s * width + c.v_head_dim + 1];
    }
    static_cast<T*>(c.out.data)[token * c.out.stride[0] + head * c.out.stride[1] + d] = from_float<T>(sum / weight);
  }
}

// ---- general prefill
// --------------------------------------------------------------------------------------------------------

template <class T, class C>
__global__ void __launch_bounds__(128) general_kernel(Call c) {
  constexpr int kTile = 128;
  __shared__ float q[kMaxHead];
  __shared__ float p[kTile];
  __shared__ float scratch[32];
  const int token = blockIdx.x;
  const int head = blockIdx.y;
  const int sequence = c.sequence_of[token];
  if (c.query_start[sequence + 1] - c.query_start[sequence] == 1 && !c.every) return;
  const int visible = c.positions[token] + 1;
  const int oldest = c.window > 0 ? max(0, visible - c.window) : 0;
  const T* from = static_cast<const T*>(c.q.data) + token * c.q.stride[0] + head * c.q.stride[1];
  for (int d = threadIdx.x; d < c.head_dim; d += blockDim.x) q[d] = to_float(from[d]) * c.scale;
  float best = -INFINITY;
  float total = 0.0f;
  float sums[kMaxHead / 128] = {};
  for (int tile = oldest / kTile * kTile; tile < visible; tile += kTile) {
    __syncthreads();
    const int at = tile + threadIdx.x;
    float s = -INFINITY;
    if (at >= oldest && at < visible) {
      const C* key = static_cast<const C*>(c.k) + cache_row(c, sequence, head / c.group, at) * c.head_dim;
      s = 0.0f;
      for (int d = 0; d < c.head_dim; ++d) s += q[d] * to_float(key[d]);
      s = capped(c, s);
    }
    const float higher = fmaxf(best, block_reduce<Max>(s, scratch));
    const float e = s == -INFINITY ? 0.0f : __expf(s - higher);
    p[threadIdx.x] = e;
    const float sum = block_reduce<Sum>(e, scratch);
    const float keep = best == -INFINITY ? 0.0f : __expf(best - higher);
    best = higher;
    total = total * keep + sum;
    __syncthreads();
    const int count = min(kTile, visible - tile);
#pragma unroll
    for (int j = 0; j < kMaxHead / 128; ++j) {
      const int d = threadIdx.x + j * 128;
      if (d >= c.v_head_dim) break;
      sums[j] *= keep;
      for (int i = max(0, oldest - tile); i < count; ++i)
        sums[j] +=
            p[i] *
            to_float(static_cast<const C*>(c.v)[cache_row(c, sequence, head / c.group, tile + i) * c.v_head_dim + d]);
    }
  }
#pragma unroll
  for (int j = 0; j < kMaxHead / 128; ++j) {
    const int d = threadIdx.x + j * 128;
    if (d < c.v_head_dim)
      static_cast<T*>(c.out.data)[token * c.out.stride[0] + head * c.out.stride[1] + d] =
          from_float<T>(sums[j] / total);
  }
}

// ---- tensor-core prefill
// ------------------------------------------------------------------------------------------------------

constexpr int kQueryWarps = 8;
constexpr int kQueryTile = kQueryWarps * 16;
constexpr int kKeyTile = 64;

// Which tile of which sequence block x works on: tiles are counted over the sequences that this kernel serves.
__device__ inline bool find_tile(const Call& c, int tile, int& sequence, int& first) {
  for (int s = 0; s < c.sequences; ++s) {
    const int begin = c.query_start[s];
    const int queries = c.query_start[s + 1] - begin;
    if (queries <= 1 && !c.every) continue;
    const int tiles = (queries + kQueryTile - 1) / kQueryTile;
    if (tile < tiles) {
      sequence = s;
      first = begin + (tiles - 1 - tile) * kQueryTile;  // the longest rows first
      return true;
    }
    tile -= tiles;
  }
  return false;
}

// A warp takes 16 rows, whose query stays in registers; all warps share tiles of 64 keys, the next of which is on its
// way (cp.async). Scores are kept times log2(e), so that the exponential is one instruction.
template <class T, class C, int kD>
__global__ void __launch_bounds__(kQueryWarps * 32, kD == 64 ? 2 : 1) prefill_kernel(Call c) {
  using Tile = CacheTile<T, C, kKeyTile, kD>;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  let_next_start();
  wait_for_previous();
  const std::uint32_t base = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  constexpr int kTileBytes = Tile::kBytes;
  constexpr int kColumns = Tile::kColumns;
  constexpr int kThreads = kQueryWarps * 32;
  int sequence = 0;
  int first = 0;
  if (!find_tile(c, blockIdx.y, sequence, first)) return;
  const int head = blockIdx.x;  // all heads of the longest rows first
  const int kv_head = head / c.group;
  const int rows = min(kQueryTile, c.query_start[sequence + 1] - first);
  const int position = c.positions[first];
  const int visible = position + rows;  // keys the last row sees
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int oldest = c.window > 0 ? max(0, position + 1 - c.window) : 0;
  const int tiles = (visible + kKeyTile - 1) / kKeyTile;
  // The two rows of this lane, and the positions of the warp's first and last.
  const int row = warp * 16 + lane / 4;
  const int lowest = position + warp * 16;
  const float scale = c.softcap > 0.0f ? c.scale : c.scale * kLog2E;

  const auto fill = [&](int tile) {
    if (tile < tiles) {
      const std::uint32_t k_at = base + tile % 2 * (2 * kTileBytes);
#pragma unroll
      for (int i = 0; i < kKeyTile * kColumns / kThreads; ++i) {
        const int piece = i * kThreads + threadIdx.x;
        const int key = piece / kColumns;
        const int column = piece % kColumns;
        const std::int64_t from =
            cache_row(c, sequence, kv_head, min(tile * kKeyTile + key, visible - 1)) * kD + column * Tile::kEach;
        copy_async16(k_at + Tile::offset(key, column), static_cast<const C*>(c.k) + from, true);
        copy_async16(k_at + kTileBytes + Tile::offset(key, column), static_cast<const C*>(c.v) + from, true);
      }
    }
    commit_async();
  };
  fill(oldest / kKeyTile);

  std::uint32_t q[kD / 16][4];
  {
    const T* from = static_cast<const T*>(c.q.data) + head * c.q.stride[1];
    const std::int64_t low = (first + min(row, rows - 1)) * c.q.stride[0];
    const std::int64_t high = (first + min(row + 8, rows - 1)) * c.q.stride[0];
#pragma unroll
    for (int kk = 0; kk < kD / 16; ++kk) {
      const auto pair = [&](std::int64_t start, int which) {
        return Tile::numbers(*reinterpret_cast<const std::uint32_t*>(from + start + Tile::channel(lane, kk, which)));
      };
      q[kk][0] = pair(low, 0);
      q[kk][1] = pair(high, 0);
      q[kk][2] = pair(low, 1);
      q[kk][3] = pair(high, 1);
    }
  }

  float out[kD / 8][4] = {};
  float best[2] = {-INFINITY, -INFINITY};
  float total[2] = {};
  for (int tile = oldest / kKeyTile; tile < tiles; ++tile) {
    wait_async<0>();
    __syncthreads();  // the tile is there, and nobody reads the other buffer any more
    fill(tile + 1);
    const int first_key = tile * kKeyTile;
    if (first_key > lowest + 15) continue;  // in the future of all 16 rows
    const std::uint32_t k_at = base + tile % 2 * (2 * kTileBytes);
    const std::uint32_t v_at = k_at + kTileBytes;
    float s[kKeyTile / 8][4] = {};
    Tile::scores(s, q, k_at, lane);
#pragma unroll
    for (int j = 0; j < kKeyTile / 8; ++j)
#pragma unroll
      for (int f = 0; f < 4; ++f) s[j][f] *= scale;
    if (c.softcap > 0.0f) {
#pragma unroll
      for (int j = 0; j < kKeyTile / 8; ++j)
#pragma unroll
        for (int f = 0; f < 4; ++f) s[j][f] = tanhf(s[j][f] / c.softcap) * c.softcap * kLog2E;
    }
    if (first_key + kKeyTile - 1 > lowest || (c.window > 0 && first_key <= lowest + 15 - c.window)) {
#pragma unroll
      for (int j = 0; j < kKeyTile / 8; ++j)
#pragma unroll
        for (int f = 0; f < 4; ++f) {
          const int key = first_key + j * 8 + lane % 4 * 2 + f % 2;
          const int at = position + row + f / 2 * 8;
          if (key > at || (c.window > 0 && key <= at - c.window)) s[j][f] = -INFINITY;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float higher = best[h];
#pragma unroll
      for (int j = 0; j < kKeyTile / 8; ++j) higher = fmaxf(higher, fmaxf(s[j][h * 2], s[j][h * 2 + 1]));
      higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 1));
      higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, 2));
      const float level = higher == -INFINITY ? 0.0f : higher;
      const float keep = exp2_fast(best[h] - level);
      best[h] = higher;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < kKeyTile / 8; ++j)
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
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = total[h];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (row + h * 8 >= rows) continue;
    const float factor = 1.0f / sum;
    T* to = static_cast<T*>(c.out.data) + (first + row + h * 8) * c.out.stride[0] + head * c.out.stride[1] +
            Tile::channel(lane, 0, 0);
#pragma unroll
    for (int d = 0; d < kD / 8; ++d) {
      if constexpr (Tile::kCode) {  // even and odd channels lie in two products
        const int f = h * 2 + d % 2;
        *reinterpret_cast<std::uint32_t*>(to + d / 2 * 16 + d % 2 * 2) =
            pack2<T>(out[d / 2 * 2][f] * factor, out[d / 2 * 2 + 1][f] * factor);
      } else {
        *reinterpret_cast<std::uint32_t*>(to + d * 8) = pack2<T>(out[d][h * 2] * factor, out[d][h * 2 + 1] * factor);
      }
    }
  }
}

template <class T, class C, int kD>
void launch_prefill(const Context& c, const Call& call, int tokens, int heads) {
  constexpr int kShared = 4 * CacheTile<T, C, kKeyTile, kD>::kBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(prefill_kernel<T, C, kD>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  check(allowed, "attention");
  const auto tiles = static_cast<unsigned>((tokens + kQueryTile - 1) / kQueryTile + call.sequences);
  launch(c, prefill_kernel<T, C, kD>, dim3(static_cast<unsigned>(heads), tiles), kQueryWarps * 32, kShared, 1, call);
}

// ---- a float8 cache as 16-bit numbers
// ------------------------------------------------------------------------------------------------------

constexpr std::size_t kMostWidened = std::size_t{64} << 20;  // floats

int columns_of(const StepView& step) {
  return (longest(step) + step.block_tokens - 1) / step.block_tokens;
}

// Sixteen codes as numbers.
template <class T>
__device__ inline void widen16(const std::uint8_t* from, T* to) {
  const uint4 codes = *reinterpret_cast<const uint4*>(from);
  const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
  std::uint32_t numbers[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    numbers[i] = to_half2(i % 2 ? words[i / 2] >> 16 : words[i / 2]);
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&numbers[i]));
      numbers[i] = pack2<T>(both.x, both.y);
    }
  }
  auto* out = reinterpret_cast<uint4*>(to);
  out[0] = make_uint4(numbers[0], numbers[1], numbers[2], numbers[3]);
  out[1] = make_uint4(numbers[4], numbers[5], numbers[6], numbers[7]);
}

// Block (column, sequence): one block of the cache, if its sequence has more than one query. Column c of sequence s becomes
// block s * columns + c.
template <class T>
__global__ void __launch_bounds__(256) widen_kernel(Call c, T* k, T* v, std::int32_t* table) {
  let_next_start();
  wait_for_previous();
  const int sequence = blockIdx.y;
  const int column = blockIdx.x;
  if (c.query_start[sequence + 1] - c.query_start[sequence] <= 1 || column * c.block_tokens >= c.kv_len[sequence])
    return;
  const std::int64_t elements = static_cast<std::int64_t>(c.kv_heads) * c.block_tokens * c.head_dim;
  const std::int64_t block = c.block_table[static_cast<std::int64_t>(sequence) * c.max_blocks + column];
  const std::int64_t own = static_cast<std::int64_t>(sequence) * gridDim.x + column;
  if (threadIdx.x == 0) table[own] = static_cast<std::int32_t>(own);
  for (std::int64_t i = threadIdx.x * 16; i < elements; i += 256 * 16) {
    widen16(static_cast<const std::uint8_t*>(c.k) + block * elements + i, k + own * elements + i);
    widen16(static_cast<const std::uint8_t*>(c.v) + block * elements + i, v + own * elements + i);
  }
}

// False, and nothing was launched: see widened_workspace() and prefill_fits().
bool widened_prefill(const Context& c, const Call& call, const device::KvLayer& layer, const StepView& step,
                     core::DType q, std::size_t before, int heads) {
  if (widened_workspace(c, layer, step) == 0 || !prefill_fits(c, call, q, q)) return false;
  const int columns = columns_of(step);
  const std::size_t blocks = static_cast<std::size_t>(step.sequences) * columns;
  const std::size_t elements = blocks * layer.kv_heads * step.block_tokens * layer.head_dim;
  float* const room = c.workspace->data + before;
  Call wide = call;
  wide.k = room;
  wide.v = room + elements / 2;
  wide.block_table = reinterpret_cast<const std::int32_t*>(room + elements);
  wide.max_blocks = columns;
  const auto run = [&](auto t) {
    using T = typename decltype(t)::type;
    launch(c, widen_kernel<T>, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(step.sequences)), 256, 0, 1,
           call, reinterpret_cast<T*>(room), reinterpret_cast<T*>(room + elements / 2),
           reinterpret_cast<std::int32_t*>(room + elements));
  };
  q == core::DType::bf16 ? run(Type<__nv_bfloat16>{}) : run(Type<__half>{});
  return attention_prefill(c, wide, q, q, step.tokens, heads);
}

template <class T, class C>
void launch_general(const Context& c, const Call& call, int tokens, int heads) {
  general_kernel<T, C><<<dim3(tokens, heads), 128, 0, c.stream>>>(call);
}

}  // namespace

std::size_t attention_workspace(const device::Attention&, int sequences, int heads, int v_head_dim, int max_kv) {
  const std::size_t splits = (static_cast<std::size_t>(max_kv) + kSplit - 1) / kSplit;
  return (static_cast<std::size_t>(sequences) * heads * splits * (v_head_dim + 2) + 63) / 64 * 64;
}

std::size_t widened_workspace(const Context& c, const device::KvLayer& layer, const StepView& step) {
  if (!c.hopper || step.deterministic || layer.dtype != core::DType::f8_e4m3 || step.tokens <= step.sequences) return 0;
  if (layer.head_dim != layer.v_head_dim || (layer.head_dim != 64 && layer.head_dim != 128)) return 0;
  const std::size_t blocks = static_cast<std::size_t>(step.sequences) * columns_of(step);
  const std::size_t elements = static_cast<std::size_t>(layer.kv_heads) * step.block_tokens * layer.head_dim;
  const std::size_t floats = blocks * (elements + 1);  // a key and a value in each; and the table
  // Rounded up, so that it grows seldom: recorded steps hold its address.
  return floats <= kMostWidened ? std::bit_ceil(floats) : 0;
}

namespace {

Call call_of(const Context& c, const device::Attention& op, const View& q, const StepView& step, const View& out) {
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  if (layer.head_dim > kMaxHead || layer.v_head_dim > kMaxHead)
    core::fail(core::ErrorCode::shape_error,
               core::cat("[attention] head size ", layer.head_dim, " exceeds the CUDA backend's ", kMaxHead, "."));
  const int heads = static_cast<int>(q.shape[1]);
  const int splits = (longest(step) + kSplit - 1) / kSplit;
  return {kview(q),          kview(out),       layer.k,
          layer.v,           layer.kv_heads,   heads / layer.kv_heads,
          layer.head_dim,    layer.v_head_dim, step.block_tokens,
          step.max_blocks,   step.query_start, step.kv_len,
          step.sequence_of,  step.positions,   step.block_table,
          op.scale,          op.softcap,       op.window,
          c.workspace->data, splits,           step.sequences,
          step.deterministic};
}

}  // namespace

void rope_attention(const Context& c, const device::RopeAttention& op, std::span<const View> in, const StepView& step,
                    const View& out) {
  if (step.tokens == 0) return;
  const View& q = in[0];
  if (step.tokens == step.sequences && !step.deterministic) {
    const RopeKv rope = rope_kv(op.write, in, step, q);
    const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.write.layer)];
    if (attention_decode(c, call_of(c, op.attention, q, step, out), &rope, q.dtype, layer.dtype, longest(step))) return;
  }
  rope_kv_write(c, op.write, in, step, q);  // the queries turn in place
  attention(c, op.attention, q, step, out);
}

void attention(const Context& c, const device::Attention& op, const View& q, const StepView& step, const View& out) {
  if (step.tokens == 0) return;
  const device::KvLayer& layer = step.kv[static_cast<std::size_t>(op.layer)];
  const int heads = static_cast<int>(q.shape[1]);
  const int max_kv = longest(step);
  const Call call = call_of(c, op, q, step, out);
  const int splits = call.splits;
  // In deterministic steps one kernel serves every token, whatever its sequence has else in this step.
  const bool any_prefill = step.tokens > step.sequences || call.every;
  const bool any_decode = (step.tokens == 1 || step.sequences > 1) && !call.every;  // maybe
  const bool decoded = !any_decode || attention_decode(c, call, nullptr, q.dtype, layer.dtype, max_kv);
  const int cuts = (call.group + kMaxGroup - 1) / kMaxGroup;
  const std::size_t partials = attention_workspace(op, step.sequences, heads, layer.v_head_dim, max_kv);
  const bool prefilled = !any_prefill || attention_prefill(c, call, q.dtype, layer.dtype, step.tokens, heads) ||
                         widened_prefill(c, call, layer, step, q.dtype, partials, heads);
  if (decoded && prefilled) return;
  dispatch_float(q.dtype, "attention", [&](auto t) {
    dispatch_cache(layer.dtype, "attention", [&](auto u) {
      using T = typename decltype(t)::type;
      using C = typename decltype(u)::type;
      if (!decoded) {
        decode_kernel<T, C><<<dim3(step.sequences, layer.kv_heads * cuts, splits), 128, 0, c.stream>>>(call);
        merge_kernel<T><<<dim3(step.sequences, heads), 128, 0, c.stream>>>(call);
      }
      if (prefilled) return;
      if constexpr ((std::is_same_v<T, C> || kIsCode<C>) && !std::is_same_v<T, float>) {
        const auto even = [](const View& v) {
          return v.stride[0] % 2 == 0 && v.stride[1] % 2 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 4 == 0;
        };
        const bool whole = c.tensor_cores && layer.head_dim == layer.v_head_dim && even(q) && even(out);
        if (whole && layer.head_dim == 64) return launch_prefill<T, C, 64>(c, call, step.tokens, heads);
        if (whole && layer.head_dim == 128) return launch_prefill<T, C, 128>(c, call, step.tokens, heads);
      }
      launch_general<T, C>(c, call, step.tokens, heads);
    });
  });
  check_launch("attention");
}

}  // namespace fastllm::cuda
