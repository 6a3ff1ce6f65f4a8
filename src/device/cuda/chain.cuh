#pragma once
// Runs of products with few tokens as one kernel (kernels/chain.cu): what the kernel is told, and which ops it takes.

#include <cstdint>
#include <span>

#include "device/cuda/epilogue.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

constexpr int kMostLinks = 8;
constexpr int kChainTokens = 8;

// One product, and the norm before it if that is the chain's to do.
struct ChainLink {
  const char* tiles;  // W as tiles of 64 rows (DeviceLinear::tiled, or codes)
  int tokens, rows, depth;
  int lines;   // of scales in a tile of codes
  bool zeros;  // as many lines of zero points follow
  bool gated, floats;
  const void* x;  // [T, K]
  std::int64_t x_stride;
  const float* norm;  // [K] weight, or null: x is multiplied as it is
  float eps, offset;
  void* normed;  // [T, K], what the norm leaves for others
  std::int64_t normed_stride;
  void* out;
  std::int64_t out_stride;
  Epilogue epilogue;
  const float* row_scales;  // [N] or null
};

struct ChainCall {
  int links;
  int tile_bytes;
  unsigned long long* meeting;  // counts arrivals of blocks, over all launches
  ChainLink link[kMostLinks];
};

// `weight`: of any link; it says what kind all of them are.
void launch_chain(const Context& c, const ChainCall& chain, const DeviceLinear& weight);

}  // namespace fastllm::cuda
