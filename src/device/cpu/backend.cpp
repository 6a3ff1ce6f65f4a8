#include "device/cpu/backend.h"

#include <cstring>

#include "core/error.h"
#include "device/cpu/linear.h"
#include "device/cpu/machine.h"

namespace fastllm::cpu {

using core::cat;
using core::ErrorCode;

namespace {

core::Isa isa_by_environment() {
  std::string why;
  const auto choice = core::choose_isa(core::isa_from_environment(), &why);
  if (!choice) core::fail(ErrorCode::invalid_config, why, "The environment variable FASTLLM_ISA chooses it.");
  return choice->isa;
}

const KernelTable& kernels_of(core::Isa isa) {
#if FASTLLM_HAVE_AVX512
  if (isa == core::Isa::avx512) return isa_avx512::kernel_table;
#endif
#if FASTLLM_HAVE_AVX2
  if (isa == core::Isa::avx2) return isa_avx2::kernel_table;
#endif
  static_cast<void>(isa);
  return isa_portable::kernel_table;
}

}  // namespace

CpuBackend::CpuBackend(const device::DeviceOptions& options) : CpuBackend(options, isa_by_environment()) {}

CpuBackend::CpuBackend(const device::DeviceOptions& options, core::Isa isa)
    : threads_(options.threads), kernels_(&kernels_of(isa)) {
  info_.name = "cpu";
  info_.isa = kernels_->isa;
  info_.threads = threads_.threads();
  info_.memory_total = memory_total_bytes();
  info_.memory_free = memory_free_bytes();
  info_.description =
      cat(cpu_model(), ", ", info_.isa, " kernels, ", info_.threads, info_.threads == 1 ? " thread" : " threads");
}

CpuBackend::~CpuBackend() = default;

std::shared_ptr<core::Storage> CpuBackend::allocate(std::size_t bytes) {
  return core::Storage::host(bytes);
}

void CpuBackend::copy_in(void* device_to, const void* host_from, std::size_t bytes) {
  if (bytes) std::memcpy(device_to, host_from, bytes);
}

void CpuBackend::copy_out(void* host_to, const void* device_from, std::size_t bytes) {
  if (bytes) std::memcpy(host_to, device_from, bytes);
}

core::Tensor CpuBackend::place(const core::Tensor& host) {
  if (host.defined() && !host.place().host)
    core::fail(ErrorCode::internal,
               cat("[place] a tensor on '", host.place().name, "' cannot move to the CPU by itself."),
               "Copy it out of its device first.");
  return host;
}

std::unique_ptr<device::PackedLinear> CpuBackend::pack_linear(std::span<const device::LinearPart> parts,
                                                              device::PackOptions options) {
  if (options.gated)
    core::fail(core::ErrorCode::internal, "[linear] the CPU has no gated product; its compiler makes none.");
  if (!options.format) return std::make_unique<CpuLinear>(parts);
  std::vector<device::LinearPart> rounded(parts.begin(), parts.end());
  for (device::LinearPart& part : rounded) part.weight = quant::rounded(*options.format, part.weight);
  auto packed = std::make_unique<CpuLinear>(rounded);
  packed->rounded = true;
  packed->rounds_inputs = options.format->dynamic;
  return packed;
}

Scratch CpuBackend::scratch(std::size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (bytes > scratch_per_worker_) {
    scratch_.reset();
    scratch_per_worker_ = 0;
    scratch_ = core::Storage::host(bytes * static_cast<std::size_t>(threads_.threads()));
    scratch_per_worker_ = bytes;
  }
  return {static_cast<std::byte*>(scratch_->data()), scratch_per_worker_};
}

float* CpuBackend::partials(std::size_t floats) {
  if (!partials_ || floats * sizeof(float) > partials_->bytes()) {
    partials_.reset();
    partials_ = core::Storage::host(2 * floats * sizeof(float));  // room to grow with the context
  }
  return static_cast<float*>(partials_->data());
}

}  // namespace fastllm::cpu

namespace fastllm::device {

std::shared_ptr<Backend> make_cpu_backend(const DeviceOptions& options) {
  return std::make_shared<cpu::CpuBackend>(options);
}

}  // namespace fastllm::device
