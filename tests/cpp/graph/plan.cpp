// The memory plan: values alive at the same time never share bytes, unless one takes over another on purpose; views
// lie in their source.

#include "graph/plan.h"

#include "check.h"
#include "graph/passes/passes.h"
#include "small_llama.h"

using namespace fastllm;

namespace {

graph::Graph lowered(graph::Graph g, bool fused) {
  if (fused)
    for (const graph::Pass& pass : graph::all_passes()) pass.run(g);
  graph::legalize_views(g);
  return g;
}

// Replays the plan with one tag per byte: every node writes its results' tags, every read must find the tag of what
// it reads.
void replay(const graph::Graph& g, const graph::Plan& plan, const engine::StepLimits& limits) {
  std::vector<int> arena(plan.arena_bytes, -1);
  std::vector<int> root(g.values.size());
  std::iota(root.begin(), root.end(), 0);
  const auto touch = [&](int value, auto&& use) {
    const graph::Type& type = g.values[static_cast<std::size_t>(value)].type;
    const graph::Location& at = plan.locations[static_cast<std::size_t>(value)];
    const graph::Buffer& buffer = plan.buffers[static_cast<std::size_t>(at.buffer)];
    const std::int64_t rows = type.lead == graph::Lead::rows ? limits.max_rows : limits.max_tokens;
    std::vector<std::int64_t> index(static_cast<std::size_t>(type.shape.rank()), 0);
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t i = 0; i < type.shape.numel(); ++i) {
        std::int64_t rest = i;
        std::int64_t element = at.offset + row * at.strides[0];
        for (int a = type.shape.rank() - 1; a > 0; --a) {
          element += rest % type.shape[a] * at.strides[a];
          rest /= type.shape[a];
        }
        const std::size_t byte = buffer.offset + static_cast<std::size_t>(element) * core::dtype_size(type.dtype);
        if (byte + core::dtype_size(type.dtype) > buffer.offset + buffer.bytes) {
          CHECK_EQ(byte, buffer.offset + buffer.bytes);
          return;
        }
        // A view's element is its root's: number it by the place in the root, which is where it lies in the buffer.
        use(arena[byte]);
      }
  };
  long wrong = 0;
  for (const graph::Node& node : g.nodes) {
    if (graph::is_view(node)) {
      root[static_cast<std::size_t>(node.outputs[0])] = root[static_cast<std::size_t>(node.inputs[0])];
      continue;
    }
    for (int id : node.inputs)
      if (plan.locations[static_cast<std::size_t>(id)].buffer >= 0)
        touch(id, [&](int tag) { wrong += tag != root[static_cast<std::size_t>(id)]; });
    for (int id : node.outputs) touch(id, [&](int& tag) { tag = id; });
  }
  touch(g.output, [&](int tag) { wrong += tag != root[static_cast<std::size_t>(g.output)]; });
  CHECK_EQ(wrong, 0L);
}

}  // namespace

TEST("every read finds what was written") {
  const engine::StepLimits limits{5, 3, 2};
  for (bool fused : {false, true})
    for (const small::Options& o : {small::Options{}, small::Options{.bias = true, .post_norm = true},
                                    small::Options{.layers = 4, .kv_heads = 4}}) {
      const graph::Graph g = lowered(small::llama(o), fused);
      const graph::Plan plan = graph::make_plan(g, limits);
      replay(g, plan, limits);
      CHECK(plan.arena_bytes < plan.unshared_bytes);
    }
}

TEST("random graphs: every read finds what was written") {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 rng(seed);
  for (int round = 0; round < 200; ++round) {
    graph::Graph g;
    std::vector<int> values;
    const int table = g.constant("table", small::random_tensor(rng, {8, 12}, 1.0f));
    const int ids[] = {g.token_ids(), table};
    values.push_back(g.op(graph::parse_op("embedding", {}), ids, "embed")[0]);
    const auto pick = [&] { return values[rng() % values.size()]; };
    const auto width = [&](int v) { return g.values[static_cast<std::size_t>(v)].type.shape.back(); };
    const auto rank = [&](int v) { return g.values[static_cast<std::size_t>(v)].type.shape.rank(); };
    for (int n = 0; n < 25; ++n) {
      const int v = pick();
      const std::string name = "n" + std::to_string(n);
      switch (rng() % 7) {
        case 0:
          values.push_back(g.op(graph::parse_op("unary", {{"kind", std::string("tanh")}}), std::span(&v, 1), name)[0]);
          break;
        case 1:
          values.push_back(g.op(graph::parse_op("affine", {{"scale", 0.5}}), std::span(&v, 1), name)[0]);
          break;
        case 2:
          if (width(v) > 1) {
            const auto start = static_cast<std::int64_t>(rng() % static_cast<unsigned>(width(v)));
            values.push_back(g.slice(
                v, start, start + 1 + static_cast<std::int64_t>(rng() % static_cast<unsigned>(width(v) - start))));
          }
          break;
        case 3:
          if (rank(v) == 2 && width(v) % 2 == 0) {
            const std::int64_t shape[] = {-1, 2, width(v) / 2};
            values.push_back(g.reshape(v, shape));
          } else if (rank(v) == 3) {
            const std::int64_t shape[] = {-1, 2 * width(v)};
            values.push_back(g.reshape(v, shape));
          }
          break;
        case 4: {
          const int w = pick();
          if (g.values[static_cast<std::size_t>(v)].type == g.values[static_cast<std::size_t>(w)].type) {
            const int pair[] = {v, w};
            values.push_back(g.op(graph::parse_op("binary", {{"kind", std::string("add")}}), pair, name)[0]);
          }
          break;
        }
        case 5: {
          const int in[] = {v, g.constant("w" + name, small::random_tensor(rng, {width(v)}, 1.0f))};
          values.push_back(g.op(graph::parse_op("rms_norm", {}), in, name)[0]);
          break;
        }
        default:
          if (rank(v) == 2) {
            const int in[] = {v, g.constant("w" + name, small::random_tensor(rng, {8, width(v)}, 1.0f))};
            values.push_back(g.op(graph::parse_op("linear", {}), in, name)[0]);
          }
      }
    }
    std::vector<int> flat;
    for (int v : values)
      if (rank(v) == 2 && g.values[static_cast<std::size_t>(v)].kind == graph::ValueKind::node) flat.push_back(v);
    const int last = flat[rng() % flat.size()];
    const int head[] = {last, g.constant("head", small::random_tensor(rng, {8, width(last)}, 1.0f))};
    g.set_output(g.op(graph::parse_op("linear", {}), head, "head")[0]);
    const bool fused = rng() % 2;
    const graph::Graph low = lowered(g, fused);
    const engine::StepLimits limits{3, 2, 1};
    replay(low, graph::make_plan(low, limits), limits);
  }
}

TEST("the residual stream lives in one buffer, and slices of a product cost nothing") {
  const graph::Graph g = lowered(small::llama({}), true);
  const graph::Plan plan = graph::make_plan(g, {16, 4, 2});
  int copies = 0;
  int in_place = 0;
  int sums = 0;
  for (const graph::Node& node : g.nodes) {
    copies += graph::node_as<device::Copy>(node) != nullptr;
    const auto* linear = graph::node_as<device::Linear>(node);
    if (!linear || !linear->add_residual) continue;
    ++sums;
    in_place += plan.locations[static_cast<std::size_t>(node.inputs[1])].buffer ==
                plan.locations[static_cast<std::size_t>(node.outputs[0])].buffer;
  }
  CHECK_EQ(copies, 0);
  CHECK_EQ(sums, 4);
  CHECK_EQ(in_place, sums);
}
