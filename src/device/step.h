#pragma once
// What one engine step hands to the kernels besides activations: which tokens, whose they are and where their keys
// live. All pointers are on the device that runs the step. Sequences of a step lie end to end: first those in decode,
// then chunks of prefill, but kernels rely only on query_start.

#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace fastllm::device {

// The paged cache of one layer. k: [blocks, kv_heads, block_tokens, head_dim], v: [blocks, kv_heads, block_tokens,
// v_head_dim].
struct KvLayer {
  void* k = nullptr;
  void* v = nullptr;
  int kv_heads = 0;
  int head_dim = 0;
  int v_head_dim = 0;
  core::DType dtype = core::DType::f32;
};

struct StepView {
  int tokens = 0;     // T
  int sequences = 0;  // S
  int rows = 0;       // R: rows whose logits are wanted
  int max_blocks = 0;     // columns of block_table
  int max_kv_len = 0;     // no kv_len of the step is larger; rounded up, so that launch sizes change seldom
  int block_tokens = 16;  // tokens in a cache block
  bool recorded = true;  // may be recorded and replayed (Backend::can_record)
  bool deterministic = false;  // a token's bits must not depend on what else is in the step; CPUs never let them

  const std::int32_t* token_ids = nullptr;      // [T]; of asynchronous steps see engine/step_model.h
  const std::int32_t* positions = nullptr;      // [T] position of the token in its sequence
  const std::int32_t* sequence_of = nullptr;    // [T] index of the token's sequence in this step
  const std::int32_t* query_start = nullptr;    // [S + 1] first token of each sequence
  const std::int32_t* kv_len = nullptr;         // [S] tokens in the cache, this step's included
  const std::int32_t* rope_len = nullptr;  // [S] length that length-dependent RoPE uses: max(prompt length, kv_len)
  const std::int64_t* slots = nullptr;  // [T] block * block_tokens + offset, where KvWrite stores the token
  const std::int32_t* block_table = nullptr;  // [S, max_blocks] block ids of each sequence
  const std::int32_t* selected_rows = nullptr;  // [R] indices into the T tokens, ascending

  std::span<const KvLayer> kv;  // by Attention::layer
};

}  // namespace fastllm::device
