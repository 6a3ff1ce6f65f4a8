#pragma once
// How a product (hopper_product.cuh) reads weights of codes: a tile holds for each thread, in the order in which it needs them, the
// codes of its fragments of the left operand, so that nothing is shuffled and every load takes 16 bytes. A code becomes a
// bfloat16 by putting its bits into the mantissa of a constant, as in Kim et al. 2022, "Who says elephants can't run"
// (arXiv 2211.10017).

#include "device/cuda/epilogue.cuh"
#include "device/cuda/hopper.cuh"
#include "device/cuda/mma.cuh"
#include "quant/format.h"

namespace fastllm::cuda {
namespace {

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
  const float* row_scales;    // [N] that multiply sums, or null
  const float* token_scales;  // [T] that do so, too, or null
};

// A tile of 64 rows: for each of 4 warps, which have 16 rows each, [kPlanes][32 lanes] of 16 bytes, then up to four lines of
// scales and (int4) as many of zero points. Each line is 8 pairs of bfloat16, for rows i and i + 8 of the 16.
// kLines: 0, where rows have scales and their finished sums are multiplied; 1; 4: as many as the format has.
template <quant::Code kCode_, int kLines_>
struct Codes {
  static constexpr quant::Code kCode = kCode_;
  static constexpr int kLines = kLines_;
  static constexpr int kDepth = 128;
  static constexpr int kNumberBytes = 2;  // of x
  static constexpr int kPlanes = kCode == quant::Code::int4 ? 2 : 4;
  static constexpr int kPlaneSteps = 8 / kPlanes;  // products of depth 16
  static constexpr int kCodeBytes = kPlanes * 2048;
  static constexpr int kWarpCodes = kPlanes * 512;
  static constexpr int kLine = 32;
  static constexpr int kTileBytes = kCodeBytes + 1024;
  static constexpr bool kCodes = true;
};

#if FASTLLM_HOPPER_CODE
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
// (a & mask) | bits, one instruction.
__device__ inline std::uint32_t masked_or(std::uint32_t a, std::uint32_t mask, std::uint32_t bits) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}
// A constant that stays in a register: an instruction holds one in itself, not two.
__device__ inline std::uint32_t held(std::uint32_t bits) {
  std::uint32_t r;
  asm volatile("mov.b32 %0, %1;" : "=r"(r) : "r"(bits));
  return r;
}

// Keeps the making of these registers before what follows: the compiler would put it behind the wait for other products.
__device__ inline void made(std::uint32_t (&a)[4]) {
  asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3]));
}

struct Constants {
  std::uint32_t mask, number;
};

// The scale and the zero point of a thread's two rows, each twice.
struct Factors {
  std::uint32_t scale[2], zero[2];
};

// The left operand of one product of depth 16, a[4] as ProductsLeft wants it, number `step` of a plane.
// int4: one word, number j of the low and of the high half are a[j]. A nibble in the mantissa of 128 is 128 + code.
// 8 bits: two words, bytes 0 and 2 are a[2 h], bytes 1 and 3 a[2 h + 1].
template <class W>
__device__ inline void fragment(std::uint32_t (&a)[4], const uint4& v, int step, const Factors& f, const Constants& k) {
  const auto word = [&](int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; };
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    std::uint32_t number;
    if constexpr (W::kCode == quant::Code::int4) {
      number = minus(masked_or(word(step) >> (4 * j), k.mask, k.number), f.zero[j % 2]);
    } else if constexpr (W::kCode == quant::Code::int8) {
      // Low seven bits in the mantissa of 128; the sign bit makes 256 of 128.
      const std::uint32_t shifted = word(step * 2 + j / 2) >> (8 * (j % 2));
      number = minus(masked_or(shifted, k.mask, k.number), masked_or(shifted, 0x00800080, k.number));
    } else {
      const std::uint32_t shifted = word(step * 2 + j / 2) << (8 * (1 - j % 2));
      number = times(masked_or(shifted, 0x80008000, (shifted >> 4) & 0x07f007f0), f.scale[j % 2]);
    }
    if constexpr (W::kLines > 0 && W::kCode != quant::Code::fp8) number = times(number, f.scale[j % 2]);
    a[j] = number;
  }
}

// sums += W x^T over every kTeams-th of `count` tiles of this block, as they arrive. S: Shape of hopper_product.cuh.
template <class T, class S>
__device__ inline void multiply_codes(const Product& p, float (&sums)[S::kTokens / 2], std::uint32_t tiles,
                                      std::uint32_t full, std::uint32_t empty, int count, int group, int team) {
  using W = typename S::W;
  // Products in batches, each of two with registers of its own: while one is multiplied the next becomes numbers.
  constexpr int kBatch = S::kTokens > 64 ? 2 : 4;
  const int thread = threadIdx.x % 128;
  const std::uint32_t mine = tiles + group * W::kTileBytes;
  const std::uint32_t codes = mine + thread / 32 * (p.tile_bytes / 4) + thread % 32 * 16;
  const std::uint32_t line = mine + thread / 32 * (p.tile_bytes / 4) + W::kWarpCodes + thread % 32 / 4 * 4;
  // A descriptor's low word counts 16 bytes; its high word is the same everywhere.
  const std::uint64_t tokens = tile_descriptor(tiles + S::kWeightBytes);
  const auto tokens_low = static_cast<std::uint32_t>(tokens);
  const std::uint64_t tokens_high = tokens & 0xffffffff00000000u;
  const Constants constants{W::kCode == quant::Code::int4 ? 0x000f000fu : 0x007f007fu, held(0x43004300)};
  std::uint32_t a[2][kBatch][4];
  Factors f{{kOnes, kOnes}, {kInt4Zero, kInt4Zero}};
  if (W::kCode == quant::Code::fp8) f.scale[0] = f.scale[1] = kFp8Unit;
  int slot = team;
  std::uint32_t parity = 0;

  for (int i = team; i < count; i += S::kTeams) {
    const std::uint32_t at = slot * S::kStageBytes;
    barrier_wait(full + slot * 8, parity);
#pragma unroll
    for (int batch = 0; batch < 8 / kBatch; ++batch) {
      products_wait<1>();  // the batch that had these registers
      // Every warp: codes are read by plain loads, which no other warp's products wait for.
      if (batch == 1 && i >= S::kTeams && thread % 32 == 0)
        barrier_arrive(empty + (slot < S::kTeams ? slot + S::kStages - S::kTeams : slot - S::kTeams) * 8);
      uint4 words;
#pragma unroll
      for (int own = 0; own < kBatch; ++own) {
        const int step = batch * kBatch + own;
        if (own == 0 || step % W::kPlaneSteps == 0)
          words = load_shared_eight_as<uint4>(codes + at + step / W::kPlaneSteps * 512);
        if constexpr (W::kLines > 0) {
          // No branch here: the compiler would let one batch wait for the other.
          const int lines = W::kLines == 1 ? 1 : p.lines;
          if (W::kLines == 1 ? step == 0 : step % 2 == 0) {
            const std::uint32_t from = line + at + step * lines / 8 * W::kLine;
            const std::uint32_t both = load_shared_word(from);
            f.scale[0] = __byte_perm(both, 0, 0x1010);
            f.scale[1] = __byte_perm(both, 0, 0x3232);
            if constexpr (W::kCode == quant::Code::int4) {
              const std::uint32_t points = p.zeros ? load_shared_word(from + lines * W::kLine) : kInt4Zero;
              f.zero[0] = __byte_perm(points, 0, 0x1010);
              f.zero[1] = __byte_perm(points, 0, 0x3232);
            }
          }
        }
        fragment<W>(a[batch % 2][own], words, step % W::kPlaneSteps, f, constants);
        made(a[batch % 2][own]);
      }
      products_begin();
#pragma unroll
      for (int own = 0; own < kBatch; ++own) {
        const int step = batch * kBatch + own;
        const std::uint64_t x = tokens_high | (tokens_low + at / 16 + step / 4 * S::kTokens * 8 + step % 4 * 2);
        ProductsLeft<T, S::kTokens>::add(sums, a[batch % 2][own], x, 1);
      }
      products_commit();
    }
    slot += S::kTeams;
    if (slot >= S::kStages) {
      slot -= S::kStages;
      parity ^= 1;
    }
  }
}
#endif

}  // namespace
}  // namespace fastllm::cuda
