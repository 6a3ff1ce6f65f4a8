#include "graph/ir.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "graph/attrs.h"
#include "graph/infer.h"

namespace fastllm::graph {
namespace {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::fail;
using core::Shape;

const char* brief(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    default:
      return core::dtype_name(dtype);
  }
}

// The same error with the node named in the hint, so that a model author finds the line.
[[noreturn]] void rethrow_at(const core::Error& error, const std::string& node) {
  const std::string hint = error.hint() + (error.hint().empty() ? "" : " ") + "At node '" + node + "'.";
  throw core::Error(error.code(), error.what(), hint);
}

}  // namespace

std::string Type::str() const {
  if (lead == Lead::fixed) return shape.str();
  std::string out = lead == Lead::tokens ? "[tokens" : "[rows";
  for (int i = 1; i < shape.rank(); ++i) out += ", " + std::to_string(shape[i]);
  return out + "]";
}

int Graph::add_value(Type type, std::string name) {
  values.push_back({ValueKind::node, std::move(type), std::move(name), {}});
  return static_cast<int>(values.size()) - 1;
}

int Graph::check_id(int value, const char* where) const {
  if (value < 0 || value >= static_cast<int>(values.size()))
    fail(ErrorCode::invalid_request, cat("[", where, "] there is no value %", value, " in this graph."));
  return value;
}

int Graph::token_ids() {
  if (token_ids_ < 0) {
    token_ids_ = add_value({DType::i32, Lead::tokens, Shape{1}}, "token_ids");
    values.back().kind = ValueKind::token_ids;
  }
  return token_ids_;
}

int Graph::positions() {
  if (positions_ < 0) {
    positions_ = add_value({DType::i32, Lead::tokens, Shape{1}}, "positions");
    values.back().kind = ValueKind::positions;
  }
  return positions_;
}

int Graph::constant(const std::string& name, core::Tensor tensor) {
  if (!tensor.defined()) fail(ErrorCode::invalid_request, cat("[constant] '", name, "' has no storage."));
  const auto found = constants_.find(name);
  if (found != constants_.end()) {
    const core::Tensor& known = values[static_cast<std::size_t>(found->second)].constant;
    if (known.data() != tensor.data() || known.dtype() != tensor.dtype() || !(known.shape() == tensor.shape()))
      fail(ErrorCode::invalid_request,
           cat("[constant] '", name, "' is already another tensor: ", core::dtype_name(known.dtype()), " ",
               known.shape().str(), ", now ", core::dtype_name(tensor.dtype()), " ", tensor.shape().str(), "."),
           "Give each constant a name of its own.");
    return found->second;
  }
  const int id = add_value({tensor.dtype(), Lead::fixed, tensor.shape()}, name);
  values.back().kind = ValueKind::constant;
  values.back().constant = std::move(tensor);
  constants_[name] = id;
  return id;
}

std::vector<int> Graph::op(const OpSpec& spec, std::span<const int> inputs, const std::string& name) {
  const char* kind = device::op_name(spec.op);
  std::vector<Type> types;
  for (int id : inputs) types.push_back(values[static_cast<std::size_t>(check_id(id, kind))].type);
  std::vector<Type> results;
  std::map<int, KvShape> caches = kv;  // a call that fails leaves the graph as it was
  try {
    results = infer(spec, types, {DType::f32, &caches});
  } catch (const core::Error& error) {
    rethrow_at(error, name);
  }
  if ((std::holds_alternative<device::KvWrite>(spec.op) || std::holds_alternative<device::Attention>(spec.op)) &&
      types[0].lead != Lead::tokens)
    fail(ErrorCode::shape_error,
         cat("[", kind, "] the input has shape ", types[0].str(), ", but its first axis must be the step's tokens."),
         "At node '" + name + "'.");
  Node node{spec.op, name, {inputs.begin(), inputs.end()}, {}, {}};
  if (std::holds_alternative<device::Linear>(spec.op)) {
    const Part part{inputs[1], spec.has_bias ? inputs[2] : -1};
    for (int id : {part.weight, part.bias})
      if (id >= 0 && values[static_cast<std::size_t>(id)].kind != ValueKind::constant)
        fail(ErrorCode::invalid_request,
             cat("[linear] ", id == part.weight ? "weight" : "bias", " is a computed value, not a constant."),
             "Use matmul for products of two activations. At node '" + name + "'.");
    node.parts = {part};
    node.inputs.erase(node.inputs.begin() + 1, node.inputs.begin() + (spec.has_bias ? 3 : 2));
  }
  kv = std::move(caches);
  std::vector<int> outputs;
  for (std::size_t i = 0; i < results.size(); ++i)
    outputs.push_back(add_value(results[i], i ? name + "." + std::to_string(i) : name));
  node.outputs = outputs;
  nodes.push_back(std::move(node));
  return outputs;
}

int Graph::reshape(int value, std::span<const std::int64_t> shape) {
  const Type from = values[static_cast<std::size_t>(check_id(value, "reshape"))].type;
  std::vector<std::int64_t> dims(shape.begin(), shape.end());
  if (from.lead != Lead::fixed) {
    if (dims.empty() || dims[0] != -1)
      fail(ErrorCode::shape_error, cat("[reshape] ", from.str(), " keeps its first axis."),
           "Give -1 for the first axis.");
    dims[0] = 1;
  }
  for (std::int64_t dim : dims)
    if (dim < 0)
      fail(ErrorCode::shape_error, cat("[reshape] the size ", dim, " of an axis of ", from.str(), " is negative."),
           "-1 stands for the symbolic first axis alone.");
  const Shape to{std::span<const std::int64_t>(dims)};
  if (to.numel() != from.shape.numel())
    fail(ErrorCode::shape_error,
         cat("[reshape] ", from.str(), " has ", from.shape.numel(),
             from.lead == Lead::fixed ? " elements" : " elements a row", ", but the new shape has ", to.numel(), "."));
  const int out = add_value({from.dtype, from.lead, to}, values[static_cast<std::size_t>(value)].name);
  nodes.push_back({Reshape{to}, values[static_cast<std::size_t>(value)].name, {value}, {out}, {}});
  return out;
}

int Graph::slice(int value, std::int64_t start, std::int64_t stop) {
  const Type from = values[static_cast<std::size_t>(check_id(value, "slice"))].type;
  if (from.shape.rank() == 0 || (from.shape.rank() == 1 && from.lead != Lead::fixed))
    fail(ErrorCode::shape_error, cat("[slice] ", from.str(), " has no static last axis."));
  if (start < 0 || stop <= start || stop > from.shape.back())
    fail(ErrorCode::shape_error,
         cat("[slice] range ", start, ":", stop, " of ", from.str(), "'s last axis of ", from.shape.back(), "."));
  Shape to = from.shape;
  to[to.rank() - 1] = stop - start;
  const int out = add_value({from.dtype, from.lead, to}, values[static_cast<std::size_t>(value)].name);
  nodes.push_back({Slice{start, stop}, values[static_cast<std::size_t>(value)].name, {value}, {out}, {}});
  return out;
}

void Graph::set_output(int logits) {
  const Value& value = values[static_cast<std::size_t>(check_id(logits, "set_output"))];
  if (value.kind != ValueKind::node || value.type.lead == Lead::fixed || value.type.shape.rank() != 2 ||
      !core::is_floating(value.type.dtype))
    fail(ErrorCode::shape_error,
         cat("[set_output] logits are ", core::dtype_name(value.type.dtype), " ", value.type.str(),
             ", but floating [tokens, vocabulary] or [rows, vocabulary] is needed."));
  output = logits;
}

void Graph::tap(const std::string& name, int value, bool pattern) {
  const Value& tapped = values[static_cast<std::size_t>(check_id(value, "tap"))];
  for (const Tap& other : taps)
    if (other.name == name)
      fail(ErrorCode::invalid_request,
           cat("[tap] the name '", name, "' is taken: it means the value '",
               values[static_cast<std::size_t>(other.value)].name, "'."),
           "Give each value a name of its own.");
  if (tapped.kind != ValueKind::node || tapped.type.lead != Lead::tokens)
    fail(ErrorCode::invalid_request,
         cat("[tap] '", name, "' is ", tapped.kind == ValueKind::node ? "computed" : "given", " with shape ",
             tapped.type.str(), ", but only computed values of [tokens, ...] can be looked at."));
  if (pattern) {
    const int maker = producers()[static_cast<std::size_t>(value)];
    if (maker < 0 || !node_as<device::Attention>(nodes[static_cast<std::size_t>(maker)]))
      fail(ErrorCode::invalid_request,
           cat("[tap] '", name, "' asks for an attention pattern, but '", tapped.name, "' was made by no attention."));
  }
  taps.push_back({name, value, pattern});
}

bool Graph::kept(const Node& node) const {
  return keep.contains(node.name) || std::ranges::any_of(node.outputs, [&](int id) { return pinned.contains(id); });
}

void Graph::pin_taps() {
  const std::vector<int> made_by = producers();
  for (const Tap& tap : taps) {
    int value = tap.value;
    pinned.insert(value);
    if (tap.pattern) pinned.insert(nodes[static_cast<std::size_t>(made_by[static_cast<std::size_t>(value)])].inputs[0]);
    for (int maker = made_by[static_cast<std::size_t>(value)];
         maker >= 0 && is_view(nodes[static_cast<std::size_t>(maker)]);
         maker = made_by[static_cast<std::size_t>(value)]) {
      value = nodes[static_cast<std::size_t>(maker)].inputs[0];
      pinned.insert(value);
    }
  }
}

std::vector<int> Graph::use_counts() const {
  std::vector<int> counts(values.size());
  for (const Node& node : nodes) {
    for (int id : node.inputs) ++counts[static_cast<std::size_t>(id)];
    for (const Part& part : node.parts) {
      ++counts[static_cast<std::size_t>(part.weight)];
      if (part.bias >= 0) ++counts[static_cast<std::size_t>(part.bias)];
    }
  }
  if (output >= 0) ++counts[static_cast<std::size_t>(output)];
  return counts;
}

std::vector<int> Graph::producers() const {
  std::vector<int> out(values.size(), -1);
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (int id : nodes[i].outputs) out[static_cast<std::size_t>(id)] = static_cast<int>(i);
  return out;
}

void Graph::replace_uses(int from, int to) {
  for (Node& node : nodes) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  if (output == from) output = to;
}

std::string Graph::value_text(int value) const {
  const Value& v = values[static_cast<std::size_t>(value)];
  return v.kind == ValueKind::node ? "%" + std::to_string(value) : v.name;
}

std::string Graph::dump() const {
  std::ostringstream out;
  for (const Node& node : nodes) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const Value& value = values[static_cast<std::size_t>(node.outputs[i])];
      out << (i ? ", " : "") << "%" << node.outputs[i] << " " << value.type.str() << " " << brief(value.type.dtype);
    }
    out << (node.outputs.empty() ? "" : " = ");
    std::string tail;
    if (const auto* op = std::get_if<device::Op>(&node.op)) {
      out << device::op_name(*op);
      tail = attrs_text(*op);
    } else if (const auto* slice = std::get_if<Slice>(&node.op)) {
      out << "slice";
      tail = cat(slice->start, ":", slice->stop);
    } else {
      out << "reshape";
    }
    out << "(";
    bool first = true;
    const auto list = [&](int id) {
      out << (first ? "" : ", ") << value_text(id);
      first = false;
    };
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      list(node.inputs[i]);
      if (i == 0)
        for (const Part& part : node.parts) {
          list(part.weight);
          if (part.bias >= 0) list(part.bias);
        }
    }
    out << ")" << (tail.empty() ? "" : " ") << tail << "  # " << node.name << "\n";
  }
  if (output >= 0) out << "output " << value_text(output) << "\n";
  return out.str();
}

}  // namespace fastllm::graph
