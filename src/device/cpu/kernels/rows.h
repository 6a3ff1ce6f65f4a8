#pragma once
// Walking rows: offsets of a RowLayout, loops over a row in whole vectors and a tail, weights of any dtype, sharing
// rows among threads.

#include "core/threads.h"
#include "device/cpu/kernels/kernels.h"
#include "device/cpu/kernels/simd.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {

static inline std::int64_t row_offset(const RowLayout& rows, int view, std::int64_t row) {
  return row / rows.inner * rows.outer_stride[view] + row % rows.inner * rows.inner_stride[view];
}

// Calls f with the data as float, Half16 or Brain16 pointer.
template <class F>
static inline void with_type(const void* data, core::DType dtype, F&& f) {
  switch (dtype) {
    case core::DType::f16:
      return f(static_cast<const Half16*>(data));
    case core::DType::bf16:
      return f(static_cast<const Brain16*>(data));
    default:
      return f(static_cast<const float*>(data));
  }
}

// The same for a cache of keys or values, which may be Float8 as well.
template <class F>
static inline void with_cache_type(const void* data, core::DType dtype, F&& f) {
  if (dtype == core::DType::f8_e4m3) return f(static_cast<const Float8*>(data));
  with_type(data, dtype, f);
}

// Shares rows among threads in chunks of about 16384 elements; `cost` scales that down for slow elements.
template <class F>
static inline void share_rows(core::ThreadPool& pool, std::int64_t rows, std::int64_t elements_per_row,
                              std::int64_t cost, F&& f) {
  const std::int64_t per_row = elements_per_row * cost > 0 ? elements_per_row * cost : 1;
  const std::int64_t grain = 16384 / per_row > 0 ? 16384 / per_row : 1;
  pool.parallel_for(rows, grain, f);
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
