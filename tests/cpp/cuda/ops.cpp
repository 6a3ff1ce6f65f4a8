// Every CUDA op against the CPU backend in float32, over odd shapes, strides and dtypes. Outputs are poisoned with
// NaN first, so an element that was not written fails. Without a GPU, or in a build without CUDA, it says so and
// checks only that the reason is told.
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "gpu.h"
#include "quant/encode.h"

namespace {

using namespace fastllm;
using namespace fastllm::test;
using core::Shape;

// Random values that `dtype` holds exactly, as float32 and as dtype.
struct Pair {
  Tensor wide;
  Tensor narrow;
};

Pair random_pair(Shape shape, DType dtype, float scale = 1.0f) {
  Tensor raw = Tensor::empty(DType::f32, shape);
  std::normal_distribution<float> normal(0.0f, scale);
  for (std::int64_t i = 0; i < raw.numel(); ++i) raw.as<float>()[i] = normal(random_bits());
  Tensor narrow = convert(raw, dtype);
  return {convert(narrow, DType::f32), narrow};
}

Tensor integers(std::vector<std::int32_t> values) {
  Tensor t = Tensor::empty(DType::i32, {static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.as<std::int32_t>());
  return t;
}

double tolerance(DType dtype) {
  return dtype == DType::f32 ? 2e-5 : dtype == DType::f16 ? 2e-3 : 1.2e-2;
}

Tensor poisoned(DType dtype, Shape shape) {
  Tensor t = Tensor::empty(DType::f32, shape);
  std::fill_n(t.as<float>(), t.numel(), std::numeric_limits<float>::quiet_NaN());
  return dtype == DType::f32 ? t : convert(t, dtype);
}

// Runs `op` on both devices and compares every output.
void compare(const device::Op& op, const std::vector<Pair>& in, const std::vector<Shape>& out_shapes, DType dtype,
             const std::vector<device::LinearPart>& wide_parts = {},
             const std::vector<device::LinearPart>& narrow_parts = {}, double loosen = 1.0) {
  std::vector<Tensor> want;
  std::vector<View> in_wide, out_wide, in_gpu, out_gpu;
  std::vector<Tensor> keep, got;
  for (const Pair& p : in) {
    in_wide.push_back(view(p.wide));
    keep.push_back(gpu()->place(p.narrow));
    in_gpu.push_back(view(keep.back()));
  }
  const bool softmax = std::holds_alternative<device::Softmax>(op);
  for (const Shape& s : out_shapes) {
    want.push_back(poisoned(DType::f32, s));
    out_wide.push_back(view(want.back()));
    got.push_back(gpu()->place(poisoned(softmax ? DType::f32 : dtype, s)));
    out_gpu.push_back(view(got.back()));
  }
  std::unique_ptr<device::PackedLinear> wide, narrow;
  if (!wide_parts.empty()) {
    wide = cpu().pack_linear(wide_parts);
    // Both layouts: as rows, and as the backend would have them.
    narrow = gpu()->pack_linear(narrow_parts, {.own = (random_bits()() & 1) != 0});
  }
  cpu().run({op, in_wide, out_wide, wide.get()}, nullptr);
  gpu()->run({op, in_gpu, out_gpu, narrow.get()}, nullptr);
  for (std::size_t i = 0; i < want.size(); ++i) {
    Tensor host = Tensor::empty(got[i].dtype(), got[i].shape());
    gpu()->copy_out(host.data(), got[i].data(), host.nbytes());
    const double error = distance(convert(host, DType::f32), want[i]);
    if (!CHECK(error <= loosen * tolerance(dtype)))
      std::printf("  %s %s output %zu of shape %s: relative error %g\n", device::op_name(op), core::dtype_name(dtype),
                  i, got[i].shape().str().c_str(), error);
  }
}

// Rows [first, blocks * tokens) of one sequence, whose blocks `table` names, in a cache [blocks, heads, tokens, channels]:
// memory that nobody has written holds anything, NaN too.
void poison_cache(Tensor& cache, const std::int32_t* table, int blocks, int first) {
  const std::int64_t heads = cache.shape()[1], tokens = cache.shape()[2], channels = cache.shape()[3];
  for (std::int64_t position = first; position < blocks * tokens; ++position)
    for (std::int64_t head = 0; head < heads; ++head)
      std::fill_n(
          cache.as<float>() + ((table[position / tokens] * heads + head) * tokens + position % tokens) * channels,
          channels, std::numeric_limits<float>::quiet_NaN());
}

constexpr DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

// Dtypes of activations and of the cache.
constexpr std::pair<DType, DType> kCaches[] = {{DType::f32, DType::f32},     {DType::f16, DType::f16},
                                               {DType::bf16, DType::bf16},   {DType::f32, DType::f8_e4m3},
                                               {DType::f16, DType::f8_e4m3}, {DType::bf16, DType::f8_e4m3}};

}  // namespace

TEST("a missing GPU is explained, a present one is listed") {
  bool seen = false;
  for (const device::DeviceReport& report : device::list_devices())
    if (report.name.starts_with("cuda")) {
      seen = true;
      CHECK_EQ(report.available, gpu() != nullptr);
      CHECK(!report.why.empty());
    }
  CHECK(seen);
  if (!gpu()) CHECK_THROWS(device::open_device("cuda:0"), core::Error);
  CHECK_THROWS(device::open_device("cuda:99"), core::Error);
}

TEST("norms") {
  if (!gpu()) return;
  for (DType d : kFloats)
    for (std::int64_t n : {1, 7, 64, 96, 896, 4096, 5120})
      for (std::int64_t rows : {1, 3, 130}) {
        const Pair x = random_pair({rows, n}, d), r = random_pair({rows, n}, d), w = random_pair({n}, d),
                   b = random_pair({n}, d);
        compare(device::RmsNorm{1e-5f, 1.0f}, {x, w}, {{rows, n}}, d);
        compare(device::AddRmsNorm{1e-6f, 0.0f}, {x, r, w}, {{rows, n}, {rows, n}}, d);
        if (n > 1) compare(device::LayerNorm{1e-5f}, {x, w, b}, {{rows, n}}, d);
      }
}

TEST("linear, every kernel: one token to many, odd sizes, bias, parts, residual, activation") {
  if (!gpu()) return;
  for (DType d : kFloats)
    for (auto [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 8}, {17, 40}, {100, 96}, {257, 1000}, {384, 4104}, {64, 33}})
      for (std::int64_t t : {1, 2, 8, 9, 16, 17, 31, 33, 130, 300}) {
        const float scale = 1.0f / std::sqrt(float(k));
        const Pair x = random_pair({t, k}, d), w1 = random_pair({n, k}, d, scale),
                   w2 = random_pair({n + 3, k}, d, scale);
        const Pair b1 = random_pair({n}, d), residual = random_pair({t, 2 * n + 3}, d);
        compare(device::Linear{}, {x}, {{t, n}}, d, {{w1.wide, {}}}, {{w1.narrow, {}}});
        compare(device::Linear{true, device::Activation::gelu_tanh, 0.5f}, {x, residual}, {{t, 2 * n + 3}}, d,
                {{w1.wide, b1.wide}, {w2.wide, {}}}, {{w1.narrow, b1.narrow}, {w2.narrow, {}}});
      }
}

namespace {

bool fuses(const char* name) {
  const std::vector<std::string> names = gpu()->fusions();
  return std::ranges::find(names, name) != names.end();
}

Tensor to_host(const Tensor& t) {
  Tensor host = Tensor::empty(t.dtype(), t.shape());
  gpu()->copy_out(host.data(), t.data(), host.nbytes());
  return convert(host, DType::f32);
}

}  // namespace

TEST("linear at the sizes of models: clusters along K, every tile, float32 results") {
  if (!gpu()) return;
  for (DType d : {DType::f16, DType::bf16})
    for (auto [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {2048, 2048}, {512, 8192}, {3072, 1024}, {9000, 512}, {260, 4104}})
      for (std::int64_t t : {1, 7, 16, 30, 64, 65, 128, 200, 257, 700}) {
        const float scale = 1.0f / std::sqrt(float(k));
        const Pair x = random_pair({t, k}, d), w = random_pair({n, k}, d, scale), residual = random_pair({t, n}, d);
        compare(device::Linear{true}, {x, residual}, {{t, n}}, d, {{w.wide, {}}}, {{w.narrow, {}}});
        if (!fuses("linear_float")) continue;
        const Tensor want = poisoned(DType::f32, {t, n});
        const Tensor got = gpu()->place(want);
        const device::LinearPart wide{w.wide, {}}, narrow{w.narrow, {}};
        const auto on_cpu = cpu().pack_linear({&wide, 1});
        const auto on_gpu = gpu()->pack_linear({&narrow, 1}, {.own = t % 2 == 0});
        const Tensor placed = gpu()->place(x.narrow);
        const View in_cpu[] = {view(x.wide)}, in_gpu[] = {view(placed)}, out_cpu[] = {view(want)},
                   out_gpu[] = {view(got)};
        cpu().run({device::Linear{}, in_cpu, out_cpu, on_cpu.get()}, nullptr);
        gpu()->run({device::Linear{}, in_gpu, out_gpu, on_gpu.get()}, nullptr);
        const double error = distance(to_host(got), want);
        if (!CHECK(error <= 1e-5))
          std::printf("  float32 result of [%d, %d] x %d: relative error %g\n", int(n), int(k), int(t), error);
      }
}

TEST("gated linear: two parts or one, biases") {
  if (!gpu() || !fuses("gated_linear")) return;
  for (DType d : {DType::f16, DType::bf16})
    for (auto [half, k] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{8, 8}, {40, 72}, {1024, 2048}, {264, 512}})
      for (std::int64_t t : {1, 5, 9, 33, 64, 100, 130, 400})
        for (int parts : {1, 2}) {
          const float scale = 1.0f / std::sqrt(float(k));
          const Pair x = random_pair({t, k}, d);
          std::vector<device::LinearPart> wide, narrow;
          std::vector<Pair> keep;
          for (int p = 0; p < parts; ++p) {
            keep.push_back(random_pair({2 * half / parts, k}, d, scale));
            keep.push_back(random_pair({2 * half / parts}, d));
            wide.push_back({keep[keep.size() - 2].wide, p == 0 ? keep.back().wide : Tensor()});
            narrow.push_back({keep[keep.size() - 2].narrow, p == 0 ? keep.back().narrow : Tensor()});
          }
          const Tensor whole = Tensor::empty(DType::f32, {t, 2 * half});
          const Tensor want = Tensor::empty(DType::f32, {t, half});
          const auto on_cpu = cpu().pack_linear(wide);
          const View in_cpu[] = {view(x.wide)}, mid[] = {view(whole)}, out_cpu[] = {view(want)};
          cpu().run({device::Linear{}, in_cpu, mid, on_cpu.get()}, nullptr);
          const Tensor gate = whole.slice(1, 0, half), up = whole.slice(1, half, 2 * half);
          const View halves[] = {view(gate), view(up)};
          cpu().run({device::GatedActivation{device::Activation::silu}, halves, out_cpu}, nullptr);
          const auto on_gpu = gpu()->pack_linear(narrow, {.gated = true});
          const Tensor placed = gpu()->place(x.narrow);
          const Tensor got = gpu()->place(poisoned(d, {t, half}));
          const View in_gpu[] = {view(placed)}, out_gpu[] = {view(got)};
          device::Linear op;
          op.gated = true;
          op.activation = device::Activation::silu;
          gpu()->run({op, in_gpu, out_gpu, on_gpu.get()}, nullptr);
          const double error = distance(to_host(got), want);
          if (!CHECK(error <= tolerance(d)))
            std::printf("  gated %s [2 x %d, %d] x %d, %d parts: relative error %g\n", core::dtype_name(d), int(half),
                        int(k), int(t), parts, error);
        }
}

TEST("matmul, softmax, elementwise, with broadcasting") {
  if (!gpu()) return;
  for (DType d : kFloats) {
    const Pair a = random_pair({3, 5, 19}, d), b = random_pair({19, 23}, d);
    compare(device::MatMul{}, {a, b}, {{3, 5, 23}}, d);
    const Pair x = random_pair({9, 333}, d), y = random_pair({9, 333}, d), row = random_pair({333}, d);
    compare(device::Softmax{}, {x}, {{9, 333}}, d);
    compare(device::Affine{0.5f, 2.0f}, {x}, {{9, 333}}, d);
    for (auto kind :
         {device::BinaryKind::add, device::BinaryKind::sub, device::BinaryKind::mul, device::BinaryKind::maximum}) {
      compare(device::Binary{kind}, {x, y}, {{9, 333}}, d);
      compare(device::Binary{kind}, {x, row}, {{9, 333}}, d);
    }
    for (auto kind : {device::Activation::silu, device::Activation::gelu, device::Activation::gelu_tanh,
                      device::Activation::relu, device::Activation::tanh, device::Activation::sigmoid,
                      device::Activation::neg, device::Activation::softcap}) {
      compare(device::Unary{kind, 3.0f}, {x}, {{9, 333}}, d);
      if (kind != device::Activation::softcap) compare(device::GatedActivation{kind}, {x, y}, {{9, 333}}, d);
    }
  }
}

namespace {

// A step of several sequences over a paged cache whose blocks are shuffled, with the same contents on both devices.
struct Sequence {
  int cached;  // tokens before this step
  int queries;  // tokens of this step
};

void compare_attention(DType d, DType cached, const std::vector<Sequence>& sequences, int heads, int kv_heads,
                       int head_dim, int window, float softcap, bool deterministic = false) {
  constexpr int kBlock = 16;
  device::StepView step;
  step.block_tokens = kBlock;
  std::vector<std::int32_t> positions, sequence_of, query_start{0}, kv_len, table;
  std::vector<std::int64_t> slots;
  int blocks = 0;
  for (const Sequence& s : sequences) {
    step.max_blocks = std::max(step.max_blocks, (s.cached + s.queries + kBlock - 1) / kBlock);
    blocks += (s.cached + s.queries + kBlock - 1) / kBlock;
  }
  std::vector<std::int32_t> shuffled(static_cast<std::size_t>(blocks));
  for (int i = 0; i < blocks; ++i) shuffled[static_cast<std::size_t>(i)] = i;
  std::shuffle(shuffled.begin(), shuffled.end(), random_bits());
  table.assign(sequences.size() * static_cast<std::size_t>(step.max_blocks), 0);
  std::size_t next = 0;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const int total = sequences[s].cached + sequences[s].queries;
    for (int b = 0; b * kBlock < total; ++b)
      table[s * static_cast<std::size_t>(step.max_blocks) + static_cast<std::size_t>(b)] = shuffled[next++];
    for (int i = sequences[s].cached; i < total; ++i) {
      positions.push_back(i);
      sequence_of.push_back(static_cast<std::int32_t>(s));
      slots.push_back(
          std::int64_t(table[s * static_cast<std::size_t>(step.max_blocks) + static_cast<std::size_t>(i / kBlock)]) *
              kBlock +
          i % kBlock);
    }
    query_start.push_back(static_cast<std::int32_t>(positions.size()));
    kv_len.push_back(total);
  }
  step.tokens = static_cast<int>(positions.size());
  step.sequences = static_cast<int>(sequences.size());
  std::vector<std::int32_t> ids(positions.size(), 0);
  step.token_ids = ids.data();
  step.positions = positions.data();
  step.sequence_of = sequence_of.data();
  step.query_start = query_start.data();
  step.kv_len = kv_len.data();
  step.rope_len = kv_len.data();
  step.slots = slots.data();
  step.block_table = table.data();

  step.deterministic = deterministic;
  Pair k_cache = random_pair({blocks, kv_heads, kBlock, head_dim}, cached),
       v_cache = random_pair({blocks, kv_heads, kBlock, head_dim}, cached);
  for (Pair* cache : {&k_cache, &v_cache}) {
    for (std::size_t s = 0; s < sequences.size(); ++s)
      poison_cache(cache->wide, table.data() + s * static_cast<std::size_t>(step.max_blocks),
                   (sequences[s].cached + sequences[s].queries + kBlock - 1) / kBlock, sequences[s].cached);
    cache->narrow = convert(cache->wide, cached);
    if (cached == DType::f8_e4m3) cache->wide = cache->narrow;  // the new keys are to be rounded there, too
  }
  const Pair q = random_pair({step.tokens, heads, head_dim}, d), k = random_pair({step.tokens, kv_heads, head_dim}, d),
             v = random_pair({step.tokens, kv_heads, head_dim}, d);
  const device::Op write = device::KvWrite{0};
  const device::Op attend = device::Attention{0, 1.0f / std::sqrt(float(head_dim)), window, softcap};
  auto run = [&](device::Backend& backend, bool wide) {
    auto pick = [&](const Pair& p) { return backend.place(wide ? p.wide : p.narrow); };
    const Tensor kc = pick(k_cache), vc = pick(v_cache), qt = pick(q), kt = pick(k), vt = pick(v);
    const Tensor out = backend.place(poisoned(wide ? DType::f32 : d, q.wide.shape()));
    const device::KvLayer layer{kc.data(), vc.data(), kv_heads, head_dim, head_dim, kc.dtype()};
    device::StepView staged = backend.stage(step);
    staged.kv = std::span(&layer, 1);
    const View kv[] = {view(kt), view(vt)};
    backend.run({write, kv, {}}, &staged);
    const View in[] = {view(qt)};
    const View to[] = {view(out)};
    backend.run({attend, in, to}, &staged);
    Tensor host = Tensor::empty(out.dtype(), out.shape());
    backend.copy_out(host.data(), out.data(), host.nbytes());
    return convert(host, DType::f32);
  };
  const Tensor want = run(cpu(), true);
  const Tensor got = run(*gpu(), false);
  const double error = distance(got, want);
  if (!CHECK(error <= tolerance(d)))
    std::printf("  attention %s on %s heads %d/%d x %d window %d cap %g, %zu sequences%s: relative error %g\n",
                core::dtype_name(d), core::dtype_name(cached), heads, kv_heads, head_dim, window, double(softcap),
                sequences.size(), deterministic ? ", deterministic" : "", error);
}

}  // namespace

TEST("attention over a paged cache: decode, prefill, chunks and mixtures") {
  if (!gpu()) return;
  const std::vector<std::vector<Sequence>> mixes{
      {{0, 1}},  {{700, 1}}, {{2500, 1}, {255, 1}, {256, 1}, {9001, 1}, {30, 1}},
      {{0, 65}}, {{63, 2}},  {{5, 1}, {0, 40}, {300, 1}, {17, 130}, {1000, 1}, {0, 2}}};
  for (auto [d, cached] : kCaches)
    for (const auto& mix : mixes)
      for (auto [heads, kv_heads] : {std::pair{4, 4}, std::pair{8, 2}, std::pair{12, 1}})
        for (int head_dim : {32, 64, 128, 256})
          for (auto [window, cap] : {std::pair{0, 0.0f}, std::pair{37, 0.0f}, std::pair{0, 20.0f}}) {
            // Of float8 what goes to other kernels: those for heads of 64 and 128, and the plain ones.
            if (cached != d && (heads == 4 || (head_dim % 64 != 0) != (d == DType::f32))) continue;
            compare_attention(d, cached, mix, heads, kv_heads, head_dim, window, cap);
            if (cached != d && head_dim == 64)
              compare_attention(d, cached, mix, heads, kv_heads, head_dim, window, cap, true);
          }
}

TEST("a float8 cache has the codes that the CPU makes") {
  if (!gpu()) return;
  std::vector<float> values{0.0f, -0.0f, 1e-30f, -1e-10f, 448.0f, 449.0f, 464.0f, 465.0f, 1e30f, -1e30f};
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(-std::numeric_limits<float>::infinity());
  for (int i = 0; i < 1000; ++i)  // ties, and what lies beside them, at every size that codes have
    for (const float sign : {1.0f, -1.0f}) {
      const float x = sign * std::ldexp(1.0f + float(i % 32) / 32.0f, i / 32 - 14);
      for (const float y : {x, std::nextafter(x, 1e9f), std::nextafter(x, -1e9f)}) values.push_back(y);
    }
  values.resize((values.size() + 127) / 128 * 128, std::numeric_limits<float>::quiet_NaN());
  const auto tokens = static_cast<std::int64_t>(values.size()) / 128;
  for (DType d : kFloats) {
    Tensor wide = Tensor::empty(DType::f32, {tokens, 1, 128});
    std::copy(values.begin(), values.end(), wide.as<float>());
    const Tensor narrow = convert(wide, d);
    wide = convert(narrow, DType::f32);
    std::vector<std::int64_t> slots;
    for (std::int64_t t = 0; t < tokens; ++t) slots.push_back(t);
    std::vector<std::int32_t> zeros(static_cast<std::size_t>(tokens), 0), query_start{0, int(tokens)},
        kv_len{int(tokens)};
    device::StepView step;
    step.tokens = int(tokens);
    step.sequences = 1;
    step.max_blocks = int(tokens) / 16 + 1;
    step.token_ids = step.positions = step.sequence_of = step.block_table = zeros.data();
    step.query_start = query_start.data();
    step.kv_len = step.rope_len = kv_len.data();
    step.slots = slots.data();
    std::vector<Tensor> codes;
    for (device::Backend* backend : {&cpu(), gpu().get()}) {
      const Tensor x = backend->place(backend == &cpu() ? wide : narrow);
      const Tensor host = Tensor::empty(DType::f8_e4m3, {step.max_blocks, 1, 16, 128});
      std::fill_n(static_cast<std::uint8_t*>(host.data()), host.numel(), std::uint8_t{1});
      const Tensor k = backend->place(host);
      const Tensor v = backend->place(Tensor::empty(DType::f8_e4m3, host.shape()));
      const device::KvLayer layer{k.data(), v.data(), 1, 128, 128, DType::f8_e4m3};
      device::StepView staged = backend->stage(step);
      staged.kv = std::span(&layer, 1);
      const View kv[] = {view(x), view(x)};
      backend->run({device::KvWrite{0}, kv, {}}, &staged);
      codes.push_back(Tensor::empty(DType::f8_e4m3, host.shape()));
      backend->copy_out(codes.back().data(), k.data(), codes.back().nbytes());
    }
    int wrong = 0;
    for (std::int64_t i = 0; i < codes[0].numel(); ++i) {
      const std::uint8_t a = codes[0].as<std::uint8_t>()[i], b = codes[1].as<std::uint8_t>()[i];
      wrong += a != b && ((a & 0x7f) != 0x7f || (b & 0x7f) != 0x7f);
    }
    CHECK_EQ(wrong, 0);
    // And back: what copies them reads the same numbers.
    const Tensor placed = gpu()->place(codes[0]);
    const Tensor back = gpu()->place(poisoned(DType::f32, placed.shape()));
    const View from[] = {view(placed)}, to[] = {view(back)};
    gpu()->run({device::Copy{}, from, to}, nullptr);
    const Tensor read = to_host(back), want = convert(codes[0], DType::f32);
    for (std::int64_t i = 0; i < read.numel(); ++i) {
      const float a = read.as<float>()[i], b = want.as<float>()[i];
      wrong += !(a == b || (std::isnan(a) && std::isnan(b)));
    }
    CHECK_EQ(wrong, 0);
  }
}

TEST("rope_kv_write does what rms_norm, rope and kv_write do") {
  if (!gpu() || !fuses("rope_kv_write")) return;
  constexpr int kBlock = 16;
  for (auto [d, cached] : kCaches)
    for (int head_dim : {32, 64, 128, 256})
      for (bool normed : {false, true})
        for (auto [rotary, interleaved] :
             {std::pair{head_dim, false}, std::pair{head_dim, true}, std::pair{16, false}}) {
          const int t = 21, heads = 6, kv_heads = 2, blocks = 3;
          device::StepView step;
          step.block_tokens = kBlock;
          step.tokens = t;
          step.sequences = 1;
          step.max_blocks = blocks;
          std::vector<std::int32_t> positions, sequence_of(t, 0), query_start{0, t}, kv_len{t}, table{2, 0, 1},
              ids(t, 0);
          std::vector<std::int64_t> slots;
          for (int i = 0; i < t; ++i) {
            positions.push_back(i);
            slots.push_back(table[static_cast<std::size_t>(i / kBlock)] * kBlock + i % kBlock);
          }
          step.token_ids = ids.data();
          step.positions = positions.data();
          step.sequence_of = sequence_of.data();
          step.query_start = query_start.data();
          step.kv_len = kv_len.data();
          step.rope_len = kv_len.data();
          step.slots = slots.data();
          step.block_table = table.data();
          const Pair q = random_pair({t, heads, head_dim}, d), k = random_pair({t, kv_heads, head_dim}, d),
                     v = random_pair({t, kv_heads, head_dim}, d), q_norm = random_pair({head_dim}, DType::f32),
                     k_norm = random_pair({head_dim}, DType::f32);
          Tensor frequencies = Tensor::empty(DType::f32, {rotary / 2});
          for (int i = 0; i < rotary / 2; ++i)
            frequencies.as<float>()[i] = std::pow(10000.0f, -2.0f * float(i) / float(rotary));
          device::RopeKvWrite op;
          op.rope.rotary_dim = rotary;
          op.rope.interleaved = interleaved;
          op.normed = normed;
          op.eps = 1e-5f;
          op.weight_offset = 0.5f;
          // The parts, on the CPU in float32.
          const Tensor at = integers(positions);
          Tensor q_turned = Tensor::empty(DType::f32, q.wide.shape()),
                 k_turned = Tensor::empty(DType::f32, k.wide.shape());
          const Shape cache_shape{blocks, kv_heads, kBlock, head_dim};
          Tensor k_cache = random_pair(cache_shape, d).wide, v_cache = random_pair(cache_shape, d).wide;
          const Tensor k_gpu = gpu()->place(convert(k_cache, cached)), v_gpu = gpu()->place(convert(v_cache, cached));
          const auto turn = [&](const Pair& x, const Pair& weight, Tensor& to) {
            Tensor from = x.wide;
            if (normed) {
              Tensor out = Tensor::empty(DType::f32, x.wide.shape());
              const View in[] = {view(from), view(weight.wide)}, outs[] = {view(out)};
              cpu().run({device::RmsNorm{op.eps, op.weight_offset}, in, outs}, nullptr);
              from = out;
            }
            const View in[] = {view(from), view(at), view(frequencies)}, outs[] = {view(to)};
            cpu().run({op.rope, in, outs}, nullptr);
          };
          turn(q, q_norm, q_turned);
          turn(k, k_norm, k_turned);
          const device::KvLayer on_cpu{k_cache.data(), v_cache.data(), kv_heads, head_dim, head_dim, DType::f32};
          step.kv = std::span(&on_cpu, 1);
          const View kv[] = {view(k_turned), view(v.wide)};
          cpu().run({device::KvWrite{0}, kv, {}}, &step);
          // The fused op.
          std::vector<Tensor> placed;
          std::vector<View> in;
          for (const Tensor& host : {q.narrow, k.narrow, v.narrow, at, frequencies, q_norm.narrow, k_norm.narrow})
            if (placed.size() < (normed ? 7u : 5u)) placed.push_back(gpu()->place(host));
          for (const Tensor& p : placed) in.push_back(view(p));
          const Tensor got = gpu()->place(poisoned(d, q.wide.shape()));
          const View out[] = {view(got)};
          const device::KvLayer layer{k_gpu.data(), v_gpu.data(), kv_heads, head_dim, head_dim, cached};
          device::StepView staged = gpu()->stage(step);
          staged.kv = std::span(&layer, 1);
          gpu()->run({op, in, out}, &staged);
          const double errors[] = {distance(to_host(got), q_turned), distance(to_host(k_gpu), k_cache),
                                   distance(to_host(v_gpu), v_cache)};
          for (const double& error : errors)  // e4m3 rounds by up to a sixteenth
            if (!CHECK(error <= (cached == d || &error == errors ? tolerance(d) : 4e-2)))
              std::printf("  rope_kv_write %s head %d rotary %d normed %d: relative errors %g %g %g\n",
                          core::dtype_name(d), head_dim, rotary, int(normed), errors[0], errors[1], errors[2]);
        }
}

TEST("rope_attention does what rope_kv_write and attention do, in decode and in mixed steps") {
  if (!gpu() || !fuses("rope_attention")) return;
  constexpr int kBlock = 16;
  for (auto [d, cached] : kCaches)
    for (int head_dim : {32, 64, 128})
      for (auto [heads, kv_heads] : {std::pair{4, 4}, std::pair{8, 2}, std::pair{20, 1}})
        for (bool normed : {false, true})
          for (int window : {0, 37})
            for (const std::vector<Sequence>& sequences : std::vector<std::vector<Sequence>>{
                     {{0, 1}}, {{15, 1}, {16, 1}, {300, 1}, {2600, 1}, {255, 1}, {256, 1}}, {{20, 1}, {0, 33}}}) {
              if (cached != d && heads == 4) continue;
              device::StepView step;
              step.block_tokens = kBlock;
              std::vector<std::int32_t> positions, sequence_of, query_start{0}, kv_len, table, ids;
              std::vector<std::int64_t> slots;
              for (const Sequence& s : sequences)
                step.max_blocks = std::max(step.max_blocks, (s.cached + s.queries + kBlock - 1) / kBlock);
              for (std::size_t s = 0; s < sequences.size(); ++s) {
                for (int b = 0; b < step.max_blocks; ++b)
                  table.push_back(static_cast<std::int32_t>(s) * step.max_blocks + step.max_blocks - 1 - b);
                const std::int32_t* own = table.data() + s * static_cast<std::size_t>(step.max_blocks);
                for (int i = sequences[s].cached; i < sequences[s].cached + sequences[s].queries; ++i) {
                  positions.push_back(i);
                  sequence_of.push_back(static_cast<std::int32_t>(s));
                  slots.push_back(std::int64_t{own[i / kBlock]} * kBlock + i % kBlock);
                }
                query_start.push_back(static_cast<std::int32_t>(positions.size()));
                kv_len.push_back(sequences[s].cached + sequences[s].queries);
              }
              const auto t = static_cast<std::int64_t>(positions.size());
              ids.assign(positions.size(), 0);
              step.tokens = static_cast<int>(t);
              step.sequences = static_cast<int>(sequences.size());
              step.token_ids = ids.data();
              step.positions = positions.data();
              step.sequence_of = sequence_of.data();
              step.query_start = query_start.data();
              step.kv_len = kv_len.data();
              step.rope_len = kv_len.data();
              step.slots = slots.data();
              step.block_table = table.data();
              const std::int64_t blocks = std::int64_t{step.max_blocks} * step.sequences;
              const Pair all = random_pair({t, heads + 2 * kv_heads, head_dim}, d),
                         q_norm = random_pair({head_dim}, DType::f32), k_norm = random_pair({head_dim}, DType::f32);
              Pair k_cache = random_pair({blocks, kv_heads, kBlock, head_dim}, d),
                   v_cache = random_pair({blocks, kv_heads, kBlock, head_dim}, d);
              for (Pair* cache : {&k_cache, &v_cache})
                for (std::size_t s = 0; s < sequences.size(); ++s)
                  poison_cache(cache->wide, table.data() + s * static_cast<std::size_t>(step.max_blocks),
                               step.max_blocks, sequences[s].cached);
              Tensor frequencies = Tensor::empty(DType::f32, {head_dim / 2});
              for (int i = 0; i < head_dim / 2; ++i)
                frequencies.as<float>()[i] = std::pow(10000.0f, -2.0f * float(i) / float(head_dim));
              device::RopeAttention op;
              op.write.rope.rotary_dim = head_dim;
              op.write.normed = normed;
              op.attention.scale = 1.0f / std::sqrt(float(head_dim));
              op.attention.window = window;
              Tensor out[2], keys[2];
              for (bool fused : {false, true}) {
                const Tensor x = gpu()->place(convert(all.wide, d)), kc = gpu()->place(convert(k_cache.wide, cached)),
                             vc = gpu()->place(convert(v_cache.wide, cached)), at = gpu()->place(integers(positions)),
                             f = gpu()->place(frequencies), qn = gpu()->place(q_norm.wide),
                             kn = gpu()->place(k_norm.wide);
                const auto part = [&](int first, int count) {
                  View v = view(x);
                  v.data =
                      static_cast<char*>(v.data) + std::size_t(first) * std::size_t(head_dim) * core::dtype_size(d);
                  v.shape = Shape{t, count, head_dim};
                  return v;
                };
                std::vector<View> in{part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads), view(at),
                                     view(f)};
                if (normed) in.insert(in.end(), {view(qn), view(kn)});
                const Tensor turned = gpu()->place(poisoned(d, {t, heads, head_dim}));
                const Tensor got = gpu()->place(poisoned(d, {t, heads, head_dim}));
                const View to[] = {view(got)}, middle[] = {view(turned)};
                const device::KvLayer layer{kc.data(), vc.data(), kv_heads, head_dim, head_dim, cached};
                device::StepView staged = gpu()->stage(step);
                staged.kv = std::span(&layer, 1);
                if (fused) {
                  gpu()->run({op, in, to}, &staged);
                } else {
                  gpu()->run({op.write, in, middle}, &staged);
                  gpu()->run({op.attention, middle, to}, &staged);
                }
                out[fused] = to_host(got);
                keys[fused] = to_host(kc);
              }
              const double error = distance(out[1], out[0]);
              bool same_keys = true;  // NaN where nobody wrote, in both
              for (std::int64_t i = 0; i < keys[0].numel(); ++i) {
                const float a = keys[0].as<float>()[i], b = keys[1].as<float>()[i];
                same_keys = same_keys && (a == b || (std::isnan(a) && std::isnan(b)));
              }
              if (!CHECK(error <= tolerance(d) && same_keys))
                std::printf("  rope_attention %s heads %d/%d x %d normed %d window %d, %zu sequences: %g, keys %d\n",
                            core::dtype_name(d), heads, kv_heads, head_dim, int(normed), window, sequences.size(),
                            error, int(same_keys));
            }
}

TEST("rope, embedding, select_rows, copy") {
  if (!gpu()) return;
  for (DType d : kFloats) {
    const std::int64_t t = 37;
    const Pair x = random_pair({t, 5, 64}, d);
    std::vector<std::int32_t> at;
    for (int i = 0; i < t; ++i) at.push_back(i * 97 % 4000);
    const Pair positions{integers(at), integers(at)};
    for (auto [rotary, interleaved] : {std::pair{64, false}, std::pair{64, true}, std::pair{32, false}}) {
      Tensor frequencies = Tensor::empty(DType::f32, {rotary / 2});
      for (int i = 0; i < rotary / 2; ++i)
        frequencies.as<float>()[i] = std::pow(10000.0f, -2.0f * float(i) / float(rotary));
      device::Rope rope;
      rope.rotary_dim = rotary;
      rope.interleaved = interleaved;
      rope.attention_factor = 1.2f;
      compare(rope, {x, positions, {frequencies, frequencies}}, {{t, 5, 64}}, d);
    }
    const Pair table = random_pair({50, 24}, d);
    const Pair ids{integers({3, 49, 0, 3}), integers({3, 49, 0, 3})};
    compare(device::Embedding{2.5f}, {ids, table}, {{4, 24}}, d);
    compare(device::SelectRows{}, {table, ids}, {{4, 24}}, d);
    compare(device::Copy{}, {table}, {{50, 24}}, d);
  }
}
