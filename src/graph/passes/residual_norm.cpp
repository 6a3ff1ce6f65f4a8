// rms_norm(x + residual) in one node that also gives the sum, which the next residual reads. It runs where the sum
// stood.

#include <algorithm>
#include <utility>

#include "graph/passes/passes.h"

namespace fastllm::graph {

void residual_norm(Graph& graph) {
  const std::vector<int> producers = graph.producers();
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto* norm = node_as<device::RmsNorm>(graph.nodes[i]);
    if (!norm) continue;
    const int sum = graph.nodes[i].inputs[0];
    const int maker = producers[static_cast<std::size_t>(sum)];
    if (maker < 0 || graph.pinned.contains(sum)) continue;  // an edit of the sum must reach the norm
    Node& add = graph.nodes[static_cast<std::size_t>(maker)];
    const auto* binary = node_as<device::Binary>(add);
    if (!binary || binary->kind != device::BinaryKind::add) continue;
    int x = add.inputs[0];
    int residual = add.inputs[1];
    if (!(graph.values[static_cast<std::size_t>(x)].type == graph.values[static_cast<std::size_t>(residual)].type))
      continue;
    // The sum may overwrite the residual: take the older value for it, which is the residual stream.
    if (producers[static_cast<std::size_t>(x)] < producers[static_cast<std::size_t>(residual)]) std::swap(x, residual);
    add.op = device::Op{device::AddRmsNorm{norm->eps, norm->weight_offset}};
    add.inputs = {x, residual, graph.nodes[i].inputs[1]};
    add.outputs.push_back(graph.nodes[i].outputs[0]);
    if (!graph.keep.contains(add.name)) add.name += "+" + graph.nodes[i].name;
    gone[i] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
