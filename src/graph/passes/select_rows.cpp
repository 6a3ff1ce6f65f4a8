// The logits need only the step's selected rows (one a sequence in decode, one a chunk in prefill). Whatever follows
// the last op in which tokens see each other, and is read by nothing but the logits, runs on those rows alone: the
// rows are taken out right there.

#include <algorithm>
#include <map>
#include <utility>

#include "graph/passes/passes.h"

namespace fastllm::graph {
namespace {

// Ops that treat each row by itself, whichever rows those are. Rope and the attention ops look at the step.
bool row_local(const Node& node) {
  if (is_view(node)) return true;
  return !(node_as<device::Rope>(node) || node_as<device::KvWrite>(node) || node_as<device::Attention>(node) ||
           node_as<device::SelectRows>(node) || node_as<device::Embedding>(node));
}

bool by_tokens(const Graph& graph, int value) {
  return graph.values[static_cast<std::size_t>(value)].type.lead == Lead::tokens;
}

}  // namespace

void select_rows(Graph& graph) {
  if (graph.output < 0) return;
  if (by_tokens(graph, graph.output)) {  // the recorder asked for logits of all tokens: the step wants only some
    Type type = graph.values[static_cast<std::size_t>(graph.output)].type;
    type.lead = Lead::rows;
    const int rows = graph.add_value(type, "select_rows");
    graph.nodes.push_back({device::Op{device::SelectRows{}}, "select_rows", {graph.output}, {rows}, {}});
    graph.output = rows;
  }
  // Backwards: a row-local node may move behind the selection if every reader of its results is a selection or moves
  // as well.
  const std::size_t count = graph.nodes.size();
  std::vector<bool> moves(count, false);
  std::vector<int> other_readers(graph.values.size(), 0);  // readers that need all tokens
  for (std::size_t i = count; i-- > 0;) {
    const Node& node = graph.nodes[i];
    bool needed = node.outputs.empty() || graph.kept(node);
    bool tokens_out = !node.outputs.empty();
    for (int id : node.outputs) {
      needed = needed || other_readers[static_cast<std::size_t>(id)] > 0;
      tokens_out = tokens_out && by_tokens(graph, id);
    }
    moves[i] = row_local(node) && tokens_out && !needed;
    if (!moves[i] && !node_as<device::SelectRows>(node))
      for (int id : node.inputs) ++other_readers[static_cast<std::size_t>(id)];
  }
  std::vector<Node> out;
  std::map<int, int> selected;  // value of all tokens -> its selected rows
  const std::vector<int> producers = graph.producers();
  const auto rows_of = [&](int value) {
    if (!by_tokens(graph, value)) return value;
    const auto [entry, fresh] = selected.try_emplace(value, -1);
    if (fresh) {
      const Type type = graph.values[static_cast<std::size_t>(value)].type;
      const std::string name = graph.values[static_cast<std::size_t>(value)].name + ".rows";
      const auto add = [&](NodeOp op, int in, Lead lead, const core::Shape& shape) {
        const int id = graph.add_value({type.dtype, lead, shape}, name);
        out.push_back({std::move(op), name, {in}, {id}, {}});
        return id;
      };
      // The op takes [tokens, features]; other shapes go through views.
      const core::Shape flat{1, type.shape.numel()};
      const bool direct = type.shape.rank() == 2;
      const int from = direct ? value : add(Reshape{flat}, value, Lead::tokens, flat);
      const int picked = add(device::Op{device::SelectRows{}}, from, Lead::rows, flat);
      entry->second = direct ? picked : add(Reshape{type.shape}, picked, Lead::rows, type.shape);
    }
    return entry->second;
  };
  for (std::size_t i = 0; i < count; ++i) {
    Node node = std::move(graph.nodes[i]);
    if (node_as<device::SelectRows>(node) && node.inputs.size() == 1) {
      const int source = node.inputs[0];
      const bool moved = !by_tokens(graph, source);  // its maker now gives rows
      if (moved) {
        for (Node& later : graph.nodes) std::replace(later.inputs.begin(), later.inputs.end(), node.outputs[0], source);
        if (graph.output == node.outputs[0]) graph.output = source;
        continue;
      }
    } else if (moves[i]) {
      for (int& id : node.inputs) id = rows_of(id);
      for (int id : node.outputs) graph.values[static_cast<std::size_t>(id)].type.lead = Lead::rows;
    }
    out.push_back(std::move(node));
  }
  graph.nodes = std::move(out);
}

}  // namespace fastllm::graph
