// Probes on a program driven by hand-made steps: what is read is what an unfused graph computes, edits reach all that
// comes behind them and nobody else, and a second program of a model packs nothing twice.

#include "device/probe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "check.h"
#include "core/error.h"
#include "graph/eager.h"
#include "graph/program.h"
#include "small_llama.h"

using namespace fastllm;
using small::Cache;
using Piece = small::Cache::Piece;

namespace {

// Taps on every value that follows the tokens, and on the patterns; returns how many.
int tap_all(graph::Graph& g) {
  int count = 0;
  const std::size_t nodes = g.nodes.size();
  for (std::size_t i = 0; i < nodes; ++i) {
    const graph::Node node = g.nodes[i];
    for (const int id : node.outputs) {
      if (g.values[static_cast<std::size_t>(id)].type.lead != graph::Lead::tokens || id == g.output) continue;
      g.tap("v" + std::to_string(id), id, false);
      ++count;
      if (graph::node_as<device::Attention>(node)) {
        g.tap("p" + std::to_string(id), id, true);
        ++count;
      }
    }
  }
  return count;
}

struct Reader final : device::Probe {
  std::vector<int> taps;
  std::vector<device::TapEdit> changes;
  std::map<int, std::vector<float>> got;  // by tap: all rows one after the other
  std::map<int, std::int64_t> next;       // by tap: the position that must come next
  bool in_order = true;

  std::span<const int> reads() const override { return taps; }
  std::span<const device::TapEdit> edits() const override { return changes; }
  void take(std::size_t index, std::int64_t position, std::span<const float> rows,
            std::int64_t count) noexcept override {
    const int tap = taps[index];
    in_order = in_order && next[tap] == position;
    next[tap] = position + count;
    got[tap].insert(got[tap].end(), rows.begin(), rows.end());
  }
};

graph::Program probed(const graph::Graph& g, const std::shared_ptr<device::Backend>& backend,
                      std::optional<std::vector<std::string>> passes = {}, const graph::Program* share = nullptr) {
  return graph::Program(
      g, backend,
      {.context_length = 128, .kv_dtype = "auto", .passes = std::move(passes), .probes = true, .share = share});
}

std::shared_ptr<device::Backend> cpu() {
  static const auto backend = device::open_device("cpu", {.threads = 2});
  return backend;
}

Reader read_all(graph::Program& program, const std::vector<int>& ids, std::vector<int> cuts) {
  Reader reader;
  for (int t = 0; t < static_cast<int>(program.taps().size()); ++t) reader.taps.push_back(t);
  Cache cache(program, 2, 128, 16);
  program.reserve({64, 64, 2});
  cuts.push_back(static_cast<int>(ids.size()));
  int from = 0;
  for (const int to : cuts) {
    // The probed sequence is the second of the step, behind one that nobody looks at.
    const std::vector<Piece> pieces{{0, small::random_ids(3, 53, static_cast<unsigned>(to)), true},
                                    {1, {ids.begin() + from, ids.begin() + to}, false}};
    const device::ProbedSequence sequence{1, &reader};
    program.run_probed(cache.step(pieces), {&sequence, 1});
    from = to;
  }
  return reader;
}

double furthest(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

// Counts what is packed; its memory is the host's, but it says so only where kernels need it.
class Counting final : public device::Backend {
 public:
  explicit Counting(std::shared_ptr<device::Backend> inner) : inner_(std::move(inner)) {}
  const device::DeviceInfo& info() const override { return inner_->info(); }
  core::DType activation_dtype(core::DType weights) const override { return inner_->activation_dtype(weights); }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override { return inner_->allocate(bytes); }
  void copy_in(void* to, const void* from, std::size_t bytes) override { inner_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, std::size_t bytes) override { inner_->copy_out(to, from, bytes); }
  core::Tensor place(const core::Tensor& host) override {  // a copy, as on a device with memory of its own
    if (owned.contains(host.storage().get())) return host;
    placed_bytes += host.nbytes();
    core::Tensor copy = core::Tensor::empty(host.dtype(), host.shape());
    const device::View from{host.data(), host.dtype(), host.shape(), host.strides()};
    const device::View to{copy.data(), copy.dtype(), copy.shape(), copy.strides()};
    const device::Op op = device::Copy{};
    inner_->run({op, {&from, 1}, {&to, 1}}, nullptr);
    owned.insert(copy.storage().get());
    return copy;
  }
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options) override {
    ++packed;
    return inner_->pack_linear(parts, options);
  }
  void run(const device::OpCall& call, const device::StepView* step) override { inner_->run(call, step); }
  void synchronize() override {}
  int packed = 0;
  std::size_t placed_bytes = 0;
  std::set<const core::Storage*> owned;

 private:
  std::shared_ptr<device::Backend> inner_;
};

// A backend whose kernels pair gate and up rows: products are packed in alternating groups of 8 where they are asked to.
class Pairing final : public device::Backend {
 public:
  struct Packed final : device::PackedLinear {
    std::shared_ptr<device::PackedLinear> rows;  // interleaved if paired
    bool gated = false;
  };
  explicit Pairing(std::shared_ptr<device::Backend> inner) : inner_(std::move(inner)) {}
  const device::DeviceInfo& info() const override { return inner_->info(); }
  core::DType activation_dtype(core::DType weights) const override { return inner_->activation_dtype(weights); }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override { return inner_->allocate(bytes); }
  void copy_in(void* to, const void* from, std::size_t bytes) override { inner_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, std::size_t bytes) override { inner_->copy_out(to, from, bytes); }
  core::Tensor place(const core::Tensor& host) override { return host; }
  std::vector<std::string> fusions() const override { return {"gated_linear"}; }
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options) override {
    ++packed;
    const bool gated = options.gated;
    auto made = std::make_unique<Packed>();
    made->gated = gated;
    std::vector<device::LinearPart> pieces(parts.begin(), parts.end());
    if (gated) {
      pieces.clear();
      const std::int64_t half = parts[0].weight.shape()[0];
      for (std::int64_t row = 0; row < half; row += 8)
        for (const device::LinearPart& part : parts)
          pieces.push_back({part.weight.slice(0, row, row + 8),
                            part.bias.defined() ? part.bias.slice(0, row, row + 8) : core::Tensor()});
    }
    made->rows = inner_->pack_linear(pieces);
    made->in_features = made->rows->in_features;
    made->out_features = made->rows->out_features / (gated ? 2 : 1);
    return made;
  }
  std::shared_ptr<device::PackedLinear> ungated(const device::PackedLinear& gated) override {
    auto plain = std::make_shared<Packed>(static_cast<const Packed&>(gated));
    plain->gated = false;
    plain->out_features *= 2;
    return plain;
  }
  void run(const device::OpCall& call, const device::StepView* step) override {
    const auto* linear = std::get_if<device::Linear>(&call.op);
    if (!linear) return inner_->run(call, step);
    const auto& weight = static_cast<const Packed&>(*call.linear);
    if (!weight.gated) return inner_->run({call.op, call.in, call.out, weight.rows.get()}, step);
    const std::int64_t tokens = call.in[0].shape[0];
    const std::int64_t half = weight.out_features;
    std::vector<float> both(static_cast<std::size_t>(tokens * 2 * half)), gate(both.size() / 2), up(gate.size());
    const core::Shape wide{tokens, 2 * half};
    const device::View all{both.data(), core::DType::f32, wide, wide.contiguous_strides()};
    const device::Op product = device::Linear{};
    inner_->run({product, call.in, {&all, 1}, weight.rows.get()}, step);
    for (std::int64_t i = 0; i < tokens * half; ++i) {
      const std::int64_t at = i / half * 2 * half + i % half / 8 * 16 + i % 8;
      gate[static_cast<std::size_t>(i)] = both[static_cast<std::size_t>(at)];
      up[static_cast<std::size_t>(i)] = both[static_cast<std::size_t>(at + 8)];
    }
    const core::Shape narrow{tokens, half};
    const device::View views[2] = {{gate.data(), core::DType::f32, narrow, narrow.contiguous_strides()},
                                   {up.data(), core::DType::f32, narrow, narrow.contiguous_strides()}};
    const device::Op gated = device::GatedActivation{linear->activation};
    inner_->run({gated, views, call.out, nullptr}, step);
  }
  void synchronize() override {}
  int packed = 0;

 private:
  std::shared_ptr<device::Backend> inner_;
};

void in_bfloat16(graph::Graph& g) {
  for (graph::Value& value : g.values)
    if (value.kind == graph::ValueKind::constant && value.type.shape.rank() == 2) {
      value.constant = graph::as_dtype(*cpu(), value.constant, core::DType::bf16);
      value.type.dtype = core::DType::bf16;
    }
}

}  // namespace

TEST("every tapped value is what the unfused graph computes, in chunks and token by token") {
  for (const small::Options& o : {small::Options{}, small::Options{.bias = true, .post_norm = true},
                                  small::Options{.layers = 3, .kv_heads = 1, .window = 7}}) {
    graph::Graph g = small::llama(o);
    const int count = tap_all(g);
    const std::vector<int> ids = small::random_ids(26, o.vocab, 4);
    graph::Program plain = probed(g, cpu(), std::vector<std::string>{});
    graph::Program fused = probed(g, cpu());
    CHECK_EQ(static_cast<int>(fused.taps().size()), count);
    const Reader want = read_all(plain, ids, {});
    for (const std::vector<int>& cuts : {std::vector<int>{}, std::vector<int>{1, 2, 3, 20}, std::vector<int>{17, 25}}) {
      const Reader got = read_all(fused, ids, cuts);
      CHECK(got.in_order);
      for (int t = 0; t < count; ++t) {
        if (fused.taps()[static_cast<std::size_t>(t)].pattern) continue;  // rows grow with the chunks: below
        CHECK_EQ(got.got.at(t).size(), want.got.at(t).size());
        CHECK(furthest(got.got.at(t), want.got.at(t)) < 1e-4);
      }
    }
  }
}

TEST("patterns are the weights that make the attention's result") {
  const small::Options o{.layers = 2, .kv_heads = 2, .window = 9};
  graph::Graph g = small::llama(o);
  tap_all(g);
  graph::Program program = probed(g, cpu());
  const std::vector<int> ids = small::random_ids(30, o.vocab, 6);
  const Reader whole = read_all(program, ids, {});
  const Reader single = read_all(program, ids, {29});
  for (std::size_t t = 0; t < program.taps().size(); ++t) {
    if (!program.taps()[t].pattern) continue;
    const std::vector<float>& rows = whole.got.at(static_cast<int>(t));
    const std::size_t heads = static_cast<std::size_t>(o.heads);
    CHECK_EQ(rows.size(), 30 * heads * 30);
    for (std::size_t q = 0; q < 30; ++q)
      for (std::size_t h = 0; h < heads; ++h) {
        double sum = 0;
        for (std::size_t k = 0; k < 30; ++k) {
          const float w = rows[(q * heads + h) * 30 + k];
          if (k > q || k + 9 <= q) CHECK_EQ(w, 0.0f);
          sum += static_cast<double>(w);
        }
        CHECK(std::fabs(sum - 1.0) < 1e-6);
      }
    // The last token alone, its keys from the cache: the same row.
    const std::vector<float>& last = single.got.at(static_cast<int>(t));
    const std::size_t before = 29 * heads * 29;
    CHECK_EQ(last.size(), before + heads * 30);
    for (std::size_t i = 0; i < heads * 30; ++i) CHECK(std::fabs(last[before + i] - rows[29 * heads * 30 + i]) < 1e-6f);
  }
}

TEST("an edit reaches what comes behind it, at its positions, of its sequence alone") {
  const small::Options o;
  graph::Graph g = small::llama(o);
  tap_all(g);
  graph::Program program = probed(g, cpu());
  const std::vector<int> ids = small::random_ids(12, o.vocab, 2);
  const std::vector<Piece> pieces{{0, ids, true}, {1, ids, true}};
  program.reserve({24, 24, 2});
  const auto run = [&](std::vector<device::TapEdit> edits) {
    Reader reader;
    reader.changes = std::move(edits);
    Cache cache(program, 2, 64, 16);
    const device::ProbedSequence sequence{1, &reader};
    const std::span<float> logits = program.run_probed(cache.step(pieces), {&sequence, 1});
    return std::vector<float>(logits.begin(), logits.end());
  };
  const std::vector<float> plain = run({});
  const auto row = static_cast<std::size_t>(o.vocab);
  for (std::size_t t = 0; t < program.taps().size(); ++t) {
    if (program.taps()[t].pattern) continue;
    const std::int64_t width = program.taps()[t].row.numel();
    const std::vector<float> edited =
        run({{static_cast<int>(t), 7, 9, 0, width, 0.5f, {}}, {static_cast<int>(t), 8, 9, 0, 1, 1.0f, {2.0f}}});
    std::size_t first_different = edited.size();
    for (std::size_t i = 0; i < edited.size() && first_different == edited.size(); ++i)
      if (!(edited[i] == plain[i])) first_different = i;
    CHECK_EQ(first_different / row, std::size_t{12 + 7});  // the other sequence and positions before 7 keep their bits
  }
  CHECK_EQ(furthest(run({{0, 0, 1 << 30, 0, 1, 1.0f, {0.0f}}}), plain), 0.0);
}

TEST("a second program of a model packs and places nothing again but norms") {
  const small::Options o;
  graph::Graph g = small::llama(o);
  tap_all(g);
  const auto backend = std::make_shared<Counting>(cpu());
  const graph::Program first(g, backend, {.context_length = 64, .kv_dtype = "auto", .passes = {}});
  const int packed = backend->packed;
  const std::size_t bytes = backend->placed_bytes;
  CHECK(packed > 0);
  graph::Program second = probed(g, backend, {}, &first);
  CHECK_EQ(backend->packed, packed);
  CHECK(backend->placed_bytes - bytes < first.weight_bytes() / 20);
  graph::Program alone = probed(g, backend);
  CHECK(backend->packed > packed);
  const std::vector<int> ids = small::random_ids(9, o.vocab, 2);
  const Reader a = read_all(second, ids, {});
  const Reader b = read_all(alone, ids, {});
  for (const auto& [tap, rows] : a.got) CHECK_EQ(furthest(rows, b.got.at(tap)), 0.0);
}

TEST("gate and up that another program packed for one kernel are read from there") {
  for (const bool bias : {false, true}) {
    const small::Options o{.bias = bias};
    graph::Graph g = small::llama(o);
    in_bfloat16(g);
    tap_all(g);
    const auto backend = std::make_shared<Pairing>(cpu());
    const graph::Program first(g, backend, {.context_length = 64, .kv_dtype = "auto", .passes = {}});
    CHECK(first.dump().find("gated=true") != std::string::npos);
    const int packed = backend->packed;
    graph::Program second = probed(g, backend, {}, &first);
    CHECK_EQ(backend->packed, packed);
    graph::Program alone = probed(g, cpu());
    const std::vector<int> ids = small::random_ids(9, o.vocab, 2);
    const Reader a = read_all(second, ids, {3});
    const Reader b = read_all(alone, ids, {3});
    // Rows in blocks of 8 meet other tails of the product kernel: the last bits may differ.
    for (const auto& [tap, rows] : a.got) CHECK(furthest(rows, b.got.at(tap)) < 1e-6);
  }
}

TEST("without probes taps cost nothing; wrong taps are told") {
  graph::Graph g = small::llama({});
  const std::string before = graph::Program(g, cpu(), {.context_length = 64, .kv_dtype = "auto", .passes = {}}).dump();
  tap_all(g);
  const graph::Program program(g, cpu(), {.context_length = 64, .kv_dtype = "auto", .passes = {}});
  CHECK_EQ(program.dump(), before);
  CHECK(program.taps().empty());
  CHECK_THROWS_WITH(g.tap(g.taps[0].name, g.taps[1].value, false), core::Error, "is taken");
  CHECK_THROWS_WITH(g.tap("ids", g.token_ids(), false), core::Error, "computed values");
  CHECK_THROWS_WITH(g.tap("pattern", g.taps[0].value, true), core::Error, "no attention");
  CHECK_THROWS_WITH(g.tap("nothing", 100000, false), core::Error, "no value");
}

TEST("the CPU's patterns are the reference's") {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (const auto& [count, heads, kv_heads, dim, keys, window, cap] :
       {std::array{1, 4, 2, 12, 33, 0, 0}, std::array{17, 3, 1, 20, 17, 0, 2}, std::array{9, 2, 2, 64, 140, 11, 0}}) {
    std::vector<float> q(static_cast<std::size_t>(count * heads * dim)),
        k(static_cast<std::size_t>(keys * kv_heads * dim));
    for (auto* list : {&q, &k})
      for (float& x : *list) x = normal(rng);
    std::vector<float> want(static_cast<std::size_t>(count * heads * keys)), got(want.size(), 7.0f);
    device::PatternCall call{device::Attention{0, 0.3f, window, static_cast<float>(cap)},
                             q.data(),
                             k.data(),
                             count,
                             heads,
                             kv_heads,
                             dim,
                             keys,
                             keys - count,
                             want.data()};
    device::attention_pattern(call);
    call.out = got.data();
    cpu()->attention_pattern(call);
    CHECK(furthest(got, want) < 1e-6);
  }
}

TEST("the reference of patterns, against sums written out") {
  const std::vector<float> q{1, 0, 0, 2};  // one token, 2 heads of 2
  const std::vector<float> k{1, 1, -1, 0.5f, 2, 3};  // 3 keys, 1 key head
  std::vector<float> out(6, -1.0f);
  device::PatternCall call{device::Attention{0, 0.5f, 0, 0.0f}, q.data(), k.data(), 1, 2, 1, 2, 3, 2, out.data()};
  device::attention_pattern(call);
  const double first[3] = {std::exp(0.5), std::exp(-0.5), std::exp(1.0)};
  const double second[3] = {std::exp(1.0), std::exp(0.5), std::exp(3.0)};
  for (int i = 0; i < 3; ++i) {
    CHECK(std::fabs(static_cast<double>(out[static_cast<std::size_t>(i)]) -
                    first[i] / (first[0] + first[1] + first[2])) < 1e-6);
    CHECK(std::fabs(static_cast<double>(out[static_cast<std::size_t>(3 + i)]) -
                    second[i] / (second[0] + second[1] + second[2])) < 1e-6);
  }
  call.op.window = 1;
  device::attention_pattern(call);
  CHECK(out == (std::vector<float>{0, 0, 1, 0, 0, 1}));
}
