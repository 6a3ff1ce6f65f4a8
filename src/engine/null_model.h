#pragma once
// A StepModel without weights: after token t it gives token (t + 1) % vocab, and a step takes as long as asked.
// Scheduler, engine and API tests run on it, fast and predictably. Asynchronous, it is a device that takes so long for a
// step and lets the host go on meanwhile.

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "device/host_sampler.h"

#include "engine/step_model.h"

namespace fastllm::engine {

class NullModel : public StepModel {
 public:
  // Error(invalid_config) for sizes below 1.
  NullModel(int vocab_size, int context_length, int step_us, bool asynchronous = false);

  int vocab_size() const override { return vocab_size_; }
  int context_length() const override { return context_length_; }
  bool length_dependent_rope() const override { return false; }
  std::span<const KvSpec> kv_layers() const override { return kv_layers_; }
  const std::shared_ptr<device::Backend>& backend() const override { return backend_; }
  std::size_t weight_bytes() const override { return 0; }
  void reserve(const StepLimits& limits) override;
  std::span<float> run(const device::StepView& step) override;
  bool asynchronous() const override { return asynchronous_; }
  void launch(const device::StepView& step) override;
  void sample(const device::SampleCall& call) override;
  void collect(std::vector<device::SampledRow>& out) override;

 private:
  using Clock = std::chrono::steady_clock;
  std::int32_t next(std::int32_t token) const { return (token + 1) % vocab_size_; }
  std::span<float> logits_of(std::span<const std::int32_t> tokens);  // one row after each

  int vocab_size_;
  int context_length_;
  int step_us_;
  std::shared_ptr<device::Backend> backend_;  // "null"
  std::vector<KvSpec> kv_layers_;  // one small layer, so that cache sizes have a meaning: 64 bytes a token
  std::vector<float> logits_;  // [rows, vocab]

  bool asynchronous_ = false;
  device::HostSampler sampler_;
  std::vector<std::int32_t> last_;  // tokens that the rows of the launched step come after
  std::vector<std::int32_t> drawn_;  // of the last sample()
  Clock::time_point busy_until_{};
  struct Done {
    Clock::time_point at;
    std::vector<device::SampledRow> rows;
  };
  std::deque<Done> done_;
};

}  // namespace fastllm::engine
