#pragma once
// A StepModel without weights: after token t it gives token (t + 1) % vocab, and a step takes as long as asked.
// Scheduler, engine and API tests run on it, fast and predictably.

#include <memory>
#include <vector>

#include "engine/step_model.h"

namespace fastllm::engine {

class NullModel : public StepModel {
 public:
  // Error(invalid_config) for sizes below 1.
  NullModel(int vocab_size, int context_length, int step_us);

  int vocab_size() const override { return vocab_size_; }
  int context_length() const override { return context_length_; }
  bool length_dependent_rope() const override { return false; }
  std::span<const KvSpec> kv_layers() const override { return kv_layers_; }
  const std::shared_ptr<device::Backend>& backend() const override { return backend_; }
  std::size_t weight_bytes() const override { return 0; }
  void reserve(const StepLimits& limits) override;
  std::span<float> run(const device::StepView& step) override;

 private:
  int vocab_size_;
  int context_length_;
  int step_us_;
  std::shared_ptr<device::Backend> backend_;  // "null"
  std::vector<KvSpec> kv_layers_;  // one small layer, so that cache sizes have a meaning: 64 bytes a token
  std::vector<float> logits_;  // [rows, vocab]
};

}  // namespace fastllm::engine
