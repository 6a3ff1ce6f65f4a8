// Products with few tokens, and the norms between them, as one kernel (cuda/kernels/chain.cu): against the CPU in float32
// on what the weights stand for, op after op, over formats, sizes and numbers of tokens. Outputs are poisoned with NaN.
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "gpu.h"
#include "quant/format.h"

namespace {

using namespace fastllm;
using namespace fastllm::test;

struct Weight {
  std::unique_ptr<device::PackedLinear> gpu, cpu;
  std::int64_t rows;
};

Weight weight(std::int64_t rows, std::int64_t depth, DType dtype, const std::optional<quant::Format>& format,
              bool gated = false, bool bias = false) {
  const Tensor w = random_tensor({rows, depth}, dtype, 1.0f / std::sqrt(static_cast<float>(depth)));
  Tensor b;
  if (bias) b = random_tensor({rows}, DType::f32, 0.1f);
  const device::LinearPart part{w, b};
  const device::LinearPart exact{
      format ? quant::dequantize(quant::quantize(*format, w), DType::f32) : convert(w, DType::f32), b};
  return {gpu()->pack_linear({&part, 1}, {.gated = gated, .own = true, .format = format}),
          cpu().pack_linear({&exact, 1}), rows};
}

// Both devices' memory of one value.
struct Pair {
  Tensor gpu, cpu;
};

Pair pair_of(const Tensor& host) {
  return {gpu()->place(host), convert(host, DType::f32)};
}

struct Sizes {
  std::int64_t hidden, ffn, qkv;
};

struct Run {
  std::deque<device::Op> ops;
  std::deque<std::vector<View>> views;
  std::vector<device::OpCall> calls;
  void add(const device::Op& op, std::vector<View> in, std::vector<View> out,
           const device::PackedLinear* linear = nullptr, bool passing = false) {
    ops.push_back(op);
    views.push_back(std::move(in));
    const auto& from = views.back();
    views.push_back(std::move(out));
    calls.push_back({ops.back(), from, views.back(), linear, passing});
  }
};

// What a decoder's layer has between its attention and the next one's: o + residual, norm, gate and up, down + residual,
// norm, q k v; then norm and a product into float32.
void layer(const Sizes& n, std::int64_t tokens, DType dtype, const std::optional<quant::Format>& format, float offset,
           double bound, bool passing) {
  const Weight o = weight(n.hidden, n.hidden, dtype, format),
               gate_up = weight(2 * n.ffn, n.hidden, dtype, format, true),
               down = weight(n.hidden, n.ffn, dtype, format), qkv = weight(n.qkv, n.hidden, dtype, format, false, true),
               head = weight(n.qkv + 8, n.hidden, dtype, format);
  const Pair attended = pair_of(random_tensor({tokens, n.hidden}, dtype, 1.0f)),
             residual = pair_of(random_tensor({tokens, n.hidden}, dtype, 1.0f)),
             norm = {gpu()->place(random_tensor({n.hidden}, DType::f32, 0.2f, 1.0f - offset)), {}};
  const Tensor norm_host = home(norm.gpu);
  const auto result = [&](std::int64_t columns, DType type) {
    return Pair{gpu()->place(poisoned({tokens, columns}, type)), Tensor::empty(DType::f32, {tokens, columns})};
  };
  Pair h = result(n.hidden, dtype), normed = result(n.hidden, dtype), inner = result(n.ffn, dtype),
       h2 = result(n.hidden, dtype), normed2 = result(n.hidden, dtype), q = result(n.qkv, dtype),
       logits = result(n.qkv + 8, DType::f32), both = result(2 * n.ffn, DType::f32);
  const device::RmsNorm rms{1e-5f, offset};
  device::Linear add;
  add.add_residual = true;
  device::Linear gated;
  gated.gated = true;
  gated.activation = device::Activation::silu;

  Run there;
  there.add(add, {view(attended.gpu), view(residual.gpu)}, {view(h.gpu)}, o.gpu.get());
  there.add(rms, {view(h.gpu), view(norm.gpu)}, {view(normed.gpu)}, nullptr, passing);
  there.add(gated, {view(normed.gpu)}, {view(inner.gpu)}, gate_up.gpu.get(), passing);
  there.add(add, {view(inner.gpu), view(h.gpu)}, {view(h2.gpu)}, down.gpu.get());
  there.add(rms, {view(h2.gpu), view(norm.gpu)}, {view(normed2.gpu)}, nullptr, passing);
  there.add(device::Linear{}, {view(normed2.gpu)}, {view(q.gpu)}, qkv.gpu.get());
  if (!passing) there.add(device::Linear{}, {view(normed2.gpu)}, {view(logits.gpu)}, head.gpu.get());
  gpu()->run_all(there.calls, nullptr);

  // The CPU, whose activations are float32, takes each input as the GPU has it: one op's rounding is not the next one's error.
  // What passes from an op to the next alone, a chain keeps to itself: the CPU's own, rounded.
  const auto check = [&](const char* name, Pair& value, bool kept = false) {
    if (kept) {
      value.cpu = convert(convert(value.cpu, dtype), DType::f32);
      return;
    }
    const Tensor got = convert(home(value.gpu), DType::f32);
    const double error = distance(got, value.cpu);
    if (!CHECK(error <= bound))
      std::printf("  %s, hidden %lld ffn %lld qkv %lld, %lld tokens, %s %s: relative error %g\n", name,
                  static_cast<long long>(n.hidden), static_cast<long long>(n.ffn), static_cast<long long>(n.qkv),
                  static_cast<long long>(tokens), core::dtype_name(dtype),
                  format ? quant::name_of(*format).c_str() : "", error);
    value.cpu = got;
  };
  const auto here = [&](const device::Op& op, std::vector<View> in, const Tensor& out,
                        const device::PackedLinear* linear = nullptr) {
    const View to[] = {view(out)};
    cpu().run({op, in, to, linear}, nullptr);
  };
  here(add, {view(attended.cpu), view(residual.cpu)}, h.cpu, o.cpu.get());
  check("o", h);
  here(rms, {view(h.cpu), view(norm_host)}, normed.cpu);
  check("norm", normed, passing);
  here(device::Linear{}, {view(normed.cpu)}, both.cpu, gate_up.cpu.get());
  here(device::GatedActivation{device::Activation::silu},
       {view(both.cpu.slice(1, 0, n.ffn)), view(both.cpu.slice(1, n.ffn, 2 * n.ffn))}, inner.cpu);
  check("gate_up", inner, passing);
  here(add, {view(inner.cpu), view(h.cpu)}, h2.cpu, down.cpu.get());
  check("down", h2);
  here(rms, {view(h2.cpu), view(norm_host)}, normed2.cpu);
  check("norm 2", normed2, passing);
  here(device::Linear{}, {view(normed2.cpu)}, q.cpu, qkv.cpu.get());
  check("qkv", q);
  if (passing) return;
  here(device::Linear{}, {view(normed2.cpu)}, logits.cpu, head.cpu.get());
  check("head", logits);
}

// With norms and inner results that the chain keeps, and without.
void layers(const Sizes& n, std::int64_t tokens, DType dtype, const std::optional<quant::Format>& format, float offset,
            double bound) {
  layer(n, tokens, dtype, format, offset, bound, true);
  layer(n, tokens, dtype, format, offset, bound, false);
}

}  // namespace

TEST("numbers: models' sizes and odd ones") {
  if (!gpu()) return;
  for (const std::int64_t tokens : {1, 3, 8}) {
    layers({128, 344, 72}, tokens, DType::bf16, {}, 0.0f, 6e-3);
    layers({896, 4864, 1152}, tokens, DType::bf16, {}, 1.0f, 6e-3);
    layers({128, 344, 72}, tokens, DType::f16, {}, 0.0f, 6e-3);
  }
  layers({896, 1000, 1152}, 5, DType::f16, {}, 0.0f, 6e-3);
  layer({1024, 14336, 6144}, 8, DType::bf16, {}, 0.0f, 6e-3, true);  // K of down in four chunks
  layer({5120, 1000, 2000}, 5, DType::bf16, {}, 0.0f, 6e-3, true);  // K of all in two
}

TEST("codes: every format") {
  if (!gpu()) return;
  for (const std::string& name : quant::format_names()) {
    const quant::Format format = quant::format_of(name);
    if (format.dynamic) continue;  // no chain takes it
    for (const std::int64_t tokens : {1, 5, 8}) layers({384, 1368, 264}, tokens, DType::bf16, format, 0.0f, 8e-3);
  }
  for (const char* const name : {"fp8", "int8_g32", "int4", "int4_asym_g64"})
    layer({5248, 1312, 520}, 3, DType::bf16, quant::format_of(name), 0.0f, 8e-3, true);
}

TEST("many chains one after another give the same bits") {
  if (!gpu()) return;
  const Weight a = weight(2048, 1024, DType::bf16, {}), b = weight(1024, 2048, DType::bf16, {});
  const Tensor x = gpu()->place(random_tensor({4, 1024}, DType::bf16, 1.0f)),
               y = gpu()->place(poisoned({4, 2048}, DType::bf16)), z = gpu()->place(poisoned({4, 1024}, DType::bf16));
  Run run;
  for (int i = 0; i < 40; ++i) {
    run.add(device::Linear{}, {view(x)}, {view(y)}, a.gpu.get());
    run.add(device::Linear{}, {view(y)}, {view(z)}, b.gpu.get());
  }
  gpu()->run_all(run.calls, nullptr);
  const Tensor first = home(z);
  for (int i = 0; i < 20; ++i) {
    gpu()->run_all(run.calls, nullptr);
    const Tensor again = home(z);
    CHECK(std::memcmp(first.data(), again.data(), first.nbytes()) == 0);
  }
}

TEST("a token's bits do not depend on the others") {
  if (!gpu()) return;
  const Weight w = weight(1000, 896, DType::bf16, quant::format_of("int4"));
  const Tensor x = gpu()->place(random_tensor({8, 896}, DType::bf16, 1.0f)),
               all = gpu()->place(poisoned({8, 1000}, DType::bf16)),
               one = gpu()->place(poisoned({1, 1000}, DType::bf16));
  Run together;
  together.add(device::Linear{}, {view(x)}, {view(all)}, w.gpu.get());
  gpu()->run_all(together.calls, nullptr);
  const Tensor whole = home(all);
  for (std::int64_t t = 0; t < 8; ++t) {
    Run alone;
    alone.add(device::Linear{}, {view(x.slice(0, t, t + 1))}, {view(one)}, w.gpu.get());
    gpu()->run_all(alone.calls, nullptr);
    CHECK(std::memcmp(home(one).data(), static_cast<const char*>(whole.data()) + t * 2000, 2000) == 0);
  }
}
