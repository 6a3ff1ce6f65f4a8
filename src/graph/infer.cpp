#include "graph/infer.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/error.h"
#include "graph/attrs.h"

namespace fastllm::graph {
namespace {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::fail;
using core::Shape;
using namespace device;

constexpr const char* kCheckpointHint = "Is this the right checkpoint?";

// What every rule below is given: the op's name for messages and its inputs with their roles.
struct Rule {
  const char* name;
  std::span<const Type> in;
  const InferContext& context;

  [[noreturn]] void bad_shape(const std::string& fact, std::string hint = "") const {
    fail(ErrorCode::shape_error, cat("[", name, "] ", fact), std::move(hint));
  }
  [[noreturn]] void bad_dtype(const std::string& fact, std::string hint = "") const {
    fail(ErrorCode::dtype_error, cat("[", name, "] ", fact), std::move(hint));
  }
  void count(std::size_t wanted, const char* roles) const {
    if (in.size() != wanted)
      fail(ErrorCode::invalid_request,
           cat("[", name, "] takes ", wanted, " inputs (", roles, "), not ", in.size(), "."));
  }
  void floating(std::size_t i, const char* role) const {
    if (!core::is_floating(in[i].dtype))
      bad_dtype(cat(role, " is ", core::dtype_name(in[i].dtype), ", but a floating type is needed."));
  }
  void dtype(std::size_t i, DType wanted, const char* role) const {
    if (in[i].dtype != wanted)
      bad_dtype(cat(role, " is ", core::dtype_name(in[i].dtype), ", but ", core::dtype_name(wanted), " is needed."),
                "Cast it first.");
  }
  void rank(std::size_t i, int wanted, const char* role, const char* axes) const {
    if (in[i].shape.rank() != wanted) bad_shape(cat(role, " has shape ", in[i].str(), ", but ", axes, " is needed."));
  }
  void has_axes(std::size_t i, const char* role) const {
    if (in[i].shape.rank() == 0) bad_shape(cat(role, " is a scalar, but it needs at least one axis."));
  }
  void fixed(std::size_t i, const char* role) const {
    if (in[i].lead != Lead::fixed)
      bad_shape(cat(role, " has shape ", in[i].str(), ", but it must not depend on the step's size."));
  }
  void same_lead(std::size_t a, std::size_t b, const char* a_role, const char* b_role) const {
    if (in[a].lead != in[b].lead || in[a].shape[0] != in[b].shape[0])
      bad_shape(cat(a_role, " ", in[a].str(), " and ", b_role, " ", in[b].str(), " differ in the first axis."));
  }
  void same(std::size_t a, std::size_t b, const char* a_role, const char* b_role) const {
    if (in[a].lead != in[b].lead || !(in[a].shape == in[b].shape))
      bad_shape(cat(b_role, " has shape ", in[b].str(), ", but ", a_role, " has ", in[a].str(), "."));
    if (in[a].dtype != in[b].dtype)
      bad_dtype(cat(b_role, " is ", core::dtype_name(in[b].dtype), ", but ", a_role, " is ",
                    core::dtype_name(in[a].dtype), "."),
                "Cast one of them.");
  }
  // A [N] parameter for x's last axis.
  void vector_for(std::size_t i, std::size_t x, const char* role) const {
    fixed(i, role);
    floating(i, role);
    if (in[i].shape.rank() != 1)
      bad_shape(cat(role, " has shape ", in[i].str(), ", but one axis is needed."), kCheckpointHint);
    if (in[i].shape[0] != in[x].shape.back())
      bad_shape(cat(role, " has ", in[i].shape[0], " elements but x's last axis is ", in[x].shape.back(), "."),
                kCheckpointHint);
  }
};

using Types = std::vector<Type>;

Types infer_op(const Embedding&, const Rule& r, const OpSpec&) {
  r.count(2, "ids, weight");
  r.dtype(0, DType::i32, "ids");
  r.rank(0, 1, "ids", "[tokens]");
  r.floating(1, "weight");
  r.fixed(1, "weight");
  r.rank(1, 2, "weight", "[vocabulary, features]");
  return {{r.context.activation, r.in[0].lead, Shape{r.in[0].shape[0], r.in[1].shape[1]}}};
}

Types infer_op(const Linear& op, const Rule& r, const OpSpec& spec) {
  const std::size_t bias = 2;
  const std::size_t residual = spec.has_bias ? 3 : 2;
  const char* roles = spec.has_bias ? (op.add_residual ? "x, weight, bias, residual" : "x, weight, bias")
                                    : (op.add_residual ? "x, weight, residual" : "x, weight");
  r.count(residual + (op.add_residual ? 1 : 0), roles);
  r.floating(0, "x");
  r.rank(0, 2, "x", "[tokens, features]");
  r.floating(1, "weight");
  r.fixed(1, "weight");
  r.rank(1, 2, "weight", "[out, in]");
  if (r.in[1].shape[1] != r.in[0].shape[1])
    r.bad_shape(cat("weight has shape ", r.in[1].str(), " but x's last axis is ", r.in[0].shape[1], "."),
                kCheckpointHint);
  const std::int64_t out_features = r.in[1].shape[0];
  if (spec.has_bias) {
    r.floating(bias, "bias");
    r.fixed(bias, "bias");
    r.rank(bias, 1, "bias", "[out]");
    if (r.in[bias].shape[0] != out_features)
      r.bad_shape(cat("bias has ", r.in[bias].shape[0], " elements but weight has ", out_features, " rows."),
                  kCheckpointHint);
  }
  const Type out{r.in[0].dtype, r.in[0].lead, Shape{r.in[0].shape[0], out_features}};
  if (op.add_residual && !(r.in[residual] == out))
    r.bad_shape(cat("residual is ", core::dtype_name(r.in[residual].dtype), " ", r.in[residual].str(),
                    " but the product is ", core::dtype_name(out.dtype), " ", out.str(), "."));
  return {out};
}

// The leading axes of two operands, broadcast as numpy does; `skip` trailing axes are left out.
Type broadcast(const Rule& r, const Type& a, const Type& b, int skip) {
  const int rank_a = a.shape.rank() - skip;
  const int rank_b = b.shape.rank() - skip;
  const int rank = std::max(rank_a, rank_b);
  std::array<std::int64_t, core::kMaxRank> dims{};
  Lead lead = Lead::fixed;
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - rank_a);
    const int ib = i - (rank - rank_b);
    const bool symbolic_a = ia == 0 && a.lead != Lead::fixed;
    const bool symbolic_b = ib == 0 && b.lead != Lead::fixed;
    const std::int64_t da = ia < 0 ? 1 : a.shape[ia];
    const std::int64_t db = ib < 0 ? 1 : b.shape[ib];
    const bool fits = symbolic_a && symbolic_b ? a.lead == b.lead
                      : symbolic_a             ? db == 1
                      : symbolic_b             ? da == 1
                                               : da == db || da == 1 || db == 1;
    if (!fits || ((symbolic_a || symbolic_b) && i != 0))
      r.bad_shape(cat("shapes ", a.str(), " and ", b.str(), " do not broadcast together."));
    if (symbolic_a) lead = a.lead;
    if (symbolic_b) lead = b.lead;
    dims[static_cast<std::size_t>(i)] = da == 1 ? db : da;
  }
  return {a.dtype, lead, Shape(std::span(dims.data(), static_cast<std::size_t>(rank)))};
}

Types infer_op(const MatMul&, const Rule& r, const OpSpec&) {
  r.count(2, "a, b");
  r.floating(0, "a");
  r.floating(1, "b");
  const Type& a = r.in[0];
  const Type& b = r.in[1];
  if (a.shape.rank() < 2 || b.shape.rank() < 2)
    r.bad_shape(cat("shapes ", a.str(), " and ", b.str(), ": both need at least two axes."));
  if (b.shape.rank() == 2 && b.lead != Lead::fixed)
    r.bad_shape(cat("b has shape ", b.str(), ", but its next to last axis must not depend on the step's size."));
  const std::int64_t k = a.shape.back();
  if (b.shape[b.shape.rank() - 2] != k)
    r.bad_shape(
        cat("a ", a.str(), " has ", k, " columns but b ", b.str(), " has ", b.shape[b.shape.rank() - 2], " rows."));
  Type left = a;  // a's own lead lies in the matrix part when a has two axes
  if (a.shape.rank() == 2) left.lead = Lead::fixed;
  const Type outer = broadcast(r, left, b, 2);
  if (a.shape.rank() == 2 && a.lead != Lead::fixed && outer.shape.rank() > 0)
    r.bad_shape(cat("shapes ", a.str(), " and ", b.str(), ": the symbolic axis would not stay first."));
  std::vector<std::int64_t> dims(outer.shape.dims().begin(), outer.shape.dims().end());
  dims.push_back(a.shape[a.shape.rank() - 2]);
  dims.push_back(b.shape.back());
  if (dims.size() > static_cast<std::size_t>(core::kMaxRank))
    r.bad_shape(cat("shapes ", a.str(), " and ", b.str(), " have too many axes."));
  const DType dtype = a.dtype == b.dtype ? a.dtype : DType::f32;
  return {{dtype, a.shape.rank() == 2 ? a.lead : outer.lead, Shape(std::span<const std::int64_t>(dims))}};
}

Types infer_op(const RmsNorm&, const Rule& r, const OpSpec&) {
  r.count(2, "x, weight");
  r.floating(0, "x");
  r.has_axes(0, "x");
  r.vector_for(1, 0, "weight");
  return {r.in[0]};
}

Types infer_op(const AddRmsNorm&, const Rule& r, const OpSpec&) {
  r.count(3, "x, residual, weight");
  r.floating(0, "x");
  r.has_axes(0, "x");
  r.same(0, 1, "x", "residual");
  r.vector_for(2, 0, "weight");
  return {r.in[0], r.in[0]};
}

Types infer_op(const LayerNorm&, const Rule& r, const OpSpec&) {
  r.count(3, "x, weight, bias");
  r.floating(0, "x");
  r.has_axes(0, "x");
  r.vector_for(1, 0, "weight");
  r.vector_for(2, 0, "bias");
  return {r.in[0]};
}

Types infer_op(const Rope& op, const Rule& r, const OpSpec&) {
  const bool two_tables = op.length == RopeLength::long_short;
  r.count(two_tables ? 4 : 3, two_tables ? "x, positions, inv_freq, long_inv_freq" : "x, positions, inv_freq");
  r.floating(0, "x");
  r.rank(0, 3, "x", "[tokens, heads, head_dim]");
  r.dtype(1, DType::i32, "positions");
  r.rank(1, 1, "positions", "[tokens]");
  r.same_lead(0, 1, "x", "positions");
  if (op.rotary_dim <= 0 || op.rotary_dim % 2 != 0 || op.rotary_dim > r.in[0].shape[2])
    r.bad_shape(cat("rotary_dim is ", op.rotary_dim, " but head_dim is ", r.in[0].shape[2], "."),
                "It must be even, positive and at most head_dim.");
  for (std::size_t i = 2; i < r.in.size(); ++i) {
    const char* role = i == 2 ? "inv_freq" : "long_inv_freq";
    r.fixed(i, role);
    r.dtype(i, DType::f32, role);
    if (r.in[i].shape.rank() != 1 || r.in[i].shape[0] != op.rotary_dim / 2)
      r.bad_shape(cat(role, " has shape ", r.in[i].str(), " but rotary_dim is ", op.rotary_dim, "."),
                  "It needs rotary_dim / 2 elements.");
  }
  return {r.in[0]};
}

Types infer_op(const KvWrite& op, const Rule& r, const OpSpec&) {
  r.count(2, "k, v");
  r.floating(0, "k");
  r.floating(1, "v");
  r.rank(0, 3, "k", "[tokens, kv_heads, head_dim]");
  r.rank(1, 3, "v", "[tokens, kv_heads, v_head_dim]");
  r.same_lead(0, 1, "k", "v");
  if (r.in[0].lead == Lead::rows)
    r.bad_shape(cat("k has shape ", r.in[0].str(), ", but all tokens must enter the cache."));
  if (r.in[0].shape[1] != r.in[1].shape[1])
    r.bad_shape(cat("k ", r.in[0].str(), " and v ", r.in[1].str(), " differ in their heads."));
  if (!r.context.kv) fail(ErrorCode::invalid_request, "[kv_write] needs a step that holds the cache.", "Pass step=.");
  const KvShape shape{static_cast<int>(r.in[0].shape[1]), static_cast<int>(r.in[0].shape[2]),
                      static_cast<int>(r.in[1].shape[2])};
  const auto [entry, fresh] = r.context.kv->try_emplace(op.layer, shape);
  if (!fresh && !(entry->second == shape))
    r.bad_shape(cat("layer ", op.layer, " caches ", entry->second.kv_heads, " heads of ", entry->second.head_dim,
                    " and ", entry->second.v_head_dim, " channels, but k is ", r.in[0].str(), " and v is ",
                    r.in[1].str(), "."));
  return {};
}

Types infer_op(const RopeKvWrite&, const Rule&, const OpSpec&) {
  fail(ErrorCode::invalid_request, "[rope_kv_write] is made by a pass of the compiler and has no shape rule.",
       "Call rope and kv_write.");
}

Types infer_op(const RopeAttention&, const Rule&, const OpSpec&) {
  fail(ErrorCode::invalid_request, "[rope_attention] is made by a pass of the compiler and has no shape rule.",
       "Call rope, kv_write and attention.");
}

Types infer_op(const Attention& op, const Rule& r, const OpSpec&) {
  r.count(1, "q");
  r.floating(0, "q");
  r.rank(0, 3, "q", "[tokens, heads, head_dim]");
  if (r.in[0].lead == Lead::rows)
    r.bad_shape(cat("q has shape ", r.in[0].str(), ", but attention runs over all tokens of a step."));
  if (!r.context.kv) fail(ErrorCode::invalid_request, "[attention] needs a step that holds the cache.", "Pass step=.");
  const auto found = r.context.kv->find(op.layer);
  if (found == r.context.kv->end())
    fail(ErrorCode::invalid_request, cat("[attention] layer ", op.layer, " has no keys."),
         "Call kv_write for this layer first.");
  const KvShape& kv = found->second;
  if (r.in[0].shape[2] != kv.head_dim)
    r.bad_shape(
        cat("q has head_dim ", r.in[0].shape[2], " but the keys of layer ", op.layer, " have ", kv.head_dim, "."));
  if (kv.kv_heads == 0 || r.in[0].shape[1] % kv.kv_heads != 0)
    r.bad_shape(cat("q has ", r.in[0].shape[1], " heads, no multiple of the ", kv.kv_heads, " key heads of layer ",
                    op.layer, "."));
  return {{r.in[0].dtype, r.in[0].lead, Shape{r.in[0].shape[0], r.in[0].shape[1], kv.v_head_dim}}};
}

Types infer_op(const Unary&, const Rule& r, const OpSpec&) {
  r.count(1, "x");
  r.floating(0, "x");
  return {r.in[0]};
}

Types infer_op(const Binary&, const Rule& r, const OpSpec&) {
  r.count(2, "a, b");
  if (r.in[0].dtype != r.in[1].dtype)
    r.bad_dtype(cat("a is ", core::dtype_name(r.in[0].dtype), " but b is ", core::dtype_name(r.in[1].dtype), "."),
                "Cast one of them.");
  return {broadcast(r, r.in[0], r.in[1], 0)};
}

Types infer_op(const Affine&, const Rule& r, const OpSpec&) {
  r.count(1, "x");
  r.floating(0, "x");
  return {r.in[0]};
}

Types infer_op(const GatedActivation&, const Rule& r, const OpSpec&) {
  r.count(2, "gate, up");
  r.floating(0, "gate");
  r.rank(0, 2, "gate", "[tokens, features]");
  r.same(0, 1, "gate", "up");
  return {r.in[0]};
}

Types infer_op(const Softmax&, const Rule& r, const OpSpec&) {
  r.count(1, "x");
  r.floating(0, "x");
  r.has_axes(0, "x");
  return {{DType::f32, r.in[0].lead, r.in[0].shape}};
}

Types infer_op(const SelectRows&, const Rule& r, const OpSpec&) {
  if (r.in.empty() || r.in.size() > 2) r.count(1, "x");
  r.rank(0, 2, "x", "[tokens, features]");
  if (r.in.size() == 2) {
    r.dtype(1, DType::i32, "rows");
    r.rank(1, 1, "rows", "[rows]");
    if (r.in[0].lead != Lead::fixed)
      r.bad_shape(cat("x has shape ", r.in[0].str(), ": a graph selects the step's own rows."),
                  "Leave the second input out.");
    return {{r.in[0].dtype, Lead::fixed, Shape{r.in[1].shape[0], r.in[0].shape[1]}}};
  }
  if (r.in[0].lead != Lead::tokens)
    r.bad_shape(cat("x has shape ", r.in[0].str(), ", but its first axis must be the step's tokens."));
  return {{r.in[0].dtype, Lead::rows, r.in[0].shape}};
}

Types infer_op(const Copy&, const Rule& r, const OpSpec& spec) {
  r.count(1, "x");
  return {{spec.copy_dtype, r.in[0].lead, r.in[0].shape}};
}

}  // namespace

std::vector<Type> infer(const OpSpec& spec, std::span<const Type> inputs, const InferContext& context) {
  const Rule rule{op_name(spec.op), inputs, context};
  return std::visit([&](const auto& op) { return infer_op(op, rule, spec); }, spec.op);
}

}  // namespace fastllm::graph
