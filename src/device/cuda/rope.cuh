#pragma once
// What rope_kv_write and the decode attention that does its work share.

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

constexpr int kMostPairs = 128;  // of a head

// A layer's queries, keys and values before rotation, and where they go.
struct RopeKv {
  device::RopeKvWrite op;
  KView q, k, v, out;
  const std::int32_t* positions;
  const float* inv_freq;
  const float* long_inv_freq;
  const std::int32_t* sequence_of;
  const std::int32_t* rope_len;
  const std::int64_t* slots;
  const float* q_norm;  // [D] or null
  const float* k_norm;
  void* k_cache;
  void* v_cache;
  int block_tokens;
};

// The operands of rope_kv_write; `out` takes the queries.
RopeKv rope_kv(const device::RopeKvWrite& op, std::span<const View> in, const StepView& step, const View& out);

// The frequency of pair i for a sequence of the given RoPE length.
__device__ inline float frequency(const device::Rope& op, const float* inv_freq, const float* long_inv_freq, int i,
                                  int length) {
  if (op.length == device::RopeLength::fixed || length <= op.original_max) return inv_freq[i];
  if (op.length == device::RopeLength::long_short) return long_inv_freq[i];
  const float dim = static_cast<float>(op.rotary_dim);
  const float stretch = op.factor * length / op.original_max - (op.factor - 1.0f);
  const float base = op.base * powf(stretch, dim / (dim - 2.0f));
  return 1.0f / powf(base, 2.0f * i / dim);
}

// Cosine and sine of pair i at a token's position, times the attention factor.
__device__ inline float2 turn_of(const RopeKv& r, int token, int i) {
  const device::Rope& rope = r.op.rope;
  const int length = rope.length == device::RopeLength::fixed ? 0 : r.rope_len[r.sequence_of[token]];
  float sine;
  float cosine;
  sincosf(static_cast<float>(r.positions[token]) * frequency(rope, r.inv_freq, r.long_inv_freq, i, length), &sine,
          &cosine);
  return make_float2(cosine * rope.attention_factor, sine * rope.attention_factor);
}

// One head, by one warp: its norm, if there is one, and its rotation. put(i, value): channel i of the result, rounded.
template <class T, class Put>
__device__ inline void turn_head(const RopeKv& r, const T* from, int dim, const float* weight, const float2* turns,
                                 Put&& put) {
  const int lane = threadIdx.x % 32;
  float scale = 1.0f;
  if (weight) {
    float square = 0.0f;
    for (int i = lane; i < dim; i += 32) {
      const float value = to_float(from[i]);
      square += value * value;
    }
    scale = rsqrtf(warp_sum(square) / dim + r.op.eps);
  }
  // With a norm, its result is rounded to the activations' dtype, as the separate op would leave it.
  const auto element = [&](int i) {
    const float value = to_float(from[i]);
    return weight ? to_float(from_float<T>(value * scale * (r.op.weight_offset + weight[i]))) : value;
  };
  const device::Rope& rope = r.op.rope;
  const int half = rope.rotary_dim / 2;
  for (int i = lane; i < half; i += 32) {
    const int first = rope.interleaved ? 2 * i : i;
    const int second = rope.interleaved ? 2 * i + 1 : i + half;
    const float a = element(first);
    const float b = element(second);
    put(first, from_float<T>(a * turns[i].x - b * turns[i].y));
    put(second, from_float<T>(b * turns[i].x + a * turns[i].y));
  }
  for (int i = rope.rotary_dim + lane; i < dim; i += 32) put(i, from_float<T>(element(i)));
}

}  // namespace fastllm::cuda
