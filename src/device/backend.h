#pragma once
// THE device contract. The graph and the engine reach a device through this class alone; nothing outside
// src/device/<x>/ includes that folder's headers. A Backend is used by one thread at a time (the step thread, or
// eager calls under its mutex).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "device/op.h"
#include "device/probe.h"
#include "device/sample.h"
#include "device/step.h"
#include "quant/format.h"

namespace fastllm::device {

struct DeviceOptions {
  int threads = 0;  // CPU worker threads, the calling one included; 0: one per core this process may use
};

struct DeviceInfo {
  std::string name;         // "cpu", "cuda:0"
  std::string description;  // "AMD EPYC, avx512 kernels, 2 threads"
  std::string isa;          // "portable", "avx2", "avx512", "sm_90a"
  std::int64_t memory_total = 0;
  std::int64_t memory_free = 0;
  int threads = 0;
};

// One row block of a Linear's weight: [N_i, K] of a dense dtype, with its bias [N_i] or none. Several parts make one product whose outputs lie side by side (QKV, gate/up): no copy is made on the
// CPU.
struct LinearPart {
  core::Tensor weight;
  core::Tensor bias;  // undefined: none
};

// A Linear's weight in the form the backend's kernels read. Dense CPU weights stay where they are mapped.
class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  std::int64_t in_features = 0;   // K
  std::int64_t out_features = 0;  // N, all parts together
  std::size_t bytes = 0;          // memory read by one product
  bool rounded = false;  // PackOptions::format has no kernel here: dense numbers, rounded to what it can say
};

struct PackOptions {
  bool gated = false;  // for Linear::gated; only where fusions() names gated_linear
  bool own = false;    // used many times and by nobody else: worth a layout of its own
  std::optional<quant::Format> format = std::nullopt;  // what the weight is to become
};

struct OpCall {
  const Op& op;
  std::span<const View> in;
  std::span<const View> out;
  // For Linear; for a norm, that of the product which is next and reads it, or null.
  const PackedLinear* linear = nullptr;
  bool passing = false;  // nobody but the next call reads `out`
};

// Ops that were recorded once and run again as one launch (a CUDA graph), on the operands they were recorded with.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual bool replay() = 0;  // false, and nothing ran: memory it relies on has moved, record again
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual core::DType activation_dtype(core::DType weights) const = 0;  // float32 on the CPU

  // Bytes that can be taken now; info() has what was free when the device was opened.
  virtual std::int64_t memory_free() const { return info().memory_free; }
  virtual std::shared_ptr<core::Storage> allocate(std::size_t bytes) = 0;
  virtual void copy_in(void* device_to, const void* host_from, std::size_t bytes) = 0;
  virtual void copy_out(void* host_to, const void* device_from, std::size_t bytes) = 0;
  virtual core::Tensor place(
      const core::Tensor& host) = 0;  // on this device; the same tensor where host memory is the device's

  // Error(dtype_error/shape_error) for a weight no kernel can read. Keeps its parts' storage alive.
  virtual std::unique_ptr<PackedLinear> pack_linear(std::span<const LinearPart> parts, PackOptions options = {}) = 0;
  // The same memory as a plain product whose columns lie in alternating groups of 8, gate and up: for looking at both.
  // Null where this backend packs nothing gated.
  virtual std::shared_ptr<PackedLinear> ungated([[maybe_unused]] const PackedLinear& gated) { return nullptr; }
  // Passes beyond the default ones that pay here (graph/passes): "gated_linear", "linear_float",
  // "rope_kv_write", "rope_attention".
  virtual std::vector<std::string> fusions() const { return {}; }

  // The same step with every array in this device's memory, valid until the next call: one transfer a step. Host
  // memory: as it is.
  virtual StepView stage(const StepView& host) { return host; }
  // Host memory that copies to and from this device fastest.
  virtual std::shared_ptr<core::Storage> allocate_host(std::size_t bytes) { return core::Storage::host(bytes); }

  // Between begin_recording and end_recording, run() records instead of running. Run the same ops once before, so that
  // what they allocate on first use is there. Staged steps of equal sizes lie at equal addresses.
  virtual bool can_record() const { return false; }
  virtual void begin_recording() {}
  virtual std::unique_ptr<Recording> end_recording() { return nullptr; }

  // Samples logits where they lie, for one model's steps; null: the host does. Then steps may be staged while earlier
  // ones still run, two ahead of what collect() has seen.
  virtual std::unique_ptr<Sampler> make_sampler(int /*vocab*/, int /*max_rows*/) { return nullptr; }

  // Runs one op. `step` may be null for ops that need none. Shapes were checked by graph/infer; backends check only
  // what they alone know (dtype support). Returns when queued (GPU) or done (CPU).
  virtual void run(const OpCall& call, const StepView* step) = 0;
  // The same for ops in their order; a backend may join neighbours in one launch.
  virtual void run_all(std::span<const OpCall> calls, const StepView* step) {
    for (const OpCall& call : calls) run(call, step);
  }
  virtual void synchronize() = 0;

  // For probes: never part of a plain step. All of the call is host memory.
  virtual void attention_pattern(const PatternCall& call) { device::attention_pattern(call); }

  std::mutex& mutex() { return mutex_; }  // eager callers hold it during run()

 private:
  std::mutex mutex_;
};

// "cpu", "null", "cuda", "cuda:1", "auto". Error(device_not_available) says why not: not built, no driver, no such
// device. Each call makes a new CPU backend with its own threads; GPU backends are shared per device.
std::shared_ptr<Backend> open_device(std::string_view name, const DeviceOptions& options = {});

struct DeviceReport {
  std::string name;
  bool available = false;
  std::string why;  // description, or the reason it is not available
};
std::vector<DeviceReport> list_devices();

// Factories, one per folder; device.cpp is their only caller.
std::shared_ptr<Backend> make_cpu_backend(const DeviceOptions& options);
std::shared_ptr<Backend> make_null_backend(const DeviceOptions& options);
#if FASTLLM_HAVE_CUDA
std::shared_ptr<Backend> make_cuda_backend(int ordinal);  // Error(device_not_available) with the reason
std::vector<DeviceReport> cuda_reports();                 // every GPU, or one row saying why there is none
#endif

}  // namespace fastllm::device
