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

struct ProgramMemory {  // bytes besides weights and cache; all 0 before reserve()
  std::size_t activations = 0;  // the arena of all intermediate results
  std::size_t unshared = 0;     // what they would take side by side
  std::size_t logits = 0;       // of the host, where results are copied to
  int step_tokens = 0, step_rows = 0;  // of the largest step, for which these are
};

class Program;

struct ProgramOptions {
  int context_length = 0;
  std::string kv_dtype = "auto";                   // auto: the dtype of the weights
  std::optional<std::vector<std::string>> passes;  // none: the default ones, in their order
  std::optional<quant::Format> quant = std::nullopt;  // of the weights of products; none: as they come
  bool probes = false;  // keep what the graph's taps name in being: for run_probed()
  const Program* share = nullptr;  // of the same model: weights it has on the device are used, not copied again
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
  // Products whose weights should have become codes, and how many of them the device could only round.
  int quantized() const { return quantized_; }
  int rounded() const { return rounded_; }
  void reserve(const engine::StepLimits& limits) override;
  std::span<float> run(const device::StepView& step) override;
  bool asynchronous() const override { return sampler_ != nullptr; }
  void launch(const device::StepView& step) override;
  void sample(const device::SampleCall& call) override;
  void collect(std::vector<device::SampledRow>& out) override;
  std::span<const device::TapInfo> taps() const override { return tap_infos_; }
  std::span<float> run_probed(const device::StepView& step, std::span<const device::ProbedSequence> probed) override;

  std::string dump() const;
  const Graph& graph() const { return graph_; }
  const Plan& plan() const { return plan_; }
  ProgramMemory memory() const;

 private:
  struct Origin {  // what a constant was before it was placed
    std::weak_ptr<core::Storage> storage;
    std::int64_t offset = 0;
    core::DType dtype = core::DType::f32;
    core::Shape shape;
    core::Shape strides;
    bool is(const Origin& other) const;
  };
  struct TapPlace {  // where a tap's rows are, and right behind which instruction
    std::size_t instruction = 0;
    const device::View* view = nullptr;  // of a pattern: the queries
    const device::Attention* pattern = nullptr;
  };

  void lower(const ProgramOptions& options);
  void describe(const ProgramOptions& options);  // cache layers, vocabulary, checks of tables
  void note_origins();
  void share_gated(const Program& other);  // before views are made legal
  void find_shared(const Program& other);  // after the passes, before constants are placed
  std::vector<const Origin*> origins_of(const Node& node) const;
  std::shared_ptr<device::PackedLinear> packed_of(std::span<const Origin* const> parts, bool gated) const;
  void pack_weights();
  void build_instructions();
  void check_step(const device::StepView& step) const;
  device::StepView lay_out(const device::StepView& host_step);  // stages it, and sets the views that follow it
  std::span<float> logits_of(const device::StepView& step);
  void describe_taps();
  void build_taps(const std::vector<std::size_t>& instruction_of);
  void serve(const TapPlace& place, int tap, const device::ProbedSequence& probed, const device::StepView& host_step);
  void serve_pattern(const TapPlace& place, std::size_t read, const device::ProbedSequence& probed,
                     const device::StepView& host_step);
  void fetch(const device::View& from, float* to);  // to contiguous floats in host memory, and back
  void store(const float* from, const device::View& to);
  void* staging(std::size_t bytes);
  void run_instructions(const device::StepView& step);
  bool replay(const device::StepView& step);  // false: nothing ran

  std::shared_ptr<device::Backend> backend_;
  Graph graph_;
  int vocab_size_ = 0;
  int context_length_ = 0;
  int rope_original_max_ = 0;
  std::optional<quant::Format> quant_;
  int quantized_ = 0;
  int rounded_ = 0;
  std::size_t weight_bytes_ = 0;
  std::vector<engine::KvSpec> kv_layers_;
  std::map<int, std::shared_ptr<device::PackedLinear>> regrouped_;  // by a product's output, see share_gated
  std::vector<std::shared_ptr<device::PackedLinear>> packed_;  // by node, null where it is no Linear
  std::map<int, Origin> origins_;                              // by value

  engine::StepLimits limits_;
  Plan plan_;
  std::shared_ptr<core::Storage> arena_;
  std::vector<device::View> views_;  // all operands, node by node
  std::vector<device::OpCall> instructions_;  // nodes, ready to run
  std::vector<bool> by_rows_;                 // of those: skipped in a step that wants no logits
  std::vector<device::View*> token_views_;  // those whose first axis follows the step
  std::vector<device::View*> row_views_;
  std::vector<device::View*> id_views_;  // those that point into the step
  std::vector<device::View*> position_views_;
  std::vector<device::TapInfo> tap_infos_;
  std::vector<TapPlace> tap_places_;           // by tap
  std::vector<std::vector<int>> taps_behind_;  // by instruction
  std::vector<float> rows_, keys_, pattern_;   // of one tap at a time
  std::shared_ptr<core::Storage> staging_;     // where the device's memory is not the host's
  float* logits_ = nullptr;
  std::unique_ptr<device::Sampler> sampler_;  // null: the host samples
  std::shared_ptr<core::Storage> host_logits_;  // where the device's memory is not the host's

  struct Replay {
    std::unique_ptr<device::Recording> recording;
    bool warm = false;  // has run once
  };
  std::map<std::tuple<int, int, int, bool>, Replay> replays_;  // by tokens, max_kv_len, max_blocks, deterministic
  std::vector<std::pair<const void*, const void*>>
      replayed_cache_;  // keys and values of every layer that the recordings hold
};

}  // namespace fastllm::graph
