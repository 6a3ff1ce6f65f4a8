// Programs driven by hand-made steps: batches, blocks in any order, limits, the null device, and no allocation in
// the steady state. (That logits are right at all is shown against numpy in tests/unit/test_core_graph.py.)

#include "graph/program.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "check.h"
#include "core/error.h"
#include "graph/passes/passes.h"
#include "small_llama.h"

namespace {
std::atomic<long> allocations{0};
}

// Every C++ allocation of this executable is counted. (Not inlined: g++ would take free() for a mismatch with new.)
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t align) {
  ++allocations;
  const auto a = static_cast<std::size_t>(align);
  if (void* p = std::aligned_alloc(a, (bytes + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes ? bytes : 1);
}
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}

using namespace fastllm;
using small::Cache;
using Piece = small::Cache::Piece;

namespace {

std::shared_ptr<device::Backend> cpu() {
  static const auto backend = device::open_device("cpu", {.threads = 2});
  return backend;
}

graph::Program compile(const graph::Graph& g, std::optional<std::vector<std::string>> passes = {}) {
  return graph::Program(g, cpu(), {.context_length = 128, .kv_dtype = "auto", .passes = std::move(passes)});
}

// Logits of every token of one sequence, alone, in one chunk. [ids, vocab]
std::vector<float> alone(graph::Program& program, const std::vector<int>& ids, int block_tokens = 16) {
  Cache cache(program, 1, 128, block_tokens);
  program.reserve({static_cast<int>(ids.size()), static_cast<int>(ids.size()), 1});
  const Piece piece{0, ids, true};
  const std::span<float> logits = program.run(cache.step({&piece, 1}));
  return {logits.begin(), logits.end()};
}

std::vector<int> part(const std::vector<int>& ids, int from, int to) {
  return {ids.begin() + from, ids.begin() + to};
}

void check_rows(std::span<const float> got, const float* want, std::size_t count) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < count; ++i) different += !(got[i] == want[i]);
  CHECK_EQ(different, std::size_t{0});
}

// Records as a GPU does: the operands by their addresses, cache and staged step included.
class Recorder : public device::Backend {
 public:
  explicit Recorder(std::shared_ptr<device::Backend> inner) : inner_(std::move(inner)) { staged_.resize(9); }
  const device::DeviceInfo& info() const override { return inner_->info(); }
  core::DType activation_dtype(core::DType weights) const override { return inner_->activation_dtype(weights); }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override { return inner_->allocate(bytes); }
  void copy_in(void* to, const void* from, std::size_t bytes) override { inner_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, std::size_t bytes) override { inner_->copy_out(to, from, bytes); }
  core::Tensor place(const core::Tensor& host) override { return inner_->place(host); }
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options) override {
    return inner_->pack_linear(parts, options);
  }
  device::StepView stage(const device::StepView& host) override {
    device::StepView view = host;
    std::size_t next = 0;
    const auto put = [&](auto*& pointer, int count) {
      std::vector<char>& room = staged_[next++];
      room.resize(std::size_t{1} << 14);
      std::memcpy(room.data(), pointer, static_cast<std::size_t>(count) * sizeof(*pointer));
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(room.data());
    };
    put(view.token_ids, host.tokens);
    put(view.positions, host.tokens);
    put(view.sequence_of, host.tokens);
    put(view.slots, host.tokens);
    put(view.query_start, host.sequences + 1);
    put(view.kv_len, host.sequences);
    put(view.rope_len, host.sequences);
    put(view.block_table, host.sequences * host.max_blocks);
    put(view.selected_rows, host.rows);
    return view;
  }
  bool can_record() const override { return true; }
  void begin_recording() override { recording_ = std::make_unique<Calls>(); }
  std::unique_ptr<device::Recording> end_recording() override {
    recording_->inner = inner_.get();
    recording_->replayed = &replayed;
    return std::move(recording_);
  }
  void run(const device::OpCall& call, const device::StepView* step) override {
    if (!recording_) return inner_->run(call, step);
    Call& kept = recording_->calls.emplace_back();
    kept.op = &call.op;
    kept.in.assign(call.in.begin(), call.in.end());
    kept.out.assign(call.out.begin(), call.out.end());
    kept.linear = call.linear;
    kept.step = *step;
    kept.kv.assign(step->kv.begin(), step->kv.end());
  }
  void synchronize() override {}
  int replayed = 0;

 private:
  struct Call {
    const device::Op* op = nullptr;
    std::vector<device::View> in, out;
    const device::PackedLinear* linear = nullptr;
    device::StepView step;
    std::vector<device::KvLayer> kv;
  };
  struct Calls final : device::Recording {
    device::Backend* inner = nullptr;
    int* replayed = nullptr;
    std::vector<Call> calls;
    bool replay() override {
      ++*replayed;
      for (Call& call : calls) {
        call.step.kv = call.kv;
        inner->run({*call.op, call.in, call.out, call.linear}, &call.step);
      }
      return true;
    }
  };
  std::unique_ptr<Calls> recording_;
  std::vector<std::vector<char>> staged_;

 protected:
  std::shared_ptr<device::Backend> inner_;
};

// Forgets what passes from one op to the next alone as soon as that one has run, as a backend may that never stores it.
class Forgetful final : public Recorder {
 public:
  using Recorder::Recorder;
  bool can_record() const override { return false; }
  void run_all(std::span<const device::OpCall> calls, const device::StepView* step) override {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      inner_->run(calls[i], step);
      if (i == 0 || !calls[i - 1].passing) continue;
      const device::View& old = calls[i - 1].out[0];
      const bool taken_over =
          std::ranges::any_of(calls[i].out, [&](const device::View& out) { return out.data == old.data; });
      if (taken_over || old.dtype != core::DType::f32 || old.shape.rank() != 2) continue;
      if (std::holds_alternative<device::RmsNorm>(calls[i - 1].op)) ++norms;
      ++forgotten;
      for (std::int64_t row = 0; row < old.shape[0]; ++row)
        std::fill_n(static_cast<float*>(old.data) + row * old.stride[0], old.shape[1],
                    std::numeric_limits<float>::quiet_NaN());
    }
  }
  int forgotten = 0;
  int norms = 0;
};

}  // namespace

TEST("a mixed batch gives every sequence the logits it has alone, bit for bit") {
  for (const small::Options& o : {small::Options{}, small::Options{.bias = true, .post_norm = true},
                                  small::Options{.layers = 3, .kv_heads = 1, .window = 7}}) {
    graph::Program program = compile(small::llama(o));
    const std::vector<std::vector<int>> ids{small::random_ids(21, o.vocab, 1), small::random_ids(9, o.vocab, 2),
                                            small::random_ids(40, o.vocab, 3)};
    for (int block_tokens : {16, 32}) {
      std::vector<std::vector<float>> want;
      for (const auto& sequence : ids) want.push_back(alone(program, sequence, block_tokens));
      Cache cache(program, 3, 64, block_tokens);
      program.reserve({64, 64, 3});
      struct Move {
        int sequence, from, to;
      };
      // Decode beside chunks of prefill, sequences entering and leaving, in changing order.
      const std::vector<std::vector<Move>> steps{{{0, 0, 13}, {1, 0, 1}},
                                                 {{1, 1, 2}, {0, 13, 14}, {2, 0, 30}},
                                                 {{2, 30, 31}, {1, 2, 9}, {0, 14, 15}},
                                                 {{0, 15, 21}, {2, 31, 40}}};
      for (const auto& moves : steps) {
        std::vector<Piece> pieces;
        for (const Move& m : moves)
          pieces.push_back({m.sequence, part(ids[static_cast<std::size_t>(m.sequence)], m.from, m.to), true});
        const std::span<const float> logits = program.run(cache.step(pieces));
        std::size_t row = 0;
        for (const Move& m : moves) {
          const std::size_t count = static_cast<std::size_t>((m.to - m.from) * o.vocab);
          check_rows(logits.subspan(row), want[static_cast<std::size_t>(m.sequence)].data() + m.from * o.vocab, count);
          row += count;
        }
        CHECK_EQ(logits.size(), row);
      }
    }
  }
}

TEST("only the selected rows are computed, also none") {
  const small::Options o;
  graph::Program program = compile(small::llama(o));
  const std::vector<int> ids = small::random_ids(20, o.vocab, 5);
  const std::vector<float> want = alone(program, ids);
  Cache cache(program, 1, 64, 16);
  program.reserve({20, 4, 1});
  Piece piece{0, part(ids, 0, 12), false};
  device::StepView step = cache.step({&piece, 1});
  step.rows = 0;  // a chunk of prefill that wants no logits
  CHECK_EQ(program.run(step).size(), std::size_t{0});
  piece.tokens = part(ids, 12, 20);
  const std::span<const float> logits = program.run(cache.step({&piece, 1}));
  CHECK_EQ(logits.size(), static_cast<std::size_t>(o.vocab));
  check_rows(logits, want.data() + 19 * o.vocab, static_cast<std::size_t>(o.vocab));
}

TEST("a step allocates nothing once its size has been seen") {
  const small::Options o;
  for (const auto& passes : {std::optional<std::vector<std::string>>(), std::optional(std::vector<std::string>())}) {
    graph::Program program = compile(small::llama(o), passes);
    program.reserve({32, 32, 4});
    Cache cache(program, 2, 128, 16);
    const std::vector<int> ids = small::random_ids(100, o.vocab, 6);
    const auto mixed = [&](int at) {
      return std::vector<Piece>{{0, part(ids, at, at + 1), true}, {1, part(ids, at, at + 9), false}};
    };
    long in_run = 0;
    for (int i = 0; i < 10; ++i) {
      const std::vector<Piece> pieces = mixed(i * 9);
      const device::StepView step = cache.step(pieces);
      const long before = allocations;
      program.run(step);
      if (i >= 2) in_run += allocations - before;
    }
    CHECK_EQ(in_run, 0L);
  }
}

TEST("a recording is not replayed on another engine's cache, even where one array of it lies where one lay") {
  const small::Options o;
  const auto backend = std::make_shared<Recorder>(cpu());
  graph::Program program(small::llama(o), backend, {.context_length = 128, .kv_dtype = "auto", .passes = {}});
  graph::Program plain = compile(small::llama(o));
  program.reserve({16, 16, 1});
  plain.reserve({16, 16, 1});
  Cache first(program, 1, 64, 16);
  void* first_keys = nullptr;
  for (const bool again : {false, true}) {
    const std::vector<int> ids = small::random_ids(24, o.vocab, again ? 12 : 11);
    Cache second(program, 1, 64, 16);
    Cache expected(plain, 1, 64, 16);
    Cache& cache = again ? second : first;
    for (int at = 0; at < 20;) {
      const int count = at == 0 ? 6 : 1;  // a prompt, which is not recorded, then one token at a time
      const Piece piece{0, part(ids, at, at + count), true};
      device::StepView step = cache.step({&piece, 1});
      step.max_kv_len = 64;
      std::vector<device::KvLayer> layers(step.kv.begin(), step.kv.end());
      if (again)
        layers[0].k = first_keys;
      else
        first_keys = layers[0].k;
      step.kv = layers;
      const std::span<float> got = program.run(step);
      const std::span<float> want = plain.run(expected.step({&piece, 1}));
      check_rows(got, want.data(), want.size());
      at += count;
    }
    CHECK_EQ(backend->replayed, again ? 26 : 13);
  }
}

TEST("what passes from an op to the next alone is missed by nobody else") {
  const small::Options o;
  const std::vector<int> ids = small::random_ids(12, o.vocab, 21);
  for (const bool fused : {false, true}) {
    const auto passes = fused ? std::optional<std::vector<std::string>>{} : std::vector<std::string>{};
    const auto backend = std::make_shared<Forgetful>(cpu());
    graph::Program program(small::llama(o), backend, {.context_length = 128, .kv_dtype = "auto", .passes = passes});
    graph::Program plain = compile(small::llama(o), passes);
    const std::vector<float> want = alone(plain, ids);
    const std::vector<float> got = alone(program, ids);
    check_rows(got, want.data(), want.size());
    CHECK(backend->forgotten > 0);
    // Passes make one product of query, key and value, and one of gate and up: then each norm has one reader.
    CHECK(fused ? backend->norms > 0 : backend->norms <= 1);
  }
}

TEST("what earlier steps left in the arena does not matter") {
  const small::Options o;
  graph::Program program = compile(small::llama(o));
  const std::vector<int> ids = small::random_ids(20, o.vocab, 8);
  const std::vector<float> want = alone(program, ids);
  alone(program, small::random_ids(60, o.vocab, 9));
  program.reserve({90, 90, 2});  // larger limits move every buffer
  const std::vector<float> again = alone(program, ids);
  check_rows(again, want.data(), want.size());
}

TEST("steps beyond the limits, and of another model, are errors") {
  const small::Options o;
  graph::Program program = compile(small::llama(o));
  Cache cache(program, 1, 64, 16);
  const Piece piece{0, small::random_ids(8, o.vocab, 1), true};
  device::StepView step = cache.step({&piece, 1});
  CHECK_THROWS_WITH(program.run(step), core::Error, "reserved");
  program.reserve({8, 8, 1});
  CHECK_EQ(program.run(step).size(), static_cast<std::size_t>(8 * o.vocab));
  step.kv = step.kv.first(1);
  CHECK_THROWS_WITH(program.run(step), core::Error, "layers");
  CHECK_THROWS_WITH(program.reserve({0, 1, 1}), core::Error, "positive");
}

TEST("cache layers follow the graph") {
  graph::Program program = compile(small::llama({.layers = 3, .kv_heads = 1, .window = 9}));
  CHECK_EQ(program.kv_layers().size(), std::size_t{3});
  for (const engine::KvSpec& layer : program.kv_layers()) {
    CHECK_EQ(layer.kv_heads, 1);
    CHECK_EQ(layer.head_dim, 12);
    CHECK_EQ(layer.v_head_dim, 12);
    CHECK_EQ(layer.window, 9);
  }
  CHECK(!program.length_dependent_rope());
}

TEST("the null device compiles and runs, and says nothing") {
  const small::Options o;
  graph::Program program(small::llama(o), device::open_device("null"),
                         {.context_length = 64, .kv_dtype = "auto", .passes = {}});
  program.reserve({4, 4, 1});
  device::StepView step;
  step.tokens = 4;
  step.sequences = 1;
  step.rows = 2;
  const std::vector<device::KvLayer> kv(2);
  step.kv = kv;
  const std::span<float> logits = program.run(step);
  CHECK_EQ(logits.size(), static_cast<std::size_t>(2 * o.vocab));
  for (float x : logits) CHECK_EQ(x, 0.0f);
}
