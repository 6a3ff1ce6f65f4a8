// Program's other way to run: op by op, with the values that probes name edited and read out right behind the op that
// makes them. And what makes a second Program of one model cheap: weights that the first has on the device are found by
// the memory they were recorded from.

#include <algorithm>
#include <mutex>

#include "core/error.h"
#include "graph/program.h"

namespace fastllm::graph {
namespace {

using device::View;

std::size_t index(int id) {
  return static_cast<std::size_t>(id);
}

// `count` rows of a view from row `first` on.
View rows_of(const View& view, std::int64_t first, std::int64_t count) {
  View rows = view;
  rows.shape[0] = count;
  if (view.data)
    rows.data =
        static_cast<char*>(view.data) + static_cast<std::size_t>(first * view.stride[0]) * core::dtype_size(view.dtype);
  return rows;
}

}  // namespace

// --- sharing weights

bool Program::Origin::is(const Origin& other) const {
  const auto mine = storage.lock();
  return mine && mine == other.storage.lock() && offset == other.offset && dtype == other.dtype &&
         shape == other.shape && strides == other.strides;
}

void Program::note_origins() {
  for (std::size_t v = 0; v < graph_.values.size(); ++v) {
    const Value& value = graph_.values[v];
    if (value.kind != ValueKind::constant || !value.constant.defined()) continue;
    const core::Tensor& tensor = value.constant;
    origins_[static_cast<int>(v)] = {tensor.storage(), tensor.offset_bytes(), tensor.dtype(), tensor.shape(),
                                     tensor.strides()};
  }
}

// The other's product of these weights and biases (null for no bias), or null.
std::shared_ptr<device::PackedLinear> Program::packed_of(std::span<const Origin* const> parts, bool gated) const {
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (!packed_[i] || node.parts.size() * 2 != parts.size() || node_as<device::Linear>(node)->gated != gated) continue;
    bool same = true;
    for (std::size_t p = 0; same && p < parts.size(); ++p) {
      const int id = p % 2 == 0 ? node.parts[p / 2].weight : node.parts[p / 2].bias;
      const auto found = origins_.find(id);
      same = parts[p] ? found != origins_.end() && found->second.is(*parts[p]) : id < 0;
    }
    if (same) return packed_[i];
  }
  return nullptr;
}

// Weights and biases of a product, as the other program may know them; empty if one of them is new.
std::vector<const Program::Origin*> Program::origins_of(const Node& node) const {
  std::vector<const Origin*> parts;
  for (const Part& part : node.parts)
    for (int id : {part.weight, part.bias}) {
      const auto found = origins_.find(id);
      if (id >= 0 && found == origins_.end()) return {};
      parts.push_back(id < 0 ? nullptr : &found->second);
    }
  return parts;
}

// Where the other program has gate and up in one gated product (Linear::gated), a plain product on the same memory gives
// both, but its columns alternate, 8 of gate and 8 of up. The two slices that were cut from it become copies of every
// other group.
void Program::share_gated(const Program& other) {
  if (other.backend_ != backend_) return;
  std::vector<Node> nodes;
  std::map<int, int> groups;  // by product: itself as [tokens, groups, 16]
  const std::vector<int> uses = graph_.use_counts();
  for (Node& node : graph_.nodes) {
    const auto* slice = std::get_if<Slice>(&node.op);
    if (const auto found = slice ? groups.find(node.inputs[0]) : groups.end(); found != groups.end()) {
      const Type type = graph_.values[index(node.outputs[0])].type;
      const std::int64_t from = slice->start == 0 ? 0 : 8;
      const core::Shape shape{1, type.shape[1] / 8, 8};
      const int cut = graph_.add_value({type.dtype, type.lead, shape}, node.name + ".groups");
      const int copy = graph_.add_value({type.dtype, type.lead, shape}, node.name + ".packed");
      nodes.push_back({Slice{from, from + 8}, node.name, {found->second}, {cut}, {}});
      nodes.push_back({device::Op{device::Copy{}}, node.name, {cut}, {copy}, {}});
      nodes.push_back({Reshape{type.shape}, node.name, {copy}, node.outputs, {}});
      continue;
    }
    nodes.push_back(std::move(node));
    const Node& product = nodes.back();
    const auto* linear = node_as<device::Linear>(product);
    if (!linear || linear->gated || linear->add_residual) continue;
    const std::vector<const Origin*> parts = origins_of(product);
    const std::shared_ptr<device::PackedLinear> gated = parts.empty() ? nullptr : other.packed_of(parts, true);
    const std::shared_ptr<device::PackedLinear> plain = gated ? backend_->ungated(*gated) : nullptr;
    const int whole = product.outputs[0];
    const Type type = graph_.values[index(whole)].type;
    const bool tapped = std::ranges::any_of(graph_.taps, [&](const Tap& tap) { return tap.value == whole; });
    if (!plain || tapped || uses[index(whole)] != 2 || type.shape.rank() != 2) continue;
    const core::Shape shape{1, type.shape[1] / 16, 16};
    const int grouped = graph_.add_value({type.dtype, type.lead, shape}, product.name);
    groups[whole] = grouped;
    regrouped_[whole] = plain;
    nodes.push_back({Reshape{shape}, product.name, {whole}, {grouped}, {}});
  }
  graph_.nodes = std::move(nodes);
}

void Program::find_shared(const Program& other) {
  if (other.backend_ != backend_) return;
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (node.parts.empty()) continue;
    const auto regrouped = regrouped_.find(node.outputs[0]);
    const std::vector<const Origin*> parts = origins_of(node);
    if (regrouped != regrouped_.end())
      packed_[i] = regrouped->second;
    else if (!parts.empty())
      packed_[i] = other.packed_of(parts, node_as<device::Linear>(node)->gated);
  }
  // Tables that ops read directly: the other's, as placed. (Where host memory is the device's they are the same anyway.)
  for (const Node& node : graph_.nodes) {
    if (!node_as<device::Embedding>(node)) continue;
    Value& table = graph_.values[index(node.inputs[1])];
    const auto origin = origins_.find(node.inputs[1]);
    if (origin == origins_.end()) continue;
    for (const Node& theirs : other.graph_.nodes) {
      if (!node_as<device::Embedding>(theirs)) continue;
      const auto found = other.origins_.find(theirs.inputs[1]);
      const core::Tensor& placed = other.graph_.values[index(theirs.inputs[1])].constant;
      if (found != other.origins_.end() && found->second.is(origin->second) && placed.defined())
        table.constant = placed;
    }
  }
}

// --- reading and editing

void Program::describe_taps() {
  for (const Tap& tap : graph_.taps) {
    const core::Shape& shape = graph_.values[index(tap.value)].type.shape;
    tap_infos_.push_back(
        {tap.name, tap.pattern ? core::Shape{shape[1]} : core::Shape(shape.dims().subspan(1)), tap.pattern});
  }
}

void Program::build_taps(const std::vector<std::size_t>& instruction_of) {
  taps_behind_.assign(instructions_.size(), {});
  const std::vector<int> producers = graph_.producers();
  for (std::size_t t = 0; t < graph_.taps.size(); ++t) {
    const Tap& tap = graph_.taps[t];
    int maker = producers[index(tap.value)];
    while (maker >= 0 && is_view(graph_.nodes[index(maker)]))
      maker = producers[index(graph_.nodes[index(maker)].inputs[0])];
    if (maker < 0)
      core::fail(core::ErrorCode::internal, core::cat("[program] the passes lost the tapped value '", tap.name, "'."));
    TapPlace& place = tap_places_[t];
    place.instruction = instruction_of[index(maker)];
    if (tap.pattern) {
      const device::OpCall& call = instructions_[place.instruction];
      place.pattern = std::get_if<device::Attention>(&call.op);
      place.view = &call.in[0];
    }
    taps_behind_[place.instruction].push_back(static_cast<int>(t));
  }
}

std::span<float> Program::run_probed(const device::StepView& host_step,
                                     std::span<const device::ProbedSequence> probed) {
  check_step(host_step);
  if (host_step.tokens == 0) return {};
  std::vector<bool> named(tap_infos_.size(), false);
  for (const device::ProbedSequence& sequence : probed) {
    const auto name = [&](int tap) {
      if (tap >= 0 && index(tap) < named.size()) named[index(tap)] = true;
    };
    for (const int tap : sequence.probe->reads()) name(tap);
    for (const device::TapEdit& edit : sequence.probe->edits()) name(edit.tap);
  }
  const std::lock_guard lock(backend_->mutex());
  const device::StepView step = lay_out(host_step);
  for (std::size_t i = 0; i < instructions_.size(); ++i) {
    if (by_rows_[i] && step.rows == 0) continue;
    backend_->run(instructions_[i], &step);
    for (const int tap : taps_behind_[i])
      if (named[index(tap)])
        for (const device::ProbedSequence& sequence : probed) serve(tap_places_[index(tap)], tap, sequence, host_step);
  }
  return logits_of(step);
}

void Program::serve(const TapPlace& place, int tap, const device::ProbedSequence& probed,
                    const device::StepView& host_step) {
  device::Probe& probe = *probed.probe;
  const auto reads = probe.reads();
  const auto found = std::ranges::lower_bound(reads, tap);
  const bool read = found != reads.end() && *found == tap;
  const auto which = static_cast<std::size_t>(found - reads.begin());
  if (place.pattern) {
    if (read) serve_pattern(place, which, probed, host_step);
    return;
  }
  const bool edited = std::ranges::any_of(probe.edits(), [&](const auto& edit) { return edit.tap == tap; });
  if (!read && !edited) return;
  const std::int64_t first = host_step.query_start[probed.sequence];
  const std::int64_t count = host_step.query_start[probed.sequence + 1] - first;
  const std::int64_t position = host_step.positions[first];
  const View rows = rows_of(*place.view, first, count);
  const std::int64_t elements = rows.shape.numel() / count;
  rows_.resize(static_cast<std::size_t>(count * elements));
  fetch(rows, rows_.data());
  if (edited) {
    for (const device::TapEdit& edit : probe.edits())
      if (edit.tap == tap) edit.apply(rows_, elements, position);
    store(rows_.data(), rows);
    if (rows.dtype != core::DType::f32) fetch(rows, rows_.data());  // what is read is what goes on, rounded
  }
  if (read) probe.take(which, position, rows_, count);
}

void Program::serve_pattern(const TapPlace& place, std::size_t read, const device::ProbedSequence& probed,
                            const device::StepView& host_step) {
  const std::int64_t first = host_step.query_start[probed.sequence];
  device::PatternCall call{*place.pattern};
  call.count = host_step.query_start[probed.sequence + 1] - first;
  call.position = host_step.positions[first];
  call.keys = host_step.kv_len[probed.sequence];
  const View q = rows_of(*place.view, first, call.count);
  call.heads = q.shape[1];
  call.dim = q.shape[2];
  rows_.resize(static_cast<std::size_t>(q.shape.numel()));
  fetch(q, rows_.data());
  const device::KvLayer& cache = host_step.kv[index(call.op.layer)];
  call.kv_heads = cache.kv_heads;
  keys_.resize(static_cast<std::size_t>(call.keys * call.kv_heads * call.dim));
  const std::int64_t block_tokens = host_step.block_tokens;
  const std::int64_t block_size = call.kv_heads * block_tokens * call.dim;
  for (std::int64_t p = 0; p < call.keys; p += block_tokens) {
    const std::int64_t block =
        host_step.block_table[static_cast<std::int64_t>(probed.sequence) * host_step.max_blocks + p / block_tokens];
    const std::int64_t in_block = std::min(block_tokens, call.keys - p);
    const View keys{
        cache.k
            ? static_cast<char*>(cache.k) + static_cast<std::size_t>(block * block_size) * core::dtype_size(cache.dtype)
            : nullptr,
        cache.dtype, core::Shape{in_block, call.kv_heads, call.dim}, core::Shape{call.dim, block_tokens * call.dim, 1}};
    fetch(keys, keys_.data() + p * call.kv_heads * call.dim);
  }
  pattern_.resize(static_cast<std::size_t>(call.count * call.heads * call.keys));
  call.q = rows_.data();
  call.k = keys_.data();
  call.out = pattern_.data();
  backend_->attention_pattern(call);
  probed.probe->take(read, call.position, pattern_, call.count);
}

void* Program::staging(std::size_t bytes) {
  if (!staging_ || staging_->bytes() < bytes) {
    staging_.reset();
    staging_ = backend_->allocate(2 * bytes);
  }
  return staging_->data();
}

void Program::fetch(const View& from, float* to) {
  const auto bytes = static_cast<std::size_t>(from.shape.numel()) * sizeof(float);
  if (!from.data) {  // the null device
    std::fill_n(to, from.shape.numel(), 0.0f);
    return;
  }
  const bool host = arena_->place().host;
  const View target{host ? static_cast<void*>(to) : staging(bytes), core::DType::f32, from.shape,
                    from.shape.contiguous_strides()};
  const device::Op copy = device::Copy{};
  backend_->run({copy, {&from, 1}, {&target, 1}}, nullptr);
  if (host) return;
  backend_->copy_out(to, target.data, bytes);
  backend_->synchronize();
}

void Program::store(const float* from, const View& to) {
  if (!to.data) return;
  const auto bytes = static_cast<std::size_t>(to.shape.numel()) * sizeof(float);
  const bool host = arena_->place().host;
  // Views are not const-correct: kernels only read their inputs.
  const View source{host ? const_cast<float*>(from) : staging(bytes), core::DType::f32, to.shape,
                    to.shape.contiguous_strides()};
  if (!host) backend_->copy_in(source.data, from, bytes);
  const device::Op copy = device::Copy{};
  backend_->run({copy, {&source, 1}, {&to, 1}}, nullptr);
  if (!host) backend_->synchronize();
}

}  // namespace fastllm::graph
