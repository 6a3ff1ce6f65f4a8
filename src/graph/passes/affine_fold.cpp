// x * s + t folded into what made x: another affine, an embedding's scale, a product's scale (which acts before its
// bias, so only without one). An affine that changes nothing disappears.

#include "graph/passes/passes.h"

namespace fastllm::graph {
namespace {

// True if `node` now does the affine's work as well.
bool absorb(Node& node, const device::Affine& affine) {
  if (auto* before = node_as<device::Affine>(node)) {
    before->shift = before->shift * affine.scale + affine.shift;
    before->scale *= affine.scale;
    return true;
  }
  if (affine.shift != 0.0f) return false;
  if (auto* embedding = node_as<device::Embedding>(node)) {
    embedding->scale *= affine.scale;
    return true;
  }
  if (auto* linear = node_as<device::Linear>(node)) {
    if (linear->add_residual || linear->activation != device::Activation::none) return false;
    for (const Part& part : node.parts)
      if (part.bias >= 0) return false;
    linear->scale *= affine.scale;
    return true;
  }
  return false;
}

}  // namespace

void affine_fold(Graph& graph) {
  const std::vector<int> producers = graph.producers();
  std::vector<int> uses = graph.use_counts();
  std::vector<int> made_by = producers;  // kept up to date as outputs move
  std::vector<bool> gone(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& node = graph.nodes[i];
    const auto* affine = node_as<device::Affine>(node);
    if (!affine || graph.kept(node)) continue;
    const int in = node.inputs[0];
    const int out = node.outputs[0];
    if (affine->scale == 1.0f && affine->shift == 0.0f && made_by[static_cast<std::size_t>(in)] >= 0) {
      graph.replace_uses(out, in);
      uses[static_cast<std::size_t>(in)] += uses[static_cast<std::size_t>(out)] - 1;
      gone[i] = true;
      continue;
    }
    if (!fusible(graph, uses, made_by, in)) continue;
    const int maker = made_by[static_cast<std::size_t>(in)];
    Node& before = graph.nodes[static_cast<std::size_t>(maker)];
    if (!absorb(before, *affine)) continue;
    before.outputs[0] = out;
    made_by[static_cast<std::size_t>(out)] = maker;
    gone[i] = true;
  }
  remove_nodes(graph, gone);
}

}  // namespace fastllm::graph
