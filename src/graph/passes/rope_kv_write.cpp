// Everything between a layer's QKV product and its attention in one node: the norms of query and key heads (if any),
// both rotations and the cache write. The node stands where the cache write stood.

#include "graph/passes/passes.h"

namespace fastllm::graph {
namespace {

bool same_rope(const device::Rope& a, const device::Rope& b) {
  return a.rotary_dim == b.rotary_dim && a.interleaved == b.interleaved && a.attention_factor == b.attention_factor &&
         a.length == b.length && a.base == b.base && a.factor == b.factor && a.original_max == b.original_max;
}

// A norm over each head, [tokens, heads, D] with weight [D], that only the rope at `reader` reads: its node, or -1.
int head_norm(const Graph& graph, const std::vector<int>& uses, const std::vector<int>& producers, const Node& reader) {
  const int x = reader.inputs[0];
  if (!fusible(graph, uses, producers, x)) return -1;
  const int maker = producers[static_cast<std::size_t>(x)];
  const Node& node = graph.nodes[static_cast<std::size_t>(maker)];
  if (!node_as<device::RmsNorm>(node)) return -1;
  return graph.values[static_cast<std::size_t>(node.inputs[0])].type.shape.rank() == 3 ? maker : -1;
}

}  // namespace

void rope_kv_write(Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto* write = node_as<device::KvWrite>(graph.nodes[i]);
    if (!write) continue;
    const int k = graph.nodes[i].inputs[0];
    const int v = graph.nodes[i].inputs[1];
    if (!fusible(graph, uses, producers, k)) continue;
    const auto k_at = static_cast<std::size_t>(producers[static_cast<std::size_t>(k)]);
    const auto* k_rope = node_as<device::Rope>(graph.nodes[k_at]);
    if (!k_rope) continue;
    // The query: what the first attention over this layer reads.
    int q = -1;
    int readers = 0;
    for (const Node& node : graph.nodes)
      if (const auto* attention = node_as<device::Attention>(node); attention && attention->layer == write->layer) {
        q = node.inputs[0];
        ++readers;
      }
    if (readers != 1 || !fusible(graph, uses, producers, q)) continue;
    const auto q_at = static_cast<std::size_t>(producers[static_cast<std::size_t>(q)]);
    const auto* q_rope = node_as<device::Rope>(graph.nodes[q_at]);
    if (!q_rope || !same_rope(*q_rope, *k_rope) || q_at == k_at) continue;
    const Node& q_node = graph.nodes[q_at];
    const Node& k_node = graph.nodes[k_at];
    if (!std::equal(q_node.inputs.begin() + 1, q_node.inputs.end(), k_node.inputs.begin() + 1, k_node.inputs.end()))
      continue;
    device::RopeKvWrite op{*k_rope, write->layer};
    int q_in = q_node.inputs[0];
    int k_in = k_node.inputs[0];
    std::vector<int> inputs{q_in, k_in, v};
    std::vector<int> norms;
    const int q_norm = head_norm(graph, uses, producers, q_node);
    const int k_norm = head_norm(graph, uses, producers, k_node);
    if (q_norm >= 0 && k_norm >= 0) {
      const Node& a = graph.nodes[static_cast<std::size_t>(q_norm)];
      const Node& b = graph.nodes[static_cast<std::size_t>(k_norm)];
      const auto* first = node_as<device::RmsNorm>(a);
      const auto* second = node_as<device::RmsNorm>(b);
      if (first->eps == second->eps && first->weight_offset == second->weight_offset) {
        op.normed = true;
        op.eps = first->eps;
        op.weight_offset = first->weight_offset;
        inputs[0] = q_in = a.inputs[0];
        inputs[1] = k_in = b.inputs[0];
        norms = {a.inputs[1], b.inputs[1]};
      }
    }
    // All that it reads must be there by the time of the cache write.
    if (producers[static_cast<std::size_t>(q_in)] >= static_cast<int>(i)) continue;
    if (op.normed) gone[static_cast<std::size_t>(q_norm)] = gone[static_cast<std::size_t>(k_norm)] = true;
    inputs.insert(inputs.end(), k_node.inputs.begin() + 1, k_node.inputs.end());
    inputs.insert(inputs.end(), norms.begin(), norms.end());
    gone[q_at] = gone[k_at] = true;
    Node& fused = graph.nodes[i];
    fused.op = device::Op{op};
    fused.inputs = std::move(inputs);
    fused.outputs = {q};
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
