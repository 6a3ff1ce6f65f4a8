// Removes nodes whose results nobody reads, from the end backwards. Cache writes and kept nodes stay.

#include "graph/passes/passes.h"

namespace fastllm::graph {

void dead_code(Graph& graph) {
  std::vector<int> uses = graph.use_counts();
  std::vector<bool> dead(graph.nodes.size(), false);
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (node.outputs.empty() || graph.kept(node)) continue;
    bool read = false;
    for (int id : node.outputs) read = read || uses[static_cast<std::size_t>(id)] > 0;
    if (read) continue;
    dead[i] = true;
    for (int id : node.inputs) --uses[static_cast<std::size_t>(id)];
  }
  remove_nodes(graph, dead);
}

}  // namespace fastllm::graph
