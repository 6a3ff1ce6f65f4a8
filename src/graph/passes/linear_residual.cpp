// x W^T + residual: the sum moves into the product's epilogue and is written over the residual. The product runs
// where the sum stood, because only there both operands exist.

#include <utility>

#include "graph/passes/passes.h"

namespace fastllm::graph {

void linear_residual(Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (Node& node : graph.nodes) {
    const auto* binary = node_as<device::Binary>(node);
    if (!binary || binary->kind != device::BinaryKind::add) continue;
    for (std::size_t side : {std::size_t{1}, std::size_t{0}}) {
      const int product = node.inputs[side];
      const int residual = node.inputs[1 - side];
      if (!fusible(graph, uses, producers, product)) continue;
      const auto index = static_cast<std::size_t>(producers[static_cast<std::size_t>(product)]);
      Node& maker = graph.nodes[index];
      const auto* linear = node_as<device::Linear>(maker);
      if (!linear || linear->add_residual || gone[index]) continue;
      if (!(graph.values[static_cast<std::size_t>(product)].type ==
            graph.values[static_cast<std::size_t>(residual)].type))
        continue;
      device::Linear fused = *linear;
      fused.add_residual = true;
      node.op = device::Op{fused};
      node.inputs = {maker.inputs[0], residual};
      node.parts = std::move(maker.parts);
      gone[index] = true;
      break;
    }
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
