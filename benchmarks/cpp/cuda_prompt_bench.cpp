// Where a prompt's first step goes on a GPU: each kind of op of a llama-shaped layer alone at the prompt's length, in
// microseconds and operations or bytes per second, and what the layers come to together. Then prefill attention by
// itself, over lengths and head sizes. Weights and activations are random.
//
//   cuda_prompt_bench [--shape llama3.1-8b] [--tokens 512,2048,8192] [--quant fp8_dynamic] [--attention]
//                     [--deterministic] [--kv fp8]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
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

constexpr int kBlock = 16;

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
  Bench() : gpu_(device::open_device("cuda")), noise_(std::size_t{1} << 24) {
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
    for (std::size_t at = 0; at < t.nbytes(); at += noise_.size() * 2)
      gpu_->copy_in(static_cast<char*>(t.data()) + at, noise_.data(), std::min(t.nbytes() - at, noise_.size() * 2));
    gpu_->synchronize();
    return t;
  }

  Tensor floats(std::int64_t count, float value) {
    const std::vector<float> values(static_cast<std::size_t>(count), value);
    Tensor t(gpu_->allocate(values.size() * 4), DType::f32, {count});
    gpu_->copy_in(t.data(), values.data(), values.size() * 4);
    gpu_->synchronize();
    return t;
  }

  std::optional<quant::Format> quant;

  device::Backend& gpu() { return *gpu_; }
  DType kv = DType::bf16;

  // Microseconds of one run of `work`, recorded and replayed `repeats` times; the median of several rounds.
  template <class F>
  double time(F&& work, int repeats) {
    work();
    gpu_->synchronize();
    gpu_->begin_recording();
    for (int i = 0; i < repeats; ++i) work();
    const auto recording = gpu_->end_recording();
    recording->replay();
    std::vector<double> rounds;
    for (int round = 0; round < 7; ++round) {
      gpu_->synchronize();
      const auto start = std::chrono::steady_clock::now();
      recording->replay();
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

// The step of one sequence with `cached` tokens before its `queries` new ones.
struct Prompt {
  Prompt(Bench& bench, int cached, int queries, bool deterministic) {
    const int total = cached + queries;
    const int blocks = (total + kBlock - 1) / kBlock;
    for (int i = 0; i < blocks; ++i) table.push_back((i * 7 + 3) % blocks);
    for (int i = 0; i < queries; ++i) {
      const int at = cached + i;
      ids.push_back(i % 1000);
      sequence.push_back(0);
      positions.push_back(at);
      slots.push_back(std::int64_t{table[static_cast<std::size_t>(at / kBlock)]} * kBlock + at % kBlock);
    }
    start = {0, queries};
    length = {total};
    row = {queries - 1};
    device::StepView step;
    step.tokens = queries;
    step.sequences = step.rows = 1;
    step.max_blocks = blocks;
    step.max_kv_len = total;
    step.deterministic = deterministic;
    step.token_ids = ids.data();
    step.positions = positions.data();
    step.sequence_of = sequence.data();
    step.query_start = start.data();
    step.kv_len = step.rope_len = length.data();
    step.slots = slots.data();
    step.block_table = table.data();
    step.selected_rows = row.data();
    view = bench.gpu().stage(step);
  }

  std::vector<std::int32_t> ids, sequence, positions, start, length, table, row;
  std::vector<std::int64_t> slots;
  device::StepView view;
};

void prompts(Bench& bench, const Model& m, const std::vector<int>& lengths, bool deterministic) {
  const int most = *std::ranges::max_element(lengths);
  const auto pack = [&](std::int64_t n, std::int64_t k, bool gated = false) {
    const device::LinearPart part{bench.random({n, k}), {}};
    return bench.gpu().pack_linear({&part, 1}, {.gated = gated, .own = true, .format = bench.quant});
  };
  const int qkv_rows = (m.heads + 2 * m.kv_heads) * m.head_dim;
  const auto qkv_weight = pack(qkv_rows, m.hidden), o_weight = pack(m.hidden, m.heads * m.head_dim),
             gate_up_weight = pack(2 * m.ffn, m.hidden, true), down_weight = pack(m.hidden, m.ffn);
  const Shape cache{(most + kBlock - 1) / kBlock, m.kv_heads, kBlock, m.head_dim};
  const Tensor k = bench.random(cache), v = bench.random(cache), hidden = bench.random({most, m.hidden}),
               normed = bench.random({most, m.hidden}), qkv = bench.random({most, qkv_rows}),
               attended = bench.random({most, m.heads, m.head_dim}), inner = bench.random({most, m.ffn}),
               weight = bench.floats(m.hidden, 1.0f), inv_freq = bench.floats(m.head_dim / 2, 0.1f);
  const device::KvLayer layer{k.data(), v.data(), m.kv_heads, m.head_dim, m.head_dim, bench.kv};
  for (int tokens : lengths) {
    Prompt prompt(bench, 0, tokens, deterministic);
    prompt.view.kv = std::span(&layer, 1);
    const auto rows = [&](const Tensor& t) {
      View shorter = view(t);
      shorter.shape[0] = tokens;
      return shorter;
    };
    const View x = rows(hidden), n = rows(normed), all = rows(qkv), a = rows(attended), in = rows(inner);
    const auto heads_of = [&](int first, int count) {
      return View{static_cast<std::uint16_t*>(all.data) + first * m.head_dim, DType::bf16,
                  Shape{tokens, count, m.head_dim}, Shape{qkv_rows, m.head_dim, 1}};
    };
    const View flat{a.data, DType::bf16, Shape{tokens, m.heads * m.head_dim}, Shape{m.heads * m.head_dim, 1}};
    const View at{const_cast<std::int32_t*>(prompt.view.positions), DType::i32, Shape{tokens}, Shape{1}};
    const View q = heads_of(0, m.heads);
    device::RopeKvWrite rope;
    rope.rope.rotary_dim = m.head_dim;
    device::Attention attention;
    attention.scale = 8.0f;
    device::Linear gated;
    gated.gated = true;
    gated.activation = device::Activation::silu;
    double together = 0.0;
    const double t = tokens;
    const auto row = [&](const char* name, int times, const device::Op& op, std::vector<View> inputs,
                         std::vector<View> outputs, const device::PackedLinear* linear, double operations,
                         double bytes) {
      const double us = bench.time([&] { bench.gpu().run({op, inputs, outputs, linear}, &prompt.view); }, 8);
      together += us * times * m.layers;
      std::printf("  %-10s %8.1f us x %d", name, us, times);
      if (operations > 0)
        std::printf("  %.0f TFLOP/s\n", operations / us * 1e-6);
      else
        std::printf("  %.2f TB/s\n", bytes / us * 1e-6);
      std::fflush(stdout);
    };
    const auto product = [&](double n_rows, double depth) { return 2.0 * t * n_rows * depth; };
    const double wide = double(m.heads) * m.head_dim;
    std::printf("prompt of %d\n", tokens);
    row("norm", 2, device::RmsNorm{}, {x, view(weight)}, {n}, nullptr, 0, t * m.hidden * 4.0);
    row("qkv", 1, device::Linear{}, {n}, {all}, qkv_weight.get(), product(qkv_rows, m.hidden), 0);
    row("rope, write", 1, rope,
        {q, heads_of(m.heads, m.kv_heads), heads_of(m.heads + m.kv_heads, m.kv_heads), at, view(inv_freq)}, {q},
        nullptr, 0, t * qkv_rows * 4.0);
    row("attention", 1, attention, {q}, {a}, nullptr, 2.0 * t * (t + 1) * wide, 0);
    row("o", 1, device::Linear{true}, {flat, x}, {x}, o_weight.get(), product(m.hidden, wide), 0);
    row("gate, up", 1, gated, {n}, {in}, gate_up_weight.get(), product(2.0 * m.ffn, m.hidden), 0);
    row("down", 1, device::Linear{true}, {in, x}, {x}, down_weight.get(), product(m.hidden, m.ffn), 0);
    std::printf("  %d layers together %.1f ms\n", m.layers, together * 1e-3);
  }
}

void attention(Bench& bench, bool deterministic) {
  constexpr int kHeads = 32, kKvHeads = 8;
  for (int head_dim : {128, 64})
    for (const auto& [cached, queries] :
         std::vector<std::pair<int, int>>{{0, 512}, {0, 2048}, {0, 8192}, {7680, 512}, {0, 32768}}) {
      Prompt prompt(bench, cached, queries, deterministic);
      const Shape cache{prompt.view.max_blocks, kKvHeads, kBlock, head_dim};
      const Tensor k = bench.random(cache), v = bench.random(cache), q = bench.random({queries, kHeads, head_dim}),
                   to = bench.random({queries, kHeads, head_dim});
      const device::KvLayer layer{k.data(), v.data(), kKvHeads, head_dim, head_dim, bench.kv};
      prompt.view.kv = std::span(&layer, 1);
      device::Attention op;
      op.scale = 8.0f;  // scores of the order of 1
      const View in[] = {view(q)}, out[] = {view(to)};
      const double us = bench.time([&] { bench.gpu().run({op, in, out}, &prompt.view); }, 12);
      const double pairs = double(cached) * queries + double(queries) * (queries + 1) / 2;
      std::printf("attention, head size %3d, %5d cached + %5d: %8.1f us, %.0f TFLOP/s\n", head_dim, cached, queries, us,
                  4.0 * pairs * head_dim * kHeads / us * 1e-6);
      std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
  std::string shape = "llama3.1-8b";
  Bench bench;
  std::vector<int> lengths{512, 2048, 8192};
  bool only_attention = false;
  bool deterministic = false;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (option == "--shape") shape = value();
    if (option == "--kv" && value() == "fp8") bench.kv = DType::f8_e4m3;
    if (option == "--quant") bench.quant = quant::format_of(value());
    if (option == "--attention") only_attention = true;
    if (option == "--deterministic") deterministic = true;
    if (option == "--tokens") {
      lengths.clear();
      std::stringstream list(value());
      for (std::string item; std::getline(list, item, ',');) lengths.push_back(std::stoi(item));
    }
  }
  if (!kModels.contains(shape) || lengths.empty()) {
    std::fprintf(stderr, "unknown shape '%s', or no lengths\n", shape.c_str());
    return 2;
  }
  std::printf("%s\n", bench.gpu().info().description.c_str());
  if (only_attention)
    attention(bench, deterministic);
  else
    prompts(bench, kModels.at(shape), lengths, deterministic);
  return 0;
}
