// Each pass, before and after: which nodes a small graph has, and that its logits stay what they were. Then what
// each must leave alone.

#include "graph/passes/passes.h"

#include <functional>

#include "check.h"
#include "core/error.h"
#include "graph/program.h"
#include "small_llama.h"

using namespace fastllm;
using graph::AttrMap;
using graph::Graph;

namespace {

constexpr int kWidth = 6;
constexpr int kVocab = 9;

// Records tiny graphs; every weight is random.
struct Recorder {
  Graph g;
  std::mt19937 rng{11};
  int count = 0;

  int op(const char* kind, std::vector<int> inputs, const AttrMap& attrs = {}, std::string name = "") {
    if (name.empty()) name = std::string(kind) + std::to_string(count++);
    const std::vector<int> out = g.op(graph::parse_op(kind, attrs), inputs, name);
    return out.empty() ? -1 : out[0];
  }
  int weight(std::initializer_list<std::int64_t> dims, float mean = 0.0f) {
    return g.constant("w" + std::to_string(count++), small::random_tensor(rng, dims, 0.5f, mean));
  }
  int embed() { return op("embedding", {g.token_ids(), weight({kVocab, kWidth})}, {}, "embed"); }
  int linear(int x, int out = kWidth, const AttrMap& attrs = {}, std::string name = "") {
    const std::int64_t in = g.values[static_cast<std::size_t>(x)].type.shape.back();
    return op("linear", {x, weight({out, in})}, attrs, std::move(name));
  }
  int unary(int x, const char* kind) { return op("unary", {x}, {{"kind", std::string(kind)}, {"param", 2.0}}); }
  int binary(int a, int b, const char* kind) { return op("binary", {a, b}, {{"kind", std::string(kind)}}); }
  int norm(int x) {
    return op("rms_norm", {x, weight({g.values[static_cast<std::size_t>(x)].type.shape.back()}, 1.0f)},
              {{"eps", 1e-5}});
  }
  void head(int x) { g.set_output(linear(x, kVocab, {}, "head")); }
};

std::string ops(const Graph& g) {
  std::string out;
  for (const graph::Node& node : g.nodes) {
    if (!out.empty()) out += " ";
    if (const auto* op = std::get_if<device::Op>(&node.op)) {
      out += device::op_name(*op);
      if (node.parts.size() > 1) out += "*" + std::to_string(node.parts.size());
      if (const auto* linear = graph::node_as<device::Linear>(node)) {
        if (linear->add_residual) out += "+residual";
        if (linear->activation != device::Activation::none) out += "+act";
      }
      if (!node.outputs.empty() && g.values[static_cast<std::size_t>(node.outputs[0])].type.lead == graph::Lead::rows)
        out += "@rows";
    } else {
      out += std::holds_alternative<graph::Slice>(node.op) ? "slice" : "reshape";
    }
  }
  return out;
}

std::vector<float> logits(const Graph& g, std::vector<std::string> passes) {
  static const auto backend = device::open_device("cpu", {.threads = 1});
  graph::Program program(g, backend, {.context_length = 32, .kv_dtype = "float32", .passes = std::move(passes)});
  small::Cache cache(program, 1, 32, 16);
  program.reserve({7, 7, 1});
  const small::Cache::Piece piece{0, small::random_ids(7, kVocab, 3), true};
  const std::span<float> out = program.run(cache.step({&piece, 1}));
  return {out.begin(), out.end()};
}

// Runs one pass: the nodes are as expected, the numbers unchanged.
void check_pass(Recorder& r, const char* pass, const std::string& after) {
  const std::vector<float> want = logits(r.g, {});
  const std::vector<float> got = logits(r.g, {pass});
  const std::string names[] = {pass};
  Graph changed = r.g;
  graph::run_passes(changed, names);
  CHECK_EQ(ops(changed), after);
  CHECK_EQ(got.size(), want.size());
  double spread = 0;
  double apart = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    spread = std::max(spread, std::abs(static_cast<double>(want[i])));
    apart = std::max(apart, std::abs(static_cast<double>(want[i]) - static_cast<double>(got[i])));
  }
  CHECK(spread > 0.1);
  CHECK_NEAR(apart, 0.0, 2e-6 * spread + 1e-6);
}

}  // namespace

TEST("affine_fold") {
  Recorder r;
  int x = r.op("affine", {r.embed()}, {{"scale", 3.0}});
  x = r.op("affine", {r.linear(x)}, {{"scale", 0.5}});
  x = r.unary(x, "tanh");
  x = r.op("affine", {r.op("affine", {x}, {{"scale", 2.0}, {"shift", 1.0}})}, {{"scale", -1.0}, {"shift", 0.25}});
  x = r.op("affine", {x}, {{"scale", 1.0}});
  r.head(x);
  check_pass(r, "affine_fold", "embedding linear unary affine linear");
}

TEST("affine_fold leaves shifts, biases, activations and second readers alone") {
  Recorder r;
  const int x = r.embed();
  const int biased = r.op("linear", {x, r.weight({kWidth, kWidth}), r.weight({kWidth})}, {{"has_bias", true}});
  const int a = r.op("affine", {biased}, {{"scale", 2.0}});
  const int b = r.op("affine", {r.linear(a)}, {{"shift", 2.0}});
  const int twice = r.linear(b);
  const int c = r.op("affine", {twice}, {{"scale", 2.0}});
  r.head(r.binary(c, twice, "mul"));
  check_pass(r, "affine_fold", "embedding linear affine linear affine linear affine binary linear");
}

TEST("dead_code") {
  Recorder r;
  const int x = r.embed();
  r.norm(r.linear(x));
  r.unary(x, "exp");
  r.g.keep = {"kept"};
  r.op("unary", {x}, {{"kind", std::string("tanh")}}, "kept");
  r.head(x);
  check_pass(r, "dead_code", "embedding unary linear");
}

TEST("concat_linear") {
  Recorder r;
  const int x = r.embed();
  const int a = r.linear(x, 4);
  const int b = r.op("linear", {x, r.weight({6, kWidth}), r.weight({6})}, {{"has_bias", true}});
  const int c = r.linear(x, 4);
  r.head(r.binary(r.linear(r.binary(a, c, "mul"), 6), b, "add"));
  check_pass(r, "concat_linear", "embedding linear*3 slice slice slice binary linear binary linear");
}

TEST("concat_linear joins only what is alike") {
  Recorder r;
  const int x = r.embed();
  const int scaled = r.linear(x, kWidth, {{"scale", 2.0}});
  const int active = r.linear(x, kWidth, {{"activation", std::string("silu")}});
  const int plain = r.linear(x);
  core::Tensor half = core::Tensor::empty(core::DType::bf16, core::Shape{kWidth, kWidth});
  for (std::int64_t i = 0; i < half.numel(); ++i)
    half.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(0x3e80 + 7 * i);
  const int other = r.op("linear", {x, r.g.constant("half", half)});
  r.head(r.binary(r.binary(scaled, active, "add"), r.binary(plain, other, "add"), "add"));
  check_pass(r, "concat_linear", "embedding linear linear+act linear linear binary binary binary linear");
}

TEST("gated_activation") {
  Recorder r;
  const int x = r.embed();
  const int left = r.binary(r.unary(r.linear(x), "silu"), r.linear(x), "mul");
  const int right = r.binary(r.linear(x), r.unary(r.linear(x), "gelu_tanh"), "mul");  // either order
  r.head(r.binary(left, right, "add"));
  check_pass(r, "gated_activation",
             "embedding linear linear gated_activation linear linear gated_activation binary linear");
}

TEST("gated_activation needs an activation read once, whole") {
  Recorder r;
  const int x = r.embed();
  const int twice = r.unary(x, "silu");
  const int a = r.binary(twice, x, "mul");
  const int b = r.binary(r.unary(a, "softcap"), x, "mul");
  const int c = r.binary(r.unary(b, "silu"), r.weight({kWidth}), "mul");  // broadcast
  r.g.keep = {"tapped"};
  const int tapped = r.op("unary", {c}, {{"kind", std::string("silu")}}, "tapped");
  r.head(r.binary(r.binary(tapped, c, "mul"), twice, "add"));
  check_pass(r, "gated_activation", "embedding unary binary unary binary unary binary unary binary binary linear");
}

TEST("linear_activation") {
  Recorder r;
  r.head(r.unary(r.linear(r.embed(), 10), "gelu_tanh"));
  check_pass(r, "linear_activation", "embedding linear+act linear");
}

TEST("linear_activation leaves softcaps, sums and products read twice") {
  Recorder r;
  const int x = r.embed();
  const int capped = r.unary(r.linear(x), "softcap");
  const int twice = r.linear(capped);
  const int sum = r.op("linear", {twice, r.weight({kWidth, kWidth}), x}, {{"add_residual", true}});
  r.head(r.binary(r.unary(twice, "tanh"), r.unary(sum, "tanh"), "add"));
  check_pass(r, "linear_activation", "embedding linear unary linear linear+residual unary unary binary linear");
}

TEST("linear_residual") {
  Recorder r;
  const int x = r.embed();
  const int h = r.binary(x, r.linear(r.norm(x)), "add");
  r.head(r.binary(r.linear(r.norm(h)), h, "add"));  // either order
  check_pass(r, "linear_residual", "embedding rms_norm linear+residual rms_norm linear+residual linear");
}

TEST("linear_residual needs a product read once, of the residual's shape") {
  Recorder r;
  const int x = r.embed();
  const int p = r.linear(x);
  const int a = r.binary(x, p, "add");
  const int b = r.binary(a, p, "add");
  const int c = r.binary(r.linear(b), r.weight({kWidth}), "add");
  r.head(r.binary(r.linear(c), c, "sub"));
  check_pass(r, "linear_residual", "embedding linear binary binary linear binary linear binary linear");
}

TEST("two products of one sum: one of them adds the other") {
  Recorder r;
  const int x = r.embed();
  r.head(r.binary(r.linear(x), r.linear(x), "add"));
  check_pass(r, "linear_residual", "embedding linear linear+residual linear");
}

TEST("residual_norm, with the sum used again and not") {
  Recorder r;
  const int x = r.embed();
  const int h = r.binary(x, r.unary(x, "tanh"), "add");
  const int y = r.unary(r.norm(h), "tanh");
  r.head(r.norm(r.binary(h, y, "add")));
  check_pass(r, "residual_norm", "embedding unary add_rms_norm unary add_rms_norm linear");
}

TEST("residual_norm leaves broadcasts, and gives a sum's second norm the sum") {
  Recorder r;
  const int x = r.embed();
  const int shifted = r.norm(r.binary(x, r.weight({kWidth}), "add"));
  const int h = r.binary(shifted, x, "add");
  r.head(r.binary(r.norm(h), r.norm(h), "mul"));
  check_pass(r, "residual_norm", "embedding binary rms_norm add_rms_norm rms_norm binary linear");
}

TEST("select_rows goes up to the last op across tokens") {
  Recorder r;
  const int x = r.embed();
  const std::int64_t heads[] = {-1, 2, 3};
  const std::int64_t flat[] = {-1, 6};
  const int q = r.g.reshape(r.linear(x), heads);
  r.op("kv_write", {q, q}, {{"layer", std::int64_t{0}}});
  const int a = r.g.reshape(r.op("attention", {q}, {{"layer", std::int64_t{0}}}), flat);
  const int h = r.binary(x, r.linear(a), "add");
  r.head(r.binary(h, r.linear(r.norm(h)), "add"));
  check_pass(r, "select_rows",
             "embedding linear reshape kv_write attention reshape select_rows@rows reshape reshape linear@rows "
             "select_rows@rows binary@rows "
             "rms_norm@rows linear@rows binary@rows linear@rows");
}

TEST("select_rows keeps what a tap or the cache needs of all tokens") {
  Recorder r;
  const std::int64_t heads[] = {-1, 2, 3};
  r.g.keep = {"tapped"};
  const int x = r.op("unary", {r.embed()}, {{"kind", std::string("tanh")}}, "tapped");
  const int k = r.g.reshape(r.unary(x, "exp"), heads);
  r.op("kv_write", {k, k}, {{"layer", std::int64_t{0}}});
  r.head(r.unary(x, "sigmoid"));
  check_pass(r, "select_rows", "embedding unary unary reshape kv_write select_rows@rows unary@rows linear@rows");
}

TEST("rows that the recorder selected itself are moved up as well") {
  Recorder r;
  const int x = r.norm(r.linear(r.embed()));
  r.head(r.op("select_rows", {x}));
  check_pass(r, "select_rows", "embedding select_rows@rows linear@rows rms_norm@rows linear@rows");
}

TEST("all passes in any order keep the logits") {
  std::vector<std::string> names;
  for (const graph::Pass& pass : graph::all_passes()) names.emplace_back(pass.name);
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 rng(seed);
  for (const small::Options& o :
       {small::Options{.vocab = kVocab, .bias = true}, small::Options{.vocab = kVocab, .post_norm = true}}) {
    const Graph g = small::llama(o);
    const std::vector<float> want = logits(g, {});
    for (int round = 0; round < 20; ++round) {
      std::shuffle(names.begin(), names.end(), rng);
      const std::vector<float> got = logits(g, {names.begin(), names.begin() + 1 + round % 8});
      double apart = 0;
      for (std::size_t i = 0; i < want.size(); ++i)
        apart = std::max(apart, std::abs(static_cast<double>(want[i]) - static_cast<double>(got[i])));
      CHECK_NEAR(apart, 0.0, 2e-5);
    }
  }
}

TEST("an unknown pass is named") {
  Graph g = small::llama({});
  const std::string names[] = {"fuse_all"};
  CHECK_THROWS_WITH(graph::run_passes(g, names), core::Error, "fuse_all");
}
