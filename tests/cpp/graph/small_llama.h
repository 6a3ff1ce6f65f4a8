#pragma once
// A llama with random weights, recorded op by op, and steps over a paged cache whose blocks lie in no order: what
// the tests of passes, plan and program share.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "device/backend.h"
#include "engine/step_model.h"
#include "graph/attrs.h"
#include "graph/ir.h"

namespace small {

using namespace fastllm;

struct Options {
  int vocab = 53;
  int hidden = 24;
  int layers = 2;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 12;
  int ffn = 40;
  bool bias = false;
  bool post_norm = false;  // rms_norm(attention) before the sum, as in gemma
  int window = 0;
};

inline core::Tensor random_tensor(std::mt19937& rng, std::initializer_list<std::int64_t> dims, float scale,
                                  float mean = 0.0f) {
  core::Tensor t = core::Tensor::empty(core::DType::f32, core::Shape(dims));
  std::normal_distribution<float> normal(mean, scale);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.as<float>()[i] = normal(rng);
  return t;
}

inline graph::Graph llama(const Options& o, unsigned seed = 1) {
  std::mt19937 rng(seed);
  graph::Graph g;
  const auto op = [&](const char* kind, const std::string& name, std::vector<int> inputs,
                      const graph::AttrMap& attrs = {}) {
    const std::vector<int> out = g.op(graph::parse_op(kind, attrs), inputs, name);
    return out.empty() ? -1 : out[0];
  };
  const auto linear = [&](const std::string& name, int x, int in, int out) {
    const int w = g.constant(name + ".weight", random_tensor(rng, {out, in}, 1.0f / std::sqrt(static_cast<float>(in))));
    if (!o.bias) return op("linear", name, {x, w});
    return op("linear", name, {x, w, g.constant(name + ".bias", random_tensor(rng, {out}, 0.3f))},
              {{"has_bias", true}});
  };
  const auto norm = [&](const std::string& name, int x) {
    return op("rms_norm", name, {x, g.constant(name + ".weight", random_tensor(rng, {o.hidden}, 0.2f, 1.0f))},
              {{"eps", 1e-5}});
  };
  core::Tensor freq = core::Tensor::empty(core::DType::f32, core::Shape{o.head_dim / 2});
  for (int i = 0; i < o.head_dim / 2; ++i)
    freq.as<float>()[i] = std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(o.head_dim));
  const int inv_freq = g.constant("inv_freq", freq);
  const int positions = g.positions();
  int h = op("embedding", "embed",
             {g.token_ids(), g.constant("embed.weight", random_tensor(rng, {o.vocab, o.hidden}, 1.0f))});
  for (int i = 0; i < o.layers; ++i) {
    const std::string p = "layers." + std::to_string(i) + ".";
    const graph::AttrMap layer{{"layer", std::int64_t{i}}};
    const graph::AttrMap rotary{{"rotary_dim", std::int64_t{o.head_dim}}};
    int x = norm(p + "norm1", h);
    const std::int64_t q_shape[] = {-1, o.heads, o.head_dim};
    const std::int64_t k_shape[] = {-1, o.kv_heads, o.head_dim};
    const std::int64_t flat[] = {-1, o.heads * o.head_dim};
    const int q =
        op("rope", p + "q_rope",
           {g.reshape(linear(p + "q", x, o.hidden, o.heads * o.head_dim), q_shape), positions, inv_freq}, rotary);
    const int k =
        op("rope", p + "k_rope",
           {g.reshape(linear(p + "k", x, o.hidden, o.kv_heads * o.head_dim), k_shape), positions, inv_freq}, rotary);
    const int v = g.reshape(linear(p + "v", x, o.hidden, o.kv_heads * o.head_dim), k_shape);
    op("kv_write", p + "kv", {k, v}, layer);
    const int a =
        op("attention", p + "attn", {q},
           {{"layer", std::int64_t{i}}, {"scale", 1.0 / std::sqrt(o.head_dim)}, {"window", std::int64_t{o.window}}});
    int out = linear(p + "o", g.reshape(a, flat), o.heads * o.head_dim, o.hidden);
    if (o.post_norm) out = norm(p + "norm3", out);
    h = op("binary", p + "add1", {h, out}, {{"kind", std::string("add")}});
    x = norm(p + "norm2", h);
    const int act = op("unary", p + "act", {linear(p + "gate", x, o.hidden, o.ffn)}, {{"kind", std::string("silu")}});
    const int mul =
        op("binary", p + "mul", {act, linear(p + "up", x, o.hidden, o.ffn)}, {{"kind", std::string("mul")}});
    h = op("binary", p + "add2", {h, linear(p + "down", mul, o.ffn, o.hidden)}, {{"kind", std::string("add")}});
  }
  g.set_output(linear("lm_head", norm("norm", h), o.hidden, o.vocab));
  return g;
}

// The cache of a model and the sequences in it; makes the StepViews that a scheduler would.
class Cache {
 public:
  struct Piece {  // what one sequence does in a step
    int sequence = 0;
    std::vector<int> tokens;
    bool all_rows = true;  // logits of every token, or of the last alone
  };

  Cache(const engine::StepModel& model, int sequences, int context, int block_tokens, unsigned seed = 3)
      : block_tokens_(block_tokens),
        per_sequence_((context + block_tokens - 1) / block_tokens),
        length_(static_cast<std::size_t>(sequences), 0) {
    const int blocks = sequences * per_sequence_ + 3;
    for (const engine::KvSpec& s : model.kv_layers()) {
      const std::size_t rows = static_cast<std::size_t>(blocks * block_tokens * s.kv_heads) * core::dtype_size(s.dtype);
      for (int dim : {s.head_dim, s.v_head_dim}) {
        storage_.push_back(model.backend()->allocate(rows * static_cast<std::size_t>(dim)));
        std::memset(storage_.back()->data(), 0xff,
                    rows * static_cast<std::size_t>(dim));  // NaN: reading what was not written shows
      }
      layers_.push_back({storage_[storage_.size() - 2]->data(), storage_.back()->data(), s.kv_heads, s.head_dim,
                         s.v_head_dim, s.dtype});
    }
    order_.resize(static_cast<std::size_t>(blocks));
    std::iota(order_.begin(), order_.end(), 0);
    std::shuffle(order_.begin(), order_.end(), std::mt19937(seed));
  }

  // Valid until the next call.
  device::StepView step(std::span<const Piece> pieces) {
    for (auto* list : {&ids_, &positions_, &sequence_of_, &start_, &kv_len_, &table_, &rows_}) list->clear();
    slots_.clear();
    start_.push_back(0);
    for (std::size_t s = 0; s < pieces.size(); ++s) {
      const Piece& piece = pieces[s];
      int& length = length_[static_cast<std::size_t>(piece.sequence)];
      for (int b = 0; b < per_sequence_; ++b) table_.push_back(block(piece.sequence, b));
      for (std::size_t i = 0; i < piece.tokens.size(); ++i, ++length) {
        if (piece.all_rows || i + 1 == piece.tokens.size()) rows_.push_back(static_cast<std::int32_t>(ids_.size()));
        ids_.push_back(piece.tokens[i]);
        positions_.push_back(length);
        sequence_of_.push_back(static_cast<std::int32_t>(s));
        slots_.push_back(std::int64_t{block(piece.sequence, length / block_tokens_)} * block_tokens_ +
                         length % block_tokens_);
      }
      start_.push_back(static_cast<std::int32_t>(ids_.size()));
      kv_len_.push_back(length);
    }
    device::StepView v;
    v.tokens = static_cast<int>(ids_.size());
    v.sequences = static_cast<int>(pieces.size());
    v.rows = static_cast<int>(rows_.size());
    v.max_blocks = per_sequence_;
    v.max_kv_len = *std::max_element(kv_len_.begin(), kv_len_.end());
    v.block_tokens = block_tokens_;
    v.token_ids = ids_.data();
    v.positions = positions_.data();
    v.sequence_of = sequence_of_.data();
    v.query_start = start_.data();
    v.kv_len = kv_len_.data();
    v.rope_len = kv_len_.data();
    v.slots = slots_.data();
    v.block_table = table_.data();
    v.selected_rows = rows_.data();
    v.kv = layers_;
    return v;
  }

 private:
  std::int32_t block(int sequence, int index) const {
    return order_[static_cast<std::size_t>(sequence * per_sequence_ + index)];
  }

  int block_tokens_;
  int per_sequence_;
  std::vector<int> length_;
  std::vector<std::shared_ptr<core::Storage>> storage_;
  std::vector<device::KvLayer> layers_;
  std::vector<std::int32_t> order_, ids_, positions_, sequence_of_, start_, kv_len_, table_, rows_;
  std::vector<std::int64_t> slots_;
};

inline std::vector<int> random_ids(int count, int vocab, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<int> ids(static_cast<std::size_t>(count));
  for (int& id : ids) id = static_cast<int>(rng() % static_cast<unsigned>(vocab));
  return ids;
}

}  // namespace small
