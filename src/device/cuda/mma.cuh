#pragma once
// The instructions that kernels share: tensor-core products, matrix loads from shared memory, asynchronous copies.
// Names follow what they do; the PTX ISA manual (sections mma, ldmatrix, cp.async) defines them.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fastllm::cuda {

// Code for GPUs before compute capability 8.0 has these functions without what they do: kernels that use them are not
// launched there (Context::tensor_cores).
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FASTLLM_ASM_80(...) asm volatile(__VA_ARGS__)
#else
#define FASTLLM_ASM_80(...) static_cast<void>(0)
#endif

// c[16, 8] += a[16, 16] b[16, 8], float32 sums. Lane l holds rows l/4 and l/4 + 8 of a, column l/4 of b, columns 2
// (l%4) and + 1 of c.
template <class T>
__device__ inline void mma_16816(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                 std::uint32_t b0, std::uint32_t b1);

template <>
__device__ inline void mma_16816<__nv_bfloat16>(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                                std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  FASTLLM_ASM_80(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+"
                                                                                                                    "f"(c[0]),
      "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <>
__device__ inline void mma_16816<__half>(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  FASTLLM_ASM_80(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+f"(
          c[0]),
      "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrix(std::uint32_t (&r)[4], std::uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

__device__ inline void load_matrix_transposed(std::uint32_t (&r)[4], std::uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

// 16 bytes from global to shared memory, or zeros.
__device__ inline void copy_async16(std::uint32_t shared, const void* global, bool valid) {
  FASTLLM_ASM_80("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0));
}
__device__ inline void commit_async() {
  FASTLLM_ASM_80("cp.async.commit_group;");
}
template <int kPending>
__device__ inline void wait_async() {
  FASTLLM_ASM_80("cp.async.wait_group %0;" ::"n"(kPending));
}

// Two floats, rounded, in one register.
template <class T>
__device__ inline std::uint32_t pack2(float low, float high);
template <>
__device__ inline std::uint32_t pack2<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
template <>
__device__ inline std::uint32_t pack2<__half>(float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

// 2^x for x <= 0, two units in the last place (ex2.approx).
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <class T>
struct alignas(16) Eight {
  T v[8];
};

__device__ inline void store_shared_eight(std::uint32_t shared, const void* from) {
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

// 16 bytes that will not be read again: weights on their way through.
template <class T>
__device__ inline uint4 load_stream(const T* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// Byte offset of 16-byte column `column` (0 to 7) of a 128-byte row: columns are permuted by the row, so that eight
// rows of one column touch all banks.
__device__ inline std::uint32_t swizzled(int row, int column) {
  return row * 128 + ((column ^ (row % 8)) * 16);
}

}  // namespace fastllm::cuda
