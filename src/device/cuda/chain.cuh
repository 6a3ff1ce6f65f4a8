#pragma once
// Runs of products with few tokens as one kernel (kernels/chain.cu): what the kernel is told.

#include <cstdint>

#include "device/cuda/epilogue.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

constexpr int kMostLinks = 16;
constexpr int kRegionBytes = 2 << 20;  // of the exchange, for one chain

// One product, with the norm before it.
//
// What links leave for each other in the chain's region of the exchange, by byte: results as [T, rows of 32 numbers], of
// 16-bit pairs; all ones where nothing is yet. A norm is cut in two: the link before multiplies its result by the norm's
// weight and leaves sums of squares, one for each 16 of its rows; the link behind scales its sums.
struct ChainLink {
  const char* tiles;  // W as tiles of 64 rows (DeviceLinear::tiled, or codes)
  int tokens, rows, depth;
  int lines;  // of scales in a tile of codes
  bool zeros;  // as many lines of zero points follow
  bool gated, floats;
  const void* x;  // [T, K] in memory, or null: in the exchange
  std::int64_t x_stride;
  int source;  // of [T, K] in the exchange
  int source_squares;  // [T, K / 16] sums, or -1: x is multiplied as it is
  float eps;
  int target;  // of [T, N] in the exchange, or -1
  int target_squares;  // or -1
  const float* norm;  // [N] what the exchange's copy is multiplied by, or null
  float norm_offset;
  void* out;  // or null
  std::int64_t out_stride;
  Epilogue epilogue;
  const float* row_scales;  // [N] or null
};

struct ChainCall {
  int links;
  int tile_bytes;
  char* here;  // the region of this chain
  char* before;  // the one that it clears, or null
  ChainLink link[kMostLinks];
};

// Bytes of a token's row of n numbers in the exchange.
__host__ __device__ inline int exchange_row(int n) {
  return (n + 31) / 32 * 64;
}

// `weight`: of any link; it says what kind all of them are.
void launch_chain(const Context& c, const ChainCall& chain, const DeviceLinear& weight);

}  // namespace fastllm::cuda
