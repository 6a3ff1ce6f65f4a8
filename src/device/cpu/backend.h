#pragma once
// The CPU backend: owns the threads, the scratch memory and the choice of instruction set; checks what kernels cannot,
// then calls the kernel of that set, or the scalar reference where no kernel fits the layout or dtype. Which of the two
// runs depends on strides and dtypes alone, never on the number of rows.

#include <memory>

#include "core/isa.h"
#include "core/threads.h"
#include "device/backend.h"
#include "device/cpu/kernels/kernels.h"
#include "device/cpu/rope_table.h"

namespace fastllm::cpu {

class CpuBackend final : public device::Backend {
 public:
  // Error(invalid_config) when the environment's FASTLLM_ISA names a set that cannot run here.
  explicit CpuBackend(const device::DeviceOptions& options);
  CpuBackend(const device::DeviceOptions& options, core::Isa isa);
  ~CpuBackend() override;

  const device::DeviceInfo& info() const override { return info_; }
  core::DType activation_dtype(core::DType) const override { return core::DType::f32; }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override;
  void copy_in(void* device_to, const void* host_from, std::size_t bytes) override;
  void copy_out(void* host_to, const void* device_from, std::size_t bytes) override;
  core::Tensor place(const core::Tensor& host) override;
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options = {}) override;
  void run(const device::OpCall& call, const device::StepView* step) override;
  void synchronize() override {}
  void attention_pattern(const device::PatternCall& call) override;

  core::ThreadPool& threads() { return threads_; }

 private:
  struct Call;  // one op on its way to a kernel; ops.cpp

  // At least `bytes` for each thread, kept and reused: a step allocates nothing once its sizes have been seen.
  Scratch scratch(std::size_t bytes);
  float* partials(std::size_t floats);

  core::ThreadPool threads_;
  const KernelTable* kernels_;
  device::DeviceInfo info_;
  RopeTables rope_tables_;
  std::shared_ptr<core::Storage> scratch_;
  std::size_t scratch_per_worker_ = 0;
  std::shared_ptr<core::Storage> partials_;
};

}  // namespace fastllm::cpu
