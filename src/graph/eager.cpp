#include "graph/eager.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "graph/infer.h"

namespace fastllm::graph {
namespace {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::fail;
using core::Shape;
using core::Tensor;
using namespace device;

constexpr int kBlockTokens = 16;

Tensor allocate(Backend& backend, DType dtype, const Shape& shape) {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * core::dtype_size(dtype);
  return Tensor(backend.allocate(std::max<std::size_t>(bytes, 1)), dtype, shape);
}

bool last_axis_contiguous(const Tensor& t) {
  const int rank = t.shape().rank();
  return rank == 0 || t.shape()[rank - 1] <= 1 || t.strides()[rank - 1] == 1;
}

// Ids reach into memory: a bad one must be an error and not a wild read.
void check_indices(Backend& backend, const char* op, const char* role, const Tensor& ids, std::int64_t limit) {
  if (ids.dtype() != DType::i32 || ids.shape().rank() != 1) return;  // infer() says so better
  const Tensor packed = as_contiguous(backend, ids);
  std::vector<std::int32_t> host(static_cast<std::size_t>(packed.numel()));
  if (host.empty()) return;
  backend.copy_out(host.data(), packed.data(), host.size() * sizeof(std::int32_t));
  for (std::int32_t id : host)
    if (id < 0 || id >= limit)
      fail(ErrorCode::invalid_request, cat("[", op, "] ", role, " holds ", id, ", outside 0..", limit - 1, "."));
}

std::vector<Tensor> launch(Backend& backend, const Op& op, std::span<const Tensor> inputs, std::vector<Tensor> outputs,
                           const PackedLinear* linear, const StepView* step) {
  std::vector<View> in;
  std::vector<View> out;
  for (const Tensor& t : inputs) in.push_back(view_of(t));
  for (const Tensor& t : outputs) out.push_back(view_of(t));
  const std::lock_guard lock(backend.mutex());
  const StepView staged = step && step->tokens ? backend.stage(*step) : (step ? *step : StepView{});
  backend.run({op, in, out, linear}, step ? &staged : nullptr);
  backend.synchronize();
  return outputs;
}

std::vector<Type> types_of(std::span<const Tensor> tensors) {
  std::vector<Type> types;
  for (const Tensor& t : tensors) types.push_back({t.dtype(), Lead::fixed, t.shape()});
  return types;
}

std::vector<Tensor> run_linear(Backend& backend, const OpSpec& spec, std::vector<Tensor> in) {
  const auto& op = std::get<Linear>(spec.op);
  // [..., K] works like [tokens, K]: the product does not care how its rows are arranged.
  const Shape given = in.empty() ? Shape{} : in[0].shape();
  const std::size_t residual = spec.has_bias ? 3 : 2;
  const auto flatten = [&](Tensor& t) {
    if (t.shape().rank() == 2 || t.shape().rank() == 0) return;
    const Tensor packed = as_contiguous(backend, t);
    t = packed.reshape({t.shape().back() ? t.numel() / t.shape().back() : 0, t.shape().back()});
  };
  if (!in.empty()) flatten(in[0]);
  if (op.add_residual && in.size() > residual) flatten(in[residual]);
  const std::vector<Type> types = infer(spec, types_of(in), {in.empty() ? DType::f32 : in[0].dtype(), nullptr});
  for (Tensor& t : in) t = as_contiguous(backend, t, false);
  LinearPart part{as_contiguous(backend, in[1]), spec.has_bias ? as_dtype(backend, in[2], DType::f32) : Tensor()};
  const std::unique_ptr<PackedLinear> packed = backend.pack_linear({&part, 1});
  std::vector<Tensor> operands{in[0]};
  if (op.add_residual) operands.push_back(in[residual]);
  std::vector<Tensor> out =
      launch(backend, spec.op, operands, {allocate(backend, types[0].dtype, types[0].shape)}, packed.get(), nullptr);
  if (given.rank() != 2) {
    Shape shape = given;
    shape[shape.rank() - 1] = types[0].shape[1];
    out[0] = out[0].reshape(shape);
  }
  return out;
}

}  // namespace

View view_of(const Tensor& t) {
  return {t.data(), t.dtype(), t.shape(), t.strides()};
}

Tensor as_contiguous(Backend& backend, const Tensor& tensor, bool all) {
  if (all ? tensor.contiguous() : last_axis_contiguous(tensor)) return tensor;
  return launch(backend, Copy{}, {&tensor, 1}, {allocate(backend, tensor.dtype(), tensor.shape())}, nullptr,
                nullptr)[0];
}

Tensor as_dtype(Backend& backend, const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return as_contiguous(backend, tensor);
  return launch(backend, Copy{}, {&tensor, 1}, {allocate(backend, dtype, tensor.shape())}, nullptr, nullptr)[0];
}

EagerStep::EagerStep(std::shared_ptr<Backend> backend, std::vector<engine::KvSpec> layers, std::int64_t capacity)
    : backend_(std::move(backend)), capacity_(capacity) {
  if (capacity <= 0 || capacity > (1 << 28))
    fail(ErrorCode::invalid_request, cat("[eager_step] capacity is ", capacity, " tokens, outside 1..", 1 << 28, "."));
  const std::int64_t blocks = (capacity + kBlockTokens - 1) / kBlockTokens;
  for (const engine::KvSpec& layer : layers) {
    if (layer.kv_heads <= 0 || layer.head_dim <= 0 || layer.v_head_dim <= 0)
      fail(ErrorCode::invalid_request, cat("[eager_step] a layer of ", layer.kv_heads, " heads of ", layer.head_dim,
                                           " and ", layer.v_head_dim, " channels has no size."));
    const std::size_t row =
        static_cast<std::size_t>(blocks * kBlockTokens * layer.kv_heads) * core::dtype_size(layer.dtype);
    cache_.push_back(backend_->allocate(row * static_cast<std::size_t>(layer.head_dim)));
    cache_.push_back(backend_->allocate(row * static_cast<std::size_t>(layer.v_head_dim)));
    kv_shapes_[static_cast<int>(layers_.size())] = {layer.kv_heads, layer.head_dim, layer.v_head_dim};
    layers_.push_back({cache_[cache_.size() - 2]->data(), cache_.back()->data(), layer.kv_heads, layer.head_dim,
                       layer.v_head_dim, layer.dtype});
  }
  block_table_.resize(static_cast<std::size_t>(blocks));
  std::iota(block_table_.begin(), block_table_.end(), 0);
  view_.sequences = 1;
  view_.max_blocks = static_cast<int>(blocks);
  view_.block_tokens = kBlockTokens;
  view_.block_table = block_table_.data();
  view_.query_start = query_start_;
  view_.kv_len = &kv_len_;
  view_.rope_len = &rope_len_;
  view_.kv = layers_;
  token_ids_ = upload({});
  positions_ = token_ids_;
}

Tensor EagerStep::upload(std::span<const std::int32_t> data) const {
  Tensor out = allocate(*backend_, DType::i32, Shape{static_cast<std::int64_t>(data.size())});
  if (!data.empty()) backend_->copy_in(out.data(), data.data(), data.size_bytes());
  return out;
}

void EagerStep::begin(std::span<const std::int32_t> token_ids, std::int64_t rope_len) {
  const auto count = static_cast<std::int64_t>(token_ids.size());
  if (count == 0) fail(ErrorCode::invalid_request, "[eager_step] a step needs at least one token.");
  if (length_ + count > capacity_)
    fail(ErrorCode::context_too_long,
         cat("[eager_step] ", count, " tokens behind ", length_, " do not fit into the capacity of ", capacity_, "."),
         "Make the step with a larger capacity.");
  ids_host_.assign(token_ids.begin(), token_ids.end());
  positions_host_.resize(token_ids.size());
  std::iota(positions_host_.begin(), positions_host_.end(), static_cast<std::int32_t>(length_));
  slots_.assign(positions_host_.begin(), positions_host_.end());
  sequence_of_.assign(token_ids.size(), 0);
  token_ids_ = upload(ids_host_);
  positions_ = upload(positions_host_);
  length_ += count;
  query_start_[1] = static_cast<std::int32_t>(count);
  kv_len_ = static_cast<std::int32_t>(length_);
  rope_len_ = static_cast<std::int32_t>(std::max<std::int64_t>(rope_len, length_));
  view_.tokens = static_cast<int>(count);
  view_.max_kv_len = view_.max_blocks * kBlockTokens;
  view_.rows = 0;
  view_.token_ids = ids_host_.data();
  view_.positions = positions_host_.data();
  view_.sequence_of = sequence_of_.data();
  view_.slots = slots_.data();
}

StepView EagerStep::with_rows(std::span<const std::int32_t> rows) const {
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i] < 0 || rows[i] >= view_.tokens || (i && rows[i] <= rows[i - 1]))
      fail(ErrorCode::invalid_request,
           cat("[eager_step] row ", rows[i], " is no row of this step's ", view_.tokens, " tokens, or out of order."),
           "Rows are ascending indices into the step's tokens.");
  StepView view = view_;
  view.rows = static_cast<int>(rows.size());
  view.selected_rows = rows.data();
  return view;
}

std::vector<Tensor> run_eager(Backend& backend, const OpSpec& spec, std::vector<Tensor> inputs, const EagerStep* step) {
  const char* name = op_name(spec.op);
  for (const Tensor& t : inputs)
    if (!t.place().host && t.place().name != backend.info().name)
      fail(ErrorCode::invalid_request,
           cat("[", name, "] an input lives on ", t.place().name, ", but the op runs on ", backend.info().name, "."),
           "Move it with to_device().");
  for (Tensor& t : inputs) t = backend.place(t);
  if (std::holds_alternative<Linear>(spec.op)) return run_linear(backend, spec, std::move(inputs));

  std::map<int, KvShape> kv;
  if (step) kv = step->kv_shapes();
  DType activation = DType::f32;
  if (std::holds_alternative<Embedding>(spec.op) && inputs.size() > 1)
    activation = backend.activation_dtype(inputs[1].dtype());
  const std::vector<Type> types = infer(spec, types_of(inputs), {activation, step ? &kv : nullptr});
  const bool cached = std::holds_alternative<KvWrite>(spec.op) || std::holds_alternative<Attention>(spec.op);
  if (cached && kv.size() != step->kv_shapes().size())
    fail(ErrorCode::invalid_request,
         cat("[", name, "] the step has ", step->kv_shapes().size(), " layers, and not this one."));
  if (cached && inputs[0].shape()[0] != step->view().tokens)
    fail(ErrorCode::shape_error,
         cat("[", name, "] the input has ", inputs[0].shape()[0], " tokens, but the step has ", step->view().tokens,
             "."),
         "Call step.begin with this step's tokens first.");
  if (const auto* rope = std::get_if<Rope>(&spec.op); rope && rope->length != RopeLength::fixed) {
    if (!step) fail(ErrorCode::invalid_request, "[rope] this scaling depends on the sequence's length.", "Pass step=.");
    if (inputs[0].shape()[0] != step->view().tokens)
      fail(ErrorCode::shape_error,
           cat("[rope] x has ", inputs[0].shape()[0], " tokens, but the step has ", step->view().tokens, "."));
  }
  if (std::holds_alternative<Embedding>(spec.op)) check_indices(backend, name, "ids", inputs[0], inputs[1].shape()[0]);
  if (std::holds_alternative<SelectRows>(spec.op) && inputs.size() == 2)
    check_indices(backend, name, "rows", inputs[1], inputs[0].shape()[0]);

  const bool any_strides = std::holds_alternative<MatMul>(spec.op) || std::holds_alternative<Unary>(spec.op) ||
                           std::holds_alternative<Copy>(spec.op);
  std::vector<Tensor> operands;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Tensor t = any_strides ? inputs[i] : as_contiguous(backend, inputs[i], false);
    // Vectors that parametrise a norm are small: one dtype for them spares the kernels three.
    const bool parameter =
        i > 0 && (std::holds_alternative<RmsNorm>(spec.op) || std::holds_alternative<LayerNorm>(spec.op) ||
                  (i == 2 && std::holds_alternative<AddRmsNorm>(spec.op)));
    operands.push_back(parameter ? as_dtype(backend, t, DType::f32) : std::move(t));
  }
  if (std::holds_alternative<SelectRows>(spec.op) && operands.size() == 2)
    operands[1] = as_contiguous(backend, operands[1]);
  std::vector<Tensor> outputs;
  for (const Type& type : types) outputs.push_back(allocate(backend, type.dtype, type.shape));
  return launch(backend, spec.op, operands, std::move(outputs), nullptr, step ? &step->view() : nullptr);
}

}  // namespace fastllm::graph
