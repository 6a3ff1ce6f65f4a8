#include "device/cpu/backend.h"

#include <cstring>

#include "core/error.h"
#include "device/cpu/linear.h"
#include "device/cpu/machine.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu {

using core::cat;
using core::DType;
using core::ErrorCode;
using device::View;
using Views = std::span<const View>;

namespace {

core::Isa isa_by_environment() {
  std::string why;
  const auto choice = core::choose_isa(core::isa_from_environment(), &why);
  if (!choice) core::fail(ErrorCode::invalid_config, why, "The environment variable FASTLLM_ISA chooses it.");
  return choice->isa;
}

const device::StepView& needed(const device::StepView* step, const char* op) {
  if (!step) core::fail(ErrorCode::internal, cat("[", op, "] runs on a step, but none was given."));
  return *step;
}

}  // namespace

CpuBackend::CpuBackend(const device::DeviceOptions& options) : CpuBackend(options, isa_by_environment()) {}

CpuBackend::CpuBackend(const device::DeviceOptions& options, core::Isa isa) : threads_(options.threads), isa_(isa) {
  info_.name = "cpu";
  info_.isa = core::isa_name(isa_);
  info_.threads = threads_.threads();
  info_.memory_total = memory_total_bytes();
  info_.memory_free = memory_free_bytes();
  info_.description = cat(cpu_model(), ", ", info_.isa, " kernels, ", info_.threads, info_.threads == 1 ? " thread" : " threads");
}

CpuBackend::~CpuBackend() = default;

std::shared_ptr<core::Storage> CpuBackend::allocate(std::size_t bytes) { return core::Storage::host(bytes); }

void CpuBackend::copy_in(void* device_to, const void* host_from, std::size_t bytes) {
  if (bytes) std::memcpy(device_to, host_from, bytes);
}

void CpuBackend::copy_out(void* host_to, const void* device_from, std::size_t bytes) {
  if (bytes) std::memcpy(host_to, device_from, bytes);
}

core::Tensor CpuBackend::place(const core::Tensor& host) {
  if (host.defined() && !host.place().host)
    core::fail(ErrorCode::internal, cat("[place] a tensor on '", host.place().name, "' cannot move to the CPU by itself."),
               "Copy it out of its device first.");
  return host;
}

std::unique_ptr<device::PackedLinear> CpuBackend::pack_linear(std::span<const device::LinearPart> parts) {
  return std::make_unique<CpuLinear>(parts);
}

void CpuBackend::run(const device::OpCall& call, const device::StepView* step) {
  const Views in = call.in;
  const Views out = call.out;
  struct Visitor {
    const device::OpCall& call;
    const device::StepView* step;
    Views in;
    Views out;
    void operator()(const device::Embedding& op) const { reference::embedding(op, in, out); }
    void operator()(const device::Linear& op) const {
      const auto* weight = dynamic_cast<const CpuLinear*>(call.linear);
      if (!weight) core::fail(ErrorCode::internal, "[linear] the weight was not packed by the CPU backend.");
      reference::linear(op, *weight, in, out);
    }
    void operator()(const device::MatMul& op) const { reference::mat_mul(op, in, out); }
    void operator()(const device::RmsNorm& op) const { reference::rms_norm(op, in, out); }
    void operator()(const device::AddRmsNorm& op) const { reference::add_rms_norm(op, in, out); }
    void operator()(const device::LayerNorm& op) const { reference::layer_norm(op, in, out); }
    void operator()(const device::Rope& op) const { reference::rope(op, in, out, step); }
    void operator()(const device::KvWrite& op) const { reference::kv_write(op, in, needed(step, "kv_write")); }
    void operator()(const device::Attention& op) const { reference::attention(op, in, out, needed(step, "attention")); }
    void operator()(const device::Unary& op) const { reference::unary(op, in, out); }
    void operator()(const device::Binary& op) const { reference::binary(op, in, out); }
    void operator()(const device::Affine& op) const { reference::affine(op, in, out); }
    void operator()(const device::GatedActivation& op) const { reference::gated_activation(op, in, out); }
    void operator()(const device::Softmax& op) const { reference::softmax(op, in, out); }
    void operator()(const device::SelectRows& op) const { reference::select_rows(op, in, out, step); }
    void operator()(const device::Copy& op) const { reference::copy(op, in, out); }
  };
  std::visit(Visitor{call, step, in, out}, call.op);
}

}  // namespace fastllm::cpu

namespace fastllm::device {

std::shared_ptr<Backend> make_cpu_backend(const DeviceOptions& options) { return std::make_shared<cpu::CpuBackend>(options); }

}  // namespace fastllm::device
