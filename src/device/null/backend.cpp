// The null backend: memory without memory, ops without work. Tests of the graph, the scheduler and the API run on it at
// full speed without weights. Reading back gives zeros.
#include <cstring>

#include "device/backend.h"

namespace fastllm::device {
namespace {

const core::Place kNullPlace{"null", false};

class NullBackend final : public Backend {
 public:
  NullBackend() {
    info_.name = "null";
    info_.description = "computes nothing";
    info_.isa = "none";
    info_.threads = 1;
  }
  const DeviceInfo& info() const override { return info_; }
  core::DType activation_dtype(core::DType) const override { return core::DType::f32; }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override {
    return std::make_shared<core::Storage>(nullptr, bytes, kNullPlace, nullptr);
  }
  void copy_in(void*, const void*, std::size_t) override {}
  void copy_out(void* host_to, const void*, std::size_t bytes) override {
    if (bytes) std::memset(host_to, 0, bytes);
  }
  core::Tensor place(const core::Tensor& host) override {
    return core::Tensor(allocate(host.nbytes()), host.dtype(), host.shape());
  }
  std::unique_ptr<PackedLinear> pack_linear(std::span<const LinearPart> parts, PackOptions options) override {
    auto packed = std::make_unique<PackedLinear>();
    for (const LinearPart& part : parts) {
      packed->in_features = part.weight.shape()[1];
      packed->out_features += part.weight.shape()[0];
      const std::int64_t depth = part.weight.shape()[1];
      packed->bytes += options.format ? static_cast<std::size_t>(quant::bits_per_weight(*options.format, depth) / 8 *
                                                                 static_cast<double>(part.weight.numel()))
                                      : part.weight.nbytes();
    }
    if (options.gated) packed->out_features /= 2;
    return packed;
  }
  void run(const OpCall&, const StepView*) override {}
  void synchronize() override {}

 private:
  DeviceInfo info_;
};

}  // namespace

std::shared_ptr<Backend> make_null_backend(const DeviceOptions&) {
  return std::make_shared<NullBackend>();
}

}  // namespace fastllm::device
