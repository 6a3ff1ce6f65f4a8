// Products of the same input become one product whose results lie side by side, and slices of it: QKV, gate and up.
// One pass over the input, one wait for all threads, larger tiles. Weights stay where they are (several parts), so
// nothing is copied.

#include <map>
#include <tuple>
#include <utility>

#include "graph/passes/passes.h"

namespace fastllm::graph {

void concat_linear(Graph& graph) {
  // Products that may share a node: same input, weights of one dtype, same scale, nothing in the epilogue but biases.
  std::map<std::tuple<int, core::DType, float>, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto* linear = node_as<device::Linear>(graph.nodes[i]);
    if (!linear || linear->add_residual || linear->activation != device::Activation::none) continue;
    const core::DType dtype = graph.values[static_cast<std::size_t>(graph.nodes[i].parts[0].weight)].type.dtype;
    groups[{graph.nodes[i].inputs[0], dtype, linear->scale}].push_back(i);
  }
  std::map<std::size_t, std::vector<Node>> replaced;  // first node of a group -> the fused product and its slices
  std::vector<bool> gone(graph.nodes.size(), false);
  for (const auto& [key, members] : groups) {
    if (members.size() < 2) continue;
    const Node& first = graph.nodes[members[0]];
    Type type = graph.values[static_cast<std::size_t>(first.outputs[0])].type;
    Node fused{first.op, "", first.inputs, {}, {}};
    std::vector<Node> slices;
    std::int64_t column = 0;
    for (std::size_t i : members) {
      const Node& member = graph.nodes[i];
      const std::int64_t width = graph.values[static_cast<std::size_t>(member.outputs[0])].type.shape.back();
      fused.name += (fused.name.empty() ? "" : "+") + member.name;
      fused.parts.insert(fused.parts.end(), member.parts.begin(), member.parts.end());
      slices.push_back({Slice{column, column + width}, member.name, {}, member.outputs, {}});
      column += width;
      gone[i] = true;
    }
    type.shape[type.shape.rank() - 1] = column;
    const int whole = graph.add_value(type, fused.name);
    fused.outputs = {whole};
    std::vector<Node>& nodes = replaced[members[0]];
    nodes.push_back(std::move(fused));
    for (Node& slice : slices) {
      slice.inputs = {whole};
      nodes.push_back(std::move(slice));
    }
  }
  std::vector<Node> out;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (const auto found = replaced.find(i); found != replaced.end())
      for (Node& node : found->second) out.push_back(std::move(node));
    if (!gone[i]) out.push_back(std::move(graph.nodes[i]));
  }
  graph.nodes = std::move(out);
}

}  // namespace fastllm::graph
