// RmsNorm (Zhang & Sennrich 2019), AddRmsNorm, LayerNorm (Ba et al. 2016) and Softmax over contiguous rows. Sums run
// lane by lane along the row and are reduced by one fixed tree, so a row's result depends on nothing but the row. Two
// or three passes over a row that is in L1; a weight may be float32, float16 or bfloat16.
#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

constexpr std::int64_t kSumBlock = 1024;

float sum_of_squares(const float* x, std::int64_t n) {
  Vec sum = set1(0.0f);
  for_lanes(n, [&](std::int64_t i, auto lanes) {
    const Vec v = read(x + i, lanes);
    sum = fma(v, v, sum);
  });
  return reduce_add(sum);
}

template <class W>
void scale_row(const float* x, const W* weight, float* y, std::int64_t n, float inverse, float weight_offset) {
  const Vec by = set1(inverse);
  const Vec offset = set1(weight_offset);
  for_lanes(n, [&](std::int64_t i, auto lanes) {
    write(y + i, read(x + i, lanes) * by * (read(weight + i, lanes) + offset), lanes);
  });
}

float inverse_root(float sum, std::int64_t n, float eps) {
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
}

}  // namespace

void rms_norm(const NormArgs& args, core::ThreadPool& pool) {
  const RowLayout& rows = args.rows;
  with_type(args.weight.data, args.weight.dtype, [&](const auto* weight) {
    share_rows(pool, rows.outer * rows.inner, rows.n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* x = args.x + row_offset(rows, 0, r);
        float* y = args.y + row_offset(rows, 1, r);
        if (args.residual) {
          const float* residual = args.residual + row_offset(rows, 2, r);
          float* sum = args.sum + row_offset(rows, 3, r);
          for_lanes(rows.n, [&](std::int64_t i, auto lanes) {
            write(sum + i, read(x + i, lanes) + read(residual + i, lanes), lanes);
          });
          x = sum;
        }
        scale_row(x, weight, y, rows.n, inverse_root(sum_of_squares(x, rows.n), rows.n, args.eps), args.weight_offset);
      }
    });
  });
}

void layer_norm(const NormArgs& args, core::ThreadPool& pool) {
  const RowLayout& rows = args.rows;
  with_type(args.weight.data, args.weight.dtype, [&](const auto* weight) {
    with_type(args.bias.data, args.bias.dtype, [&](const auto* bias) {
      share_rows(pool, rows.outer * rows.inner, rows.n, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const float* x = args.x + row_offset(rows, 0, r);
          float* y = args.y + row_offset(rows, 1, r);
          Vec total = set1(0.0f);
          for_lanes(rows.n, [&](std::int64_t i, auto lanes) { total = total + read(x + i, lanes); });
          const float mean = reduce_add(total) / static_cast<float>(rows.n);
          const Vec middle = set1(mean);
          // The tail's missing lanes are 0 and would each add mean^2: they are left out by hand.
          Vec squares = set1(0.0f);
          std::int64_t i = 0;
          for (; i + kLanes <= rows.n; i += kLanes) {
            const Vec d = load(x + i) - middle;
            squares = fma(d, d, squares);
          }
          if (i < rows.n) {
            const int rest = static_cast<int>(rows.n - i);
            float tail[kLanes] = {};
            store_n(tail, load_n(x + i, rest) - middle, rest);
            const Vec d = load(tail);
            squares = fma(d, d, squares);
          }
          const Vec by = set1(inverse_root(reduce_add(squares), rows.n, args.eps));
          for_lanes(rows.n, [&](std::int64_t j, auto lanes) {
            write(y + j, fma((read(x + j, lanes) - middle) * by, read(weight + j, lanes), read(bias + j, lanes)),
                  lanes);
          });
        }
      });
    });
  });
}

void softmax(const SoftmaxArgs& args, core::ThreadPool& pool) {
  const RowLayout& rows = args.rows;
  share_rows(pool, rows.outer * rows.inner, rows.n, 2, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* x = args.x + row_offset(rows, 0, r);
      float* y = args.y + row_offset(rows, 1, r);
      float top = -__builtin_inff();
      Vec tops = set1(top);
      std::int64_t whole = 0;
      for (; whole + kLanes <= rows.n; whole += kLanes) tops = vmax(load(x + whole), tops);
      top = reduce_max(tops);
      for (std::int64_t i = whole; i < rows.n; ++i) top = x[i] > top ? x[i] : top;
      // A row of -inf alone has no softmax: NaN, as everywhere.
      const Vec shift = set1(top);
      // In blocks, so that a row as long as a vocabulary loses no digits.
      Vec sums = set1(0.0f);
      for (std::int64_t first = 0; first < whole; first += kSumBlock) {
        Vec block = set1(0.0f);
        for (std::int64_t i = first; i < whole && i < first + kSumBlock; i += kLanes) {
          const Vec e = exp(load(x + i) - shift);
          store(y + i, e);
          block = block + e;
        }
        sums = sums + block;
      }
      if (whole < rows.n) {
        const int rest = static_cast<int>(rows.n - whole);
        float tail[kLanes] = {};
        store_n(tail, exp(load_n(x + whole, rest) - shift), rest);
        store_n(y + whole, load(tail), rest);
        sums = sums + load(tail);
      }
      const Vec by = set1(1.0f / reduce_add(sums));
      for_lanes(rows.n, [&](std::int64_t i, auto lanes) { write(y + i, read(y + i, lanes) * by, lanes); });
    }
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
