#include "device/cuda/tensor_map.h"

#include <cuda_runtime.h>

#include "core/error.h"

namespace fastllm::cuda {

void check(cudaError_t status, const char* what);

namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
          "tensor_map");
    return reinterpret_cast<EncodeTiled>(function);
  }();
  return found;
}

}  // namespace

CUtensorMap tensor_map(core::DType dtype, const void* data, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride, int box) {
  CUtensorMap map{};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const auto element = static_cast<std::int64_t>(core::dtype_size(dtype));
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride * element)};
  const cuuint32_t boxes[2] = {static_cast<cuuint32_t>(128 / element), static_cast<cuuint32_t>(box)};
  const cuuint32_t steps[2] = {1, 1};
  const EncodeTiled encode = encode_tiled();
  const CUresult status =
      encode ? encode(&map,
                      dtype == core::DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                      : element == 1             ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                      2, const_cast<void*>(data), sizes, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
             : CUDA_ERROR_NOT_FOUND;
  if (status != CUDA_SUCCESS)
    core::fail(core::ErrorCode::internal, core::cat("[tensor_map] a map of [", rows, ", ", columns,
                                                    "] was refused with code ", static_cast<int>(status), "."));
  return map;
}

}  // namespace fastllm::cuda
