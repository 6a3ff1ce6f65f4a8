#pragma once
// What the attention kernels share: the call by value, where a key lies in the paged cache, the soft cap.

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

struct RopeKv;
constexpr float kLog2E = 1.4426950408889634f;

struct AttentionCall {
  KView q;    // [T, Hq, D]
  KView out;  // [T, Hq, Dv]
  const void* k;
  const void* v;
  int kv_heads, group, head_dim, v_head_dim, block_tokens, max_blocks;
  const std::int32_t* query_start;
  const std::int32_t* kv_len;
  const std::int32_t* sequence_of;
  const std::int32_t* positions;
  const std::int32_t* block_table;
  float scale, softcap;
  int window;
  float* partial;  // [S, Hq, splits, Dv + 2]: sums, maximum, normaliser
  int splits;
  int sequences;
  bool every;  // deterministic steps: sequences with one query run on the kernels for many, too
};

__device__ inline std::int64_t cache_row(const AttentionCall& c, int sequence, int head, int position) {
  const std::int64_t block =
      c.block_table[static_cast<std::int64_t>(sequence) * c.max_blocks + position / c.block_tokens];
  return (block * c.kv_heads + head) * c.block_tokens + position % c.block_tokens;
}

__device__ inline float capped(const AttentionCall& c, float s) {
  return c.softcap > 0.0f ? tanhf(s / c.softcap) * c.softcap : s;
}

// The swizzled offset of 16-byte column `column` in a tile of kRows rows: halves of 64 16-bit elements lie one after
// the other.
template <int kRows>
__device__ inline std::uint32_t tile_offset(int row, int column) {
  return (column / 8) * (kRows * 128) + (row * 128 + ((column % 8) ^ (row % 8)) * 16);
}

// Decode on tensor cores for sequences with one query (attention_decode.cu). False, and nothing was launched: not the
// GPU, dtype or head size for it. `max_kv`: no sequence is longer. `rope`: turns the queries and the new key and value
// and writes the latter to the cache; every sequence of the step then has one query. Null: that was done before.
bool attention_decode(const Context& c, const AttentionCall& call, const RopeKv* rope, core::DType q, core::DType cache,
                      int max_kv);

// Tensor-core prefill for sequences with more than one query, or for every one (attention_prefill.cu), and whether it can:
// if not, nothing is launched.
bool prefill_fits(const Context& c, const AttentionCall& call, core::DType q, core::DType cache);
bool attention_prefill(const Context& c, const AttentionCall& call, core::DType q, core::DType cache, int tokens,
                       int heads);

}  // namespace fastllm::cuda
