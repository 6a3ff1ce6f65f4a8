#pragma once
// For code that is written once for the host and for CUDA kernels.

#if defined(__CUDACC__)
#define FASTLLM_BOTH __host__ __device__ inline
#define FASTLLM_BOTH_MEMBER __host__ __device__
#else
#define FASTLLM_BOTH_MEMBER
#define FASTLLM_BOTH inline
#endif
