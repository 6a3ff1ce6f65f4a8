// A 16-bit product whose only reader converts it to float32 (the logits) writes its float32 sums at once: for backends
// whose products can.

#include "graph/passes/passes.h"

namespace fastllm::graph {

void linear_float(Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& copy = graph.nodes[i];
    if (!node_as<device::Copy>(copy)) continue;
    if (graph.values[static_cast<std::size_t>(copy.outputs[0])].type.dtype != core::DType::f32) continue;
    const int x = copy.inputs[0];
    if (!fusible(graph, uses, producers, x)) continue;
    Node& product = graph.nodes[static_cast<std::size_t>(producers[static_cast<std::size_t>(x)])];
    const auto* linear = node_as<device::Linear>(product);
    if (!linear || linear->add_residual || linear->gated) continue;
    const Type& weight = graph.values[static_cast<std::size_t>(product.parts[0].weight)].type;
    if (!core::is_half(weight.dtype) || weight.shape[1] % 8 != 0) continue;
    product.outputs = copy.outputs;
    gone[i] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
