// Unary, Binary, Affine and GatedActivation over contiguous rows, in blocks of columns so that one long row is shared
// among threads too. Every element is computed by the same lane arithmetic wherever it falls, tails included.
#include <algorithm>

#include "device/cpu/kernels/activation.h"
#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

constexpr std::int64_t kBlock = 2048;  // columns

// Calls f(a, y, b, n) for pieces of rows; cost: rough price of an element.
template <class F>
void for_pieces(const ElementArgs& args, core::ThreadPool& pool, std::int64_t cost, F&& f) {
  const RowLayout& rows = args.rows;
  const std::int64_t blocks = (rows.n + kBlock - 1) / kBlock;
  share_rows(pool, rows.outer * rows.inner * blocks, std::min(rows.n, kBlock), cost,
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t piece = begin; piece < end; ++piece) {
                 const std::int64_t row = piece / blocks;
                 const std::int64_t first = piece % blocks * kBlock;
                 const float* b = args.b ? args.b + row_offset(rows, 2, row) + (args.b_scalar ? 0 : first) : nullptr;
                 f(args.a + row_offset(rows, 0, row) + first, args.y + row_offset(rows, 1, row) + first, b,
                   std::min(kBlock, rows.n - first));
               }
             });
}

template <class F>
void combine(const ElementArgs& args, core::ThreadPool& pool, F f) {
  for_pieces(args, pool, 1, [&](const float* a, float* y, const float* b, std::int64_t n) {
    if (args.b_scalar) {
      const Vec right = set1(*b);
      for_lanes(n, [&](std::int64_t i, auto lanes) { write(y + i, f(read(a + i, lanes), right), lanes); });
    } else {
      for_lanes(n, [&](std::int64_t i, auto lanes) { write(y + i, f(read(a + i, lanes), read(b + i, lanes)), lanes); });
    }
  });
}

}  // namespace

void unary(const ElementArgs& args, core::ThreadPool& pool) {
  with_activation(args.activation, args.param, [&](auto act) {
    for_pieces(args, pool, 4, [&](const float* a, float* y, const float*, std::int64_t n) {
      for_lanes(n, [&](std::int64_t i, auto lanes) { write(y + i, act(read(a + i, lanes)), lanes); });
    });
  });
}

void gated(const ElementArgs& args, core::ThreadPool& pool) {
  with_activation(args.activation, args.param, [&](auto act) {
    for_pieces(args, pool, 4, [&](const float* a, float* y, const float* b, std::int64_t n) {
      for_lanes(n,
                [&](std::int64_t i, auto lanes) { write(y + i, act(read(a + i, lanes)) * read(b + i, lanes), lanes); });
    });
  });
}

void affine(const ElementArgs& args, core::ThreadPool& pool) {
  const Vec scale = set1(args.param);
  const Vec shift = set1(args.shift);
  for_pieces(args, pool, 1, [&](const float* a, float* y, const float*, std::int64_t n) {
    for_lanes(n, [&](std::int64_t i, auto lanes) { write(y + i, read(a + i, lanes) * scale + shift, lanes); });
  });
}

void binary(const ElementArgs& args, core::ThreadPool& pool) {
  using device::BinaryKind;
  switch (args.binary) {
    case BinaryKind::add:
      return combine(args, pool, [](Vec a, Vec b) { return a + b; });
    case BinaryKind::sub:
      return combine(args, pool, [](Vec a, Vec b) { return a - b; });
    case BinaryKind::mul:
      return combine(args, pool, [](Vec a, Vec b) { return a * b; });
    case BinaryKind::div:
      return combine(args, pool, [](Vec a, Vec b) { return a / b; });
    // vmax gives its second operand for NaN in either; choosing a + b where a is NaN keeps numpy's rule that NaN wins.
    case BinaryKind::maximum:
      return combine(args, pool, [](Vec a, Vec b) { return propagate_nan(a, vmax(a, b)); });
    case BinaryKind::minimum:
      return combine(args, pool, [](Vec a, Vec b) { return propagate_nan(a, vmin(a, b)); });
  }
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
