#include "device/cuda/backend.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/out_of_memory.h"
#include "device/cuda/attention.h"
#include "device/cuda/sampler.h"

namespace fastllm::cuda {

using core::cat;
using core::DType;
using core::ErrorCode;

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it where it can be cleared
  if (status == cudaErrorMemoryAllocation)
    core::fail(ErrorCode::out_of_memory, cat("[", what, "] the GPU has no memory left for this."),
               "Use fewer KV blocks (EngineConfig.kv_memory), a shorter context or a lower-bit model.");
  core::fail(ErrorCode::device_lost,
             cat("[", what, "] CUDA reports ", cudaGetErrorName(status), ": ", cudaGetErrorString(status), "."),
             "Load the model again; if it comes back, look at the driver's log.");
}

namespace {

template <class T>
std::size_t padded(std::size_t count) {
  return (count * sizeof(T) + 255) / 256 * 256;
}

// The rows of a host tensor in order: as they lie if contiguous, else gathered into `scratch`.
const void* packed_rows(const core::Tensor& t, std::vector<char>& scratch) {
  if (t.contiguous()) return t.data();
  const std::size_t element = core::dtype_size(t.dtype());
  scratch.resize(t.nbytes());
  char* to = scratch.data();
  for (std::int64_t i = 0; i < t.shape()[0]; ++i)
    for (std::int64_t j = 0; j < t.shape()[1]; ++j, to += element)
      std::memcpy(
          to, static_cast<const char*>(t.data()) + (i * t.strides()[0] + j * t.strides()[1]) * std::int64_t(element),
          element);
  return scratch.data();
}

float element_as_float(const core::Tensor& t, std::int64_t i) {
  if (t.dtype() == DType::f32) return t.as<float>()[i * t.strides()[0]];
  const std::uint16_t bits = t.as<std::uint16_t>()[i * t.strides()[0]];
  if (t.dtype() == DType::bf16) {
    const std::uint32_t wide = std::uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
  __half_raw raw;
  raw.x = bits;
  return __half2float(__half(raw));
}

}  // namespace

CudaBackend::CudaBackend(int ordinal) : ordinal_(ordinal), moves_(std::make_shared<std::uint64_t>(0)) {
  use();
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "device");
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "device");
  info_.name = cat("cuda:", ordinal);
  info_.isa = cat("sm_", properties.major, properties.minor);
  info_.description = cat(properties.name, ", ", info_.isa, ", ", total >> 30, " GiB");
  info_.memory_total = static_cast<std::int64_t>(total);
  info_.memory_free = static_cast<std::int64_t>(free);
  info_.threads = 1;
  place_ = core::Place{info_.name, false};
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "device");
  stream_ = std::shared_ptr<CUstream_st>(stream, [](cudaStream_t s) { cudaStreamDestroy(s); });
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, ordinal), "device");
  std::uint64_t keep = UINT64_MAX;  // freed blocks stay with the process and are reused
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "device");
  context_ = Context{stream, properties.multiProcessorCount, &workspace_};
  context_.tensor_cores = properties.major >= 8;
  context_.overlapped = properties.major >= 9;
#if FASTLLM_CUDA_SM90A
  context_.hopper = properties.major == 9 && properties.minor == 0;
#endif
  if (context_.hopper) {
    exchange_ = allocate(kExchangeBytes);
    context_.exchange = static_cast<char*>(exchange_->data());
    reset_exchange(context_);
  }
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(ordinal_);
  cudaStreamSynchronize(stream_.get());
  free_staging();
}

void CudaBackend::use() const {
  check(cudaSetDevice(ordinal_), "device");
}

std::int64_t CudaBackend::memory_free() const {
  use();
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "device");
  // What this process freed stays with its pool.
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, ordinal_), "device");
  std::uint64_t reserved = 0;
  std::uint64_t used = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "device");
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "device");
  return static_cast<std::int64_t>(free + (reserved - std::min(used, reserved)));
}

std::shared_ptr<core::Storage> CudaBackend::allocate(std::size_t bytes) {
  use();
  void* data = nullptr;
  cudaError_t status = cudaMallocAsync(&data, bytes ? bytes : 256, stream_.get());
  if (status == cudaErrorMemoryAllocation) {  // what the pool keeps may lie in pieces: give it back and ask again
    cudaGetLastError();
    synchronize();
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, ordinal_), "device");
    check(cudaMemPoolTrimTo(pool, 0), "device");
    status = cudaMallocAsync(&data, bytes ? bytes : 256, stream_.get());
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const auto gib = [](double count) { return std::to_string(count / (1 << 30)).substr(0, 6); };
    const std::int64_t free = memory_free();
    throw core::OutOfMemory(cat("[allocate] ", info_.name, " has ", free, " bytes free (", gib(double(free)),
                                " GiB), but ", bytes, " are needed (", gib(double(bytes)), " GiB)."),
                            "Use a lower-bit model, a smaller EngineConfig.kv_memory or max_batch_tokens, or another "
                            "device; nvidia-smi lists who else has memory there.",
                            static_cast<std::int64_t>(bytes), free);
  }
  check(status, "allocate");
  return std::make_shared<core::Storage>(data, bytes, place_, [data, stream = stream_, ordinal = ordinal_] {
    cudaSetDevice(ordinal);
    cudaFreeAsync(data, stream.get());
  });
}

void CudaBackend::copy_in(void* device_to, const void* host_from, std::size_t bytes) {
  if (!bytes) return;
  coded_ = nullptr;  // a probe may edit what a norm made
  use();
  check(cudaMemcpyAsync(device_to, host_from, bytes, cudaMemcpyDefault, stream_.get()), "copy_in");
}

void CudaBackend::copy_out(void* host_to, const void* device_from, std::size_t bytes) {
  if (!bytes) return;
  use();
  check(cudaMemcpyAsync(host_to, device_from, bytes, cudaMemcpyDefault, stream_.get()), "copy_out");
  synchronize();
}

core::Tensor CudaBackend::place(const core::Tensor& host) {
  if (!host.defined() || host.place() == place_) return host;
  std::vector<char> scratch;
  const void* data = host.data();
  if (!host.contiguous()) {
    if (host.shape().rank() != 2)
      core::fail(ErrorCode::shape_error,
                 cat("[place] a strided tensor of shape ", host.shape().str(), " cannot move to ", info_.name, "."),
                 "Make it contiguous first.");
    data = packed_rows(host, scratch);
  }
  core::Tensor on_device(allocate(host.nbytes()), host.dtype(), host.shape());
  copy_in(on_device.data(), data, host.nbytes());
  synchronize();  // `scratch` and the caller's buffer may go away
  return on_device;
}

std::vector<std::string> CudaBackend::fusions() const {
  std::vector<std::string> names{"rope_kv_write", "rope_attention"};
  if (context_.hopper) names.insert(names.end(), {"gated_linear", "linear_float"});
  return names;
}

std::unique_ptr<device::PackedLinear> CudaBackend::pack_linear(std::span<const device::LinearPart> parts,
                                                               device::PackOptions options) {
  auto packed = std::make_unique<DeviceLinear>();
  packed->dtype = parts[0].weight.dtype();
  packed->in_features = parts[0].weight.shape()[1];
  bool any_bias = false;
  for (const device::LinearPart& part : parts) {
    const core::Tensor& w = part.weight;
    if (w.dtype() != packed->dtype || w.shape()[1] != packed->in_features)
      core::fail(ErrorCode::internal, "[linear] the parts of one product differ in dtype or input size.");
    if (w.dtype() != DType::f32 && !core::is_half(w.dtype()))
      core::fail(ErrorCode::dtype_error,
                 cat("[linear] a weight of dtype ", core::dtype_name(w.dtype()), " has no CUDA kernel."));
    packed->out_features += w.shape()[0];
    packed->bytes += w.nbytes();
    any_bias = any_bias || part.bias.defined();
  }
  packed->gated = options.gated;
  packed->tiled =
      context_.hopper && (options.gated || options.own) && core::is_half(packed->dtype) && packed->in_features % 8 == 0;
  if (options.gated) packed->out_features /= 2;
  std::vector<device::LinearPart> rounded;
  if (options.format && has_codes(context_, *options.format, packed->dtype, packed->in_features)) {
    pack_codes(*packed, *options.format, parts);
  } else {
    if (options.format) {
      for (const device::LinearPart& part : parts) {
        core::Tensor host = part.weight;
        if (!host.place().host) {
          host = core::Tensor::empty(part.weight.dtype(), part.weight.shape());
          copy_out(host.data(), part.weight.data(), host.nbytes());
        }
        rounded.push_back({quant::rounded(*options.format, host), part.bias});
      }
      packed->rounded = true;
      packed->rounds_inputs = options.format->dynamic;
      parts = rounded;
    }
    pack_numbers(*packed, parts);
  }
  if (any_bias) {
    std::vector<float> bias(static_cast<std::size_t>(packed->rows()), 0.0f);
    const auto half = static_cast<std::size_t>(packed->out_features);
    const auto place_of = [&](std::size_t row) {  // where a row went
      return options.gated ? row % half / 8 * 16 + row / half * 8 + row % 8 : row;
    };
    std::size_t at = 0;
    for (const device::LinearPart& part : parts) {
      if (part.bias.defined()) {
        core::Tensor host = part.bias;
        if (!host.place().host) {
          host = core::Tensor::empty(part.bias.dtype(), part.bias.shape());
          copy_out(host.data(), part.bias.data(), part.bias.nbytes());
        }
        for (std::int64_t i = 0; i < host.numel(); ++i)
          bias[place_of(at + static_cast<std::size_t>(i))] = element_as_float(host, i);
      }
      at += static_cast<std::size_t>(part.weight.shape()[0]);
    }
    packed->bias = allocate(bias.size() * sizeof(float));
    copy_in(packed->bias->data(), bias.data(), bias.size() * sizeof(float));
    synchronize();
  }
  return packed;
}

void CudaBackend::pack_numbers(DeviceLinear& packed, std::span<const device::LinearPart> parts) {
  // A single weight that is here already (a tied embedding, an eager call) is shared, not copied.
  if (!packed.tiled && parts.size() == 1 && parts[0].weight.place() == place_ && parts[0].weight.contiguous()) {
    packed.weight = parts[0].weight.storage();
    packed.data = parts[0].weight.data();
  } else {
    packed.weight = allocate(packed.tiled ? tiled_bytes(packed.rows(), packed.in_features) : packed.bytes);
    packed.data = packed.weight->data();
    char* const base = static_cast<char*>(packed.weight->data());
    std::vector<char> scratch;
    const std::size_t row_bytes = static_cast<std::size_t>(packed.in_features) * core::dtype_size(packed.dtype);
    std::int64_t row = 0;
    for (const device::LinearPart& part : parts) {
      const std::int64_t rows = part.weight.shape()[0];
      if (packed.tiled) {
        core::Tensor rows_here = part.weight;
        if (part.weight.place().host || !part.weight.contiguous()) rows_here = place(part.weight);
        tile_rows(context_, rows_here.data(), base, row, rows, packed.in_features,
                  packed.gated ? packed.out_features : 0);
      } else {
        copy_in(base + static_cast<std::size_t>(row) * row_bytes,
                part.weight.place().host ? packed_rows(part.weight, scratch) : part.weight.data(),
                static_cast<std::size_t>(rows) * row_bytes);
      }
      synchronize();
      row += rows;
    }
  }
}

// The parts' rows as codes with their scales, each in its place, then as tiles: words of a tile mix rows.
void CudaBackend::pack_codes(DeviceLinear& packed, const quant::Format& format,
                             std::span<const device::LinearPart> parts) {
  const std::int64_t rows = packed.rows();
  const std::int64_t depth = packed.in_features;
  const std::int64_t groups = format.group == 0 ? 1 : (depth + format.group - 1) / format.group;
  const auto factors = static_cast<std::size_t>(rows * groups) * sizeof(float);
  const std::shared_ptr<core::Storage> codes = allocate(static_cast<std::size_t>(rows * depth));
  const std::shared_ptr<core::Storage> scales = allocate(factors);
  const std::shared_ptr<core::Storage> zeros = allocate(factors);
  const std::shared_ptr<core::Storage> bad = allocate(sizeof(int));
  int found = 0;
  copy_in(bad->data(), &found, sizeof(int));
  const PlainCodes plain{static_cast<std::uint8_t*>(codes->data()), static_cast<float*>(scales->data()),
                         static_cast<float*>(zeros->data()), static_cast<int*>(bad->data())};
  std::int64_t row = 0;
  for (const device::LinearPart& part : parts) {
    core::Tensor here = part.weight;
    if (here.place().host || !here.contiguous()) here = place(here);
    quantize_rows(context_, format, here.dtype(), here.data(), plain, row, here.shape()[0], depth,
                  packed.gated ? packed.out_features : 0);
    synchronize();
    row += here.shape()[0];
  }
  copy_out(&found, bad->data(), sizeof(int));
  if (found)
    core::fail(
        ErrorCode::invalid_request,
        cat("[quant] a weight holds a number that is not finite, which ", quant::name_of(format), " has no code for."),
        "The checkpoint is damaged, or was saved from a training that diverged.");
  packed.bytes = code_bytes(format, rows, depth);
  packed.weight = allocate(packed.bytes);
  if (format.scales_sums()) packed.bytes += factors;
  packed.data = packed.weight->data();
  tile_codes(context_, format, plain, packed.weight->data(), rows, depth);
  synchronize();
  packed.format = format;
  if (format.scales_sums()) packed.scales = scales;
}

// Rows of gate and up alternate in groups of 8, in memory and so among a plain product's columns.
std::shared_ptr<device::PackedLinear> CudaBackend::ungated(const device::PackedLinear& gated) {
  const auto* packed = dynamic_cast<const DeviceLinear*>(&gated);
  if (!packed || !packed->gated) return nullptr;
  auto plain = std::make_shared<DeviceLinear>(*packed);  // the same memory
  plain->gated = false;
  plain->out_features = packed->rows();
  return plain;
}

void CudaBackend::free_staging() {
  for (Staging& staging : staging_) {
    if (staging.host) cudaFreeHost(staging.host);
    if (staging.copied) cudaEventDestroy(staging.copied);
    staging = Staging{};
  }
  staging_bytes_ = 0;
}

std::unique_ptr<device::Sampler> CudaBackend::make_sampler(int vocab, int max_rows) {
  if (vocab > device::sampling::kMostVocab) return nullptr;
  use();
  return std::make_unique<CudaSampler>(*this, stream_, context_.multiprocessors, vocab, max_rows);
}

// All of a step's arrays in one pinned buffer and one copy.
device::StepView CudaBackend::stage(const device::StepView& host) {
  use();
  const std::size_t t = static_cast<std::size_t>(host.tokens);
  const std::size_t s = static_cast<std::size_t>(host.sequences);
  const std::size_t r = static_cast<std::size_t>(host.rows);
  const std::size_t b = s * static_cast<std::size_t>(host.max_blocks);
  using I = std::int32_t;
  const std::size_t need =
      3 * padded<I>(t) + padded<std::int64_t>(t) + padded<I>(s + 1) + 2 * padded<I>(s) + padded<I>(b) + padded<I>(r);
  if (need > staging_bytes_) {
    synchronize();
    free_staging();
    for (Staging& staging : staging_) {
      check(cudaMallocHost(&staging.host, need * 2), "stage");
      check(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming), "stage");
    }
    staging_device_ = allocate(need * 2);
    staging_bytes_ = need * 2;
    ++*moves_;
  }
  Staging& staging = staging_[staging_turn_ ^= 1];
  check(cudaEventSynchronize(staging.copied), "stage");
  device::StepView view = host;
  std::size_t at = 0;
  auto put = [&](auto*& pointer, std::size_t count) {
    using T = std::remove_const_t<std::remove_pointer_t<std::remove_reference_t<decltype(pointer)>>>;
    if (pointer) std::memcpy(static_cast<char*>(staging.host) + at, pointer, count * sizeof(T));
    pointer = reinterpret_cast<const T*>(static_cast<char*>(staging_device_->data()) + at);
    at += padded<T>(count);
  };
  put(view.token_ids, t);
  put(view.positions, t);
  put(view.sequence_of, t);
  put(view.slots, t);
  put(view.query_start, s + 1);
  put(view.kv_len, s);
  put(view.rope_len, s);
  put(view.block_table, b);
  put(view.selected_rows, r);
  copy_in(staging_device_->data(), staging.host, at);
  check(cudaEventRecord(staging.copied, stream_.get()), "stage");
  return view;
}

void CudaBackend::grow_workspace(std::size_t floats) {
  if (floats <= workspace_.floats) return;
  ++*moves_;
  workspace_storage_ = allocate(floats * sizeof(float));
  workspace_ = Workspace{static_cast<float*>(workspace_storage_->data()), floats};
}

std::shared_ptr<core::Storage> CudaBackend::allocate_host(std::size_t bytes) {
  use();
  void* data = nullptr;
  check(cudaMallocHost(&data, bytes ? bytes : 64), "allocate");
  return std::make_shared<core::Storage>(data, bytes, core::Place{}, [data] { cudaFreeHost(data); });
}

namespace {

class GraphRecording final : public device::Recording {
 public:
  GraphRecording(cudaGraphExec_t graph, std::shared_ptr<CUstream_st> stream, std::shared_ptr<std::uint64_t> moves)
      : graph_(graph), stream_(std::move(stream)), moves_(std::move(moves)), made_at_(*moves_) {}
  ~GraphRecording() override { cudaGraphExecDestroy(graph_); }
  bool replay() override {
    if (*moves_ != made_at_) return false;
    check(cudaGraphLaunch(graph_, stream_.get()), "replay");
    return true;
  }

 private:
  cudaGraphExec_t graph_;
  std::shared_ptr<CUstream_st> stream_;
  std::shared_ptr<std::uint64_t> moves_;
  std::uint64_t made_at_;
};

}  // namespace

void CudaBackend::begin_recording() {
  use();
  check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "record");
}

std::unique_ptr<device::Recording> CudaBackend::end_recording() {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_.get(), &graph), "record");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "record");
  return std::make_unique<GraphRecording>(executable, stream_, moves_);
}

void CudaBackend::synchronize() {
  check(cudaStreamSynchronize(stream_.get()), "synchronize");
}

void CudaBackend::run(const device::OpCall& call, const device::StepView* step) {
  use();
  struct Visitor {
    CudaBackend& self;
    const Context& c;
    const device::OpCall& call;
    const device::StepView* step;
    std::span<const View> in;
    std::span<const View> out;
    const device::StepView& needed(const char* op) const {
      if (!step) core::fail(ErrorCode::internal, cat("[", op, "] runs on a step, but none was given."));
      return *step;
    }
    void operator()(const device::Embedding& op) const { embedding(c, op, in[0], in[1], out[0]); }
    void operator()(const device::Linear& op) const {
      const auto* weight = dynamic_cast<const DeviceLinear*>(call.linear);
      if (!weight) core::fail(ErrorCode::internal, "[linear] the weight was not packed by the CUDA backend.");
      self.grow_workspace(linear_workspace(*weight, in[0].shape[0]));
      linear(c, op, in[0], op.add_residual ? &in[1] : nullptr, *weight, out[0]);
    }
    void operator()(const device::MatMul&) const { matmul(c, in[0], in[1], out[0]); }
    // Where the product behind a norm wants its inputs as codes.
    TokenCodes codes_wanted(const View& normed) const {
      const auto* next = dynamic_cast<const DeviceLinear*>(call.linear);
      if (!next || normed.shape.rank() != 2) return {};
      self.grow_workspace(linear_workspace(*next, normed.shape[0]));
      return token_codes(c, *next, normed.shape[0]);
    }
    void operator()(const device::RmsNorm& op) const {
      if (rms_norm(c, op, in[0], in[1], out[0], codes_wanted(out[0]))) self.coded_ = out[0].data;
    }
    void operator()(const device::AddRmsNorm& op) const {
      if (add_rms_norm(c, op, in[0], in[1], in[2], out[0], out[1], codes_wanted(out[1]))) self.coded_ = out[1].data;
    }
    void operator()(const device::LayerNorm& op) const { layer_norm(c, op, in[0], in[1], in[2], out[0]); }
    void operator()(const device::Rope& op) const {
      const device::StepView none{};
      rope(c, op, in[0], in[1], in[2], in.size() > 3 ? &in[3] : nullptr, step ? *step : none, out[0]);
    }
    void operator()(const device::KvWrite& op) const { kv_write(c, op, in[0], in[1], needed("kv_write")); }
    void operator()(const device::RopeKvWrite& op) const { rope_kv_write(c, op, in, needed("rope_kv_write"), out[0]); }
    void prepare(const device::Attention& op, const device::StepView& s) const {
      const device::KvLayer& layer = s.kv[static_cast<std::size_t>(op.layer)];
      self.grow_workspace(
          attention_workspace(op, s.sequences, static_cast<int>(in[0].shape[1]), layer.v_head_dim, longest(s)) +
          widened_workspace(c, layer, s));
    }
    void operator()(const device::RopeAttention& op) const {
      const device::StepView& s = needed("attention");
      prepare(op.attention, s);
      rope_attention(c, op, in, s, out[0]);
    }
    void operator()(const device::Attention& op) const {
      const device::StepView& s = needed("attention");
      prepare(op, s);
      attention(c, op, in[0], s, out[0]);
    }
    void operator()(const device::Unary& op) const { unary(c, op, in[0], out[0]); }
    void operator()(const device::Binary& op) const { binary(c, op, in[0], in[1], out[0]); }
    void operator()(const device::Affine& op) const { affine(c, op, in[0], out[0]); }
    void operator()(const device::GatedActivation& op) const { gated_activation(c, op, in[0], in[1], out[0]); }
    void operator()(const device::Softmax&) const { softmax(c, in[0], out[0]); }
    void operator()(const device::SelectRows&) const {
      select_rows(c, in[0],
                  in.size() > 1 ? static_cast<const std::int32_t*>(in[1].data) : needed("select_rows").selected_rows,
                  out[0]);
    }
    void operator()(const device::Copy&) const { copy(c, in[0], out[0]); }
  };
  Context context = context_;
  context.deterministic = step && step->deterministic;
  context.coded = std::exchange(coded_, nullptr);
  std::visit(Visitor{*this, context, call, step, call.in, call.out}, call.op);
}

void CudaBackend::run_all(std::span<const device::OpCall> calls, const device::StepView* step) {
  use();
  Context context = context_;
  context.deterministic = step && step->deterministic;
  std::vector<std::unique_ptr<Chain>> chains;
  if (!step || step->tokens <= kChainTokens) chains = find_chains(context, calls);
  try {
    std::size_t at = 0;
    for (const std::unique_ptr<Chain>& chain : chains) {
      for (; at < chain->first; ++at) run(calls[at], step);
      chain->run(context);
      at += chain->count;
    }
    for (; at < calls.size(); ++at) run(calls[at], step);
  } catch (...) {
    if (!chains.empty()) reset_exchange(context_);
    throw;
  }
}

}  // namespace fastllm::cuda

// ---- which devices there are
// ------------------------------------------------------------------------------------------------

namespace fastllm::device {
namespace {

using core::cat;
using core::ErrorCode;
using cuda::check;

#ifndef FASTLLM_CUDA_LOWEST
#define FASTLLM_CUDA_LOWEST 80
#endif
constexpr int kLowest = FASTLLM_CUDA_LOWEST;  // the oldest GPU that this build has code for, as 10 major + minor

// The number of GPUs, or why there are none.
int device_count(std::string& why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaSuccess && count > 0) return count;
  int driver = 0;
  cudaDriverGetVersion(&driver);
  cudaGetLastError();
  if (driver == 0)
    why = "no NVIDIA driver is installed";
  else if (status == cudaErrorInsufficientDriver)
    why = cat("the NVIDIA driver supports CUDA ", driver / 1000, ".", driver % 1000 / 10, ", but this build needs ",
              CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10);
  else
    why = cat("the driver finds no GPU (", cudaGetErrorName(status == cudaSuccess ? cudaErrorNoDevice : status), ")",
              std::getenv("CUDA_VISIBLE_DEVICES")
                  ? cat("; CUDA_VISIBLE_DEVICES is '", std::getenv("CUDA_VISIBLE_DEVICES"), "'")
                  : std::string());
  return 0;
}

}  // namespace

std::vector<DeviceReport> cuda_reports() {
  std::string why;
  const int count = device_count(why);
  if (count == 0) return {{"cuda", false, why}};
  std::vector<DeviceReport> found;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    const bool supported = 10 * properties.major + properties.minor >= kLowest;
    found.push_back(
        {cat("cuda:", i), supported,
         cat(properties.name, ", compute capability ", properties.major, ".", properties.minor, ", ",
             properties.totalGlobalMem >> 30, " GiB",
             supported ? "" : cat(": this build has code for ", kLowest / 10, ".", kLowest % 10, " and newer"))});
  }
  return found;
}

std::shared_ptr<Backend> make_cuda_backend(int ordinal) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<Backend>> opened;  // one backend a device
  std::string why;
  const int count = device_count(why);
  if (count == 0)
    core::fail(ErrorCode::device_not_available, cat("[device] 'cuda:", ordinal, "' is not available: ", why, "."),
               "Use device=\"cpu\".");
  if (ordinal >= count)
    core::fail(ErrorCode::device_not_available,
               cat("[device] 'cuda:", ordinal, "' is not available: this machine has ", count,
                   count == 1 ? " GPU, cuda:0." : " GPUs, numbered from cuda:0."));
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "device");
  if (10 * properties.major + properties.minor < kLowest)
    core::fail(
        ErrorCode::device_not_available,
        cat("[device] 'cuda:", ordinal, "' (", properties.name, ") has compute capability ", properties.major, ".",
            properties.minor, ", but this build has code for ", kLowest / 10, ".", kLowest % 10, " and newer."),
        "Build with CUDAARCHS naming this GPU, as in CUDAARCHS=75-real; cmake/Cuda.cmake lists what there is.");
  const std::lock_guard lock(mutex);
  std::shared_ptr<Backend> backend = opened[ordinal].lock();
  if (!backend) {
    backend = std::make_shared<cuda::CudaBackend>(ordinal);
    opened[ordinal] = backend;
  }
  return backend;
}

}  // namespace fastllm::device
