// Linear on every instruction set: against the reference over sizes, dtypes, parts and epilogues, and the promise that
// a row's result is the same bits in any batch, with any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "device_case.h"
#include "quant/format.h"

namespace {

using namespace device_case;

struct Weight {
  std::vector<Array> arrays;  // keep the memory
  std::unique_ptr<device::PackedLinear> packed;
};

// Parts of the given rows, each with a bias if `bias`; rows of one part lie `gap` elements further apart than they are
// long.
Weight make_weight(Backend& backend, Random& random, DType dtype, const std::vector<std::int64_t>& rows, std::int64_t k,
                   bool bias, std::int64_t gap) {
  Weight weight;
  std::vector<device::LinearPart> parts;
  for (const std::int64_t n : rows) {
    weight.arrays.push_back(random.array(dtype, {n, k + gap}));
    const auto storage = [&] {
      const View& v = weight.arrays.back().view();
      return std::make_shared<fastllm::core::Storage>(
          v.data, static_cast<std::size_t>(v.shape.numel()) * fastllm::core::dtype_size(v.dtype),
          fastllm::core::Place{}, nullptr);
    };
    device::LinearPart part;
    part.weight = Tensor(storage(), dtype, {n, k}, {k + gap, 1}, 0);
    if (bias) {
      weight.arrays.push_back(random.array(dtype, {n}));
      part.bias = Tensor(storage(), dtype, {n});
    }
    parts.push_back(part);
  }
  weight.packed = backend.cpu().pack_linear(parts);
  return weight;
}

}  // namespace

TEST("linear against the reference") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const std::int64_t k : {1, 5, 8, 31, 64, 100, 896, 1024, 1025, 2051}) {
        const std::vector<std::int64_t> rows =
            random.below(2) ? std::vector<std::int64_t>{1 + random.below(70)}
                            : std::vector<std::int64_t>{1 + random.below(40), 1 + random.below(9), 8};
        const bool bias = random.below(2) != 0;
        const Weight weight = make_weight(backend, random, dtype, rows, k, bias, random.below(2) * 3);
        const std::int64_t n = weight.packed->out_features;
        CHECK_EQ(weight.packed->in_features, k);
        for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 13, 100}) {
          if (m > 8 && k > 1025) continue;
          // Sums of the order of 1: larger ones would only saturate the activations, which hides all but their rounding.
          const Array wide = random.array(DType::f32, {m, k + 5}, 1.0 / std::sqrt(static_cast<double>(k)));
          const View x = wide.window({m, k}, {k + 5, 1}, 2);
          const Array residual = random.array(DType::f32, {m, n});
          device::Linear op;
          op.scale = random.below(2) ? 1.0f : 0.37f;
          op.activation = static_cast<device::Activation>(random.below(7));
          op.add_residual = random.below(2) != 0;
          std::vector<View> in{x};
          if (op.add_residual) in.push_back(residual.view());
          if (!backend.same(op, in, {{m, n}}, 1e-5, false, DType::f32, weight.packed.get())) {
            std::printf("    m=%d n=%d k=%d %s\n", int(m), int(n), int(k), fastllm::core::dtype_name(dtype));
            return;
          }
        }
      }
    }
  });
}

TEST("linear may write over its residual, and into a slice of a wider output") {
  for_each_backend([](Backend& backend, Random& random) {
    const Weight weight = make_weight(backend, random, DType::bf16, {30, 15}, 77, true, 0);
    const Array x = random.array(DType::f32, {9, 77});
    Array wide = random.array(DType::f32, {9, 50});
    const Array before = wide.copy();
    const View y = wide.window({9, 45}, {50, 1}, 3);
    device::Linear op;
    op.add_residual = true;
    backend.run(op, {x.view(), y}, {y}, weight.packed.get());
    Array want = Array::poisoned(DType::f32, {9, 45});
    oracle(op, {x.view(), before.window({9, 45}, {50, 1}, 3)}, {want.view()}, nullptr, weight.packed.get());
    Array got = Array::poisoned(DType::f32, {9, 45});
    reference::copy({}, {&y, 1}, {&got.view(), 1});
    CHECK(close(got, want, 1e-5));
    for (std::int64_t t = 0; t < 9; ++t)
      for (const std::int64_t c : {0, 1, 2, 48, 49})
        CHECK_EQ(wide.get(t * 50 + c), before.get(t * 50 + c));  // beside the slice: untouched
  });
}

TEST("a row's bits do not depend on its batch, its tile or the threads") {
  for_each_backend([](Backend& backend, Random& random) {
    Backend alone(fastllm::core::parse_isa(backend.cpu().info().isa).value(), 1);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const std::int64_t k : {7, 256, 1000, 2500}) {
        const Weight weight = make_weight(backend, random, dtype, {67, 13, 4}, k, true, 0);
        const std::int64_t n = 84;
        const Array x = random.array(DType::f32, {200, k});
        device::Linear op;
        op.activation = device::Activation::silu;
        Array single = Array::poisoned(DType::f32, {200, n});
        for (std::int64_t t = 0; t < 200; ++t)
          alone.run(op, {x.window({1, k}, {k, 1}, t * k)}, {single.window({1, n}, {n, 1}, t * n)}, weight.packed.get());
        for (std::int64_t m : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 31, 33, 64, 70, 95, 96, 97, 103, 200}) {
          const std::int64_t first = random.below(200 - m + 1);
          Array batch = Array::poisoned(DType::f32, {m, n});
          (random.below(2) ? backend : alone)
              .run(op, {x.window({m, k}, {k, 1}, first * k)}, {batch.view()}, weight.packed.get());
          bool equal = true;
          for (std::int64_t i = 0; i < m * n && equal; ++i) equal = batch.get(i) == single.get(first * n + i);
          if (!CHECK(equal)) {
            std::printf("    m=%d k=%d %s\n", int(m), int(k), fastllm::core::dtype_name(dtype));
            return;
          }
        }
        // The same weight rows as one part instead of three, at other places of the tiles.
        Array other = Array::poisoned(DType::f32, {5, 67});
        std::vector<device::LinearPart> parts(1);
        const View& w = weight.arrays[0].view();
        parts[0].weight =
            Tensor(std::make_shared<fastllm::core::Storage>(
                       w.data, static_cast<std::size_t>(67 * k) * fastllm::core::dtype_size(dtype),
                       fastllm::core::Place{}, nullptr),
                   dtype, {66, k}, {k, 1}, k * static_cast<std::int64_t>(fastllm::core::dtype_size(dtype)));
        device::LinearPart& part = parts[0];
        const View& b = weight.arrays[1].view();
        part.bias = Tensor(std::make_shared<fastllm::core::Storage>(b.data, 67 * fastllm::core::dtype_size(dtype),
                                                                    fastllm::core::Place{}, nullptr),
                           dtype, {66}, {1}, static_cast<std::int64_t>(fastllm::core::dtype_size(dtype)));
        const auto shifted = backend.cpu().pack_linear(parts);
        backend.run(op, {x.window({5, k}, {k, 1}, 0)}, {other.window({5, 66}, {67, 1}, 0)}, shifted.get());
        bool equal = true;
        for (std::int64_t t = 0; t < 5; ++t)
          for (std::int64_t j = 0; j < 66; ++j) equal = equal && other.get(t * 67 + j) == single.get(t * n + j + 1);
        CHECK(equal);
      }
    }
  });
}

TEST("weights that are not row-major or not of a kernel's dtype are converted when packed, or refused") {
  for_each_backend([](Backend& backend, Random& random) {
    const Array conv = random.array(DType::bf16, {20, 30});  // [in, out], as Conv1D checkpoints store it
    const auto storage =
        std::make_shared<fastllm::core::Storage>(conv.view().data, 1200, fastllm::core::Place{}, nullptr);
    const device::LinearPart part{Tensor(storage, DType::bf16, {30, 20}, {1, 30}, 0), {}};
    const auto packed = backend.cpu().pack_linear({&part, 1});
    const Array x = random.array(DType::f32, {3, 20});
    Array y = Array::poisoned(DType::f32, {3, 30});
    backend.run(device::Linear{}, {x.view()}, {y.view()}, packed.get());
    Array want = Array::poisoned(DType::f32, {3, 30});
    oracle(device::MatMul{}, {x.view(), conv.view()}, {want.view()});
    CHECK(close(y, want, 1e-5));
    const device::LinearPart integers{Tensor::empty(DType::i8, {4, 4}), {}};
    CHECK_THROWS_WITH(backend.cpu().pack_linear({&integers, 1}), fastllm::core::Error, "[linear] the weight is int8");
    const device::LinearPart parts[2] = {{Tensor::empty(DType::f32, {4, 4}), {}},
                                         {Tensor::empty(DType::f32, {4, 5}), {}}};
    CHECK_THROWS_WITH(backend.cpu().pack_linear(parts), fastllm::core::Error, "4 input features and another 5");
    const device::LinearPart bias{Tensor::empty(DType::f32, {4, 4}), Tensor::empty(DType::f32, {5})};
    CHECK_THROWS_WITH(backend.cpu().pack_linear({&bias, 1}), fastllm::core::Error, "[5]");
  });
}

TEST("inputs become float8 where the format says so, and what is not finite spoils its own token") {
  // Every number that e4m3 has, by its definition, in order; 480 would be the NaN.
  std::vector<double> numbers{0.0};
  for (int exponent = -6; exponent <= 8; ++exponent)
    for (int eighths = 0; eighths < 8; ++eighths) {
      if (exponent == -6 && eighths > 0) numbers.push_back(std::ldexp(eighths / 8.0, -6));
      if (exponent != 8 || eighths < 7) numbers.push_back(std::ldexp(1.0 + eighths / 8.0, exponent));
    }
  std::ranges::sort(numbers);
  const auto nearest = [&](double x) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < numbers.size(); ++i) {
      const double nearer = std::abs(std::abs(x) - numbers[best]) - std::abs(std::abs(x) - numbers[i]);
      if (nearer > 0 || (nearer == 0 && i % 2 == 0)) best = i;
    }
    return std::copysign(numbers[best], x);
  };
  CHECK_EQ(numbers.size(), std::size_t{127});
  for_each_backend([&](Backend& backend, Random& random) {
    const std::int64_t depth = 77;
    const std::int64_t columns = 9;
    const std::int64_t tokens = 6;
    const Array weight = random.array(DType::f32, {columns, depth});
    const Array x = random.array(DType::f32, {tokens, depth + 3}, 5.0);
    const View rows = x.window({tokens, depth}, {depth + 3, 1}, 1);
    auto* at = static_cast<float*>(rows.data);
    for (std::int64_t k = 0; k < depth; ++k) at[2 * (depth + 3) + k] = 0.0f;
    at[3 * (depth + 3) + 70] = std::numeric_limits<float>::quiet_NaN();
    at[4 * (depth + 3) + 1] = -std::numeric_limits<float>::infinity();
    const View& w = weight.view();
    const Tensor whole(
        std::make_shared<fastllm::core::Storage>(w.data, static_cast<std::size_t>(columns * depth) * sizeof(float),
                                                 fastllm::core::Place{}, nullptr),
        DType::f32, {columns, depth});
    const device::LinearPart part{whole, {}};
    const auto format = fastllm::quant::format_of("fp8_dynamic");
    const auto packed = backend.cpu().pack_linear({&part, 1}, {.format = format});
    const Tensor rounded = fastllm::quant::rounded(format, whole);
    const Array y = random.array(DType::f32, {tokens, columns});
    const View in[] = {rows};
    const View out[] = {y.view()};
    const device::Op op = device::Linear{};
    backend.cpu().run({op, in, out, packed.get()}, nullptr);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float* from = at + t * (depth + 3);
      float most = 0.0f;
      for (std::int64_t k = 0; k < depth; ++k) most = std::max(most, std::abs(from[k]));
      for (std::int64_t n = 0; n < columns; ++n) {
        const double got = static_cast<const float*>(y.view().data)[t * columns + n];
        if (t == 3 || t == 4) {
          CHECK(std::isnan(got));
          continue;
        }
        double want = 0.0;
        double size = 1e-6;
        for (std::int64_t k = 0; k < depth && most > 0.0f; ++k) {
          const double code = nearest(static_cast<double>(from[k] * (448.0f / most)));
          const double term = code * (most / 448.0f) * rounded.as<float>()[n * depth + k];
          want += term;
          size += std::abs(term);
        }
        CHECK(std::abs(got - want) <= 1e-6 * size);
      }
    }
  });
}
