#include "graph/plan.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace fastllm::graph {
namespace {

using core::Shape;
constexpr std::size_t kAlign = 64;

// A view's place within a row of the value it was cut from. Axis 0 of `strides` is unused: it is the row stride of
// the buffer.
struct RowLayout {
  std::int64_t offset = 0;
  Shape strides;
  // Elements from offset to the end of the last one.
  std::int64_t span(const Shape& shape) const {
    std::int64_t last = 0;
    for (int i = 1; i < shape.rank(); ++i) last += (shape[i] - 1) * strides[i];
    return last + 1;
  }
};

RowLayout contiguous_row(const Shape& shape) {
  return {0, shape.contiguous_strides()};
}

// Trailing axes: all but the lead.
Shape trailing(const Shape& shape) {
  return Shape(shape.dims().subspan(1));
}

std::optional<RowLayout> view_layout(const Node& node, const Type& from, const Type& to, const RowLayout& base) {
  if (const auto* slice = std::get_if<Slice>(&node.op)) {
    RowLayout out = base;
    out.offset += slice->start * base.strides[from.shape.rank() - 1];
    return out;
  }
  const auto steps = core::reshape_strides(trailing(from.shape), trailing(base.strides), trailing(to.shape));
  if (!steps) return std::nullopt;
  Shape strides = to.shape;
  for (int i = 1; i < strides.rank(); ++i) strides[i] = (*steps)[i - 1];
  return RowLayout{base.offset, strides};
}

// Inputs whose memory output 0 may take over, best first (device/op.h: "in place ok").
std::vector<std::size_t> in_place_inputs(const Node& node) {
  using namespace device;
  if (is_view(node)) return {};
  if (const auto* linear = node_as<Linear>(node))
    return linear->add_residual ? std::vector<std::size_t>{1} : std::vector<std::size_t>{};
  if (node_as<AddRmsNorm>(node)) return {1};
  if (node_as<RmsNorm>(node) || node_as<LayerNorm>(node) || node_as<Rope>(node) || node_as<Unary>(node) ||
      node_as<Binary>(node) || node_as<Affine>(node) || node_as<GatedActivation>(node) || node_as<Softmax>(node))
    return {0};
  return {};
}

class Planner {
 public:
  explicit Planner(const Graph& graph)
      : graph_(graph),
        layouts_(graph.values.size()),
        buffer_of_(graph.values.size(), -1),
        last_use_(graph.values.size(), -1) {
    const int end = static_cast<int>(graph.nodes.size());
    for (int i = 0; i < end; ++i)
      if (!is_view(node(i)))
        for (int id : node(i).inputs) last_use_[index(id)] = i;
    for (std::size_t v = 0; v < graph.values.size(); ++v)
      if (graph.keep.contains(graph.values[v].name)) last_use_[v] = end;
    if (graph.output >= 0) last_use_[index(graph.output)] = end;
    // Where views will lie is known from the start, so a buffer is not taken over while a view yet to come still
    // needs it.
    aliases_.resize(graph.values.size());
    std::vector<int> root(graph.values.size());
    std::iota(root.begin(), root.end(), 0);
    for (const Node& n : graph.nodes)
      for (int id : n.outputs) {
        const bool view = is_view(n);
        if (view) root[index(id)] = root[index(n.inputs[0])];
        layouts_[index(id)] = view ? *view_layout(n, type(n.inputs[0]), type(id), layouts_[index(n.inputs[0])])
                                   : contiguous_row(type(id).shape);
        aliases_[index(root[index(id)])].push_back(id);
      }
  }

  Plan run(const engine::StepLimits& limits) {
    for (int i = 0; i < static_cast<int>(graph_.nodes.size()); ++i)
      if (!is_view(node(i)))
        for (std::size_t o = 0; o < node(i).outputs.size(); ++o) place_output(i, o);
    Plan plan;
    plan.locations.resize(graph_.values.size());
    for (std::size_t v = 0; v < graph_.values.size(); ++v) {
      if (buffer_of_[v] < 0) continue;
      Location& at = plan.locations[v];
      at = {buffer_of_[v], layouts_[v].offset, layouts_[v].strides};
      at.strides[0] = buffers_[index(at.buffer)].row_elements;
    }
    for (std::size_t b = 0; b < buffers_.size(); ++b)
      for (int id : members_[b]) buffers_[b].last = std::max(buffers_[b].last, last_use_[index(id)]);
    plan.buffers = std::move(buffers_);
    assign_offsets(plan, limits);
    return plan;
  }

 private:
  static std::size_t index(int id) { return static_cast<std::size_t>(id); }
  const Node& node(int i) const { return graph_.nodes[index(i)]; }
  const Type& type(int id) const { return graph_.values[index(id)].type; }

  bool overlaps(int a, int b) const {
    const RowLayout& la = layouts_[index(a)];
    const RowLayout& lb = layouts_[index(b)];
    return la.offset < lb.offset + lb.span(type(b).shape) && lb.offset < la.offset + la.span(type(a).shape);
  }

  // True if `out`, result of node i, may be written over `in`: same layout, and nothing else needs those bytes any
  // more.
  bool may_take_over(int i, int in, int out) const {
    const int buffer = buffer_of_[index(in)];
    if (buffer < 0 || !(type(in) == type(out)) || last_use_[index(in)] > i) return false;
    const Shape packed = type(in).shape.contiguous_strides();
    for (int a = 1; a < packed.rank(); ++a)
      if (type(in).shape[a] != 1 && layouts_[index(in)].strides[a] != packed[a]) return false;
    int uses_here = 0;
    for (int id : node(i).inputs) uses_here += id == in;
    if (uses_here != 1) return false;
    for (int id : members_[index(buffer)]) {
      if (id == in || !overlaps(id, in)) continue;
      if (last_use_[index(id)] > i) return false;
      for (int other : node(i).inputs)
        if (other == id) return false;
    }
    return true;
  }

  void join(int out, int buffer, std::int64_t offset) {
    for (int id : aliases_[index(out)]) {
      layouts_[index(id)].offset += offset;
      buffer_of_[index(id)] = buffer;
      members_[index(buffer)].push_back(id);
    }
  }

  void place_output(int i, std::size_t which) {
    const int out = node(i).outputs[which];
    if (which == 0)
      for (std::size_t input : in_place_inputs(node(i))) {
        const int in = node(i).inputs[input];
        if (!may_take_over(i, in, out)) continue;
        join(out, buffer_of_[index(in)], layouts_[index(in)].offset);
        return;
      }
    buffers_.push_back({type(out).lead, type(out).shape.numel(), type(out).dtype, i, i, 0, 0});
    members_.emplace_back();
    join(out, static_cast<int>(buffers_.size()) - 1, 0);
  }

  // Largest first, each at the lowest offset where no buffer alive at the same time lies.
  static void assign_offsets(Plan& plan, const engine::StepLimits& limits) {
    std::vector<std::size_t> order(plan.buffers.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (Buffer& buffer : plan.buffers) {
      const int rows = buffer.lead == Lead::rows ? limits.max_rows : limits.max_tokens;
      const std::size_t bytes = static_cast<std::size_t>(buffer.row_elements) * static_cast<std::size_t>(rows) *
                                core::dtype_size(buffer.dtype);
      buffer.bytes = (bytes + kAlign - 1) / kAlign * kAlign;
      plan.unshared_bytes += buffer.bytes;
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return plan.buffers[a].bytes > plan.buffers[b].bytes; });
    std::vector<std::size_t> placed;
    for (std::size_t b : order) {
      Buffer& buffer = plan.buffers[b];
      std::vector<std::pair<std::size_t, std::size_t>> taken;  // [begin, end) of those alive with it
      for (std::size_t p : placed) {
        const Buffer& other = plan.buffers[p];
        if (other.first <= buffer.last && buffer.first <= other.last)
          taken.emplace_back(other.offset, other.offset + other.bytes);
      }
      std::sort(taken.begin(), taken.end());
      std::size_t offset = 0;
      for (const auto& [begin, end] : taken) {
        if (offset + buffer.bytes <= begin) break;
        offset = std::max(offset, end);
      }
      buffer.offset = offset;
      plan.arena_bytes = std::max(plan.arena_bytes, offset + buffer.bytes);
      placed.push_back(b);
    }
  }

  const Graph& graph_;
  std::vector<RowLayout> layouts_;
  std::vector<int> buffer_of_;
  std::vector<int> last_use_;                // by value: the last node that reads it itself (not through a view)
  std::vector<std::vector<int>> aliases_;    // by root: itself and the views of it
  std::vector<std::vector<int>> members_;    // by buffer: all values in it
  std::vector<Buffer> buffers_;
};

}  // namespace

void legalize_views(Graph& graph) {
  std::vector<RowLayout> layouts(graph.values.size());
  std::vector<Node> out;
  for (Node& node : graph.nodes) {
    if (is_view(node)) {
      const Type from = graph.values[static_cast<std::size_t>(node.inputs[0])].type;
      const Type to = graph.values[static_cast<std::size_t>(node.outputs[0])].type;
      auto layout = view_layout(node, from, to, layouts[static_cast<std::size_t>(node.inputs[0])]);
      if (!layout) {
        const int packed = graph.add_value(from, node.name + ".packed");
        layouts.push_back(contiguous_row(from.shape));
        out.push_back({device::Op{device::Copy{}}, node.name + ".packed", {node.inputs[0]}, {packed}, {}});
        node.inputs = {packed};
        layout = view_layout(node, from, to, layouts.back());
      }
      layouts[static_cast<std::size_t>(node.outputs[0])] = *layout;
    } else {
      for (int id : node.outputs)
        layouts[static_cast<std::size_t>(id)] = contiguous_row(graph.values[static_cast<std::size_t>(id)].type.shape);
    }
    out.push_back(std::move(node));
  }
  graph.nodes = std::move(out);
}

Plan make_plan(const Graph& graph, const engine::StepLimits& limits) {
  return Planner(graph).run(limits);
}

std::string plan_text(const Graph& graph, const Plan& plan) {
  std::ostringstream out;
  out << "arena " << plan.arena_bytes << " bytes, " << plan.buffers.size() << " buffers of " << plan.unshared_bytes
      << " bytes together\n";
  for (std::size_t b = 0; b < plan.buffers.size(); ++b) {
    const Buffer& buffer = plan.buffers[b];
    out << "buffer " << b << " at " << buffer.offset << " size " << buffer.bytes << " nodes " << buffer.first << ".."
        << buffer.last << " holds";
    for (std::size_t v = 0; v < plan.locations.size(); ++v)
      if (plan.locations[v].buffer == static_cast<int>(b)) {
        out << " " << graph.value_text(static_cast<int>(v));
        if (plan.locations[v].offset) out << "+" << plan.locations[v].offset;
      }
    out << "\n";
  }
  return out.str();
}

}  // namespace fastllm::graph
