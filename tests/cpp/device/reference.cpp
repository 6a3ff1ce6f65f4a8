// The scalar references against truths of other origin: the compiler's own float16, bit arithmetic, closed forms worked
// out by hand.
#include "device/cpu/reference/reference.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "device/cpu/linear.h"
#include "device/cpu/reference/number.h"

namespace {

using fastllm::core::DType;
using fastllm::core::Shape;
using fastllm::core::Tensor;
using fastllm::device::View;
namespace device = fastllm::device;
namespace reference = fastllm::cpu::reference;

View view(std::vector<float>& data, Shape shape) {
  return {data.data(), DType::f32, shape, shape.contiguous_strides()};
}
View view(std::vector<std::int32_t>& data, Shape shape) {
  return {data.data(), DType::i32, shape, shape.contiguous_strides()};
}

std::mt19937 generator() {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  return std::mt19937(seed);
}

}  // namespace

#ifdef __FLT16_MAX__
TEST("float16 is the compiler's float16, for every code and for random numbers") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = std::bit_cast<_Float16>(static_cast<std::uint16_t>(bits));
    const double mine = reference::Float16::decode(bits);
    if (std::isnan(static_cast<float>(half))) {
      CHECK(std::isnan(mine));
    } else if (!CHECK_EQ(mine, static_cast<double>(half)) || !CHECK_EQ(reference::Float16::encode(mine), bits)) {
      return;
    }
  }
  auto random = generator();
  for (int i = 0; i < 200000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(value)) continue;
    const auto want = std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    if (!CHECK_EQ(reference::Float16::encode(value), want)) return;
  }
}
#endif

TEST("bfloat16 is the upper half of a float, rounded to nearest even") {
  auto random = generator();
  for (int i = 0; i < 200000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) {
      CHECK(std::isnan(reference::BFloat16::decode(reference::BFloat16::encode(value))));
      continue;
    }
    const std::uint32_t want = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    if (!CHECK_EQ(reference::BFloat16::encode(value), want)) return;
    CHECK_EQ(static_cast<float>(reference::BFloat16::decode(want)), std::bit_cast<float>(want << 16));
  }
}

TEST("float8 values of the OCP tables") {
  CHECK_EQ(reference::Float8E4M3::decode(0x7e), 448.0);
  CHECK_EQ(reference::Float8E4M3::decode(0x01), std::ldexp(1.0, -9));
  CHECK(std::isnan(reference::Float8E4M3::decode(0x7f)));
  CHECK_EQ(reference::Float8E4M3::encode(464.0), 0x7e);  // halfway to 480 goes to the even code
  CHECK_EQ(reference::Float8E4M3::encode(465.0), 0x7f);
  CHECK_EQ(reference::Float8E4M3::encode(-std::numeric_limits<double>::infinity()), 0xff);
  CHECK_EQ(reference::Float8E5M2::decode(0x7b), 57344.0);
  CHECK_EQ(reference::Float8E5M2::encode(61440.0), 0x7c);  // halfway to 65536: infinity
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    if (const double v = reference::Float8E4M3::decode(bits); !std::isnan(v))
      CHECK_EQ(reference::Float8E4M3::encode(v), bits);
    if (const double v = reference::Float8E5M2::decode(bits); !std::isnan(v))
      CHECK_EQ(reference::Float8E5M2::encode(v), bits);
  }
}

TEST("copy converts as C does, saturates out of range and wraps integers") {
  std::vector<float> from{1.9f, -1.9f, 300.0f, -300.0f, std::nanf(""), 0.0f};
  std::vector<std::int8_t> to(6, 77);
  const View x = view(from, {6});
  View y{to.data(), DType::i8, Shape{6}, Shape{1}};
  reference::copy({}, {&x, 1}, {&y, 1});
  CHECK(to == (std::vector<std::int8_t>{1, -1, 127, -128, 0, 0}));
  std::vector<std::int32_t> wide{300, -129, 5};
  const View w = view(wide, {3});
  y.shape = Shape{3};
  reference::copy({}, {&w, 1}, {&y, 1});
  CHECK_EQ(to[0], static_cast<std::int8_t>(44));
  CHECK_EQ(to[1], static_cast<std::int8_t>(127));
  std::vector<std::uint8_t> flags(6, 9);
  const View b{flags.data(), DType::boolean, Shape{6}, Shape{1}};
  reference::copy({}, {&x, 1}, {&b, 1});
  CHECK(flags == (std::vector<std::uint8_t>{1, 1, 1, 1, 1, 0}));
  // A transposed view is read by its strides.
  std::vector<float> matrix{1, 2, 3, 4, 5, 6};
  const View t{matrix.data(), DType::f32, Shape{3, 2}, Shape{1, 3}};
  std::vector<float> flat(6);
  const View f = view(flat, {3, 2});
  reference::copy({}, {&t, 1}, {&f, 1});
  CHECK(flat == (std::vector<float>{1, 4, 2, 5, 3, 6}));
}

TEST("linear: parts lie side by side; scale, bias, activation and residual in that order") {
  const Tensor w1 = Tensor::empty(DType::f32, {1, 2});
  const Tensor w2 = Tensor::empty(DType::bf16, {2, 2});
  const Tensor bias = Tensor::empty(DType::f32, {2});
  w1.as<float>()[0] = 1, w1.as<float>()[1] = 2;
  for (int i = 0; i < 4; ++i)
    w2.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(reference::BFloat16::encode(i - 1.5));
  bias.as<float>()[0] = 10, bias.as<float>()[1] = -10;
  const std::vector<device::LinearPart> parts{{w1, {}}, {w2, bias}};
  const fastllm::cpu::CpuLinear packed(parts);
  CHECK_EQ(packed.out_features, 3);
  CHECK_EQ(packed.bytes, 8u + 8u);
  std::vector<float> x{3, 4};
  std::vector<float> residual{100, 200, 300};
  std::vector<float> y(3);
  const std::vector<View> in{view(x, {1, 2}), view(residual, {1, 3})};
  const std::vector<View> out{view(y, {1, 3})};
  reference::linear({true, device::Activation::relu, 2.0f}, packed, in, out);
  CHECK_EQ(y[0], 122.0f);  // 2 * (3 + 8) + 100
  CHECK_EQ(y[1], 200.0f);  // relu(2 * (-4.5 - 2) + 10) + 200
  CHECK_EQ(y[2], 305.0f);  // relu(2 * (1.5 + 6) - 10) + 300
}

TEST("norms, softmax and activations at values known in closed form") {
  std::vector<float> x{3, 4, 0, 0};
  std::vector<float> weight{1, 2, 3, 4};
  std::vector<float> y(4);
  std::vector<View> in{view(x, {1, 4}), view(weight, {4})};
  std::vector<View> out{view(y, {1, 4})};
  reference::rms_norm({0.0f, 1.0f}, in, out);
  CHECK_NEAR(y[0], 3 / 2.5 * 2, 1e-6);
  CHECK_NEAR(y[1], 4 / 2.5 * 3, 1e-6);
  std::vector<float> bias{5, 5, 5, 5};
  std::vector<float> v{1, 3, 1, 3};  // mean 2, variance 1
  in = {view(v, {1, 4}), view(weight, {4}), view(bias, {4})};
  reference::layer_norm({0.0f}, in, out);
  CHECK_NEAR(y[3], 4 + 5, 1e-6);
  std::vector<float> logits{0, std::log(2.0f), std::log(5.0f), -std::numeric_limits<float>::infinity()};
  in = {view(logits, {1, 4})};
  reference::softmax({}, in, out);
  CHECK_NEAR(y[2], 5.0 / 8, 1e-6);
  CHECK_EQ(y[3], 0.0f);
  CHECK_NEAR(reference::activate(device::Activation::gelu, 1.0), 0.8413447460685429,
             1e-15);  // the normal distribution at 1
  CHECK_NEAR(reference::activate(device::Activation::silu, std::log(3.0)), std::log(3.0) * 0.75, 1e-15);
  CHECK_NEAR(reference::activate(device::Activation::softcap, 1e9, 30.0), 30.0, 1e-12);
}

TEST("rope turns pairs by position * inv_freq and keeps the rest") {
  std::vector<float> x{1, 0, 0, 1, 7, 8};  // one head of 6, rotary 4
  std::vector<std::int32_t> positions{2};
  std::vector<float> inv_freq{0.5f, 0.25f};
  std::vector<float> y(6);
  const std::vector<View> in{view(x, {1, 1, 6}), view(positions, {1}), view(inv_freq, {2})};
  const std::vector<View> out{view(y, {1, 1, 6})};
  device::Rope op;
  op.rotary_dim = 4;
  reference::rope(op, in, out, nullptr);  // pairs (0, 2) by 1 rad and (1, 3) by 0.5 rad
  CHECK_NEAR(y[0], std::cos(1.0), 1e-7);
  CHECK_NEAR(y[2], std::sin(1.0), 1e-7);
  CHECK_NEAR(y[1], -std::sin(0.5), 1e-7);
  CHECK_NEAR(y[3], std::cos(0.5), 1e-7);
  CHECK(y[4] == 7 && y[5] == 8);
  op.interleaved = true;
  op.attention_factor = 2.0f;
  reference::rope(op, in, out, nullptr);  // pairs (0, 1) by 1 rad and (2, 3) by 0.5 rad
  CHECK_NEAR(y[0], 2 * std::cos(1.0), 1e-6);
  CHECK_NEAR(y[1], 2 * std::sin(1.0), 1e-6);
  CHECK_NEAR(y[2], -2 * std::sin(0.5), 1e-6);
}

TEST("attention over a paged cache: equal keys average what is seen, one loud key takes all") {
  constexpr int kBlockTokens = 4;
  const std::vector<std::int32_t> table{2, 0};  // the sequence's blocks, out of order
  std::vector<float> k(3 * 1 * kBlockTokens * 2, std::nanf(""));
  std::vector<float> v(3 * 1 * kBlockTokens * 1, std::nanf(""));
  device::KvLayer layer{k.data(), v.data(), 1, 2, 1, DType::f32};
  device::StepView step;
  std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 5};
  std::vector<std::int32_t> sequence_of(6, 0);
  std::vector<std::int64_t> slots{8, 9, 10, 11, 0, 1};
  step.tokens = 6, step.sequences = 1, step.max_blocks = 2, step.block_tokens = kBlockTokens;
  step.positions = positions.data(), step.sequence_of = sequence_of.data(), step.slots = slots.data();
  step.block_table = table.data();
  step.kv = {&layer, 1};
  std::vector<float> keys(12, 0.0f);
  std::vector<float> values{1, 2, 3, 4, 5, 60};
  keys[2 * 3] = 100;  // position 3 is loud
  const std::vector<View> kv{view(keys, {6, 1, 2}), view(values, {6, 1, 1})};
  reference::kv_write({}, kv, step);
  std::vector<float> q(24, 0.0f);  // two heads share the key head; the second one hears the loud key
  for (int t = 0; t < 6; ++t) q[static_cast<std::size_t>(t) * 4 + 2] = 1;
  std::vector<float> y(12);
  const std::vector<View> in{view(q, {6, 2, 2})};
  const std::vector<View> out{view(y, {6, 2, 1})};
  reference::attention({0, 1.0f, 0, 0.0f}, in, out, step);
  CHECK_NEAR(y[0], 1, 1e-6);
  CHECK_NEAR(y[2], 1.5, 1e-6);
  CHECK_NEAR(y[10], 75.0 / 6, 1e-5);
  CHECK_NEAR(y[11], 4, 1e-5);
  reference::attention({0, 1.0f, 2, 0.0f}, in, out, step);  // window 2: itself and one before
  CHECK_NEAR(y[10], 32.5, 1e-5);
  CHECK_NEAR(y[9], 4, 1e-5);
  reference::attention({0, 1.0f, 0, 0.01f}, in, out, step);  // capped to 0.01, the loud key is hardly louder
  CHECK_NEAR(y[11], (71 + 4 * std::exp(0.01)) / (5 + std::exp(0.01)), 1e-4);
}

TEST("matmul broadcasts its leading axes") {
  std::vector<float> a{1, 2, 3, 4};  // [2, 1, 2]
  std::vector<float> b{1, 0, 0, 1, 2, 0, 0, 2, 3, 3, 3, 3};  // [3, 2, 2], broadcast against [2, 1, 1, 2]
  std::vector<float> y(12);
  const std::vector<View> in{view(a, {2, 1, 1, 2}), view(b, {3, 2, 2})};
  const std::vector<View> out{view(y, {2, 3, 1, 2})};
  reference::mat_mul({}, in, out);
  CHECK(y == (std::vector<float>{1, 2, 2, 4, 9, 9, 3, 4, 6, 8, 21, 21}));
}
