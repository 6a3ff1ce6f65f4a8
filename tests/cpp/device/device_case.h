// What the device tests share: arrays with drawn or poisoned contents, steps over a paged cache, the oracle,
// comparison.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "device/cpu/backend.h"
#include "device/cpu/linear.h"
#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace device_case {

using fastllm::core::DType;
using fastllm::core::Shape;
using fastllm::core::Tensor;
using fastllm::device::View;
namespace device = fastllm::device;
namespace reference = fastllm::cpu::reference;

// A contiguous array that owns its memory.
class Array {
 public:
  // Floats are NaN, bytes of integers are 0x5b: what an op leaves unwritten shows.
  static Array poisoned(DType dtype, Shape shape) {
    Array array(dtype, shape);
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      if (reference::is_integer(dtype))
        std::memset(static_cast<char*>(array.view_.data) + i * array.size(), 0x5b,
                    static_cast<std::size_t>(array.size()));
      else
        array.set(i, std::numeric_limits<double>::quiet_NaN());
    }
    return array;
  }
  const View& view() const { return view_; }
  View window(Shape shape, Shape stride, std::int64_t offset) const {
    return {static_cast<char*>(view_.data) + offset * size(), view_.dtype, shape, stride};
  }
  void set(std::int64_t i, double value) { reference::store(view_, i, value); }
  double get(std::int64_t i) const { return reference::load(view_, i); }
  std::int64_t numel() const { return view_.shape.numel(); }
  Array copy() const {
    Array other(view_.dtype, view_.shape);
    std::memcpy(other.view_.data, view_.data, static_cast<std::size_t>(numel() * size()));
    return other;
  }
  bool same_bits(const Array& other) const {
    return numel() == other.numel() &&
           std::memcmp(view_.data, other.view_.data, static_cast<std::size_t>(numel() * size())) == 0;
  }

 private:
  Array(DType dtype, Shape shape) {
    const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * fastllm::core::dtype_size(dtype);
    memory_ = std::shared_ptr<char>(static_cast<char*>(std::malloc(bytes ? bytes : 1)), std::free);
    view_ = {memory_.get(), dtype, shape, shape.contiguous_strides()};
  }
  std::int64_t size() const { return static_cast<std::int64_t>(fastllm::core::dtype_size(view_.dtype)); }
  std::shared_ptr<char> memory_;
  View view_;
};

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(n)); }
  // Uniform in (-scale, scale), or (scale / 1000, scale); integers in [-100, 100].
  Array array(DType dtype, Shape shape, double scale = 1.0, bool positive = false) {
    Array a = Array::poisoned(dtype, shape);
    for (std::int64_t i = 0; i < a.numel(); ++i) {
      if (dtype == DType::boolean || dtype == DType::u8)
        a.set(i, static_cast<double>(below(dtype == DType::boolean ? 2 : 200)));
      else if (reference::is_integer(dtype))
        a.set(i, static_cast<double>(below(201) - 100));
      else
        a.set(i, uniform(positive ? scale / 1000 : -scale, scale));
    }
    return a;
  }
  Array integers(Shape shape, std::int64_t n) {  // i32 in [0, n)
    Array a = Array::poisoned(DType::i32, shape);
    for (std::int64_t i = 0; i < a.numel(); ++i) a.set(i, static_cast<double>(below(n)));
    return a;
  }
  template <class T>
  void shuffle(std::vector<T>& v) {
    std::shuffle(v.begin(), v.end(), engine_);
  }

 private:
  std::mt19937_64 engine_;
};

struct Sequence {
  int past = 0;  // tokens in the cache before this step
  int now = 0;  // tokens of this step
};

// A step over sequences whose cache blocks are scattered at random.
class Step {
 public:
  Step(const std::vector<Sequence>& sequences, int block_tokens, Random& random) : block_tokens_(block_tokens) {
    int blocks = 0;
    for (const Sequence& s : sequences) blocks += (s.past + s.now + block_tokens - 1) / block_tokens;
    blocks_ = blocks + 3;
    std::vector<std::int32_t> free(static_cast<std::size_t>(blocks_));
    std::iota(free.begin(), free.end(), 0);
    random.shuffle(free);
    for (const Sequence& s : sequences)
      max_blocks_ = std::max(max_blocks_, (s.past + s.now + block_tokens - 1) / block_tokens);
    query_start.push_back(0);
    for (const Sequence& s : sequences) {
      const auto row = block_table.size();
      block_table.resize(row + static_cast<std::size_t>(max_blocks_), -1);
      for (int p = 0; p < s.past + s.now; p += block_tokens) {
        block_table[row + static_cast<std::size_t>(p / block_tokens)] = free.back();
        free.pop_back();
      }
      for (int i = 0; i < s.now; ++i) {
        const int p = s.past + i;
        positions.push_back(p);
        sequence_of.push_back(static_cast<std::int32_t>(kv_len.size()));
        slots.push_back(std::int64_t{block_table[row + static_cast<std::size_t>(p / block_tokens)]} * block_tokens +
                        p % block_tokens);
      }
      kv_len.push_back(s.past + s.now);
      rope_len.push_back(s.past + s.now);
      query_start.push_back(query_start.back() + s.now);
    }
  }
  const device::StepView* view() {
    view_.tokens = static_cast<int>(positions.size());
    view_.sequences = static_cast<int>(kv_len.size());
    view_.max_blocks = max_blocks_;
    view_.block_tokens = block_tokens_;
    view_.positions = positions.data();
    view_.sequence_of = sequence_of.data();
    view_.query_start = query_start.data();
    view_.kv_len = kv_len.data();
    view_.rope_len = rope_len.data();
    view_.slots = slots.data();
    view_.block_table = block_table.data();
    view_.kv = layers;
    return &view_;
  }
  int blocks() const { return blocks_; }
  int block_tokens() const { return block_tokens_; }
  // Row of the cache, seen as [rows, dim], of a position of a sequence.
  std::int64_t row(int sequence, int position, int head, int kv_heads) const {
    const std::int64_t block = block_table[static_cast<std::size_t>(sequence * max_blocks_ + position / block_tokens_)];
    return (block * kv_heads + head) * block_tokens_ + position % block_tokens_;
  }

  std::vector<std::int32_t> positions, sequence_of, query_start, kv_len, rope_len, block_table;
  std::vector<std::int64_t> slots;
  std::vector<device::KvLayer> layers;

 private:
  device::StepView view_;
  int block_tokens_ = 16;
  int max_blocks_ = 0;
  int blocks_ = 0;
};

// The scalar reference of any op.
inline void oracle(const device::Op& any, const std::vector<View>& in, const std::vector<View>& out,
                   const device::StepView* step = nullptr, const device::PackedLinear* linear = nullptr) {
  struct Run {
    const std::vector<View>& in;
    const std::vector<View>& out;
    const device::StepView* step;
    const device::PackedLinear* weight;
    void operator()(const device::Embedding& op) const { reference::embedding(op, in, out); }
    void operator()(const device::Linear& op) const {
      reference::linear(op, dynamic_cast<const fastllm::cpu::CpuLinear&>(*weight), in, out);
    }
    void operator()(const device::MatMul& op) const { reference::mat_mul(op, in, out); }
    void operator()(const device::RmsNorm& op) const { reference::rms_norm(op, in, out); }
    void operator()(const device::AddRmsNorm& op) const { reference::add_rms_norm(op, in, out); }
    void operator()(const device::LayerNorm& op) const { reference::layer_norm(op, in, out); }
    void operator()(const device::Rope& op) const { reference::rope(op, in, out, step); }
    void operator()(const device::KvWrite& op) const { reference::kv_write(op, in, *step); }
    void operator()(const device::Attention& op) const { reference::attention(op, in, out, *step); }
    // Made by passes for GPUs alone; tests/cpp/cuda compares them with the ops that they stand for.
    void operator()(const device::RopeKvWrite&) const {
      fastllm::core::fail(fastllm::core::ErrorCode::internal, "no CPU op");
    }
    void operator()(const device::RopeAttention&) const {
      fastllm::core::fail(fastllm::core::ErrorCode::internal, "no CPU op");
    }
    void operator()(const device::Unary& op) const { reference::unary(op, in, out); }
    void operator()(const device::Binary& op) const { reference::binary(op, in, out); }
    void operator()(const device::Affine& op) const { reference::affine(op, in, out); }
    void operator()(const device::GatedActivation& op) const { reference::gated_activation(op, in, out); }
    void operator()(const device::Softmax& op) const { reference::softmax(op, in, out); }
    void operator()(const device::SelectRows& op) const { reference::select_rows(op, in, out, step); }
    void operator()(const device::Copy& op) const { reference::copy(op, in, out); }
  };
  std::visit(Run{in, out, step, linear}, any);
}

// |got - want| <= tolerance * (|want| + the largest finite |want|), or relative + `absolute` where that is given. NaN
// equals NaN.
inline bool close(const Array& got, const Array& want, double tolerance, double absolute = -1) {
  double largest = 0;
  for (std::int64_t i = 0; i < want.numel(); ++i)
    if (std::isfinite(want.get(i))) largest = std::max(largest, std::fabs(want.get(i)));
  for (std::int64_t i = 0; i < want.numel(); ++i) {
    const double a = got.get(i);
    const double b = want.get(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    if (!(std::fabs(a - b) <= tolerance * std::fabs(b) + (absolute >= 0 ? absolute : tolerance * largest))) {
      std::printf("    element %lld of %s: %.9g, the reference says %.9g (largest %.3g)\n", static_cast<long long>(i),
                  want.view().shape.str().c_str(), a, b, largest);
      return false;
    }
  }
  return true;
}

class Backend {
 public:
  explicit Backend(fastllm::core::Isa isa, int threads = 3) : backend_({threads}, isa) {}
  fastllm::cpu::CpuBackend& cpu() { return backend_; }
  const device::StepView* step = nullptr;

  void run(const device::Op& op, const std::vector<View>& in, const std::vector<View>& out,
           const device::PackedLinear* linear = nullptr) {
    backend_.run({op, in, out, linear}, step);
  }
  // Runs op here and by the reference into poisoned outputs, and compares them.
  bool same(const device::Op& op, const std::vector<View>& in, const std::vector<Shape>& shapes, double tolerance,
            bool strict = false, DType dtype = DType::f32, const device::PackedLinear* linear = nullptr) {
    std::vector<Array> got, want;
    std::vector<View> got_views, want_views;
    for (const Shape& shape : shapes) {
      got.push_back(Array::poisoned(dtype, shape));
      want.push_back(Array::poisoned(dtype, shape));
      got_views.push_back(got.back().view());
      want_views.push_back(want.back().view());
    }
    run(op, in, got_views, linear);
    oracle(op, in, want_views, step, linear);
    bool ok = true;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ok = close(got[i], want[i], tolerance, strict ? (tolerance < 5e-7 ? 1e-37 : 5e-8) : -1) && ok;
      if (!ok)
        std::printf("    op %s, input %s %s, output %zu\n", device::op_name(op), fastllm::core::dtype_name(in[0].dtype),
                    in[0].shape.str().c_str(), i);
    }
    return CHECK(ok);
  }
  // The same with the output on top of a copy of x.
  bool in_place(const device::Op& op, const View& x, std::vector<View> rest, double tolerance) {
    Array got = Array::poisoned(DType::f32, x.shape);
    Array want = Array::poisoned(DType::f32, x.shape);
    reference::copy({}, {&x, 1}, {&got.view(), 1});
    rest.insert(rest.begin(), x);
    oracle(op, rest, {want.view()}, step);
    rest[0] = got.view();
    run(op, rest, {got.view()});
    if (close(got, want, tolerance)) return CHECK(true);
    std::printf("    op %s in place, input %s\n", device::op_name(op), x.shape.str().c_str());
    return CHECK(false && "in place");
  }

 private:
  fastllm::cpu::CpuBackend backend_;
};

inline unsigned seed() {
  static const unsigned value = [] {
    const char* given = std::getenv("FASTLLM_TEST_SEED");
    const unsigned drawn = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
    std::printf("FASTLLM_TEST_SEED=%u\n", drawn);
    return drawn;
  }();
  return value;
}

// Calls f(backend, random) for every instruction set that is built and runs here, lowest first, and says which.
template <class F>
void for_each_backend(F f) {
  const std::string only = fastllm::core::isa_from_environment();
  for (const fastllm::core::Isa isa : fastllm::core::usable_isas()) {
    if (!only.empty() && only != "auto" && only != fastllm::core::isa_name(isa)) continue;
    std::printf("  isa %s\n", std::string(fastllm::core::isa_name(isa)).c_str());
    Backend backend(isa);
    Random random(seed());
    f(backend, random);
  }
}

}  // namespace device_case
