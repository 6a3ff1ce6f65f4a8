#pragma once
// A compiled graph: constants folded and placed on the device, passes run, weights packed, memory planned. What the
// engine runs. Immutable but for reserve(); used by one thread at a time.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "device/backend.h"
#include "engine/step_model.h"
#include "graph/ir.h"
#include "graph/plan.h"

namespace fastllm::graph {

struct ProgramOptions {
  int context_length = 0;
  std::string kv_dtype = "auto";                   // auto: the dtype of the weights
  std::optional<std::vector<std::string>> passes;  // none: the default ones, in their order
};

class Program final : public engine::StepModel {
 public:
  // Copies the graph. Error(invalid_request) when it has no output, (shape_error) when a table is too small for the
  // vocabulary or the context, (dtype_error) for weights the device cannot read.
  Program(const Graph& graph, std::shared_ptr<device::Backend> backend, const ProgramOptions& options);

  int vocab_size() const override { return vocab_size_; }
  int context_length() const override { return context_length_; }
  bool length_dependent_rope() const override { return rope_original_max_ > 0; }
  int rope_original_max() const override { return rope_original_max_; }
  std::span<const engine::KvSpec> kv_layers() const override { return kv_layers_; }
  const std::shared_ptr<device::Backend>& backend() const override { return backend_; }
  std::size_t weight_bytes() const override { return weight_bytes_; }
  void reserve(const engine::StepLimits& limits) override;
  std::span<float> run(const device::StepView& step) override;
  bool asynchronous() const override { return sampler_ != nullptr; }
  void launch(const device::StepView& step) override;
  void sample(const device::SampleCall& call) override;
  void collect(std::vector<device::SampledRow>& out) override;

  std::string dump() const;
  const Graph& graph() const { return graph_; }
  const Plan& plan() const { return plan_; }

 private:
  struct Instruction {  // one node, ready to run
    const device::Op* op = nullptr;
    std::span<const device::View> in;
    std::span<const device::View> out;
    const device::PackedLinear* linear = nullptr;
    bool by_rows = false;  // skipped in a step that wants no logits
  };

  void lower(const ProgramOptions& options);
  void describe(const ProgramOptions& options);  // cache layers, vocabulary, checks of tables
  void pack_weights();
  void build_instructions();
  void check_step(const device::StepView& step) const;
  device::StepView start(const device::StepView& host_step);  // stages it and queues its ops
  void run_instructions(const device::StepView& step);
  bool replay(const device::StepView& step);  // false: nothing ran

  std::shared_ptr<device::Backend> backend_;
  Graph graph_;
  int vocab_size_ = 0;
  int context_length_ = 0;
  int rope_original_max_ = 0;
  std::size_t weight_bytes_ = 0;
  std::vector<engine::KvSpec> kv_layers_;
  std::vector<std::unique_ptr<device::PackedLinear>> packed_;  // by node, null where it is no Linear

  engine::StepLimits limits_;
  Plan plan_;
  std::shared_ptr<core::Storage> arena_;
  std::vector<device::View> views_;  // all operands, node by node
  std::vector<Instruction> instructions_;
  std::vector<device::View*> token_views_;  // those whose first axis follows the step
  std::vector<device::View*> row_views_;
  std::vector<device::View*> id_views_;  // those that point into the step
  std::vector<device::View*> position_views_;
  float* logits_ = nullptr;
  std::unique_ptr<device::Sampler> sampler_;  // null: the host samples
  std::shared_ptr<core::Storage> host_logits_;  // where the device's memory is not the host's

  struct Replay {
    std::unique_ptr<device::Recording> recording;
    bool warm = false;  // has run once
  };
  std::map<std::tuple<int, int, int, const void*>, Replay> replays_;  // by tokens, max_kv_len, max_blocks, cache
};

}  // namespace fastllm::graph
