// A chain: products with up to 8 tokens one after another, and the norms before them, as one kernel of one block a
// multiprocessor. What a decode step loses between products is the time in which nobody reads weights: blocks that end,
// start, fetch their first tiles, meet. Here one warp streams the weights of all products of the chain through one ring,
// ahead of whoever waits, eight warps multiply, and two finish: they add the eight's sums and send results on their way.
//
// A block takes units of 16 rows of W, every gridDim.x-th; its warps take tiles of a unit along K in turn and add their
// sums in their order, through shared memory. The tokens lie in registers as fragments of the products' right operand,
// fetched once a product. A norm is no step of its own: its weight is multiplied into what the product before leaves for
// this one, its factor into the sums on their way out. No result depends on the other tokens.
//
// Blocks meet nowhere. A result goes to memory, as its op says, and to the exchange, where it is its own signal: a pair of
// 16-bit numbers is there once it is not all ones, the bits of a NaN that no rounding makes. So a product costs one
// store on its way out and one load on its way in, not a barrier's round trips between them. (Data that are their own flags: the
// LL protocol of NCCL sends each with a flag beside it.)
//
// Blocks that wait for each other must all be resident: one block a multiprocessor, and the kernels before end without
// them. On a device one stream runs all (CudaBackend), so that no two chains meet.

#include "device/cuda/chain.cuh"
#include "device/cuda/common.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/hopper_codes.cuh"
#include "device/cuda/mma.cuh"

#include <type_traits>

namespace fastllm::cuda {
namespace {

constexpr int kWarps = 8;  // that multiply
constexpr int kWorkers = kWarps * 32;
constexpr int kFinishers = 2;  // warps
constexpr int kThreads = kWorkers + 32 + kFinishers * 32;
[[maybe_unused]] constexpr int kUnit = 16;  // rows of W
[[maybe_unused]] constexpr int kGroup = 2;  // units that share a chunk of the tokens before the next is fetched
constexpr int kRingBytes = 128 * 1024;
constexpr int kMostStages = 16;
constexpr int kParts = 4;  // units whose sums wait to be finished
constexpr int kPartBytes = kParts * kWarps * 512;
constexpr int kShared = kRingBytes + kPartBytes;
// Of a thread: so few that by their number a block of decode attention, which has 128 too, fits beside (not traced yet).
[[maybe_unused]] constexpr int kRegisters = 128;
[[maybe_unused]] constexpr int kHeld = 64;  // registers of a thread that hold tokens
[[maybe_unused]] constexpr std::uint32_t kAbsent = 0xffffffffu;

#if FASTLLM_HOPPER_CODE

// 64 rows of a tile of 16-bit numbers: rows of 128 bytes whose 16-byte columns are permuted by the row.
struct Plain {
  static constexpr int kDepth = 64;
  static constexpr bool kCodes = false;
};

template <class W>
struct Chunk {  // what a warp's registers hold of the tokens
  static constexpr int kWords = W::kDepth / 8;  // of a tile
  static constexpr int kTiles = kHeld / kWords;
  static constexpr int kSteps = kTiles * kWarps;  // tiles of all warps
};

__device__ inline uint4 load_relaxed(const void* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
__device__ inline bool absent(const uint4& v) {
  return v.x == kAbsent || v.y == kAbsent || v.z == kAbsent || v.w == kAbsent;
}

__device__ inline float2 unpack2(std::uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&pair));
}

// What a link reads: memory that is there, or the exchange as it fills.
struct Source {
  const char* data;
  std::int64_t stride;  // bytes
  bool exchanged;
};

// Lane l has of token l / 4, of every 32 numbers of K, the 8 that begin at 8 (l % 4): 16 bytes, four registers.
// first: the tile of K that this warp's first registers hold; tiles of a warp are kWarps apart. ask: it may not be there yet.
// (Lanes without a token could fetch later chunks of K: slower, for the first chunk then waits for the last one's writers.)
template <class W>
__device__ inline void load_tokens(std::uint32_t (&x)[Chunk<W>::kTiles][Chunk<W>::kWords], const Source& source,
                                   const ChainLink& l, int first, int steps, bool ask) {
  const int lane = threadIdx.x % 32;
  const int token = lane / 4;
  const char* from = source.data + token * source.stride;
  const int k0 = first * W::kDepth + lane % 4 * 8;
  const int end = token < l.tokens ? l.depth : 0;
  // Of many tokens one piece a lane is asked for until it is there, lest asking crowd out the weights; then all, until they are.
  if (ask && source.exchanged && l.tokens > 2) {
    const bool mine = k0 < end;
    while (mine && absent(load_relaxed(from + k0 * 2))) {
    }
    __syncwarp();
  }
  bool again;
  do {
    again = false;
#pragma unroll
    for (int t = 0; t < Chunk<W>::kTiles; ++t) {
      if (t > 0 && first + t * kWarps >= steps) break;  // the same for the whole warp
#pragma unroll
      for (int c = 0; c < Chunk<W>::kWords / 4; ++c) {
        const int k = k0 + t * kWarps * W::kDepth + c * 32;
        uint4 v{};
        if (k < end) v = load_relaxed(from + k * 2);
        x[t][c * 4] = v.x;
        x[t][c * 4 + 1] = v.y;
        x[t][c * 4 + 2] = v.z;
        x[t][c * 4 + 3] = v.w;
      }
    }
    if (source.exchanged) {
#pragma unroll
      for (int t = 0; t < Chunk<W>::kTiles; ++t) {
        if (t > 0 && first + t * kWarps >= steps) break;
#pragma unroll
        for (int i = 0; i < Chunk<W>::kWords; ++i) again = again || x[t][i] == kAbsent;
      }
      again = __any_sync(~0u, again);
    }
  } while (again);
}

// 1 / root mean square of a token, from what the blocks of the link before left; for the whole warp.
__device__ inline float norm_factor(const float* squares, int count, int depth, float eps) {
  float all = 0.0f;
  for (int first = threadIdx.x % 32; first < count; first += 32 * 8) {
    float found[8];
    bool again;
    do {
      again = false;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        found[i] = 0.0f;
        if (first + i * 32 < count)
          asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];"
                       : "=f"(found[i])
                       : "l"(squares + first + i * 32)
                       : "memory");
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) again = again || __float_as_uint(found[i]) == kAbsent;
    } while (again);
#pragma unroll
    for (int i = 0; i < 8; ++i) all += found[i];
  }
  return rsqrtf(warp_sum(all) / depth + eps);
}

// For tokens from memory: tiles of codes were laid out for fragments in the order of K: lane l wants of every 32 numbers the pairs l % 4, + 4, + 8
// and + 12. The four lanes of a token exchange what they have, a 4 x 4 matrix turned over.
template <class W>
__device__ inline void turn_tokens(std::uint32_t (&x)[Chunk<W>::kTiles][Chunk<W>::kWords], int first, int steps) {
  const bool odd = threadIdx.x & 1;
  const bool upper = threadIdx.x & 2;
#pragma unroll
  for (int t = 0; t < Chunk<W>::kTiles; ++t) {
    if (t > 0 && first + t * kWarps >= steps) break;
#pragma unroll
    for (int c = 0; c < Chunk<W>::kWords; c += 4) {
      std::uint32_t (&v)[Chunk<W>::kWords] = x[t];
      const std::uint32_t a = __shfl_xor_sync(~0u, odd ? v[c] : v[c + 1], 1);
      const std::uint32_t b = __shfl_xor_sync(~0u, odd ? v[c + 2] : v[c + 3], 1);
      (odd ? v[c] : v[c + 1]) = a;
      (odd ? v[c + 2] : v[c + 3]) = b;
      const std::uint32_t d = __shfl_xor_sync(~0u, upper ? v[c] : v[c + 2], 2);
      const std::uint32_t e = __shfl_xor_sync(~0u, upper ? v[c + 1] : v[c + 3], 2);
      (upper ? v[c] : v[c + 2]) = d;
      (upper ? v[c + 1] : v[c + 3]) = e;
    }
  }
}

// c[16, 8] += a[16, 16] b[16, 8] as mma_16816, but for the compiler to order.
template <class T>
__device__ inline void product(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                               std::uint32_t b0, std::uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// sums[16, 8] += a tile of 16 rows at `at`, its K against the tokens in x. Lane l: rows l / 4 and + 8, tokens 2 (l % 4) and + 1.
// Numbers: eight neighbours of a row are one load, and four pairs of the same K in both operands; their order does not
// matter.
template <class T>
__device__ inline void multiply(float (&sums)[4], const std::uint32_t (&x)[8], std::uint32_t at) {
  const int lane = threadIdx.x % 32;
  const int row = lane / 4;
  float other[4] = {};
  uint4 low[2], high[2];
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    low[c] = load_shared_eight_as<uint4>(at + swizzled(row, lane % 4 + c * 4));
    high[c] = load_shared_eight_as<uint4>(at + swizzled(row, lane % 4 + c * 4) + 8 * 128);
  }
  product<T>(sums, low[0].x, high[0].x, low[0].y, high[0].y, x[0], x[1]);
  product<T>(other, low[0].z, high[0].z, low[0].w, high[0].w, x[2], x[3]);
  product<T>(sums, low[1].x, high[1].x, low[1].y, high[1].y, x[4], x[5]);
  product<T>(other, low[1].z, high[1].z, low[1].w, high[1].w, x[6], x[7]);
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] += other[i];
}

// Codes: the sums of a group take its scale. lines: of scales in a tile; zeros: and of zero points.
template <class W>
__device__ inline void multiply_tile(float (&sums)[4], const std::uint32_t (&x)[16], std::uint32_t at, int lines,
                                     bool zeros) {
  using Bare = Codes<W::kCode, 0>;
  constexpr int kChains = 4;
  constexpr int kShare = W::kLines == 4 ? 2 : 8;  // steps that have one scale, at least
  constexpr int kGroups = 8 / kShare;
  const int lane = threadIdx.x % 32;
  const Constants constants{W::kCode == quant::Code::int4 ? 0x000f000fu : 0x007f007fu, 0x43004300u};
  const std::uint32_t line = at + W::kWarpCodes + lane / 4 * 4;
  uint4 words[W::kPlanes];
#pragma unroll
  for (int i = 0; i < W::kPlanes; ++i) words[i] = load_shared_eight_as<uint4>(at + i * 512 + lane * 16);
  std::uint32_t scales[kGroups];
  std::uint32_t points[kGroups];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const int number = W::kLines == 4 ? i * kShare * lines / 8 : 0;
    scales[i] = W::kLines > 0 ? load_shared_word(line + number * W::kLine) : kOnes;
    points[i] = kInt4Zero;
    if (W::kCode == quant::Code::int4 && zeros)
      points[i] = load_shared_word(line + ((W::kLines == 4 ? lines : 1) + number) * W::kLine);
  }
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    Factors f{{kOnes, kOnes}, {__byte_perm(points[group], 0, 0x1010), __byte_perm(points[group], 0, 0x3232)}};
    if (W::kCode == quant::Code::fp8) f.scale[0] = f.scale[1] = kFp8Unit;
    float part[kChains][4] = {};
#pragma unroll
    for (int step = group * kShare; step < (group + 1) * kShare; ++step) {
      std::uint32_t a[4];
      fragment<Bare>(a, words[step / W::kPlaneSteps], step % W::kPlaneSteps, f, constants);
      product<__nv_bfloat16>(part[(step - group * kShare) % kChains], a[0], a[1], a[2], a[3], x[step * 2],
                             x[step * 2 + 1]);
    }
    float2 scale = unpack2(scales[group]);
    if (W::kLines > 0 && W::kCode == quant::Code::fp8) scale = make_float2(scale.x * 0x1p-120f, scale.y * 0x1p-120f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float sum = part[0][i] + part[1][i];
      if (kShare > 2) sum += part[2][i] + part[3][i];
      sums[i] += sum * (i / 2 ? scale.y : scale.x);
    }
  }
}

// What becomes of a link's sums: every kFinishers-th of this block's units. Lane l: rows l / 4 and + 8, tokens 2 (l % 4) and
// + 1. The same unit number of two links with as many rows is the same warp's: what it stored it may read.
template <class T, class W>
__device__ inline void finish_link(const ChainCall& c, const ChainLink& l, std::uint32_t parts, std::uint32_t summed,
                                   std::uint32_t taken, float (&factors)[kChainTokens], int finisher, int unit_number) {
  const int lane = threadIdx.x % 32;
  const int blocks = gridDim.x;
  const int units = (l.rows + kUnit - 1) / kUnit;
  const Epilogue& e = l.epilogue;
  const bool scaled = l.source_squares >= 0;
  const int token = lane % 4 * 2;
  if (scaled) {
    const int squares = (l.depth + kUnit - 1) / kUnit;
    for (int t = finisher; t < l.tokens; t += kFinishers) {
      const float factor =
          norm_factor(reinterpret_cast<const float*>(c.here + l.source_squares) + t * squares, squares, l.depth, l.eps);
      if (lane == 0) factors[t] = factor;
    }
    asm volatile("bar.sync 1, %0;" ::"n"(kFinishers * 32) : "memory");
  }
  const int columns = l.gated ? l.rows / 2 : l.rows;
  for (int index = finisher, unit = blockIdx.x + finisher * blocks; unit < units;
       index += kFinishers, unit += kFinishers * blocks) {
    const int row = unit * kUnit + lane / 4;
    const int column = l.gated ? unit * 8 + lane / 4 : row;
    float residual[4] = {};
    float scale[2] = {e.scale, e.scale};  // of the two rows
    float bias[2] = {};
    float norm[2] = {1.0f, 1.0f};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int n = row + h * 8;
      if (n >= l.rows) continue;
      if (W::kCodes && l.row_scales) scale[h] *= l.row_scales[n];
      if (e.bias) bias[h] = e.bias[n];
      if (l.norm) norm[h] = l.norm_offset + l.norm[n];  // never of a gated product
      if (e.residual)
#pragma unroll
        for (int j = 0; j < 2; ++j)
          if (token + j < l.tokens) {
            const unsigned short bits =
                __ldcg(reinterpret_cast<const unsigned short*>(e.residual) + (token + j) * e.residual_stride + n);
            residual[h * 2 + j] = to_float(*reinterpret_cast<const T*>(&bits));
          }
    }
    const int part = (unit_number + index) % kParts;
    barrier_wait(summed + part * 8, (unit_number + index) / kParts % 2);
    float values[4] = {};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float4 sums = load_shared(parts + ((part * kWarps + w) * 32 + lane) * 16);
      values[0] += sums.x;
      values[1] += sums.y;
      values[2] += sums.z;
      values[3] += sums.w;
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(taken + part * 8);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      values[j] *= scale[j / 2];
      if (scaled) values[j] *= factors[token + j % 2];
      values[j] += bias[j / 2];
    }
    float results[4];  // gated: two, of both rows together
#pragma unroll
    for (int j = 0; j < 4; ++j)
      results[j] = activate(e.activation, values[j], 0.0f) * (l.gated ? values[(j + 2) % 4] : 1.0f) + residual[j];
    if (l.target >= 0) {
      // Lanes of neighbouring rows share their pairs: the even one takes the first token's, the odd one the second's.
      const bool odd = lane / 4 % 2;
      float squares[2] = {};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (h && l.gated) break;
        const int at = column + h * 8;
        float pairs[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float rounded = to_float(from_float<T>(results[h * 2 + j]));
          squares[j] += at < columns ? rounded * rounded : 0.0f;
          pairs[j] = rounded * norm[h];
        }
        const float mine = odd ? pairs[1] : pairs[0];
        const float theirs = __shfl_xor_sync(~0u, odd ? pairs[0] : pairs[1], 4);
        const std::uint32_t pair = odd ? pack2<T>(theirs, mine) : pack2<T>(mine, theirs);
        int place = (at - odd) / 2;
        if (W::kCodes)
          place = place / 16 * 16 + place % 4 * 4 + place % 16 / 4;  // as the next product's registers want them
        if (at - odd < columns && token + odd < l.tokens)
          asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(c.here + l.target +
                                                                   (token + odd) * exchange_row(columns) + place * 4),
                       "r"(pair)
                       : "memory");
      }
      if (l.target_squares >= 0) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          for (int d = 4; d < 32; d *= 2) squares[j] += __shfl_xor_sync(~0u, squares[j], d);
          if (lane < 4 && token + j < l.tokens)
            asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(c.here + l.target_squares +
                                                                     ((token + j) * units + unit) * 4),
                         "f"(squares[j])
                         : "memory");
        }
      }
    }
    if (!l.out) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= 2 && l.gated) break;
      const int n = column + j / 2 * 8;
      if (n >= columns || token + j % 2 >= l.tokens) continue;
      const std::int64_t to = (token + j % 2) * l.out_stride + n;
      if (l.floats)
        static_cast<float*>(l.out)[to] = results[j];
      else
        static_cast<T*>(l.out)[to] = from_float<T>(results[j]);
    }
  }
}

template <class T, class W>
__global__ void __maxnreg__(kRegisters) chain_kernel(const __grid_constant__ ChainCall c, int stages) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  __shared__ std::uint64_t barriers[2 * kMostStages + 2 * kParts];
  __shared__ float factors[2][kChainTokens];  // of norms, of a link and the next
  constexpr int kDepth = W::kDepth;
  constexpr int kTiles = Chunk<W>::kTiles;
  constexpr int kSteps = Chunk<W>::kSteps;
  auto base = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  auto full = static_cast<std::uint32_t>(__cvta_generic_to_shared(barriers));
  asm volatile("" : "+r"(base), "+r"(full));  // kept, not computed again at each use
  const std::uint32_t parts = base + kRingBytes;  // [kParts][kWarps][32] of 16 bytes
  const std::uint32_t empty = full + kMostStages * 8;
  const std::uint32_t summed = empty + kMostStages * 8;  // a unit's sums of all warps are there
  const std::uint32_t taken = summed + kParts * 8;  // and have been read
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int lane = threadIdx.x % 32;
  const int piece = c.tile_bytes / 4;  // of a tile of 64 rows
  const int blocks = gridDim.x;

  let_next_start();
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, kWarps);
    }
    for (int s = 0; s < kParts; ++s) {
      barrier_init(summed + s * 8, kWarps);
      barrier_init(taken + s * 8, 1);
    }
    barrier_init_done();
  }
  __syncthreads();
  int slot = 0;
  std::uint32_t parity = 0;
  const auto advance = [&] {
    if (++slot == stages) {
      slot = 0;
      parity ^= 1;
    }
  };

  if (warp == kWarps) {  // the warp that copies: no kernel writes weights, so it waits for none
    for (int i = 0; i < c.links; ++i) {
      const ChainLink& l = c.link[i];
      const int units = (l.rows + kUnit - 1) / kUnit;
      const int steps = (l.depth + kDepth - 1) / kDepth;
      for (int first = blockIdx.x; first < units; first += kGroup * blocks)
        for (int begin = 0; begin < steps; begin += kSteps)
          for (int unit = first; unit < min(units, first + kGroup * blocks); unit += blocks) {
            const char* tiles = l.tiles + static_cast<std::int64_t>(unit / 4) * steps * c.tile_bytes + unit % 4 * piece;
            for (int at = begin; at < min(steps, begin + kSteps); at += kWarps) {
              barrier_wait(empty + slot * 8, parity ^ 1);
              const int count = min(kWarps, steps - at);
              if (lane == 0) barrier_expect(full + slot * 8, count * piece);
              __syncwarp();
              if (lane < count)
                copy_bytes(base + (slot * kWarps + lane) * piece,
                           tiles + static_cast<std::int64_t>(at + lane) * c.tile_bytes, piece, full + slot * 8);
              advance();
            }
          }
    }
    return;
  }

  wait_for_previous();
  int unit_number = 0;  // of all that this block takes, over all links
  if (warp > kWarps) {
    const int finisher = warp - kWarps - 1;
    for (int i = 0; i < c.links; ++i) {
      const ChainLink& l = c.link[i];
      const int units = (l.rows + kUnit - 1) / kUnit;
      if (static_cast<int>(blockIdx.x) >= units) continue;
      finish_link<T, W>(c, l, parts, summed, taken, factors[i % 2], finisher, unit_number);
      unit_number += (units - static_cast<int>(blockIdx.x) + blocks - 1) / blocks;
    }
    return;
  }

  if (c.before)
    for (int at = (blockIdx.x * kWorkers + threadIdx.x) * 16; at < kRegionBytes; at += blocks * kWorkers * 16)
      *reinterpret_cast<uint4*>(c.before + at) = uint4{kAbsent, kAbsent, kAbsent, kAbsent};
  std::uint32_t x[kTiles][Chunk<W>::kWords];
  for (int i = 0; i < c.links; ++i) {
    const ChainLink& l = c.link[i];
    const int units = (l.rows + kUnit - 1) / kUnit;
    const int steps = (l.depth + kDepth - 1) / kDepth;
    const bool whole = steps <= kSteps;  // the registers hold all of K
    const int lines = l.lines;
    const bool zeros = l.zeros;
    const bool exchanged = !l.x;
    const Source source{exchanged ? c.here + l.source : static_cast<const char*>(l.x),
                        exchanged ? exchange_row(l.depth) : l.x_stride * 2, exchanged};
    for (int first = blockIdx.x; first < units; first += kGroup * blocks) {
      const int count = min(kGroup, (units - first + blocks - 1) / blocks);
      for (int begin = 0; begin < steps; begin += kSteps) {
        if (!whole || first == static_cast<int>(blockIdx.x)) {
          load_tokens<W>(x, source, l, begin + warp, steps, begin == 0 && first == static_cast<int>(blockIdx.x));
          if constexpr (W::kCodes)
            if (!exchanged) turn_tokens<W>(x, begin + warp, steps);
        }
        for (int g = 0; g < count; ++g) {
          float sums[4] = {};
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            if (begin + t * kWarps < steps) {
              barrier_wait(full + slot * 8, parity);
              if (begin + t * kWarps + warp < steps) {
                const std::uint32_t at = base + (slot * kWarps + warp) * piece;
                if constexpr (W::kCodes)
                  multiply_tile<W>(sums, x[t], at, lines, zeros);
                else
                  multiply<T>(sums, x[t], at);
              }
              __syncwarp();
              if (lane == 0) barrier_arrive(empty + slot * 8);
              advance();
            }
          }
          const int part = (unit_number + g) % kParts;
          const std::uint32_t to = parts + ((part * kWarps + warp) * 32 + lane) * 16;
          if (begin == 0) {
            barrier_wait(taken + part * 8, (unit_number + g) / kParts % 2 ^ 1);
          } else {
            const float4 before = load_shared(to);
            sums[0] += before.x;
            sums[1] += before.y;
            sums[2] += before.z;
            sums[3] += before.w;
          }
          asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(sums[0]), "f"(sums[1]), "f"(sums[2]),
                       "f"(sums[3])
                       : "memory");
          if (begin + kSteps >= steps) {
            __syncwarp();
            if (lane == 0) barrier_arrive(summed + part * 8);
          }
        }
      }
      unit_number += count;
    }
  }
}

#else

struct Plain;
template <class T, class W>
__global__ void chain_kernel(const __grid_constant__ ChainCall, int) {}

#endif

template <class T, class W>
void start(const Context& c, const ChainCall& chain) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(chain_kernel<T, W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  check(allowed, "linear");
  const int stages = std::min(kMostStages, kRingBytes / (kWarps * chain.tile_bytes / 4));
  launch(c, chain_kernel<T, W>, dim3(static_cast<unsigned>(c.multiprocessors)), kThreads, kShared, 1, chain, stages);
}

template <quant::Code kCode>
void start_codes(const Context& c, const ChainCall& chain) {
  constexpr int kUsual = kCode == quant::Code::int4 ? 1 : 0;
  if (chain.link[0].lines == kUsual)
    start<__nv_bfloat16, Codes<kCode, kUsual>>(c, chain);
  else
    start<__nv_bfloat16, Codes<kCode, 4>>(c, chain);
}

}  // namespace

void launch_chain(const Context& c, const ChainCall& chain, const DeviceLinear& weight) {
  if (!weight.format) {
    if (weight.dtype == core::DType::bf16)
      start<__nv_bfloat16, Plain>(c, chain);
    else
      start<__half, Plain>(c, chain);
  } else if (weight.format->code == quant::Code::int4) {
    start_codes<quant::Code::int4>(c, chain);
  } else if (weight.format->code == quant::Code::int8) {
    start_codes<quant::Code::int8>(c, chain);
  } else {
    start_codes<quant::Code::fp8>(c, chain);
  }
}

}  // namespace fastllm::cuda
