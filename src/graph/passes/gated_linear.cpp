// act(x Wg^T) * (x Wu^T) in one product, for backends that pair gate and up rows in its epilogue: the halves of a product
// (gate and up concatenated, or stored so) whose only reader is a GatedActivation. 16-bit weights whose halves are
// multiples of 8 rows.

#include "graph/passes/passes.h"

namespace fastllm::graph {

void gated_linear(Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  const auto maker = [&](int value) { return static_cast<std::size_t>(producers[static_cast<std::size_t>(value)]); };
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto* gated = node_as<device::GatedActivation>(graph.nodes[i]);
    if (!gated) continue;
    const int gate = graph.nodes[i].inputs[0];
    const int up = graph.nodes[i].inputs[1];
    if (!fusible(graph, uses, producers, gate) || !fusible(graph, uses, producers, up)) continue;
    const Node& gate_node = graph.nodes[maker(gate)];
    const Node& up_node = graph.nodes[maker(up)];
    const auto* first = std::get_if<Slice>(&gate_node.op);
    const auto* second = std::get_if<Slice>(&up_node.op);
    if (!first || !second || gate_node.inputs[0] != up_node.inputs[0]) continue;
    const int whole = gate_node.inputs[0];
    if (producers[static_cast<std::size_t>(whole)] < 0 || uses[static_cast<std::size_t>(whole)] != 2) continue;
    Node& product = graph.nodes[maker(whole)];
    auto* linear = node_as<device::Linear>(product);
    if (!linear || linear->add_residual || linear->activation != device::Activation::none) continue;
    if (graph.kept(product)) continue;
    const std::int64_t width = graph.values[static_cast<std::size_t>(whole)].type.shape.back();
    const std::int64_t half = width / 2;
    if (first->start != 0 || first->stop != half || second->start != half || second->stop != width || half % 8 != 0)
      continue;
    bool fits = product.parts.size() == 1 || product.parts.size() == 2;
    for (const Part& part : product.parts) {
      const Type& weight = graph.values[static_cast<std::size_t>(part.weight)].type;
      fits = fits && core::is_half(weight.dtype) && weight.shape[1] % 8 == 0 &&
             (product.parts.size() == 1 || weight.shape[0] == half);
    }
    if (!fits) continue;
    linear->gated = true;
    linear->activation = gated->activation;
    product.outputs = graph.nodes[i].outputs;
    gone[maker(gate)] = gone[maker(up)] = gone[i] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
