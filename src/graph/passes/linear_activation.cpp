// act(x W^T + b): the activation moves into the product's epilogue, while the result is still in registers.

#include "graph/passes/passes.h"

namespace fastllm::graph {

void linear_activation(Graph& graph) {
  using device::Activation;
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto* unary = node_as<device::Unary>(graph.nodes[i]);
    if (!unary || unary->kind == Activation::none || unary->kind == Activation::softcap)
      continue;  // softcap has a parameter of its own
    const int product = graph.nodes[i].inputs[0];
    if (!fusible(graph, uses, producers, product)) continue;
    Node& maker = graph.nodes[static_cast<std::size_t>(producers[static_cast<std::size_t>(product)])];
    auto* linear = node_as<device::Linear>(maker);
    if (!linear || linear->add_residual || linear->activation != Activation::none) continue;
    linear->activation = unary->kind;
    maker.outputs = graph.nodes[i].outputs;
    gone[i] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
