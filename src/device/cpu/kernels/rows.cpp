// Embedding, conversion of rows between float types, and KvWrite: rows that move and change width.
#include "device/cpu/kernels/rows.h"

#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

template <class From, class To>
inline void convert_row(const From* from, To* to, std::int64_t n) {
  for_lanes(n, [&](std::int64_t i, auto lanes) { write(to + i, read(from + i, lanes), lanes); });
}

}  // namespace

void embedding(const EmbeddingArgs& args, core::ThreadPool& pool) {
  const Vec scale = set1(args.scale);
  with_type(args.weight.data, args.weight.dtype, [&](const auto* weight) {
    share_rows(pool, args.tokens, args.n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const auto* from = weight + args.ids[t * args.ids_stride] * args.weight_stride;
        float* to = args.y + t * args.y_stride;
        for_lanes(args.n, [&](std::int64_t i, auto lanes) { write(to + i, read(from + i, lanes) * scale, lanes); });
      }
    });
  });
}

void convert(const ConvertArgs& args, core::ThreadPool& pool) {
  constexpr std::int64_t kBlock = 8192;
  const RowLayout& rows = args.rows;
  const std::int64_t blocks = (rows.n + kBlock - 1) / kBlock;
  with_type(args.x.data, args.x.dtype, [&](const auto* x) {
    with_type(args.y, args.y_dtype, [&](const auto* typed) {
      using To = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
      To* y = static_cast<To*>(args.y);
      share_rows(pool, rows.outer * rows.inner * blocks, rows.n < kBlock ? rows.n : kBlock, 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t piece = begin; piece < end; ++piece) {
                     const std::int64_t row = piece / blocks;
                     const std::int64_t first = piece % blocks * kBlock;
                     convert_row(x + row_offset(rows, 0, row) + first, y + row_offset(rows, 1, row) + first,
                                 rows.n - first < kBlock ? rows.n - first : kBlock);
                   }
                 });
    });
  });
}

void kv_write(const KvWriteArgs& args, core::ThreadPool& pool) {
  const device::KvLayer& cache = args.cache;
  const std::int64_t heads = cache.kv_heads;
  const std::int64_t dim = cache.head_dim;
  const std::int64_t v_dim = cache.v_head_dim;
  with_cache_type(cache.k, cache.dtype, [&](const auto* typed) {
    using To = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
    To* k_cache = static_cast<To*>(cache.k);
    To* v_cache = static_cast<To*>(cache.v);
    share_rows(pool, args.tokens, heads * (dim + v_dim), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t block = args.slots[t] / args.block_tokens;
        const std::int64_t place = args.slots[t] % args.block_tokens;
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t row = (block * heads + h) * args.block_tokens + place;
          convert_row(args.k + t * args.k_token + h * args.k_head, k_cache + row * dim, dim);
          convert_row(args.v + t * args.v_token + h * args.v_head, v_cache + row * v_dim, v_dim);
        }
      }
    });
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
