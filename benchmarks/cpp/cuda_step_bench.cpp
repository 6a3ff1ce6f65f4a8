// Where a decode step's time goes on a GPU: the ops of a llama-shaped model, recorded as the engine records them and
// replayed whole, then with one kind of op left out at a time; the differences are what each kind costs in place. Then
// products alone, in bytes and operations per second. Weights are random and larger than the caches together.
//
//   cuda_step_bench [--shape llama3.2-1b] [--batches 1,8,32,128] [--context 192] [--quant int4] [--kv fp8] [--products]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "device/backend.h"
#include "quant/format.h"

namespace {

using namespace fastllm;
using core::DType;
using core::Shape;
using core::Tensor;
using device::View;

struct Model {
  int hidden, layers, heads, kv_heads, head_dim, ffn, vocab;
};

const std::map<std::string, Model> kModels{{"llama3.2-1b", {2048, 16, 32, 8, 64, 8192, 128256}},
                                           {"llama3.1-8b", {4096, 32, 32, 8, 128, 14336, 128256}},
                                           {"qwen3-0.6b", {1024, 28, 16, 8, 128, 3072, 151936}}};

View view(const Tensor& t) {
  return {const_cast<void*>(t.data()), t.dtype(), t.shape(), t.strides()};
}

class Bench {
 public:
  Bench() : gpu_(device::open_device("cuda")), noise_(std::size_t{32} << 20) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    for (std::uint16_t& x : noise_) {
      const float value = normal(bits);
      std::uint32_t wide;
      std::memcpy(&wide, &value, 4);
      x = static_cast<std::uint16_t>(wide >> 16);
    }
  }

  Tensor random(Shape shape) {
    Tensor t(gpu_->allocate(static_cast<std::size_t>(shape.numel()) * 2), DType::bf16, shape);
    auto* const data = static_cast<char*>(t.data());
    gpu_->copy_in(data, noise_.data(), std::min(t.nbytes(), noise_.size() * 2));
    for (std::size_t at = noise_.size() * 2; at < t.nbytes(); at *= 2)  // the rest from what is there: caches are large
      gpu_->copy_in(data + at, data, std::min(t.nbytes() - at, at));
    gpu_->synchronize();
    return t;
  }

  // A weight of the format asked for; the output layer of a 4-bit model keeps 8 bits, as in graph::Program.
  std::unique_ptr<device::PackedLinear> pack(std::int64_t n, std::int64_t k, bool gated = false, bool head = false) {
    const device::LinearPart part{random({n, k}), {}};
    std::optional<quant::Format> format = quant;
    if (head && format && format->code == quant::Code::int4) format = quant::format_of("int8");
    return gpu_->pack_linear({&part, 1}, {.gated = gated, .own = true, .format = format});
  }

  std::optional<quant::Format> quant;
  DType kv = DType::bf16;

  device::Backend& gpu() { return *gpu_; }

  // Microseconds of one replay of `work`, the median of several rounds.
  template <class F>
  double time(F&& work, int repeats) {
    work();
    gpu_->synchronize();
    gpu_->begin_recording();
    work();
    const auto recording = gpu_->end_recording();
    std::vector<double> rounds;
    for (int round = 0; round < 7; ++round) {
      gpu_->synchronize();
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < repeats; ++i) recording->replay();
      gpu_->synchronize();
      rounds.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() /
                       repeats);
    }
    std::ranges::sort(rounds);
    return rounds[rounds.size() / 2];
  }

 private:
  std::shared_ptr<device::Backend> gpu_;
  std::vector<std::uint16_t> noise_;
};

struct Layer {
  std::unique_ptr<device::PackedLinear> qkv, o, gate_up, down;
  Tensor k, v;
};

void steps(Bench& bench, const Model& m, const std::vector<int>& batches, int context) {
  const int most = *std::ranges::max_element(batches);
  const int blocks_each = (context + 15) / 16;
  std::vector<Layer> layers;
  const auto pack = [&](std::int64_t n, std::int64_t k, bool gated = false) { return bench.pack(n, k, gated); };
  const int qkv_rows = (m.heads + 2 * m.kv_heads) * m.head_dim;
  for (int i = 0; i < m.layers; ++i) {
    Layer layer;
    layer.qkv = pack(qkv_rows, m.hidden);
    layer.o = pack(m.hidden, m.heads * m.head_dim);
    layer.gate_up = pack(2 * m.ffn, m.hidden, true);
    layer.down = pack(m.hidden, m.ffn);
    const auto elements = static_cast<std::int64_t>(2 / core::dtype_size(bench.kv));  // in the room of a random one
    layer.k = bench.random({most * blocks_each, m.kv_heads, 16, m.head_dim / elements});
    layer.v = bench.random({most * blocks_each, m.kv_heads, 16, m.head_dim / elements});
    layers.push_back(std::move(layer));
  }
  const auto head = bench.pack(m.vocab, m.hidden, false, true);
  const Tensor hidden = bench.random({most, m.hidden}), normed = bench.random({most, m.hidden}),
               qkv = bench.random({most, qkv_rows}), attended = bench.random({most, m.heads, m.head_dim}),
               inner = bench.random({most, m.ffn});
  const Tensor logits(bench.gpu().allocate(static_cast<std::size_t>(most) * m.vocab * 4), DType::f32, {most, m.vocab});
  std::vector<float> ones(static_cast<std::size_t>(m.hidden), 1.0f),
      frequencies(static_cast<std::size_t>(m.head_dim / 2), 0.1f);
  const auto floats = [&](std::vector<float>& values) {
    Tensor t(bench.gpu().allocate(values.size() * 4), DType::f32, {static_cast<std::int64_t>(values.size())});
    bench.gpu().copy_in(t.data(), values.data(), values.size() * 4);
    bench.gpu().synchronize();
    return t;
  };
  const Tensor weight = floats(ones), inv_freq = floats(frequencies);
  for (int batch : batches) {
    device::StepView step;
    step.tokens = step.sequences = step.rows = batch;
    step.max_blocks = blocks_each;
    step.max_kv_len = context;
    std::vector<std::int32_t> ids, positions, sequence, start{0}, length, table;
    std::vector<std::int64_t> slots;
    for (int s = 0; s < batch; ++s) {
      ids.push_back(s);
      positions.push_back(context - 1);
      sequence.push_back(s);
      start.push_back(s + 1);
      length.push_back(context);
      for (int b = 0; b < blocks_each; ++b) table.push_back(s * blocks_each + b);
      slots.push_back((std::int64_t{s} * blocks_each + (context - 1) / 16) * 16 + (context - 1) % 16);
    }
    step.token_ids = ids.data();
    step.positions = positions.data();
    step.sequence_of = sequence.data();
    step.query_start = start.data();
    step.kv_len = length.data();
    step.rope_len = length.data();
    step.slots = slots.data();
    step.block_table = table.data();
    step.selected_rows = ids.data();
    std::vector<device::KvLayer> caches;
    for (const Layer& layer : layers)
      caches.push_back({layer.k.data(), layer.v.data(), m.kv_heads, m.head_dim, m.head_dim, bench.kv});
    device::StepView staged = bench.gpu().stage(step);
    staged.kv = caches;

    const auto rows = [&](const Tensor& t) {
      View v = view(t);
      v.shape[0] = batch;
      return v;
    };
    const View x = rows(hidden), n = rows(normed), all = rows(qkv), a = rows(attended), in = rows(inner),
               w = view(weight), f = view(inv_freq), out = rows(logits);
    const auto heads_of = [&](int first, int count) {
      View v{static_cast<std::uint16_t*>(all.data) + first * m.head_dim, DType::bf16, Shape{batch, count, m.head_dim},
             Shape{qkv_rows, m.head_dim, 1}};
      return v;
    };
    const View flat{a.data, DType::bf16, Shape{batch, m.heads * m.head_dim}, Shape{m.heads * m.head_dim, 1}};
    const View at{const_cast<std::int32_t*>(staged.positions), DType::i32, Shape{batch}, Shape{1}};
    // joined: as the engine runs it, neighbours in one launch where the backend can.
    const auto run = [&](const std::set<std::string>& without, bool joined = true) {
      struct Step {
        device::Op op;
        std::vector<View> in, out;
        const device::PackedLinear* linear;
        bool passing;
      };
      std::deque<Step> all_steps;
      const auto go = [&](const char* name, const device::Op& op, std::vector<View> inputs, std::vector<View> outputs,
                          const device::PackedLinear* linear = nullptr, bool passing = false) {
        if (!without.contains(name)) all_steps.push_back({op, std::move(inputs), std::move(outputs), linear, passing});
      };
      device::Linear gated;
      gated.gated = true;
      gated.activation = device::Activation::silu;
      for (int i = 0; i < m.layers; ++i) {
        const Layer& layer = layers[static_cast<std::size_t>(i)];
        device::RopeAttention attention;
        attention.write.rope.rotary_dim = m.head_dim;
        attention.write.layer = attention.attention.layer = i;
        attention.attention.scale = 0.125f;
        go("norm", device::RmsNorm{}, {x, w}, {n}, nullptr, true);
        go("qkv", device::Linear{}, {n}, {all}, layer.qkv.get());
        go("attention", attention,
           {heads_of(0, m.heads), heads_of(m.heads, m.kv_heads), heads_of(m.heads + m.kv_heads, m.kv_heads), at, f},
           {a});
        go("o", device::Linear{true}, {flat, x}, {x}, layer.o.get());
        go("norm", device::RmsNorm{}, {x, w}, {n}, nullptr, true);
        go("gate_up", gated, {n}, {in}, layer.gate_up.get(), true);
        go("down", device::Linear{true}, {in, x}, {x}, layer.down.get());
      }
      go("norm", device::RmsNorm{}, {x, w}, {n}, nullptr, true);
      go("head", device::Linear{}, {n}, {out}, head.get());
      std::vector<device::OpCall> calls;
      for (const Step& one : all_steps) calls.push_back({one.op, one.in, one.out, one.linear, one.passing});
      if (joined) return bench.gpu().run_all(calls, &staged);
      for (const device::OpCall& call : calls) bench.gpu().run(call, &staged);
    };
    const double apart = bench.time([&] { run({}, false); }, 30);
    const double whole = bench.time([&] { run({}); }, 30);
    double bytes = static_cast<double>(head->bytes);
    for (const Layer& layer : layers)
      bytes += static_cast<double>(layer.qkv->bytes + layer.o->bytes + layer.gate_up->bytes + layer.down->bytes);
    std::printf("batch %3d: %8.1f us (op by op %8.1f), weights %.2f TB/s;", batch, whole, apart, bytes / whole * 1e-6);
    const std::map<std::string, double> kinds{{"norm", 0.0},
                                              {"qkv", static_cast<double>(layers[0].qkv->bytes)},
                                              {"attention", 0.0},
                                              {"o", static_cast<double>(layers[0].o->bytes)},
                                              {"gate_up", static_cast<double>(layers[0].gate_up->bytes)},
                                              {"down", static_cast<double>(layers[0].down->bytes)}};
    for (const auto& [kind, size] : kinds) {
      const double without = bench.time([&] { run({kind}); }, 30);
      const double each = (whole - without) / m.layers / (kind == "norm" ? 2 : 1);
      std::printf(" %s %.2f", kind.c_str(), each);
      if (size > 0) std::printf(" (floor %.2f)", size / 4.6e6);
    }
    const double without = bench.time([&] { run({"head"}); }, 30);
    std::printf(" head %.1f (floor %.1f)\n", whole - without, static_cast<double>(head->bytes) / 4.6e6);
    std::fflush(stdout);
  }
}

void products(Bench& bench) {
  for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{{3072, 2048},
                                                                               {2048, 2048},
                                                                               {16384, 2048},
                                                                               {2048, 8192},
                                                                               {6144, 4096},
                                                                               {4096, 4096},
                                                                               {28672, 4096},
                                                                               {4096, 14336},
                                                                               {128256, 2048}}) {
    std::vector<std::unique_ptr<device::PackedLinear>> weights;
    const int copies = static_cast<int>(std::clamp<std::int64_t>(
        (std::int64_t{400} << 20) / (n * k * (bench.quant ? bench.quant->bits() / 8.0 : 2.0)), 2, 80));
    for (int i = 0; i < copies; ++i) {
      weights.push_back(bench.pack(n, k));
    }
    std::printf("[%6d, %5d]", int(n), int(k));
    for (std::int64_t t : {1, 8, 16, 32, 64, 128, 256, 512, 2048, 8192}) {
      if (n > 100000 && t > 256) continue;
      const Tensor x = bench.random({t, k}), y = bench.random({t, n});
      const View in[] = {view(x)}, out[] = {view(y)};
      const double us = bench.time(
                            [&] {
                              for (const auto& w : weights)
                                bench.gpu().run({device::Linear{}, in, out, w.get()}, nullptr);
                            },
                            3) /
                        copies;
      if (t <= 64)
        std::printf(" %d:%.1fus %.2fTB/s", int(t), us, double(weights[0]->bytes) / us * 1e-6);
      else
        std::printf(" %d:%.1fus %.0fTF", int(t), us, 2.0 * double(n) * double(k) * double(t) / us * 1e-6);
      std::fflush(stdout);
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Bench bench;
  std::string shape = "llama3.2-1b";
  std::vector<int> batches{1, 8, 32, 128};
  int context = 192;
  bool only_products = false;
  std::string format;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (option == "--shape") shape = value();
    if (option == "--context") context = std::stoi(value());
    if (option == "--quant") format = value();
    if (option == "--kv" && value() == "fp8") bench.kv = DType::f8_e4m3;
    if (option == "--products") only_products = true;
    if (option == "--batches") {
      batches.clear();
      std::stringstream list(value());
      for (std::string item; std::getline(list, item, ',');) batches.push_back(std::stoi(item));
    }
  }
  if (!kModels.contains(shape)) {
    std::fprintf(stderr, "unknown shape '%s'\n", shape.c_str());
    return 2;
  }
  if (!format.empty()) bench.quant = quant::format_of(format);
  std::printf("%s\n", bench.gpu().info().description.c_str());
  if (only_products)
    products(bench);
  else
    steps(bench, kModels.at(shape), batches, context);
  return 0;
}
