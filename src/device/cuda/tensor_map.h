#pragma once
// Tensor maps for the copy engine (TMA), made through the driver, which is reached at run time and not linked.

#include <cuda.h>

#include <cstdint>

#include "core/dtype.h"

namespace fastllm::cuda {

// Boxes of `box` rows by 128 bytes of a [rows, columns] matrix of 16-bit (f16, bf16) or 8-bit (u8) elements whose rows
// are `stride` elements apart; in shared memory, rows of 128 bytes with 16-byte columns permuted by the row.
// Error(internal) if refused.
CUtensorMap tensor_map(core::DType dtype, const void* data, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, int box);

}  // namespace fastllm::cuda
