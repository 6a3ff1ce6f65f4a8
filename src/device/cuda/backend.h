#pragma once
// The CUDA backend: one device, one stream. Ops are queued in order; copy_out and synchronize wait.

#include <memory>
#include <vector>

#include "device/backend.h"
#include "device/cuda/launch.h"

namespace fastllm::cuda {

class CudaBackend final : public device::Backend {
 public:
  explicit CudaBackend(int ordinal);
  ~CudaBackend() override;
  const device::DeviceInfo& info() const override { return info_; }
  core::DType activation_dtype(core::DType weights) const override {
    return core::is_half(weights) ? weights : core::DType::f32;
  }
  std::int64_t memory_free() const override;
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override;
  void copy_in(void* device_to, const void* host_from, std::size_t bytes) override;
  void copy_out(void* host_to, const void* device_from, std::size_t bytes) override;
  core::Tensor place(const core::Tensor& host) override;
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options = {}) override;
  std::shared_ptr<device::PackedLinear> ungated(const device::PackedLinear& gated) override;
  std::vector<std::string> fusions() const override;
  device::StepView stage(const device::StepView& host) override;
  std::unique_ptr<device::Sampler> make_sampler(int vocab, int max_rows) override;
  std::shared_ptr<core::Storage> allocate_host(std::size_t bytes) override;
  bool can_record() const override { return true; }
  void begin_recording() override;
  std::unique_ptr<device::Recording> end_recording() override;
  void run(const device::OpCall& call, const device::StepView* step) override;
  void run_all(std::span<const device::OpCall> calls, const device::StepView* step) override;
  void synchronize() override;

 private:
  void use() const;  // makes the device current on this thread
  void grow_workspace(std::size_t floats);

  int ordinal_;
  core::Place place_;
  device::DeviceInfo info_;
  std::shared_ptr<CUstream_st> stream_;
  Workspace workspace_;
  std::shared_ptr<core::Storage> workspace_storage_;
  std::shared_ptr<core::Storage> exchange_;
  Context context_;
  struct Staging {  // two in turn: the copy of the step before may still wait for the step before that
    void* host = nullptr;  // pinned
    cudaEvent_t copied = nullptr;
  };
  void pack_numbers(DeviceLinear& packed, std::span<const device::LinearPart> parts);
  void pack_codes(DeviceLinear& packed, const quant::Format& format, std::span<const device::LinearPart> parts);
  void free_staging();
  Staging staging_[2];
  int staging_turn_ = 0;
  std::shared_ptr<core::Storage> staging_device_;
  std::size_t staging_bytes_ = 0;
  const void* coded_ = nullptr;  // the result of the op before, if its codes lie in the workspace
  std::shared_ptr<std::uint64_t> moves_;  // how often staging or workspace moved: recordings made before are stale
};

}  // namespace fastllm::cuda
