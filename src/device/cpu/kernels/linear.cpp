// Linear: y = act(scale * (x W^T) + bias) + residual, W row-major [N, K] where it is mapped, in float32, float16 or
// bfloat16.
//
// Dot products with the lanes along K. One output is: for each block of kBlockK along K, one chain of fma into one
// vector, reduced by simd.h's fixed tree; blocks are added in order. Neither M, nor the tile an output falls into, nor
// the split over threads enters that sum, so a row's result is the same bits in any batch.
//
// Tiles of MR rows of x by NR rows of W live in registers. With few rows of x, W is widened as it streams by (decode is
// bound by memory); with more, NR rows by kBlockK columns are widened once into scratch (L1) and meet all rows of an M
// block (in L2).
#include <algorithm>

#include "device/cpu/kernels/activation.h"
#include "device/cpu/kernels/dot.h"
#include "device/cpu/kernels/kernels.h"
#include "device/cpu/kernels/simd.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

constexpr std::int64_t kBlockK = 1024;  // part of the numerical result: never change it per shape
constexpr int kDirectM = kTileM < 4 ? 8 : 2 * kTileM;  // up to here W is widened on the fly, once or twice
constexpr std::int64_t kBlockM = 48;  // rows of x by kBlockK floats stay in L2
constexpr std::int64_t kMaxChunkN = 128;  // most rows of W in one chunk of work
constexpr std::int64_t kWideStride = kBlockK + 16;  // so that its rows do not meet in the same sets of L1

struct Buffers {
  float sums[kBlockM * kMaxChunkN];  // [rows of x, columns of the chunk]
  float wide[kTileN][kWideStride];
};

static_assert(sizeof(Buffers) <= kLinearScratch);

// Asks for the cache lines [begin, end) of a tile of weights: kTileN rows of `line_count` lines each.
template <class W>
inline void prefetch_lines(const W* tile, std::int64_t stride, std::int64_t line_count, std::int64_t begin,
                           std::int64_t end) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(W));
  for (std::int64_t line = begin; line < end; ++line)
    prefetch_l2(tile + line / line_count * stride + line % line_count * kLine);
}

// sums [m, n] += x [m, k] w [n, k]^T for m <= kDirectM and rows [first, first + NR) of W, which stream by once from
// memory, asking for the next tile's lines; a second group of rows of x finds them in L1.
template <int NR, class W>
inline void stream(const LinearArgs& args, int m, const float* x, const W* w, std::int64_t w_stride, std::int64_t first,
                   std::int64_t n, float* sums) {
  constexpr int kGroup = kTileM < 4 && NR <= 3 ? 4 : kTileM;
  const int group = m > kGroup ? (m + 1) / 2 : m;
  const std::int64_t distance = first + 2 * NR <= n ? NR * w_stride : 0;  // not beyond the chunk: another thread's
  for (std::int64_t k = 0; k < args.k; k += kBlockK) {
    const W* tile = w + first * w_stride + k;
    const std::int64_t size = std::min(kBlockK, args.k - k);
    dot_rows<NR, true>(group, x + k, args.x_stride, tile, w_stride, size, sums + first, n, distance);
    if (group < m)
      dot_rows<NR, false>(m - group, x + group * args.x_stride + k, args.x_stride, tile, w_stride, size,
                          sums + group * n + first, n, 0);
  }
}

// sums [m, n] += x [m, k] w [n, k]^T for m <= kBlockM: one chunk of rows of W.
template <class W>
void accumulate(const LinearArgs& args, const float* x, std::int64_t m, const W* w, std::int64_t w_stride,
                std::int64_t n, Buffers& buffers) {
  float* sums = buffers.sums;
  if (m <= kDirectM) {
    const int rows = static_cast<int>(m);
    std::int64_t j = 0;
    if (rows == 1) {
      for (; j + 8 <= n; j += 8) stream<8>(args, 1, x, w, w_stride, j, n, sums);
    } else if (kTileM < 4 && (rows == 4 || rows > 6)) {  // four rows of x by three of W fill sixteen registers, too
      for (; j + 3 <= n; j += 3) stream<3>(args, rows, x, w, w_stride, j, n, sums);
    } else {
      for (; j + kTileN <= n; j += kTileN) stream<kTileN>(args, rows, x, w, w_stride, j, n, sums);
    }
    for (; j < n; ++j) stream<1>(args, rows, x, w, w_stride, j, n, sums);
    return;
  }
  std::int64_t calls = 0;  // products of one tile of weights
  for (std::int64_t i = 0; i < m; i += next_rows(m - i)) ++calls;
  for (std::int64_t k = 0; k < args.k; k += kBlockK) {
    const std::int64_t size = std::min(kBlockK, args.k - k);
    for (std::int64_t j = 0; j < n; j += kTileN) {
      const int columns = static_cast<int>(std::min<std::int64_t>(kTileN, n - j));
      for (int c = 0; c < columns; ++c) widen(w + (j + c) * w_stride + k, buffers.wide[c], size);
      // While this tile is multiplied, the next one's lines arrive: below it, or of the next block at the chunk's end.
      const bool below = j + 2 * kTileN <= n;
      const bool beyond = !below && n >= kTileN && k + kBlockK < args.k;
      const W* next = below ? w + (j + kTileN) * w_stride + k : w + k + kBlockK;
      const std::int64_t next_size = below ? size : beyond ? std::min(kBlockK, args.k - k - kBlockK) : 0;
      const std::int64_t lines = (next_size * static_cast<std::int64_t>(sizeof(W)) + 63) / 64;
      const std::int64_t share = (kTileN * lines + calls - 1) / calls;
      std::int64_t asked = 0;
      for (std::int64_t i = 0; i < m;) {
        const int rows = next_rows(m - i);
        prefetch_lines(next, w_stride, lines, asked, std::min(asked + share, kTileN * lines));
        asked = std::min(asked + share, kTileN * lines);
        dot_columns<false>(rows, columns, x + i * args.x_stride + k, args.x_stride, buffers.wide[0], kWideStride, size,
                           sums + i * n + j, n);
        i += rows;
      }
    }
  }
}

// Writes y [m, n] from the sums: scale, bias, activation, residual.
void finish(const LinearArgs& args, const float* sums, std::int64_t m, std::int64_t n, const float* bias,
            std::int64_t first_row, std::int64_t first_column) {
  const Vec scale = set1(args.scale);
  with_activation(args.activation, 0.0f, [&](auto act) {
    for (std::int64_t i = 0; i < m; ++i) {
      float* y = args.y + (first_row + i) * args.y_stride + first_column;
      const float* residual =
          args.residual ? args.residual + (first_row + i) * args.residual_stride + first_column : nullptr;
      for (std::int64_t j = 0; j < n; j += kLanes) {
        const int lanes = static_cast<int>(std::min<std::int64_t>(kLanes, n - j));
        const auto read = [&](const float* p) { return lanes == kLanes ? load(p + j) : load_n(p + j, lanes); };
        Vec v = read(sums + i * n) * scale;
        if (bias) v = v + read(bias);
        v = act(v);
        if (residual) v = v + read(residual);
        if (lanes == kLanes)
          store(y + j, v);
        else
          store_n(y + j, v, lanes);
      }
    }
  });
}

void run_chunk(const LinearArgs& args, const LinearBlock& block, std::int64_t column, std::int64_t row, std::int64_t n,
               Buffers& buffers) {
  const float* bias = block.bias ? block.bias + row : nullptr;
  for (std::int64_t first = 0; first < args.m; first += kBlockM) {
    const std::int64_t m = std::min(kBlockM, args.m - first);
    std::fill_n(buffers.sums, m * n, 0.0f);
    const float* x = args.x + first * args.x_stride;
    const auto go = [&](const auto* w) {
      accumulate(args, x, m, w + row * block.row_stride, block.row_stride, n, buffers);
    };
    switch (block.dtype) {
      case core::DType::f16:
        go(static_cast<const Half16*>(block.weight));
        break;
      case core::DType::bf16:
        go(static_cast<const Brain16*>(block.weight));
        break;
      default:
        go(static_cast<const float*>(block.weight));
        break;
    }
    finish(args, buffers.sums, m, n, bias, first, column + row);
  }
}

}  // namespace

void linear(const LinearArgs& args, core::ThreadPool& pool) {
  if (args.m == 0) return;
  // Chunks of W: some per thread to share evenly, none so small that claiming it costs more than computing it.
  std::int64_t rows = 0;
  for (int b = 0; b < args.block_count; ++b) rows += args.blocks[b].rows;
  const std::int64_t work_per_row = args.k * std::max<std::int64_t>(2, std::min(args.m, kBlockM));  // decode: bytes
  const std::int64_t least = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, work_per_row));
  std::int64_t chunk = std::max(rows / (8 * pool.threads()), least);
  chunk = std::clamp<std::int64_t>((chunk + 7) / 8 * 8, 8, kMaxChunkN);
  std::int64_t chunks = 0;
  for (int b = 0; b < args.block_count; ++b) chunks += (args.blocks[b].rows + chunk - 1) / chunk;

  pool.parallel_for(chunks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    Buffers& buffers = *static_cast<Buffers*>(args.scratch.of(worker));
    std::int64_t passed = 0;
    std::int64_t column = 0;
    for (int b = 0; b < args.block_count; ++b) {
      const LinearBlock& block = args.blocks[b];
      const std::int64_t own = (block.rows + chunk - 1) / chunk;
      for (std::int64_t c = std::max(begin, passed); c < std::min(end, passed + own); ++c) {
        const std::int64_t row = (c - passed) * chunk;
        run_chunk(args, block, column, row, std::min(chunk, block.rows - row), buffers);
      }
      passed += own;
      column += block.rows;
    }
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
