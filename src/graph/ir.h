#pragma once
// The graph IR: one recorded forward pass. Values are typed; a value's first axis may be symbolic (the tokens of a
// step, or its selected rows), everything else is static. Nodes are kept in recording order, which is also the order
// they run in: passes fuse and remove nodes but never reorder two that touch the same cache. Plain data: passes edit
// it, `Graph` keeps it well typed while recording.

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/tensor.h"
#include "device/op.h"

namespace fastllm::graph {

enum class Lead : std::uint8_t { fixed, tokens, rows };

// With a symbolic lead, shape[0] is 1: the shape of one token's part.
struct Type {
  core::DType dtype = core::DType::f32;
  Lead lead = Lead::fixed;
  core::Shape shape;
  bool operator==(const Type& other) const = default;
  std::string str() const;  // "[tokens, 14, 64]"
};

enum class ValueKind : std::uint8_t { token_ids, positions, constant, node };

struct Value {
  ValueKind kind = ValueKind::node;
  Type type;
  std::string name;
  core::Tensor constant;  // for ValueKind::constant
};

// An op as named in Python: the struct of device/op.h and what only the recorder and eager calls need to know.
struct OpSpec {
  device::Op op;
  bool has_bias = false;                        // linear: a bias follows the weight
  core::DType copy_dtype = core::DType::f32;    // copy: the dtype of the result
};

// View nodes: no memory moves.
struct Reshape {
  core::Shape shape;  // axis 0 is the lead axis, unchanged
};
struct Slice {  // of the last axis
  std::int64_t start = 0;
  std::int64_t stop = 0;
};

struct Part {  // of a Linear: ids of values
  int weight = -1;
  int bias = -1;  // none
};

using NodeOp = std::variant<device::Op, Reshape, Slice>;

struct Node {
  NodeOp op;
  std::string name;
  std::vector<int> inputs;   // Linear: x, (residual)
  std::vector<int> outputs;  // none: kv_write
  std::vector<Part> parts;   // Linear
};

// The op of type T if the node is one.
template <class T>
const T* node_as(const Node& node) {
  const auto* op = std::get_if<device::Op>(&node.op);
  return op ? std::get_if<T>(op) : nullptr;
}
template <class T>
T* node_as(Node& node) {
  auto* op = std::get_if<device::Op>(&node.op);
  return op ? std::get_if<T>(op) : nullptr;
}
inline bool is_view(const Node& node) {
  return !std::holds_alternative<device::Op>(node.op);
}

// A value under the name at which people look at it ("blocks.3.attn.z"); several names may mean one value.
struct Tap {
  std::string name;
  int value = -1;
  bool pattern = false;  // not the value itself but the weights of the Attention that made it
};

// The cache of one attention layer, as its KvWrite shaped it.
struct KvShape {
  int kv_heads = 0;
  int head_dim = 0;
  int v_head_dim = 0;
  bool operator==(const KvShape&) const = default;
};

class Graph {
 public:
  // Recording. Ids index `values`. Errors: shape_error, dtype_error, invalid_request, with the node's name in the hint.
  int token_ids();
  int positions();
  int constant(const std::string& name, core::Tensor tensor);  // the same name twice: the same value
  std::vector<int> op(const OpSpec& spec, std::span<const int> inputs, const std::string& name);
  int reshape(int value, std::span<const std::int64_t> shape);  // -1 at axis 0 of a value with a symbolic lead
  int slice(int value, std::int64_t start, std::int64_t stop);
  void set_output(int logits);
  // Names a value. Error(invalid_request) for a name that is taken, a value that is no node's result or does not follow
  // the step's tokens, and for a pattern of anything but an Attention.
  void tap(const std::string& name, int value, bool pattern);

  std::string dump() const;  // one line a node
  std::string value_text(int value) const;  // "%12" or a constant's name

  // For passes.
  int add_value(Type type, std::string name);
  std::vector<int> use_counts() const;      // per value: how many node inputs, parts and graph outputs name it
  std::vector<int> producers() const;       // per value: index of its node, -1 for inputs and constants
  void replace_uses(int from, int to);      // in all nodes and the output
  std::vector<Value> values;
  std::vector<Node> nodes;
  int output = -1;
  std::map<int, KvShape> kv;       // by layer
  std::set<std::string> keep;      // names of nodes whose result passes must leave in being
  std::vector<Tap> taps;
  std::set<int> pinned;            // values that passes must leave as they are, one by one: read or edited in a step

  // True if passes must leave the node's results in being.
  bool kept(const Node& node) const;
  // Pins what the taps name, and the nodes' own results behind the views among them.
  void pin_taps();

 private:
  int check_id(int value, const char* where) const;
  int token_ids_ = -1;
  int positions_ = -1;
  std::map<std::string, int> constants_;
};

}  // namespace fastllm::graph
