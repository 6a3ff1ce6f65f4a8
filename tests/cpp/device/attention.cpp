// KvWrite and Attention on every instruction set: against the reference over head shapes, groups, windows, caps, cache
// dtypes, block sizes and mixed batches; caches are NaN wherever nothing was written. And the promise that a token's
// result is the same bits however the step is composed: alone or in a batch, in one chunk or token by token, on one
// thread or split over several.
#include "check.h"
#include "device_case.h"

namespace {

using namespace device_case;

struct Heads {
  int q = 1;
  int kv = 1;
  int dim = 64;
  int v_dim = 64;
};

// The keys and values of whole sequences, token by token, and a cache they are written to by KvWrite of the backend.
struct Texts {
  Heads heads;
  std::vector<Array> q, k, v;  // per sequence [length, heads, dim]

  Texts(const Heads& shape, const std::vector<int>& lengths, Random& random) : heads(shape) {
    for (const int n : lengths) {
      q.push_back(random.array(DType::f32, {n, heads.q, heads.dim}, 1.5));
      k.push_back(random.array(DType::f32, {n, heads.kv, heads.dim}, 1.5));
      v.push_back(random.array(DType::f32, {n, heads.kv, heads.v_dim}));
    }
  }
};

struct Caches {
  Array k, v;
  Caches(const Step& step, const Heads& heads, DType dtype)
      : k(Array::poisoned(dtype, {step.blocks(), heads.kv, step.block_tokens(), heads.dim})),
        v(Array::poisoned(dtype, {step.blocks(), heads.kv, step.block_tokens(), heads.v_dim})) {}
  device::KvLayer layer(const Heads& heads) {
    return {k.view().data, v.view().data, heads.kv, heads.dim, heads.v_dim, k.view().dtype};
  }
};

// The tokens [past, past + now) of the texts, end to end, as one fused array [T, q + k + v]: the ops get slices of it.
struct Fused {
  Array rows;
  std::int64_t width;
  View q, k, v;
};
Fused fuse(const Texts& texts, const std::vector<Sequence>& sequences) {
  const Heads& h = texts.heads;
  const std::int64_t width = h.q * h.dim + h.kv * (h.dim + h.v_dim);
  std::int64_t tokens = 0;
  for (const Sequence& s : sequences) tokens += s.now;
  Fused fused{Array::poisoned(DType::f32, {tokens, width}), width, {}, {}, {}};
  std::int64_t t = 0;
  for (std::size_t s = 0; s < sequences.size(); ++s)
    for (int i = 0; i < sequences[s].now; ++i, ++t) {
      const std::int64_t at = sequences[s].past + i;
      for (std::int64_t j = 0; j < h.q * h.dim; ++j)
        fused.rows.set(t * width + j, texts.q[s].get(at * h.q * h.dim + j));
      for (std::int64_t j = 0; j < h.kv * h.dim; ++j)
        fused.rows.set(t * width + h.q * h.dim + j, texts.k[s].get(at * h.kv * h.dim + j));
      for (std::int64_t j = 0; j < h.kv * h.v_dim; ++j)
        fused.rows.set(t * width + (h.q + h.kv) * h.dim + j, texts.v[s].get(at * h.kv * h.v_dim + j));
    }
  fused.q = fused.rows.window({tokens, h.q, h.dim}, {width, h.dim, 1}, 0);
  fused.k = fused.rows.window({tokens, h.kv, h.dim}, {width, h.dim, 1}, h.q * h.dim);
  fused.v = fused.rows.window({tokens, h.kv, h.v_dim}, {width, h.v_dim, 1}, (h.q + h.kv) * h.dim);
  return fused;
}

// Puts the keys and values of earlier positions into the cache by hand, in the cache's rounding.
void fill_past(const Texts& texts, const std::vector<Sequence>& sequences, const Step& step, Caches& caches) {
  const Heads& h = texts.heads;
  for (std::size_t s = 0; s < sequences.size(); ++s)
    for (int p = 0; p < sequences[s].past; ++p)
      for (int head = 0; head < h.kv; ++head) {
        const std::int64_t row = step.row(static_cast<int>(s), p, head, h.kv);
        for (int d = 0; d < h.dim; ++d)
          caches.k.set(row * h.dim + d, texts.k[s].get((std::int64_t{p} * h.kv + head) * h.dim + d));
        for (int d = 0; d < h.v_dim; ++d)
          caches.v.set(row * h.v_dim + d, texts.v[s].get((std::int64_t{p} * h.kv + head) * h.v_dim + d));
      }
}

// Runs KvWrite and Attention over one step; out [T, q heads, v_dim].
Array attend(Backend& backend, const Texts& texts, const std::vector<Sequence>& sequences, const device::Attention& op,
             DType dtype, int block_tokens, Random& random, bool check) {
  Step step(sequences, block_tokens, random);
  Caches caches(step, texts.heads, dtype);
  fill_past(texts, sequences, step, caches);
  step.layers = {caches.layer(texts.heads)};
  const Fused fused = fuse(texts, sequences);
  backend.step = step.view();
  Caches by_reference = caches;
  by_reference.k = caches.k.copy();
  by_reference.v = caches.v.copy();
  backend.run(device::KvWrite{0}, {fused.k, fused.v}, {});
  const std::int64_t tokens = fused.q.shape[0];
  Array out = Array::poisoned(DType::f32, {tokens, texts.heads.q, texts.heads.v_dim});
  backend.run(op, {fused.q}, {out.view()});
  if (check) {
    step.layers = {by_reference.layer(texts.heads)};
    const device::StepView* view = step.view();
    oracle(device::KvWrite{0}, {fused.k, fused.v}, {}, view);
    CHECK(close(caches.k, by_reference.k, 0) && close(caches.v, by_reference.v, 0));
    Array want = Array::poisoned(DType::f32, {tokens, texts.heads.q, texts.heads.v_dim});
    oracle(op, {fused.q}, {want.view()}, view);
    if (!CHECK(close(out, want, 3e-6)))
      std::printf("    heads %d/%d dim %d/%d window %d cap %g blocks of %d cache %s\n", texts.heads.q, texts.heads.kv,
                  texts.heads.dim, texts.heads.v_dim, op.window, static_cast<double>(op.softcap), block_tokens,
                  fastllm::core::dtype_name(dtype));
  }
  backend.step = nullptr;
  return out;
}

}  // namespace

TEST("attention against the reference") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const Heads& heads :
         {Heads{1, 1, 64, 64}, Heads{14, 2, 64, 64}, Heads{8, 8, 32, 32}, Heads{6, 2, 80, 80}, Heads{5, 1, 20, 12},
          Heads{3, 3, 7, 9}, Heads{4, 1, 128, 128}, Heads{71, 1, 16, 16}, Heads{8, 4, 256, 256}}) {
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3}) {
        const int block_tokens = std::vector<int>{1, 4, 16, 24, 64}[static_cast<std::size_t>(random.below(5))];
        device::Attention op;
        op.scale = 0.3f;
        op.window = random.below(2) ? 0 : static_cast<int>(1 + random.below(90));
        op.softcap = random.below(2) ? 0.0f : 5.0f;
        const std::vector<Sequence> sequences{
            {static_cast<int>(random.below(200)), 1}, {63, 1}, {0, 1}, {64, 2}, {0, 70},
            {static_cast<int>(random.below(100)), 33}};
        std::vector<int> lengths;
        for (const Sequence& s : sequences) lengths.push_back(s.past + s.now);
        const Texts texts(heads, lengths, random);
        attend(backend, texts, sequences, op, dtype, block_tokens, random, true);
      }
    }
  });
}

TEST("attention over long contexts, split and whole") {
  for_each_backend([](Backend& backend, Random& random) {
    Backend alone(fastllm::core::parse_isa(backend.cpu().info().isa).value(), 1);
    for (const int past : {511, 512, 513, 1500, 2047}) {
      for (const int window : {0, 700}) {
        const Heads heads{4, 2, 64, 64};
        const Texts texts(heads, {past + 1}, random);
        device::Attention op;
        op.scale = 0.125f;
        op.window = window;
        const Array split = attend(backend, texts, {{past, 1}}, op, DType::f16, 16, random, true);
        const Array whole = attend(alone, texts, {{past, 1}}, op, DType::f16, 16, random, false);
        CHECK(split.same_bits(whole));
      }
    }
  });
}

TEST("a token's bits do not depend on the step it is computed in") {
  for_each_backend([](Backend& backend, Random& random) {
    Backend alone(fastllm::core::parse_isa(backend.cpu().info().isa).value(), 1);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3}) {
      for (const int window : {0, 100}) {
        const Heads heads = random.below(2) ? Heads{14, 2, 64, 64} : Heads{4, 2, 40, 24};
        constexpr int kLength = 600;
        const Texts texts(heads, {kLength, 90}, random);
        device::Attention op;
        op.scale = 0.2f;
        op.window = window;
        const std::int64_t row = heads.q * heads.v_dim;
        const Array at_once = attend(alone, texts, {{0, kLength}}, op, dtype, 16, random, false);
        // In chunks of odd sizes, beside another sequence, with other block sizes and threads.
        for (int past = 0; past < kLength;) {
          const int now = std::min<int>(kLength - past, static_cast<int>(1 + random.below(random.below(2) ? 200 : 7)));
          Backend& some = random.below(2) ? backend : alone;
          const int other = static_cast<int>(random.below(89));
          const std::vector<Sequence> sequences{{past, now}, {other, 1}};
          const Array chunk = attend(some, texts, sequences, op, dtype, random.below(2) ? 16 : 10, random, false);
          bool equal = true;
          for (std::int64_t i = 0; i < now * row && equal; ++i) equal = chunk.get(i) == at_once.get(past * row + i);
          if (!CHECK(equal)) {
            std::printf("    past %d now %d window %d cache %s\n", past, now, window, fastllm::core::dtype_name(dtype));
            return;
          }
          past += now;
        }
      }
    }
  });
}

// Every code comes out of the cache as the number it stands for, and every number goes in as the nearest code: ties to
// even, too large ones as 448, NaN as NaN. The truth of numbers is the list of what the codes say, searched in double.
TEST("a float8 cache: every code and every rounding") {
  std::vector<double> numbers;  // of codes 0 ... 0x7e, ascending
  for (std::uint32_t code = 0; code < 0x7f; ++code) {
    const int exponent = static_cast<int>(code >> 3);
    const int mantissa = static_cast<int>(code & 7);
    numbers.push_back(exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
  }
  const auto nearest = [&](double size) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < numbers.size(); ++i) {
      const double gain = std::fabs(numbers[best] - size) - std::fabs(numbers[i] - size);
      if (gain > 0 || (gain == 0 && i % 2 == 0)) best = i;
    }
    return static_cast<std::uint8_t>(best);
  };
  std::vector<float> values{0.0f, -0.0f, 1e-30f, -1e-10f, 449.0f, 463.9f, 464.0f, 465.0f, 1e30f, -1e30f};
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(-std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i + 1 < numbers.size(); ++i) {  // each number, each tie, and their neighbours
    const double tie = (numbers[i] + numbers[i + 1]) / 2;
    for (const double x : {numbers[i], tie, -tie}) {
      const auto f = static_cast<float>(x);
      for (const float y : {f, std::nextafter(f, 1e9f), std::nextafter(f, -1e9f)}) values.push_back(y);
    }
  }
  const auto n = static_cast<std::int64_t>(values.size());
  for_each_backend([&](Backend& backend, Random& random) {
    for (const int dim : {1, 7, 64}) {  // tails and whole vectors
      const auto tokens = static_cast<int>((n + dim - 1) / dim);
      Step step({{0, tokens}}, 16, random);
      Caches caches(step, {1, 1, dim, dim}, DType::f8_e4m3);
      step.layers = {caches.layer({1, 1, dim, dim})};
      Array k = Array::poisoned(DType::f32, {tokens, 1, dim});  // what is left over is NaN
      for (std::int64_t i = 0; i < n; ++i) k.set(i, static_cast<double>(values[static_cast<std::size_t>(i)]));
      backend.step = step.view();
      backend.run(device::KvWrite{0}, {k.view(), k.view()}, {});
      const auto* codes = static_cast<const std::uint8_t*>(caches.k.view().data);
      int wrong = 0;
      for (std::int64_t i = 0; i < std::int64_t{tokens} * dim; ++i) {
        const std::uint8_t code = codes[step.row(0, static_cast<int>(i / dim), 0, 1) * dim + i % dim];
        if (i >= n) {
          wrong += (code & 0x7f) != 0x7f;
          continue;
        }
        const float value = values[static_cast<std::size_t>(i)];
        const int want =
            nearest(std::min(std::fabs(static_cast<double>(value)), 448.0)) | (std::signbit(value) ? 128 : 0);
        if (code != want && wrong++ < 5)
          std::printf("    %a became %02x and not %02x\n", static_cast<double>(value), code, want);
      }
      CHECK_EQ(wrong, 0);
    }
    // One key, which every row sees alone: out is its value. 256 channels hold all codes.
    Step step({{0, 1}}, 16, random);
    Caches caches(step, {1, 1, 256, 256}, DType::f8_e4m3);
    step.layers = {caches.layer({1, 1, 256, 256})};
    auto* at = static_cast<std::uint8_t*>(caches.v.view().data) + step.row(0, 0, 0, 1) * 256;
    for (int code = 0; code < 256; ++code) at[code] = static_cast<std::uint8_t>(code);
    std::memset(static_cast<std::uint8_t*>(caches.k.view().data) + step.row(0, 0, 0, 1) * 256, 0x38, 256);
    Array q = random.array(DType::f32, {1, 1, 256}, 0.01);
    Array out = Array::poisoned(DType::f32, {1, 1, 256});
    backend.step = step.view();
    backend.run(device::Attention{}, {q.view()}, {out.view()});
    for (int code = 0; code < 256; ++code) {
      const double got = out.get(code);
      if ((code & 0x7f) == 0x7f)
        CHECK(std::isnan(got));
      else
        CHECK_EQ(got, (code & 0x80 ? -1 : 1) * numbers[static_cast<std::size_t>(code & 0x7f)]);
    }
    backend.step = nullptr;
  });
}

TEST("attention and kv_write refuse what does not fit") {
  for_each_backend([](Backend& backend, Random& random) {
    Array q = random.array(DType::f32, {1, 3, 8});
    Array y = Array::poisoned(DType::f32, {1, 3, 8});
    CHECK_THROWS_WITH(backend.run(device::Attention{}, {q.view()}, {y.view()}), fastllm::core::Error, "runs on a step");
    Step step({{0, 1}}, 16, random);
    Caches caches(step, {3, 2, 8, 8}, DType::f32);
    step.layers = {caches.layer({3, 2, 8, 8})};
    backend.step = step.view();
    CHECK_THROWS_WITH(backend.run(device::Attention{}, {q.view()}, {y.view()}), fastllm::core::Error,
                      "3 query heads cannot share 2");
    device::Attention op;
    op.layer = 1;
    CHECK_THROWS_WITH(backend.run(op, {q.view()}, {y.view()}), fastllm::core::Error, "layer 1 of a step with 1");
    backend.step = nullptr;
  });
}
