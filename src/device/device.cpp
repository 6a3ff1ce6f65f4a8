#include <algorithm>
#include <charconv>
#include <string>

#include "core/error.h"
#include "device/backend.h"

namespace fastllm::device {

using core::cat;
using core::ErrorCode;

const char* op_name(const Op& op) {
  struct Name {
    const char* operator()(const Embedding&) const { return "embedding"; }
    const char* operator()(const Linear&) const { return "linear"; }
    const char* operator()(const MatMul&) const { return "matmul"; }
    const char* operator()(const RmsNorm&) const { return "rms_norm"; }
    const char* operator()(const AddRmsNorm&) const { return "add_rms_norm"; }
    const char* operator()(const LayerNorm&) const { return "layer_norm"; }
    const char* operator()(const Rope&) const { return "rope"; }
    const char* operator()(const KvWrite&) const { return "kv_write"; }
    const char* operator()(const RopeKvWrite&) const { return "rope_kv_write"; }
    const char* operator()(const RopeAttention&) const { return "rope_attention"; }
    const char* operator()(const Attention&) const { return "attention"; }
    const char* operator()(const Unary&) const { return "unary"; }
    const char* operator()(const Binary&) const { return "binary"; }
    const char* operator()(const Affine&) const { return "affine"; }
    const char* operator()(const GatedActivation&) const { return "gated_activation"; }
    const char* operator()(const Softmax&) const { return "softmax"; }
    const char* operator()(const SelectRows&) const { return "select_rows"; }
    const char* operator()(const Copy&) const { return "copy"; }
  };
  return std::visit(Name{}, op);
}

namespace {

// The first GPU that this build can use, else the CPU.
std::shared_ptr<Backend> make_auto_backend(const DeviceOptions& options) {
#if FASTLLM_HAVE_CUDA
  const std::vector<DeviceReport> gpus = cuda_reports();
  for (std::size_t i = 0; i < gpus.size(); ++i)
    if (gpus[i].available) return make_cuda_backend(static_cast<int>(i));
#endif
  return make_cpu_backend(options);
}

#if FASTLLM_HAVE_CUDA
// "cuda" is 0, "cuda:3" is 3.
int cuda_ordinal(std::string_view name) {
  int ordinal = 0;
  const std::string_view digits = name.substr(std::min<std::size_t>(name.size(), 5));
  if (name.size() > 4 &&
      (std::from_chars(digits.data(), digits.data() + digits.size(), ordinal).ptr != digits.data() + digits.size() ||
       digits.empty() || ordinal < 0))
    core::fail(ErrorCode::device_not_available, cat("[device] '", name, "' names no GPU."),
               "Write cuda:0, cuda:1 and so on.");
  return ordinal;
}
#endif

}  // namespace

std::shared_ptr<Backend> open_device(std::string_view name, const DeviceOptions& options) {
  if (options.threads < 0)
    core::fail(ErrorCode::invalid_config,
               cat("[device] threads is ", options.threads, ", but must be 0 (one per core) or more."));
  if (name == "cpu") return make_cpu_backend(options);
  if (name == "auto") return make_auto_backend(options);
  if (name == "null") return make_null_backend(options);
  if (name == "cuda" || name.starts_with("cuda:")) {
#if FASTLLM_HAVE_CUDA
    return make_cuda_backend(cuda_ordinal(name));
#else
    core::fail(ErrorCode::device_not_available,
               cat("[device] '", name, "' is not available: this build of fastllm has no CUDA backend."),
               "Use device=\"cpu\" or \"auto\".");
#endif
  }
  core::fail(ErrorCode::device_not_available, cat("[device] there is no device '", name, "'."),
             "Use auto, cpu, cuda, cuda:1 or null.");
}

std::vector<DeviceReport> list_devices() {
  std::vector<DeviceReport> reports;
  try {
    reports.push_back({"cpu", true, make_cpu_backend(DeviceOptions{1})->info().description});
  } catch (const core::Error& error) {
    reports.push_back({"cpu", false, error.what()});
  }
#if FASTLLM_HAVE_CUDA
  for (DeviceReport& report : cuda_reports()) reports.push_back(std::move(report));
#else
  reports.push_back({"cuda", false, "this build of fastllm has no CUDA backend; FASTLLM_CUDA=ON builds it"});
#endif
  reports.push_back({"null", true, "computes nothing; for tests of the scheduler and the API"});
  return reports;
}

}  // namespace fastllm::device
