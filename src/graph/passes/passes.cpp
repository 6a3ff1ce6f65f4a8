#include "graph/passes/passes.h"

#include <array>
#include <utility>

#include "core/error.h"

namespace fastllm::graph {

std::span<const Pass> all_passes() {
  static constexpr std::array<Pass, 8> passes{{
      {"affine_fold", &affine_fold},
      {"dead_code", &dead_code},
      {"select_rows", &select_rows},
      {"concat_linear", &concat_linear},
      {"gated_activation", &gated_activation},
      {"linear_activation", &linear_activation},
      {"linear_residual", &linear_residual},
      {"residual_norm", &residual_norm},
  }};
  return passes;
}

std::span<const Pass> backend_passes() {
  static constexpr std::array<Pass, 4> passes{{
      {"gated_linear", &gated_linear},
      {"linear_float", &linear_float},
      {"rope_kv_write", &rope_kv_write},
      {"rope_attention", &rope_attention},
  }};
  return passes;
}

void run_passes(Graph& graph, std::span<const std::string> names) {
  for (const std::string& name : names) {
    void (*run)(Graph&) = nullptr;
    std::string known;
    for (const std::span<const Pass> passes : {all_passes(), backend_passes()})
      for (const Pass& pass : passes) {
        if (name == pass.name) run = pass.run;
        known += (known.empty() ? "" : ", ") + std::string(pass.name);
      }
    if (!run)
      core::fail(core::ErrorCode::invalid_request, core::cat("[program] there is no pass '", name, "'."),
                 "Known: " + known + ".");
    run(graph);
  }
}

bool fusible(const Graph& graph, const std::vector<int>& uses, const std::vector<int>& producers, int value) {
  const auto v = static_cast<std::size_t>(value);
  if (producers[v] < 0 || uses[v] != 1) return false;
  return !graph.kept(graph.nodes[static_cast<std::size_t>(producers[v])]);
}

void remove_nodes(Graph& graph, const std::vector<bool>& marked) {
  std::vector<Node> left;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    if (!marked[i]) left.push_back(std::move(graph.nodes[i]));
  graph.nodes = std::move(left);
}

}  // namespace fastllm::graph
