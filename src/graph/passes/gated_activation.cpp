// act(gate) * up in one node, which reads both halves of the fused gate/up product and writes in place.

#include "graph/passes/passes.h"

namespace fastllm::graph {

void gated_activation(Graph& graph) {
  using device::Activation;
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (Node& node : graph.nodes) {
    const auto* binary = node_as<device::Binary>(node);
    if (!binary || binary->kind != device::BinaryKind::mul) continue;
    for (std::size_t side : {std::size_t{0}, std::size_t{1}}) {
      const int activated = node.inputs[side];
      const int up = node.inputs[1 - side];
      if (!fusible(graph, uses, producers, activated)) continue;
      const auto maker = static_cast<std::size_t>(producers[static_cast<std::size_t>(activated)]);
      const auto* unary = node_as<device::Unary>(graph.nodes[maker]);
      if (!unary || unary->kind == Activation::none || unary->kind == Activation::softcap) continue;
      const Type& a = graph.values[static_cast<std::size_t>(activated)].type;
      if (!(a == graph.values[static_cast<std::size_t>(up)].type) || a.shape.rank() != 2) continue;
      node.inputs = {graph.nodes[maker].inputs[0], up};
      node.op = device::Op{device::GatedActivation{unary->kind}};
      gone[maker] = true;
      break;
    }
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
