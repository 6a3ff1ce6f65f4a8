// Products with weights of codes against the CPU in float32 on what the codes stand for, and codes made on the device against
// the reference's, over every format, odd sizes, many numbers of tokens. Outputs are poisoned with NaN first.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "gpu.h"
#include "quant/format.h"

namespace {

using namespace fastllm;
using namespace fastllm::test;

// Random numbers that bfloat16 holds, `lean` off the middle; now and then a row of zeros.
Tensor random_bf16(core::Shape shape, float scale, float lean = 0.0f) {
  Tensor raw = Tensor::empty(DType::f32, shape);
  std::normal_distribution<float> normal(lean, scale);
  for (std::int64_t i = 0; i < raw.numel(); ++i) raw.as<float>()[i] = normal(random_bits());
  if (shape[0] > 5) std::fill_n(raw.as<float>() + 5 * shape[1], shape[1], 0.0f);
  return convert(raw, DType::bf16);
}

// One product on both devices; the CPU's weight is what the codes stand for, in float32, and so are its inputs where
// those become codes, too.
void compare(const quant::Format& format, const std::vector<std::int64_t>& rows, std::int64_t depth,
             std::int64_t tokens, device::Linear op, bool bias, DType out_dtype) {
  std::vector<device::LinearPart> exact, weights;
  std::int64_t columns = 0;
  for (const std::int64_t n : rows) {
    const Tensor w = random_bf16({n, depth}, 0.05f, format.asymmetric ? 0.04f : 0.0f);
    Tensor b;
    if (bias) {
      b = Tensor::empty(DType::f32, {n});
      for (std::int64_t i = 0; i < n; ++i) b.as<float>()[i] = 0.01f * static_cast<float>(i % 17) - 0.05f;
    }
    exact.push_back({quant::dequantize(quant::quantize(format, w), DType::f32), b});
    weights.push_back({w, b});
    columns += n;
  }
  const std::int64_t width = op.gated ? columns / 2 : columns;
  const Tensor x = random_bf16({tokens, depth}, 1.0f);
  const Tensor residual = random_bf16({tokens, width}, 0.3f);
  const Tensor wide_x = convert(x, DType::f32);
  if (format.dynamic)
    for (std::int64_t t = 0; t < tokens; ++t)
      quant::round_token(wide_x.as<float>() + t * depth, wide_x.as<float>() + t * depth, depth);
  const Tensor wide_residual = convert(residual, DType::f32);
  const auto packed = gpu()->pack_linear(weights, {.gated = op.gated, .own = true, .format = format});
  CHECK(!packed->rounded);
  CHECK(static_cast<double>(packed->bytes) >=
        static_cast<double>(columns * depth) * quant::bits_per_weight(format, depth) / 8 * 0.99);

  const device::Activation activation = op.activation;
  device::Linear plain = op;
  plain.gated = false;
  if (op.gated) plain.activation = device::Activation::none;
  Tensor want = Tensor::empty(DType::f32, {tokens, columns});
  std::vector<View> in{view(wide_x)};
  if (op.add_residual) in.push_back(view(wide_residual));
  const View to[] = {view(want)};
  const auto reference = cpu().pack_linear(exact);
  cpu().run({plain, in, to, reference.get()}, nullptr);
  if (op.gated) {
    Tensor joined = Tensor::empty(DType::f32, {tokens, width});
    const View halves[] = {view(want.slice(1, 0, width)), view(want.slice(1, width, columns))};
    const View joined_to[] = {view(joined)};
    const device::Op gate = device::GatedActivation{activation};
    cpu().run({gate, halves, joined_to}, nullptr);
    want = joined;
  }

  Tensor poison = Tensor::empty(DType::f32, {tokens, width});
  std::fill_n(poison.as<float>(), poison.numel(), std::numeric_limits<float>::quiet_NaN());
  const Tensor got = gpu()->place(out_dtype == DType::f32 ? poison : convert(poison, out_dtype));
  const Tensor x_there = gpu()->place(x);
  const Tensor residual_there = gpu()->place(residual);
  std::vector<View> in_there{view(x_there)};
  if (op.add_residual) in_there.push_back(view(residual_there));
  const View to_there[] = {view(got)};
  gpu()->run({op, in_there, to_there, packed.get()}, nullptr);
  Tensor host = Tensor::empty(out_dtype, got.shape());
  gpu()->copy_out(host.data(), got.data(), host.nbytes());
  const double error = distance(convert(host, DType::f32), want);
  if (!CHECK(error <= 8e-3))
    std::printf("  %s rows %lld depth %lld tokens %lld%s: relative error %g\n", quant::name_of(format).c_str(),
                static_cast<long long>(columns), static_cast<long long>(depth), static_cast<long long>(tokens),
                op.gated ? " gated" : "", error);
}

}  // namespace

TEST("every format, odd sizes, one token to many") {
  if (!gpu()) return;
  for (const std::string& name : quant::format_names()) {
    const quant::Format format = quant::format_of(name);
    for (const std::int64_t tokens : {1, 3, 8, 13, 16, 29, 32, 57, 64, 100, 128, 200, 300}) {
      compare(format, {72}, 136, tokens, {}, false, DType::bf16);
      compare(format, {128, 24, 40}, 1024, tokens, {}, true, DType::bf16);
    }
    compare(format, {1000}, 896, 5, {}, false, DType::f32);
    compare(format, {1000}, 896, 150, {}, false, DType::f32);
  }
}

TEST("epilogues: residual, activation, gate and up") {
  if (!gpu()) return;
  for (const char* const name :
       {"fp8", "fp8_g128", "fp8_dynamic", "int8", "int8_g32", "int4", "int4_g32", "int4_asym_g64", "int4_row"}) {
    const quant::Format format = quant::format_of(name);
    for (const std::int64_t tokens : {1, 7, 24, 64, 129, 512}) {
      device::Linear op;
      op.add_residual = true;
      compare(format, {256}, 640, tokens, op, true, DType::bf16);
      op = {};
      op.activation = device::Activation::silu;
      compare(format, {200}, 264, tokens, op, true, DType::bf16);
      op.gated = true;
      compare(format, {344, 344}, 512, tokens, op, false, DType::bf16);
      if (format.dynamic && tokens == 512) compare(format, {6176, 6176}, 384, tokens + 61, op, true, DType::bf16);
      compare(format, {96, 96}, 2048, tokens, op, true, DType::bf16);
    }
  }
}

TEST("one times a weight is what its code stands for, bit for bit") {
  if (!gpu()) return;
  for (const std::string& name : quant::format_names()) {
    const quant::Format format = quant::format_of(name);
    for (const std::int64_t depth : {40, 128, 320}) {
      const std::int64_t rows = 136;
      const Tensor w = random_bf16({rows, depth}, 0.05f, format.asymmetric ? 0.04f : 0.0f);
      Tensor ones = Tensor::empty(DType::f32, {depth, depth});
      for (std::int64_t i = 0; i < depth * depth; ++i) ones.as<float>()[i] = i % (depth + 1) == 0 ? 1.0f : 0.0f;
      const Tensor x = gpu()->place(convert(ones, DType::bf16));
      const device::LinearPart part{w, {}};
      const auto packed = gpu()->pack_linear({&part, 1}, {.own = true, .format = format});
      const Tensor got = gpu()->place(Tensor::empty(DType::bf16, {depth, rows}));
      const View in[] = {view(x)};
      const View to[] = {view(got)};
      const device::Op op = device::Linear{};
      gpu()->run({op, in, to, packed.get()}, nullptr);
      Tensor host = Tensor::empty(DType::bf16, {depth, rows});
      gpu()->copy_out(host.data(), got.data(), host.nbytes());
      const Tensor want = quant::rounded(format, w);
      int different = 0;
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t k = 0; k < depth; ++k) {
          const std::uint16_t a = host.as<std::uint16_t>()[k * rows + r];
          const std::uint16_t b = want.as<std::uint16_t>()[r * depth + k];
          // 0 and -0 are one. A dynamic scale of 1 / 448 is not exact: the last bit may differ.
          different += std::abs(int{a} - int{b}) > (format.dynamic ? 1 : 0) && ((a | b) & 0x7fff) != 0;
        }
      if (!CHECK_EQ(different, 0)) std::printf("  %s depth %lld\n", name.c_str(), static_cast<long long>(depth));
    }
  }
}

TEST("at the sizes of models: clusters along K") {
  if (!gpu()) return;
  for (const char* const name : {"fp8", "fp8_dynamic", "int8", "int4", "int4_asym"})
    for (const std::int64_t tokens : {1, 16, 40, 256}) {
      compare(quant::format_of(name), {4096}, 4096, tokens, {}, false, DType::bf16);
      compare(quant::format_of(name), {1024}, 14336, tokens, {}, false, DType::bf16);
    }
}

TEST("blocks that stay: more tiles than multiprocessors, odd edges, with and without a residual") {
  if (!gpu()) return;
  const quant::Format format = quant::format_of("fp8_dynamic");
  device::Linear op;
  compare(format, {11000}, 1160, 700, op, true, DType::bf16);
  op.add_residual = true;
  compare(format, {11016}, 40, 1030, op, false, DType::bf16);
  compare(format, {4096}, 14336, 1100, op, true, DType::bf16);
}

TEST("a token that is not finite spoils itself alone, as on the CPU") {
  if (!gpu()) return;
  for (const std::int64_t tokens : {4, 40, 700}) {
    const std::int64_t depth = 520;
    const std::int64_t rows = 12000;
    const Tensor w = random_bf16({rows, depth}, 0.05f);
    const Tensor x = random_bf16({tokens, depth}, 1.0f);
    x.as<std::uint16_t>()[1 * depth + 17] = 0x7fc0;  // NaN
    x.as<std::uint16_t>()[2 * depth + 519] = 0xff80;  // an infinity
    std::fill_n(x.as<std::uint16_t>() + 3 * depth, depth, std::uint16_t{0});
    const device::LinearPart part{w, {}};
    const auto packed = gpu()->pack_linear({&part, 1}, {.own = true, .format = quant::format_of("fp8_dynamic")});
    const Tensor there = gpu()->place(x);
    const Tensor got = gpu()->place(Tensor::empty(DType::bf16, {tokens, rows}));
    const View in[] = {view(there)};
    const View to[] = {view(got)};
    const device::Op op = device::Linear{};
    gpu()->run({op, in, to, packed.get()}, nullptr);
    Tensor host = Tensor::empty(DType::bf16, {tokens, rows});
    gpu()->copy_out(host.data(), got.data(), host.nbytes());
    const Tensor wide = convert(host, DType::f32);
    std::int64_t bad[2] = {0, 0};
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t r = 0; r < rows; ++r) {
        const float y = wide.as<float>()[t * rows + r];
        const bool spoiled = t == 1 || t == 2;
        bad[spoiled] += spoiled ? !std::isnan(y) : !std::isfinite(y) || (t == 3 && y != 0.0f);
      }
    CHECK_EQ(bad[0], 0);
    CHECK_EQ(bad[1], 0);
  }
}

TEST("codes that a norm makes are those of its result, bit for bit, and are forgotten where that is edited") {
  if (!gpu()) return;
  for (const std::int64_t tokens : {1, 3, 200})
    for (const std::int64_t depth : {520, 4096, 9000}) {
      const std::int64_t rows = 264;
      const device::LinearPart part{random_bf16({rows, depth}, 0.05f), {}};
      const auto packed = gpu()->pack_linear({&part, 1}, {.own = true, .format = quant::format_of("fp8_dynamic")});
      Tensor ones = Tensor::empty(DType::f32, {depth});
      for (std::int64_t i = 0; i < depth; ++i) ones.as<float>()[i] = 0.5f + static_cast<float>(i % 7);
      const Tensor x = gpu()->place(random_bf16({tokens, depth}, 1.0f));
      const Tensor add = gpu()->place(random_bf16({tokens, depth}, 1.0f));
      const Tensor weight = gpu()->place(ones);
      const Tensor sum = gpu()->place(Tensor::empty(DType::bf16, {tokens, depth}));
      const Tensor normed = gpu()->place(Tensor::empty(DType::bf16, {tokens, depth}));
      const Tensor edit = random_bf16({tokens, depth}, 3.0f);
      const auto product = [&](bool fused, bool with_sum, bool edited) {
        const View in[] = {view(x), view(weight)};
        const View to[] = {view(normed)};
        const View both[] = {view(x), view(add), view(weight)};
        const View both_to[] = {view(sum), view(normed)};
        const device::Op norm = device::RmsNorm{};
        const device::Op add_norm = device::AddRmsNorm{};
        const device::PackedLinear* next = fused ? packed.get() : nullptr;
        if (with_sum)
          gpu()->run({add_norm, both, both_to, next}, nullptr);
        else
          gpu()->run({norm, in, to, next}, nullptr);
        if (edited) gpu()->copy_in(normed.data(), edit.data(), edit.nbytes());
        const Tensor got = gpu()->place(Tensor::empty(DType::bf16, {tokens, rows}));
        const View out[] = {view(got)};
        const device::Op linear = device::Linear{};
        gpu()->run({linear, to, out, packed.get()}, nullptr);
        Tensor host = Tensor::empty(DType::bf16, {tokens, rows});
        gpu()->copy_out(host.data(), got.data(), host.nbytes());
        return std::vector<std::uint16_t>(host.as<std::uint16_t>(), host.as<std::uint16_t>() + host.numel());
      };
      for (const bool with_sum : {false, true}) {
        CHECK(product(true, with_sum, false) == product(false, with_sum, false));
        CHECK(product(true, with_sum, true) == product(false, with_sum, true));
        CHECK(product(true, with_sum, true) != product(true, with_sum, false));
      }
    }
}

TEST("where there is no kernel the inputs are rounded all the same") {
  if (!gpu()) return;
  for (const DType dtype : {DType::f16, DType::f32})
    for (const std::int64_t tokens : {1, 70}) {
      const std::int64_t depth = 264;
      const Tensor w = convert(random_bf16({48, depth}, 0.05f), dtype);
      const Tensor x = convert(random_bf16({tokens, depth}, 1.0f), dtype);
      const device::LinearPart part{w, {}};
      const device::PackOptions options{.own = true, .format = quant::format_of("fp8_dynamic")};
      const device::Op op = device::Linear{};
      const auto packed = gpu()->pack_linear({&part, 1}, options);
      CHECK(packed->rounded);
      const Tensor there = gpu()->place(x);
      const Tensor got = gpu()->place(Tensor::empty(dtype, {tokens, 48}));
      const View in[] = {view(there)};
      const View to[] = {view(got)};
      gpu()->run({op, in, to, packed.get()}, nullptr);
      Tensor host = Tensor::empty(dtype, {tokens, 48});
      gpu()->copy_out(host.data(), got.data(), host.nbytes());
      const Tensor want = Tensor::empty(DType::f32, {tokens, 48});
      const Tensor wide = convert(x, DType::f32);
      const View from[] = {view(wide)};
      const View here[] = {view(want)};
      const auto plain = cpu().pack_linear({&part, 1}, {.format = options.format});
      cpu().run({op, from, here, plain.get()}, nullptr);
      CHECK(distance(convert(host, DType::f32), want) < (dtype == DType::f16 ? 2e-3 : 1e-5));
    }
}

TEST("a number that is not finite is refused by name") {
  if (!gpu()) return;
  Tensor w = random_bf16({64, 128}, 0.1f);
  w.as<std::uint16_t>()[700] = 0x7f80;
  const device::LinearPart part{w, {}};
  CHECK_THROWS_WITH(gpu()->pack_linear({&part, 1}, {.own = true, .format = quant::format_of("int4")}), core::Error,
                    "not finite");
}
