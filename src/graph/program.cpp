#include "graph/program.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/out_of_memory.h"
#include "graph/eager.h"
#include "graph/infer.h"
#include "graph/passes/passes.h"

namespace fastllm::graph {
namespace {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::fail;
using core::Shape;
using core::Tensor;
using device::View;

std::size_t index(int id) {
  return static_cast<std::size_t>(id);
}

// The inputs of a node in the order infer() and run_eager() take them.
std::vector<int> recorded_inputs(const Node& node) {
  std::vector<int> ids = node.inputs;
  if (!node.parts.empty()) {
    std::vector<int> weights{node.parts[0].weight};
    if (node.parts[0].bias >= 0) weights.push_back(node.parts[0].bias);
    ids.insert(ids.begin() + 1, weights.begin(), weights.end());
  }
  return ids;
}

OpSpec spec_of(const Graph& graph, const Node& node) {
  OpSpec spec{std::get<device::Op>(node.op)};
  spec.has_bias = !node.parts.empty() && node.parts[0].bias >= 0;
  if (!node.outputs.empty()) spec.copy_dtype = graph.values[index(node.outputs[0])].type.dtype;
  return spec;
}

// What depends on constants alone is computed now, once.
void fold_constants(Graph& graph, device::Backend& backend) {
  std::vector<bool> folded(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.outputs.empty() || graph.values[index(node.outputs[0])].type.lead != Lead::fixed) continue;
    std::vector<Tensor> inputs;
    for (int id : recorded_inputs(node)) inputs.push_back(graph.values[index(id)].constant);
    std::vector<Tensor> results;
    if (const auto* slice = std::get_if<Slice>(&node.op)) {
      results = {inputs[0].slice(inputs[0].shape().rank() - 1, slice->start, slice->stop)};
    } else if (const auto* reshape = std::get_if<Reshape>(&node.op)) {
      const bool viewable = core::reshape_strides(inputs[0].shape(), inputs[0].strides(), reshape->shape).has_value();
      results = {(viewable ? inputs[0] : as_contiguous(backend, inputs[0])).reshape(reshape->shape)};
    } else {
      results = run_eager(backend, spec_of(graph, node), std::move(inputs), nullptr);
    }
    for (std::size_t o = 0; o < results.size(); ++o) {
      Value& value = graph.values[index(node.outputs[o])];
      value.kind = ValueKind::constant;
      value.constant = results[o];
    }
    folded[i] = true;
  }
  remove_nodes(graph, folded);
}

// Types again, with the dtype this device computes in.
void retype(Graph& graph, DType activation) {
  std::map<int, KvShape> kv;
  for (const Node& node : graph.nodes) {
    if (is_view(node)) {
      graph.values[index(node.outputs[0])].type.dtype = graph.values[index(node.inputs[0])].type.dtype;
      continue;
    }
    std::vector<Type> inputs;
    for (int id : recorded_inputs(node)) inputs.push_back(graph.values[index(id)].type);
    const std::vector<Type> types = infer(spec_of(graph, node), inputs, {activation, &kv});
    for (std::size_t o = 0; o < types.size(); ++o) graph.values[index(node.outputs[o])].type = types[o];
  }
}

// The cache write within a fused node, if it has one.
const device::RopeKvWrite* fused_write(const Node& node) {
  if (const auto* both = node_as<device::RopeAttention>(node)) return &both->write;
  return node_as<device::RopeKvWrite>(node);
}

DType weight_dtype(const Graph& graph) {
  for (const Node& node : graph.nodes)
    if (!node.parts.empty()) return graph.values[index(node.parts[0].weight)].type.dtype;
  return DType::f32;
}

DType cache_dtype(const Graph& graph, const std::string& name) {
  if (name == "fp8" || name == "fp8_e4m3") return DType::f8_e4m3;
  const auto named = name == "auto" ? std::optional(weight_dtype(graph)) : core::dtype_from_name(name);
  const bool coded = name != "auto" && named == DType::f8_e4m3;
  const bool known = named && (*named == DType::f32 || core::is_half(*named) || coded);
  if (known) return *named;
  if (name == "auto") return DType::f32;
  fail(ErrorCode::invalid_config, cat("[program] kv_dtype is '", name, "'."),
       "Use auto, float32, float16, bfloat16 or fp8.");
}

// Constants on the device, in the form its kernels read: norm weights as float32 (exact, and small), rows contiguous.
// `there`: products whose weights are on the device already. What only products read stays where it is until they are
// packed, one by one: a model that fits as codes need never fit as it comes.
void place_constants(Graph& graph, device::Backend& backend,
                     const std::vector<std::shared_ptr<device::PackedLinear>>& there) {
  std::set<int> norm_weights;
  std::set<int> others;
  std::set<int> packed;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const bool norm =
        node_as<device::RmsNorm>(node) || node_as<device::LayerNorm>(node) || node_as<device::AddRmsNorm>(node);
    const device::RopeKvWrite* fused = fused_write(node);
    for (std::size_t in = 0; in < node.inputs.size(); ++in)
      (norm || (fused && fused->normed && in + 2 >= node.inputs.size()) ? norm_weights : others)
          .insert(node.inputs[in]);
    if (there[i]) continue;
    for (const Part& part : node.parts) packed.insert({part.weight, part.bias});
  }
  for (std::size_t v = 0; v < graph.values.size(); ++v) {
    Value& value = graph.values[v];
    const bool is_norm = norm_weights.contains(static_cast<int>(v));
    const bool is_other = others.contains(static_cast<int>(v));
    if (value.kind != ValueKind::constant) continue;
    if (!is_norm && !is_other) {
      if (!packed.contains(static_cast<int>(v))) value.constant = Tensor();  // folded away, or in a shared product
      continue;
    }
    Tensor placed = as_contiguous(backend, backend.place(value.constant), false);
    if (is_norm && !is_other) placed = as_dtype(backend, placed, DType::f32);
    value.constant = placed;
    value.type.dtype = placed.dtype();
  }
}

}  // namespace

Program::Program(const Graph& graph, std::shared_ptr<device::Backend> backend, const ProgramOptions& options)
    : backend_(std::move(backend)),
      graph_(graph),
      context_length_(options.context_length),
      quant_(options.share && !options.quant ? options.share->quant_ : options.quant) {
  if (graph_.output < 0)
    fail(ErrorCode::invalid_request, "[program] the graph has no output.", "Call set_output with the logits.");
  if (context_length_ < 1)
    fail(ErrorCode::invalid_config, cat("[program] context_length is ", context_length_, "."),
         "Use a positive number.");
  note_origins();
  lower(options);
  describe(options);
  describe_taps();
  pack_weights();
}

void Program::lower(const ProgramOptions& options) {
  fold_constants(graph_, *backend_);
  const DType activation = backend_->activation_dtype(weight_dtype(graph_));
  if (activation != DType::f32) retype(graph_, activation);
  if (options.probes) {
    graph_.pin_taps();
  } else {
    graph_.taps.clear();
  }
  std::vector<std::string> names;
  if (options.passes) {
    names = *options.passes;
  } else {
    for (const Pass& pass : all_passes()) names.emplace_back(pass.name);
  }
  run_passes(graph_, names);
  // Whatever the passes: logits of the selected rows, in float32.
  Type type = graph_.values[index(graph_.output)].type;
  const auto append = [&](device::Op op, const char* name) {
    const int out = graph_.add_value(type, name);
    graph_.nodes.push_back({std::move(op), name, {graph_.output}, {out}, {}});
    graph_.output = out;
  };
  if (type.lead == Lead::tokens) {
    type.lead = Lead::rows;
    append(device::SelectRows{}, "select_rows");
  }
  if (type.dtype != DType::f32) {
    type.dtype = DType::f32;
    append(device::Copy{}, "logits");
  }
  if (!options.passes) run_passes(graph_, backend_->fusions());
  if (options.probes && options.share) share_gated(*options.share);
  legalize_views(graph_);
  // A copy where the output is a view of something wider, so that logits are rows end to end.
  const std::vector<int> producers = graph_.producers();
  if (is_view(graph_.nodes[index(producers[index(graph_.output)])])) append(device::Copy{}, "logits");
  dead_code(graph_);
  packed_.resize(graph_.nodes.size());
  if (options.share) find_shared(*options.share);
  place_constants(graph_, *backend_, packed_);
}

void Program::describe(const ProgramOptions& options) {
  vocab_size_ = static_cast<int>(graph_.values[index(graph_.output)].type.shape.back());
  const DType dtype = cache_dtype(graph_, options.kv_dtype);
  std::map<int, KvShape> written;
  std::map<int, int> windows;
  for (const Node& node : graph_.nodes) {
    if (const auto* write = node_as<device::KvWrite>(node)) written[write->layer] = graph_.kv.at(write->layer);
    const auto* attention = node_as<device::Attention>(node);
    if (const auto* both = node_as<device::RopeAttention>(node)) attention = &both->attention;
    if (attention) {
      const auto [entry, fresh] = windows.try_emplace(attention->layer, attention->window);
      if (!fresh) entry->second = entry->second && attention->window ? std::max(entry->second, attention->window) : 0;
    }
    const auto* rope = node_as<device::Rope>(node);
    if (const device::RopeKvWrite* fused = fused_write(node)) {
      written[fused->layer] = graph_.kv.at(fused->layer);
      rope = &fused->rope;
    }
    if (rope && rope->length != device::RopeLength::fixed)
      rope_original_max_ =
          rope_original_max_ ? std::min(rope_original_max_, rope->original_max) : std::max(rope->original_max, 1);
    if (node_as<device::Embedding>(node)) {
      const Value& ids = graph_.values[index(node.inputs[0])];
      const std::int64_t rows = graph_.values[index(node.inputs[1])].type.shape[0];
      if (ids.kind == ValueKind::token_ids && rows < vocab_size_)
        fail(ErrorCode::shape_error,
             cat("[program] the vocabulary has ", vocab_size_, " tokens but the embedding '", node.name, "' has ", rows,
                 " rows."),
             "Is this the right checkpoint?");
      if (ids.kind == ValueKind::positions && rows < context_length_)
        fail(ErrorCode::shape_error,
             cat("[program] context_length is ", context_length_, " but the position table '", node.name, "' has ",
                 rows, " rows."),
             "Use a shorter context.");
    }
  }
  for (const auto& [layer, shape] : written) {
    if (layer != static_cast<int>(kv_layers_.size()))
      fail(ErrorCode::invalid_request, cat("[program] attention layers must be numbered 0, 1, 2 ...: ",
                                           kv_layers_.size(), " is missing, ", layer, " is there."));
    kv_layers_.push_back(
        {shape.kv_heads, shape.head_dim, shape.v_head_dim, windows.contains(layer) ? windows[layer] : 0, dtype});
  }
}

void Program::pack_weights() {
  std::set<std::pair<const core::Storage*, std::int64_t>> counted;  // one weight may have two names
  const auto count = [&](int id) {
    const Value& value = graph_.values[index(id)];
    if (value.kind == ValueKind::constant &&
        counted.emplace(value.constant.storage().get(), value.constant.offset_bytes()).second)
      weight_bytes_ += value.constant.nbytes();
  };
  // Where packing copies, the original goes as soon as its last user is packed, so that two copies of a model never
  // have to fit. On the host it is the mapped file, or numbers that kernels read as they are, and stays.
  const bool on_host = backend_->allocate(1)->place().host;
  std::map<int, int> users;
  for (const Node& node : graph_.nodes) {
    for (int id : node.inputs) ++users[id];
    for (const Part& part : node.parts) {
      ++users[part.weight];
      ++users[part.bias];
    }
  }
  const auto release = [&](const Part& part) {
    for (int id : {part.weight, part.bias})
      if (--users[id] == 0 && id >= 0 && !on_host) graph_.values[index(id)].constant = Tensor();
  };
  const auto pack_options = [&](const Node& node) {
    device::PackOptions options;
    options.gated = node_as<device::Linear>(node)->gated;
    options.own = std::ranges::all_of(node.parts, [&](const Part& part) { return users[part.weight] == 1; });
    if (quant_ && options.own) {  // a table that an embedding reads as well stays
      options.format = quant_;
      std::int64_t rows = 0;
      for (const Part& part : node.parts) rows += graph_.values[index(part.weight)].constant.shape()[0];
      // Every token's probability hangs on the last product: it keeps 8 bits, and its inputs as they are.
      if (rows == vocab_size_ && quant_->code == quant::Code::int4) options.format = quant::Format{quant::Code::int8};
      if (rows == vocab_size_ && quant_->dynamic) options.format = quant::Format{quant_->code};
    }
    return options;
  };
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    for (int id : node.inputs) count(id);
    if (packed_[i]) continue;
    std::vector<device::LinearPart> parts;
    for (const Part& part : node.parts) {
      if (part.bias >= 0) count(part.bias);
      parts.push_back({graph_.values[index(part.weight)].constant,
                       part.bias >= 0 ? graph_.values[index(part.bias)].constant : Tensor()});
    }
    try {
      if (parts.empty()) continue;
      const device::PackOptions options = pack_options(node);
      packed_[i] = backend_->pack_linear(parts, options);
      quantized_ += options.format ? 1 : 0;
      rounded_ += packed_[i]->rounded ? 1 : 0;
      if (options.format && !packed_[i]->rounded) {
        weight_bytes_ += packed_[i]->bytes;
      } else {
        for (const Part& part : node.parts) count(part.weight);
      }
      for (const Part& part : node.parts) release(part);
    } catch (const core::OutOfMemory& error) {
      throw core::OutOfMemory(error.what(), error.hint() + " At node '" + node.name + "'.", error.needed_bytes,
                              error.available_bytes);
    } catch (const core::Error& error) {
      throw core::Error(error.code(), error.what(),
                        error.hint() + (error.hint().empty() ? "" : " ") + "At node '" + node.name + "'.");
    }
  }
}

void Program::reserve(const engine::StepLimits& limits) {
  if (limits.max_tokens < 1 || limits.max_rows < 1 || limits.max_sequences < 1)
    fail(ErrorCode::invalid_config, cat("[program] a step of ", limits.max_tokens, " tokens, ", limits.max_rows,
                                        " rows, ", limits.max_sequences, " sequences: all must be positive."));
  if (arena_ && limits.max_tokens <= limits_.max_tokens && limits.max_rows <= limits_.max_rows &&
      limits.max_sequences <= limits_.max_sequences)
    return;
  limits_ = {std::max(limits.max_tokens, limits_.max_tokens), std::max(limits.max_rows, limits_.max_rows),
             std::max(limits.max_sequences, limits_.max_sequences)};
  plan_ = make_plan(graph_, limits_);
  arena_ = nullptr;  // the old one first: both may not fit
  arena_ = backend_->allocate(std::max(plan_.arena_bytes, std::size_t{1}));
  build_instructions();
}

void Program::build_instructions() {
  views_.clear();
  instructions_.clear();
  by_rows_.clear();
  for (auto* list : {&token_views_, &row_views_, &id_views_, &position_views_}) list->clear();
  std::size_t operands = 0;
  for (const Node& node : graph_.nodes)
    if (!is_view(node)) operands += node.inputs.size() + node.outputs.size();
  views_.reserve(operands + graph_.taps.size());  // spans and pointers into it stay good

  const auto add_view = [&](int id) {
    const Value& value = graph_.values[index(id)];
    View view{nullptr, value.type.dtype, value.type.shape, value.type.shape.contiguous_strides()};
    if (value.kind == ValueKind::constant) {
      view = view_of(value.constant);
    } else if (value.kind == ValueKind::node) {
      const Location& at = plan_.locations[index(id)];
      const std::size_t offset = plan_.buffers[index(at.buffer)].offset +
                                 static_cast<std::size_t>(at.offset) * core::dtype_size(value.type.dtype);
      view.data =
          arena_->data() ? static_cast<char*>(arena_->data()) + offset : nullptr;  // the null device has no memory
      view.stride = at.strides;
    }
    views_.push_back(view);
    View* added = &views_.back();
    if (value.type.lead == Lead::tokens) token_views_.push_back(added);
    if (value.type.lead == Lead::rows) row_views_.push_back(added);
    if (value.kind == ValueKind::token_ids) id_views_.push_back(added);
    if (value.kind == ValueKind::positions) position_views_.push_back(added);
    return added;
  };
  std::vector<std::size_t> instruction_of(graph_.nodes.size());
  std::vector<int> uses(graph_.values.size(), 0);  // by nodes and taps
  for (const Node& node : graph_.nodes)
    for (int id : node.inputs) ++uses[index(id)];
  for (const Tap& tap : graph_.taps) ++uses[index(tap.value)];
  std::size_t last_node = 0;
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (is_view(node)) continue;
    instruction_of[i] = instructions_.size();
    const std::size_t begin = views_.size();
    for (int id : node.inputs) add_view(id);
    const std::size_t middle = views_.size();
    for (int id : node.outputs) {
      const View* added = add_view(id);
      if (id == graph_.output) logits_ = static_cast<float*>(added->data);
    }
    instructions_.push_back({std::get<device::Op>(node.op), std::span(views_).subspan(begin, middle - begin),
                             std::span(views_).subspan(middle, views_.size() - middle), packed_[i].get()});
    if (instructions_.size() > 1) {  // what passes from the call before to this one alone
      const Node& before = graph_.nodes[last_node];
      device::OpCall& call = instructions_[instructions_.size() - 2];
      call.passing = before.outputs.size() == 1 && before.outputs[0] != graph_.output &&
                     uses[index(before.outputs[0])] == 1 &&
                     std::ranges::find(node.inputs, before.outputs[0]) != node.inputs.end();
    }
    last_node = i;
    by_rows_.push_back(!node.outputs.empty() && graph_.values[index(node.outputs[0])].type.lead == Lead::rows);
  }
  for (std::size_t i = 0; i + 1 < instructions_.size(); ++i) {
    device::OpCall& norm = instructions_[i];
    const device::OpCall& next = instructions_[i + 1];
    if ((std::holds_alternative<device::RmsNorm>(norm.op) || std::holds_alternative<device::AddRmsNorm>(norm.op)) &&
        next.linear && std::holds_alternative<device::Linear>(next.op) && next.in[0].data == norm.out.back().data)
      norm.linear = next.linear;
  }
  tap_places_.clear();
  for (const Tap& tap : graph_.taps) tap_places_.push_back({0, tap.pattern ? nullptr : add_view(tap.value), nullptr});
  build_taps(instruction_of);
  if (!arena_->place().host || !arena_->data()) {
    const std::size_t count = static_cast<std::size_t>(limits_.max_rows) * static_cast<std::size_t>(vocab_size_);
    host_logits_ = backend_->allocate_host(count * sizeof(float));
    std::fill_n(static_cast<float*>(host_logits_->data()), count, 0.0f);
  }
  replays_.clear();  // they hold addresses of the old arena
  if (graph_.taps.empty())  // probed steps wait for their logits
    sampler_ = backend_->make_sampler(vocab_size_, std::min(limits_.max_rows, limits_.max_sequences));
}

void Program::check_step(const device::StepView& step) const {
  if (step.tokens > limits_.max_tokens || step.rows > limits_.max_rows || step.sequences > limits_.max_sequences)
    fail(ErrorCode::internal, cat("[program] a step of ", step.tokens, " tokens, ", step.rows, " rows, ",
                                  step.sequences, " sequences, but reserved were ", limits_.max_tokens, ", ",
                                  limits_.max_rows, ", ", limits_.max_sequences, "."));
  if (step.kv.size() != kv_layers_.size())
    fail(ErrorCode::internal, cat("[program] the step brings the caches of ", step.kv.size(),
                                  " layers, but the model has ", kv_layers_.size(), "."));
}

device::StepView Program::lay_out(const device::StepView& host_step) {
  const device::StepView step = backend_->stage(host_step);
  // Views are not const-correct: kernels only read their inputs.
  auto* ids = const_cast<std::int32_t*>(step.token_ids);
  if (sampler_ &&
      std::any_of(host_step.token_ids, host_step.token_ids + host_step.tokens, [](std::int32_t id) { return id < 0; }))
    sampler_->fill_ids(ids, step.tokens);
  for (View* view : token_views_) view->shape[0] = step.tokens;
  for (View* view : row_views_) view->shape[0] = step.rows;
  for (View* view : id_views_) view->data = ids;
  for (View* view : position_views_) view->data = const_cast<std::int32_t*>(step.positions);
  return step;
}

std::span<float> Program::run(const device::StepView& host_step) {
  check_step(host_step);
  if (host_step.tokens == 0) return {};
  const std::lock_guard lock(backend_->mutex());
  const device::StepView step = lay_out(host_step);
  if (!replay(step)) run_instructions(step);
  return logits_of(step);
}

std::span<float> Program::logits_of(const device::StepView& step) {
  const std::size_t count = static_cast<std::size_t>(step.rows) * static_cast<std::size_t>(vocab_size_);
  if (!host_logits_) {
    backend_->synchronize();
    return {logits_, count};
  }
  auto* logits = static_cast<float*>(host_logits_->data());
  if (logits_) backend_->copy_out(logits, logits_, count * sizeof(float));
  backend_->synchronize();
  return {logits, count};
}

void Program::launch(const device::StepView& host_step) {
  check_step(host_step);
  const std::lock_guard lock(backend_->mutex());
  const device::StepView step = lay_out(host_step);
  if (!replay(step)) run_instructions(step);
}

void Program::sample(const device::SampleCall& call) {
  const std::lock_guard lock(backend_->mutex());
  sampler_->sample(logits_, call);
}

void Program::collect(std::vector<device::SampledRow>& out) {
  sampler_->collect(out);
}

void Program::run_instructions(const device::StepView& step) {
  if (step.rows > 0) return backend_->run_all(instructions_, &step);
  for (std::size_t i = 0; i < instructions_.size(); ++i)
    if (!by_rows_[i]) backend_->run(instructions_[i], &step);
}

// Decode steps of one shape repeat thousands of times: from the third on they are one launch.
bool Program::replay(const device::StepView& step) {
  if (!step.recorded || !backend_->can_record() || step.tokens != step.sequences || step.rows != step.tokens)
    return false;
  // A recording holds the address of every layer's cache. Another engine's cache may begin where one began that is gone.
  const auto same = [](const auto& a, const auto& b) { return a.first == b.k && a.second == b.v; };
  if (!std::ranges::equal(replayed_cache_, step.kv, same)) {
    replays_.clear();
    replayed_cache_.clear();
    for (const device::KvLayer& layer : step.kv) replayed_cache_.emplace_back(layer.k, layer.v);
  }
  Replay& entry = replays_[{step.tokens, step.max_kv_len, step.max_blocks, step.deterministic}];
  if (entry.recording && entry.recording->replay()) return true;
  if (!entry.warm || entry.recording) {  // a run of its own first: it allocates what the ops need
    entry = {nullptr, true};
    return false;
  }
  backend_->begin_recording();
  try {
    run_instructions(step);
  } catch (...) {
    backend_->end_recording();
    throw;
  }
  entry.recording = backend_->end_recording();
  return entry.recording->replay();
}

ProgramMemory Program::memory() const {
  ProgramMemory memory;
  if (!arena_) return memory;
  memory.activations = plan_.arena_bytes;
  memory.unshared = plan_.unshared_bytes;
  memory.logits = host_logits_ ? host_logits_->bytes() : 0;
  memory.step_tokens = limits_.max_tokens;
  memory.step_rows = limits_.max_rows;
  return memory;
}

std::string Program::dump() const {
  return graph_.dump() + (arena_ ? plan_text(graph_, plan_) : "");
}

}  // namespace fastllm::graph
