#pragma once
// What the backend asks of the kernels, and the table of one instruction set. Plain data only: this header is read by
// code of every set.
//
// Sizes and strides are in elements. Activations are float32 with a contiguous last axis; `Typed` weights are f32, f16
// or bf16. Kernels check nothing, throw nothing and allocate nothing.

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/threads.h"
#include "device/cpu/linear.h"
#include "device/op.h"
#include "device/step.h"

namespace fastllm::cpu {

// Memory of each worker's own, aligned to 64 bytes.
struct Scratch {
  std::byte* data = nullptr;
  std::size_t per_worker = 0;
  void* of(int worker) const { return data + static_cast<std::size_t>(worker) * per_worker; }
};

// Bytes of Scratch that linear() uses of each worker.
constexpr std::size_t kLinearScratch = 128 * 1024;

struct Typed {
  const void* data = nullptr;
  core::DType dtype = core::DType::f32;
};

struct LinearArgs {
  const float* x = nullptr;  // [m, k]
  std::int64_t x_stride = 0;
  std::int64_t m = 0;
  std::int64_t k = 0;
  const LinearBlock* blocks = nullptr;
  int block_count = 0;
  float* y = nullptr;  // [m, n]
  std::int64_t y_stride = 0;
  const float* residual = nullptr;  // [m, n] or none
  std::int64_t residual_stride = 0;
  float scale = 1.0f;
  device::Activation activation = device::Activation::none;
  Scratch scratch;  // kLinearScratch bytes a worker
};

// Rows of n elements whose starts lie on two axes, for up to four views of one op (the order is that of the args
// below).
struct RowLayout {
  std::int64_t outer = 1;
  std::int64_t inner = 1;
  std::int64_t n = 0;
  std::int64_t outer_stride[4] = {};
  std::int64_t inner_stride[4] = {};
};

// RmsNorm, AddRmsNorm and LayerNorm. Views: 0 x, 1 y, 2 residual, 3 sum.
struct NormArgs {
  RowLayout rows;
  const float* x = nullptr;
  float* y = nullptr;
  const float* residual = nullptr;  // AddRmsNorm
  float* sum = nullptr;             // AddRmsNorm
  Typed weight;                     // [n]
  Typed bias;                       // [n], LayerNorm
  float eps = 0;
  float weight_offset = 0;
};

// Views: 0 x, 1 y.
struct SoftmaxArgs {
  RowLayout rows;
  const float* x = nullptr;
  float* y = nullptr;
};

// y = f(a) or f(a, b). Views: 0 a, 1 y, 2 b. b_scalar: b is one value per row instead of n.
struct ElementArgs {
  RowLayout rows;
  const float* a = nullptr;
  float* y = nullptr;
  const float* b = nullptr;
  bool b_scalar = false;
  device::Activation activation = device::Activation::none;  // unary and gated
  device::BinaryKind binary = device::BinaryKind::add;
  float param = 0;  // softcap; affine's scale
  float shift = 0;  // affine
};

// Converts rows between f32, f16 and bf16. Views: 0 x, 1 y.
struct ConvertArgs {
  RowLayout rows;
  Typed x;
  void* y = nullptr;
  core::DType y_dtype = core::DType::f32;
};

struct EmbeddingArgs {
  const std::int32_t* ids = nullptr;  // [tokens], ids_stride apart
  std::int64_t ids_stride = 1;
  std::int64_t tokens = 0;
  Typed weight;  // [V, n]
  std::int64_t weight_stride = 0;
  std::int64_t n = 0;
  float* y = nullptr;  // [tokens, n]
  std::int64_t y_stride = 0;
  float scale = 1;
};

struct RopeArgs {
  const float* x = nullptr;  // [tokens, heads, dim]
  std::int64_t x_token = 0;  // strides
  std::int64_t x_head = 0;
  float* y = nullptr;  // likewise; may be x
  std::int64_t y_token = 0;
  std::int64_t y_head = 0;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t dim = 0;
  std::int64_t rotary = 0;         // channels turned
  bool interleaved = false;
  const float* cos = nullptr;  // [tokens, rotary / 2], times attention_factor
  const float* sin = nullptr;
};

struct KvWriteArgs {
  const float* k = nullptr;  // [tokens, kv_heads, head_dim]
  std::int64_t k_token = 0;  // strides
  std::int64_t k_head = 0;
  const float* v = nullptr;  // [tokens, kv_heads, v_head_dim]
  std::int64_t v_token = 0;
  std::int64_t v_head = 0;
  std::int64_t tokens = 0;
  device::KvLayer cache;
  int block_tokens = 0;
  const std::int64_t* slots = nullptr;
};

struct AttentionArgs {
  const float* q = nullptr;  // [tokens, heads, head_dim]
  std::int64_t q_token = 0;  // strides
  std::int64_t q_head = 0;
  float* y = nullptr;  // [tokens, heads, v_head_dim]
  std::int64_t y_token = 0;
  std::int64_t y_head = 0;
  std::int64_t heads = 0;
  device::KvLayer cache;
  const device::StepView* step = nullptr;
  float scale = 1;
  int window = 0;
  float softcap = 0;
  Scratch scratch;            // attention_scratch() bytes a worker
  float* partials = nullptr;  // attention_partials() floats
};

// One product of a batch: y [m, n] = a [m, k] b [k, n], b's rows contiguous.
struct MatMulArgs {
  const float* a = nullptr;
  std::int64_t a_stride = 0;
  const float* b = nullptr;
  std::int64_t b_stride = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  std::int64_t k = 0;
  std::int64_t n = 0;
};

struct KernelTable {
  const char* isa;
  void (*linear)(const LinearArgs& args, core::ThreadPool& pool);
  void (*rms_norm)(const NormArgs& args, core::ThreadPool& pool);  // AddRmsNorm when args.residual is set
  void (*layer_norm)(const NormArgs& args, core::ThreadPool& pool);
  void (*softmax)(const SoftmaxArgs& args, core::ThreadPool& pool);
  void (*unary)(const ElementArgs& args, core::ThreadPool& pool);
  void (*gated)(const ElementArgs& args, core::ThreadPool& pool);
  void (*binary)(const ElementArgs& args, core::ThreadPool& pool);
  void (*affine)(const ElementArgs& args, core::ThreadPool& pool);
  void (*convert)(const ConvertArgs& args, core::ThreadPool& pool);
  void (*embedding)(const EmbeddingArgs& args, core::ThreadPool& pool);
  void (*rope)(const RopeArgs& args, core::ThreadPool& pool);
  void (*kv_write)(const KvWriteArgs& args, core::ThreadPool& pool);
  std::size_t (*attention_scratch)(const AttentionArgs& args);
  std::size_t (*attention_partials)(const AttentionArgs& args, int threads);
  void (*attention)(const AttentionArgs& args, core::ThreadPool& pool);
  void (*mat_mul)(const MatMulArgs& args, core::ThreadPool& pool);
};

namespace isa_portable {
extern const KernelTable kernel_table;
}
namespace isa_avx2 {
extern const KernelTable kernel_table;
}
namespace isa_avx512 {
extern const KernelTable kernel_table;
}

}  // namespace fastllm::cpu
