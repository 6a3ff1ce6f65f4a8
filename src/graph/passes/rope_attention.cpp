// rope_kv_write and the attention that reads its queries in one node, for backends that do both at once in decode. The
// node may turn its queries in place, so they must be its own: a slice of a product whose other slices are this node's
// keys and values.

#include "graph/passes/passes.h"

namespace fastllm::graph {
namespace {

// The value that `value` is a view of, through reshapes and slices.
int viewed(const Graph& graph, const std::vector<int>& producers, int value) {
  while (producers[static_cast<std::size_t>(value)] >= 0) {
    const Node& node = graph.nodes[static_cast<std::size_t>(producers[static_cast<std::size_t>(value)])];
    if (!is_view(node)) break;
    value = node.inputs[0];
  }
  return value;
}

}  // namespace

void rope_attention(Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& node = graph.nodes[i];
    const auto* attention = node_as<device::Attention>(node);
    if (!attention || !fusible(graph, uses, producers, node.inputs[0])) continue;
    const auto maker = static_cast<std::size_t>(producers[static_cast<std::size_t>(node.inputs[0])]);
    const auto* write = node_as<device::RopeKvWrite>(graph.nodes[maker]);
    if (!write || write->layer != attention->layer) continue;
    const std::vector<int>& inputs = graph.nodes[maker].inputs;
    const int whole = viewed(graph, producers, inputs[0]);
    if (producers[static_cast<std::size_t>(whole)] < 0 || uses[static_cast<std::size_t>(inputs[0])] != 1) continue;
    // Whoever else reads the product reads it as keys or values, through views of its own.
    bool own = true;
    for (const Node& other : graph.nodes)
      for (int id : other.inputs)
        if (!is_view(other) && &other != &graph.nodes[maker] && viewed(graph, producers, id) == whole) own = false;
    if (!own || graph.output == whole) continue;
    node.op = device::Op{device::RopeAttention{*write, *attention}};
    node.inputs = inputs;
    gone[maker] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
