#pragma once
// The vocabulary of ops: one struct per op, its attributes with the field's names. The same structs sit in graph
// nodes, are dispatched by every backend, and are what Python's `ops` names reach. To add an op: its struct and a
// place in `Op` here, its shape rule in graph/infer.cpp, its scalar reference and kernels under the same name in each
// backend, its face in ops.py.
//
// Conventions. T = tokens of this step (all sequences end to end), R = selected rows, H = heads, D = head size.
// A View's last axis is contiguous unless the op says otherwise; outer axes may be strided, so a slice of a fused
// product costs nothing. Activations are float32 on the CPU and float32, float16 or bfloat16 on a GPU; norms, softmax
// and accumulation are float32 everywhere. An output may alias the input named "in place ok" exactly (same pointer
// and strides).

#include <cstdint>
#include <variant>

#include "core/dtype.h"
#include "core/shape.h"

namespace fastllm::device {

// A tensor as a kernel sees it: no ownership.
struct View {
  void* data = nullptr;
  core::DType dtype = core::DType::f32;
  core::Shape shape;
  core::Shape stride;  // in elements
};

enum class Activation : std::uint8_t {
  none,
  silu,
  gelu,
  gelu_tanh,
  relu,
  tanh,
  sigmoid,
  exp,
  square,
  rsqrt,
  neg,
  softcap
};
enum class BinaryKind : std::uint8_t { add, sub, mul, div, maximum, minimum };

// in: ids [T] i32, weight [V, N] (any float dtype); out [T, N] = weight[ids] * scale
struct Embedding {
  float scale = 1.0f;
};

// in: x [T, K], (residual [T, N] if add_residual); the weight travels in OpCall::linear. out [T, N] = act(x W^T + b)
// (+ residual). Multiplying by `scale` happens before the bias. out may alias residual.
// gated: the weight is gate rows, then as many up rows; out [T, N / 2] = act(x Wg^T) * (x Wu^T). Only where the backend
// asks for the pass gated_linear.
struct Linear {
  bool add_residual = false;
  Activation activation = Activation::none;
  float scale = 1.0f;
  bool gated = false;
};

// in: a [..., M, K], b [..., K, N] (any strides); out [..., M, N]; leading axes broadcast. For eager use and teaching.
struct MatMul {};

// in: x [..., N], weight [N]; out [..., N] = x / sqrt(mean(x^2) + eps) * (weight_offset + weight). Zhang & Sennrich
// 2019. In place ok.
struct RmsNorm {
  float eps = 1e-6f;
  float weight_offset = 0.0f;  // 1 for gemma, whose checkpoints store weight - 1
};

// in: x [T, N], residual [T, N], weight [N]; out: sum [T, N] = x + residual (in place ok on residual), normed [T, N]
// = RmsNorm(sum).
struct AddRmsNorm {
  float eps = 1e-6f;
  float weight_offset = 0.0f;
};

// in: x [..., N], weight [N], bias [N]; out [..., N]. Ba et al. 2016. In place ok.
struct LayerNorm {
  float eps = 1e-5f;
};

// in: x [T, H, D], positions [T] i32, inv_freq [rotary_dim / 2] f32, (long_inv_freq likewise); out [T, H, D]. Su et
// al. 2021. In place ok. The first rotary_dim channels of each head are rotated; the rest pass through. half-split
// pairs (i, i + rotary_dim/2), or interleaved pairs (2i, 2i + 1). cos and sin are multiplied by attention_factor.
enum class RopeLength : std::uint8_t {
  fixed,        // inv_freq as given
  // sequences with rope_len > original_max: base * ((factor * len / original_max) - (factor - 1)) ^ (dim / (dim - 2))
  dynamic_ntk,
  long_short,  // sequences with rope_len > original_max use long_inv_freq (longrope)
};
struct Rope {
  int rotary_dim = 0;
  bool interleaved = false;
  float attention_factor = 1.0f;
  RopeLength length = RopeLength::fixed;
  float base = 10000.0f;
  float factor = 1.0f;
  int original_max = 0;
};

// in: k [T, Hkv, D], v [T, Hkv, Dv]. Stores this step's keys and values in the paged cache of `layer`
// (StepView::slots).
struct KvWrite {
  int layer = 0;
};

// in: q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, Dv], positions, inv_freq, (long_inv_freq), (q norm weight [D], k norm
// weight [D] if normed); out [T, Hq, D] = Rope(RmsNorm(q)). Stores Rope(RmsNorm(k)) and v in the cache of `layer`. Only
// where the backend asks for the pass rope_kv_write.
struct RopeKvWrite {
  Rope rope;
  int layer = 0;
  bool normed = false;
  float eps = 1e-6f;
  float weight_offset = 0.0f;
};

// in: q [T, Hq, D]; out [T, Hq, Dv]. Causal attention of each token over its sequence's paged cache (which already
// holds this step's keys): softmax(softcap(scale * q k^T) + mask) v. Query heads share key heads in order (GQA: kv
// head = h / (Hq / Hkv)). Online softmax over cache tiles at fixed absolute positions, so a token's result does not
// depend on the batch or the chunking.
struct Attention {
  int layer = 0;
  float scale = 1.0f;
  int window = 0;  // > 0: a token sees itself and the window - 1 tokens before it
  float softcap = 0.0f;  // > 0: tanh(s / softcap) * softcap before the mask
};

// in: as RopeKvWrite; out [T, Hq, Dv]: RopeKvWrite, then Attention of its queries, which it may turn in place. Only where
// the backend asks for the pass rope_attention.
struct RopeAttention {
  RopeKvWrite write;
  Attention attention;
};

// in: x (any shape, any strides); out the same shape. softcap: tanh(x / param) * param. In place ok.
struct Unary {
  Activation kind = Activation::none;
  float param = 0.0f;
};

// in: a, b (broadcast as numpy does); out. In place ok on a when shapes agree.
struct Binary {
  BinaryKind kind = BinaryKind::add;
};

// in: x; out = x * scale + shift. In place ok.
struct Affine {
  float scale = 1.0f;
  float shift = 0.0f;
};

// in: gate [T, N], up [T, N]; out [T, N] = act(gate) * up. In place ok on gate. (GLU variants: Shazeer 2020.)
struct GatedActivation {
  Activation activation = Activation::silu;
};

// in: x [..., N]; out [..., N] float32 softmax over the last axis. In place ok.
struct Softmax {};

// in: x [T, N]; out [R, N] = x[StepView::selected_rows]. Eager: rows [R] i32 as a second input.
struct SelectRows {};

// in: x (any strides, any dtype); out the same shape, any dtype: a strided, converting copy (numpy's astype rules,
// round to nearest even).
struct Copy {};

using Op = std::variant<Embedding, Linear, MatMul, RmsNorm, AddRmsNorm, LayerNorm, Rope, KvWrite, RopeKvWrite,
                        Attention, RopeAttention, Unary, Binary, Affine, GatedActivation, Softmax, SelectRows, Copy>;

// "rms_norm" and so on: the name in errors, in Python and in profiles.
const char* op_name(const Op& op);

}  // namespace fastllm::device
