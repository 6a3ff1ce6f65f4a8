#pragma once
// One launch function per op: the names of device/op.h, each in the kernel file that bears its family's name.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "device/backend.h"
#include "quant/format.h"

namespace fastllm::cuda {

using device::StepView;
using device::View;

// A Linear's weight on the device: parts stacked into one [N, K] matrix, of `dtype` where products compute with it.
struct DeviceLinear final : device::PackedLinear {
  std::shared_ptr<core::Storage> weight;  // owns data
  const void* data = nullptr;             // [N, K]
  core::DType dtype = core::DType::bf16;
  std::shared_ptr<core::Storage> bias;    // [N] float32, or null
  bool tiled = false;  // not rows but tiles (linear_hopper.cu): only its kernel reads them
  bool gated = false;  // gate and up rows in alternating groups of 8; out_features is half of the rows
  // Codes instead: data is tiles of them (cuda/quant/), scales has [N] float32 if the format scales sums.
  std::optional<quant::Format> format;
  std::shared_ptr<core::Storage> scales;
  bool rounds_inputs = false;  // a format whose inputs are codes, where there is no kernel for it

  std::int64_t rows() const { return gated ? 2 * out_features : out_features; }
};

// Memory a kernel may need besides its operands: split sums and partial attention results. Grown outside of capture.
struct Workspace {
  float* data = nullptr;
  std::size_t floats = 0;
};

struct Context {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  Workspace* workspace = nullptr;
  bool tensor_cores = false;  // 16-bit products of 16 x 8 x 16 and asynchronous copies: compute capability 8.0
  bool overlapped = false;  // programmatic dependent launch (compute capability 9.0 and above)
  bool hopper = false;      // compute capability 9.0, and this build has code for sm_90a
  char* exchange = nullptr;  // where the blocks of a chain leave results for each other (chain.cuh)
  const void* coded = nullptr;  // inputs whose codes lie in the workspace: the op before left them there
  bool deterministic = false;  // orders of sums follow from a weight's shape and a key's position alone
};

// Keys that the longest sequence of a step may have.
inline int longest(const StepView& step) {
  const int columns = step.max_blocks * step.block_tokens;
  return step.max_kv_len > 0 ? std::min(step.max_kv_len, columns) : columns;
}

void embedding(const Context&, const device::Embedding&, const View& ids, const View& weight, const View& out);
void linear(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
            const View& out);
// Bytes of a weight as tiles, and rows [first, first + rows) of it on their way there, `from` being [rows, depth] in this
// device's memory. half > 0: gate and up rows, `half` of each, in alternating groups of 8.
std::size_t tiled_bytes(std::int64_t rows, std::int64_t depth);
void tile_rows(const Context&, const void* from, void* to, std::int64_t first, std::int64_t rows, std::int64_t depth,
               std::int64_t half);
// The same for weights of codes: where this GPU has kernels for the format; bytes of such a weight as tiles; rows on their way to
// codes [*, depth] with scales and zero points [*, groups], place(r) as above, `bad` set where a number is not finite; codes
// of all rows on their way to tiles.
bool has_codes(const Context&, const quant::Format&, core::DType dtype, std::int64_t depth);
std::size_t code_tile_bytes(const quant::Format&);
std::size_t code_bytes(const quant::Format&, std::int64_t rows, std::int64_t depth);
struct PlainCodes {
  std::uint8_t* codes;  // [rows, depth]
  float* scales;        // [rows, groups]
  float* zeros;         // [rows, groups], or null
  int* bad;
};
void quantize_rows(const Context&, const quant::Format&, core::DType dtype, const void* from, const PlainCodes& to,
                   std::int64_t first, std::int64_t rows, std::int64_t depth, std::int64_t half);
void tile_codes(const Context&, const quant::Format&, const PlainCodes& from, void* to, std::int64_t rows,
                std::int64_t depth);
// Inputs as float8 and their scales, in the workspace (quant/fp8_dynamic.cu). Null where nothing wants them.
struct TokenCodes {
  std::uint8_t* codes = nullptr;  // [tokens, depth], `pitch` bytes from row to row
  std::int64_t pitch = 0;
  float* scales = nullptr;  // [tokens]
};
TokenCodes token_codes(const Context&, const DeviceLinear&, std::int64_t tokens);
// Floats of workspace that linear() wants for so many tokens.
std::size_t linear_workspace(const DeviceLinear&, std::int64_t tokens);
// x [T, K] with quant::round_token, in the workspace.
View rounded_tokens(const Context&, const View& x);
// linear() for them.
void linear_fp8_dynamic(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
                        const View& out);
void linear_fp8(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
                const View& out);
void linear_int8(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
                 const View& out);
void linear_int4(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
                 const View& out);
// False, and nothing was launched: not the GPU, dtype or alignment for it.
bool linear_hopper(const Context&, const device::Linear&, const View& x, const View* residual, const DeviceLinear&,
                   const View& out);
// Neighbouring ops that can be one kernel (kernels/chain.cu): which they are, and running them. Chains of one list run in their order
// on one stream, and so do lists.
constexpr int kChainTokens = 8;  // at most
constexpr std::size_t kExchangeBytes = std::size_t{8} << 20;
struct Chain {
  virtual ~Chain() = default;
  std::size_t first = 0, count = 0;  // of the calls
  virtual void run(const Context&) const = 0;
};
std::vector<std::unique_ptr<Chain>> find_chains(const Context&, std::span<const device::OpCall> calls);
void reset_exchange(const Context&);  // before the first chain, and after one that may not have run
void matmul(const Context&, const View& a, const View& b, const View& out);
// Norms; with `codes`, they make those of their result, too, where they can: true.
bool rms_norm(const Context&, const device::RmsNorm&, const View& x, const View& weight, const View& out,
              const TokenCodes& codes = {});
bool add_rms_norm(const Context&, const device::AddRmsNorm&, const View& x, const View& residual, const View& weight,
                  const View& sum, const View& normed, const TokenCodes& codes = {});
void layer_norm(const Context&, const device::LayerNorm&, const View& x, const View& weight, const View& bias,
                const View& out);
void rope(const Context&, const device::Rope&, const View& x, const View& positions, const View& inv_freq,
          const View* long_inv_freq, const StepView& step, const View& out);
void kv_write(const Context&, const device::KvWrite&, const View& k, const View& v, const StepView& step);
void rope_kv_write(const Context&, const device::RopeKvWrite&, std::span<const View> in, const StepView& step,
                   const View& out);
void attention(const Context&, const device::Attention&, const View& q, const StepView& step, const View& out);
void rope_attention(const Context&, const device::RopeAttention&, std::span<const View> in, const StepView& step,
                    const View& out);
std::size_t attention_workspace(const device::Attention&, int tokens, int heads, int v_head_dim, int max_kv);  // floats
void unary(const Context&, const device::Unary&, const View& x, const View& out);
void binary(const Context&, const device::Binary&, const View& a, const View& b, const View& out);
void affine(const Context&, const device::Affine&, const View& x, const View& out);
void gated_activation(const Context&, const device::GatedActivation&, const View& gate, const View& up,
                      const View& out);
void softmax(const Context&, const View& x, const View& out);
void select_rows(const Context&, const View& x, const std::int32_t* rows, const View& out);
void copy(const Context&, const View& x, const View& out);

}  // namespace fastllm::cuda
