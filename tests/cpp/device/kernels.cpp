// Every kernel of every instruction set this CPU has, against the scalar references: odd sizes, strides, tails and
// dtypes, outputs poisoned with NaN (so that what is not written shows), aliases that op.h allows. Inputs are drawn
// anew in every run; the seed is printed and FASTLLM_TEST_SEED repeats it. FASTLLM_ISA limits the run to one set.
#include "device_case.h"

#include "check.h"

namespace {

using namespace device_case;

const std::vector<std::int64_t> kWidths{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129};

}  // namespace

TEST("norms and softmax") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const std::int64_t n : kWidths) {
      for (const DType weight_dtype : {DType::f32, DType::f16, DType::bf16}) {
        const Array weight = random.array(weight_dtype, {n});
        const Array bias = random.array(weight_dtype, {n});
        // Heads of a fused product: [tokens, heads, n] inside rows of another width.
        const Array wide = random.array(DType::f32, {5, 4 * n + 3});
        const View x = wide.window({5, 3, n}, {4 * n + 3, n, 1}, 1);
        for (const float offset : {0.0f, 1.0f}) {
          backend.same(device::RmsNorm{1e-5f, offset}, {x, weight.view()}, {{5, 3, n}}, 2e-6);
          backend.in_place(device::RmsNorm{1e-5f, offset}, x, {weight.view()}, 2e-6);
        }
        backend.same(device::LayerNorm{1e-5f}, {x, weight.view(), bias.view()}, {{5, 3, n}}, 5e-6);
        backend.in_place(device::LayerNorm{1e-5f}, x, {weight.view(), bias.view()}, 5e-6);
        const View rows = wide.window({5, n}, {4 * n + 3, 1}, 2);
        const Array residual = random.array(DType::f32, {5, n});
        backend.same(device::AddRmsNorm{1e-5f, 0.5f}, {rows, residual.view(), weight.view()}, {{5, n}, {5, n}}, 2e-6);
      }
      const Array logits = random.array(DType::f32, {4, n}, 8.0);
      backend.same(device::Softmax{}, {logits.view()}, {{4, n}}, 2e-6);
      backend.in_place(device::Softmax{}, logits.view(), {}, 2e-6);
    }
  });
}

TEST("softmax of rows with infinities and a long row") {
  for_each_backend([](Backend& backend, Random& random) {
    Array x = random.array(DType::f32, {3, 37});
    for (int i = 0; i < 37; i += 2) x.set(i, -std::numeric_limits<double>::infinity());
    x.set(37 + 36, -std::numeric_limits<double>::infinity());
    backend.same(device::Softmax{}, {x.view()}, {{3, 37}}, 2e-6);
    const Array row = random.array(DType::f32, {1, 151936}, 10.0);
    backend.same(device::Softmax{}, {row.view()}, {{1, 151936}}, 1e-5);
  });
}

TEST("add_rms_norm may write its sum over the residual") {
  for_each_backend([](Backend& backend, Random& random) {
    const Array x = random.array(DType::f32, {6, 45});
    const Array weight = random.array(DType::bf16, {45});
    Array residual = random.array(DType::f32, {6, 45});
    const Array before = residual.copy();
    Array normed = Array::poisoned(DType::f32, {6, 45});
    backend.run(device::AddRmsNorm{1e-6f, 0.0f}, {x.view(), residual.view(), weight.view()},
                {residual.view(), normed.view()});
    Array want_sum = Array::poisoned(DType::f32, {6, 45});
    Array want = Array::poisoned(DType::f32, {6, 45});
    oracle(device::AddRmsNorm{1e-6f, 0.0f}, {x.view(), before.view(), weight.view()}, {want_sum.view(), want.view()});
    CHECK(close(residual, want_sum, 1e-7));
    CHECK(close(normed, want, 2e-6));
  });
}

TEST("elementwise ops") {
  for_each_backend([](Backend& backend, Random& random) {
    using device::Activation;
    for (const std::int64_t n : kWidths) {
      const Array wide = random.array(DType::f32, {3, 2 * n + 1}, 4.0);
      const View a = wide.window({3, n}, {2 * n + 1, 1}, 0);
      const View b = wide.window({3, n}, {2 * n + 1, 1}, n);
      for (int kind = 0; kind <= static_cast<int>(Activation::softcap); ++kind) {
        const auto activation = static_cast<Activation>(kind);
        const Array positive = random.array(DType::f32, {3, n}, 4.0, true);
        const View x = activation == Activation::rsqrt ? positive.view() : a;
        backend.same(device::Unary{activation, 30.0f}, {x}, {{3, n}}, 2e-6);
        backend.in_place(device::Unary{activation, 30.0f}, x, {}, 2e-6);
        if (activation == Activation::softcap || activation == Activation::rsqrt) continue;
        backend.same(device::GatedActivation{activation}, {a, b}, {{3, n}}, 2e-6);
        backend.in_place(device::GatedActivation{activation}, a, {b}, 2e-6);
      }
      backend.same(device::Affine{1.5f, -0.25f}, {a}, {{3, n}}, 1e-6);
      backend.in_place(device::Affine{-2.0f, 0.0f}, a, {}, 1e-6);
      for (const auto kind : {device::BinaryKind::add, device::BinaryKind::sub, device::BinaryKind::mul,
                              device::BinaryKind::div, device::BinaryKind::maximum, device::BinaryKind::minimum}) {
        const device::Binary op{kind};
        backend.same(op, {a, b}, {{3, n}}, 1e-6);
        backend.in_place(op, a, {b}, 1e-6);
        const Array row = random.array(DType::f32, {n});
        const Array column = random.array(DType::f32, {3, 1});
        const Array one = random.array(DType::f32, {1});
        backend.same(op, {a, row.view()}, {{3, n}}, 1e-6);
        backend.same(op, {a, column.view()}, {{3, n}}, 1e-6);
        backend.same(op, {a, one.view()}, {{3, n}}, 1e-6);
        backend.same(op, {row.view(), a}, {{3, n}}, 1e-6);
        const Array cube = random.array(DType::f32, {2, 3, n});
        backend.same(op, {cube.view(), a}, {{2, 3, n}}, 1e-6);
        backend.same(op, {cube.view(), column.view()}, {{2, 3, n}}, 1e-6);
      }
    }
    const Array scalar = random.array(DType::f32, {});
    backend.same(device::Unary{Activation::exp, 0}, {scalar.view()}, {{}}, 1e-6);
    const Array many = random.array(DType::f32, {7, 5003}, 4.0);  // shared among threads
    backend.same(device::Unary{Activation::silu, 0}, {many.view()}, {{7, 5003}}, 2e-6);
    const Array halves = random.array(DType::f16, {3, 9});  // no kernel: the reference
    backend.same(device::Unary{Activation::gelu, 0}, {halves.view()}, {{3, 9}}, 2e-6);
  });
}

TEST("activations over the whole range, special values included") {
  for_each_backend([](Backend& backend, Random&) {
    using device::Activation;
    constexpr double kInf = std::numeric_limits<double>::infinity();
    Array x = Array::poisoned(DType::f32, {2048});
    for (int i = 0; i < 2048; ++i) x.set(i, (i - 1024) * 0.11);
    const std::vector<double> special{0.0,    -0.0, 1e-8,   -1e-8, 1e-30, 88.7, -87.3,
                                      -103.0, 89.0, -200.0, 1e30,  -1e30, kInf, std::nan("")};
    for (std::size_t i = 0; i < special.size(); ++i) x.set(static_cast<std::int64_t>(i), special[i]);
    for (const Activation kind :
         {Activation::exp, Activation::tanh, Activation::sigmoid, Activation::silu, Activation::gelu,
          Activation::gelu_tanh, Activation::relu, Activation::square, Activation::neg, Activation::softcap})
      backend.same(device::Unary{kind, 20.0f}, {x.view()}, {{2048}}, kind == Activation::exp ? 3e-7 : 1e-6, true);
  });
}

TEST("copies between all dtypes and strides") {
  const std::vector<DType> all{DType::f32, DType::f16, DType::bf16, DType::f64,     DType::i8,      DType::u8,
                               DType::i16, DType::i32, DType::i64,  DType::boolean, DType::f8_e4m3, DType::f8_e5m2};
  for_each_backend([&](Backend& backend, Random& random) {
    for (const DType from : all) {
      const Array x = random.array(from, {3, 4, 37}, 3.0);
      for (const DType to : all) {
        backend.same(device::Copy{}, {x.view()}, {{3, 4, 37}}, 0, false, to);
        const View swapped{x.view().data, from, {37, 4, 3}, {1, 37, 148}};
        backend.same(device::Copy{}, {swapped}, {{37, 4, 3}}, 0, false, to);
        const View part = x.window({2, 3, 20}, {148, 37, 1}, 38);
        backend.same(device::Copy{}, {part}, {{2, 3, 20}}, 0, false, to);
      }
    }
    // Every float16, and float32 around all rounding boundaries of the narrow types.
    Array halves = Array::poisoned(DType::f16, {65536});
    for (std::uint32_t i = 0; i < 65536; ++i)
      static_cast<std::uint16_t*>(halves.view().data)[i] = static_cast<std::uint16_t>(i);
    backend.same(device::Copy{}, {halves.view()}, {{65536}}, 0, false, DType::f32);
    Array bits = Array::poisoned(DType::f32, {50000});
    for (std::int64_t i = 0; i < 50000; ++i) {
      const std::uint32_t b = random.bits();
      const std::uint32_t edge =
          (b & 1u) ? b : (b & 0xffff0000u) | (0x7fffu + (b >> 1 & 3u));  // ties, and one ulp beside
      const std::uint32_t half = (b & 2u) ? edge : ((b & 0x8fffffffu) | 0x30000000u) & 0xffffe000u;
      std::memcpy(static_cast<char*>(bits.view().data) + i * 4, (b & 4u) ? &edge : &half, 4);
    }
    for (const DType to : {DType::f16, DType::bf16})
      backend.same(device::Copy{}, {bits.view()}, {{50000}}, 0, false, to);
  });
}

TEST("embedding and select_rows") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const std::int64_t n : kWidths) {
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        const Array table = random.array(dtype, {50, n + 2});
        const Array ids = random.integers({11}, 50);
        backend.same(device::Embedding{3.0f}, {ids.view(), table.window({50, n}, {n + 2, 1}, 1)}, {{11, n}}, 1e-7);
      }
      const Array x = random.array(DType::f32, {9, n + 1});
      const Array rows = random.integers({4}, 9);
      backend.same(device::SelectRows{}, {x.window({9, n}, {n + 1, 1}, 0), rows.view()}, {{4, n}}, 0);
    }
    const Array table = random.array(DType::f32, {50, 3});
    Array ids = random.integers({2}, 50);
    ids.set(1, 50);
    Array y = Array::poisoned(DType::f32, {2, 3});
    CHECK_THROWS_WITH(backend.run(device::Embedding{}, {ids.view(), table.view()}, {y.view()}), fastllm::core::Error,
                      "id 50 at index 1");
  });
}

TEST("rope in all its forms") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const std::int64_t dim : {4, 6, 20, 64, 80, 128}) {
      for (const std::int64_t rotary : {dim, dim / 4 * 2, std::int64_t{2}}) {
        if (rotary < 2) continue;
        const Array wide = random.array(DType::f32, {7, 5 * dim + 3});
        const View x = wide.window({7, 3, dim}, {5 * dim + 3, dim, 1}, 2);
        Array positions = random.integers({7}, 4000);
        const Array inv_freq = random.array(DType::f32, {rotary / 2}, 1.0, true);
        const Array long_inv_freq = random.array(DType::f32, {rotary / 2}, 0.3, true);
        Step step({{0, 3}, {0, 4}}, 16, random);
        step.rope_len = {100, 300};
        for (const auto length :
             {device::RopeLength::fixed, device::RopeLength::dynamic_ntk, device::RopeLength::long_short}) {
          if (length == device::RopeLength::dynamic_ntk && rotary <= 2) continue;
          for (const bool interleaved : {false, true}) {
            device::Rope op;
            op.rotary_dim = static_cast<int>(rotary);
            op.interleaved = interleaved;
            op.attention_factor = 1.25f;
            op.length = length;
            op.factor = 4.0f;
            op.original_max = 200;
            const std::vector<View> rest{positions.view(), inv_freq.view(), long_inv_freq.view()};
            backend.step = step.view();
            backend.same(op, {x, rest[0], rest[1], rest[2]}, {{7, 3, dim}}, 1e-6);
            backend.in_place(op, x, rest, 1e-6);
            step.rope_len[0] = 250;  // the table must notice
            backend.same(op, {x, rest[0], rest[1], rest[2]}, {{7, 3, dim}}, 1e-6);
            step.rope_len[0] = 100;
            positions.set(0, static_cast<double>(random.bits() % 1000));
            backend.same(op, {x, rest[0], rest[1], rest[2]}, {{7, 3, dim}}, 1e-6);
          }
        }
      }
    }
  });
}

TEST("matmul of every layout") {
  for_each_backend([](Backend& backend, Random& random) {
    for (const std::int64_t n : {1, 5, 8, 19, 33, 70}) {
      for (const std::int64_t m : {1, 3, 4, 6, 17}) {
        const std::int64_t k = 1 + static_cast<std::int64_t>(random.bits() % 60);
        const Array a = random.array(DType::f32, {2, m, k});
        const Array b = random.array(DType::f32, {k, n});
        const Array bt = random.array(DType::f32, {3, 1, n, k});
        backend.same(device::MatMul{}, {a.view(), b.view()}, {{2, m, n}}, 5e-6);
        const View transposed{bt.view().data, DType::f32, {3, 1, k, n}, {n * k, n * k, 1, k}};
        backend.same(device::MatMul{}, {a.view(), transposed}, {{3, 2, m, n}}, 5e-6);
        const View across{
            a.view().data, DType::f32, {2, k, m}, {m * k, 1, k}};  // a transposed left side: the reference
        const Array c = random.array(DType::f32, {m, n});
        backend.same(device::MatMul{}, {across, c.view()}, {{2, k, n}}, 5e-6);
      }
    }
  });
}
