#pragma once
// What Hopper (sm_90a) adds, as functions named by what they do: the bulk tensor copy engine (TMA) completing on memory
// barriers, products of a whole warpgroup with both operands in shared memory (wgmma), clusters that read each other's
// shared memory. The PTX ISA manual (sections cp.async.bulk.tensor, mbarrier, wgmma, mapa, griddepcontrol) defines them.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fastllm::cuda {

// Device code below exists for sm_90a alone; elsewhere the kernels that use it are empty and never launched.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || (defined(__CUDA_ARCH_SPECIFIC__) && __CUDA_ARCH_SPECIFIC__ == 900)
#define FASTLLM_HOPPER_CODE 1
#else
#define FASTLLM_HOPPER_CODE 0
#endif

#if FASTLLM_HOPPER_CODE

// ---- memory barriers in shared memory
// ----------------------------------------------------------------------------------------------

__device__ inline void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes initialised barriers visible to the copy engine and to the cluster.
__device__ inline void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// One arrival that also announces `bytes` of copies to come.
__device__ inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Waits until the phase of the given parity is over.
__device__ inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- the copy engine
// ----------------------------------------------------------------------------------------------

__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}
// The box at (column, row) of a 2-d tensor into shared memory; what lies outside of the tensor arrives as zeros.
__device__ inline void copy_box(std::uint32_t shared, const CUtensorMap& map, std::uint32_t barrier, int column,
                                int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}

// `bytes` (a multiple of 16) from global to shared memory.
__device__ inline void copy_bytes(std::uint32_t shared, const void* global, std::uint32_t bytes,
                                  std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
               "l"(global), "r"(bytes), "r"(barrier)
               : "memory");
}

// ---- warpgroup products
// ----------------------------------------------------------------------------------------------

// Describes rows of 128 bytes (64 elements of 16 bits, 128 of 8; swizzled as the copy engine's 128-byte mode writes
// them), eight rows to 1024 bytes. `shared` is 1024-aligned but for a step of 32 bytes per product along the row.
__device__ inline std::uint64_t tile_descriptor(std::uint32_t shared) {
  return static_cast<std::uint64_t>((shared & 0x3ffff) >> 4) | std::uint64_t{1} << 16 | std::uint64_t{64} << 32 |
         std::uint64_t{1} << 62;
}
// Describes [rows, N] with N contiguous as the right operand of a product over rows: eight rows of 64 elements to 1024
// bytes, as above; the next 64 of N begin `next` bytes further.
__device__ inline std::uint64_t transposed_descriptor(std::uint32_t shared, std::uint32_t next) {
  return static_cast<std::uint64_t>((shared & 0x3ffff) >> 4) | static_cast<std::uint64_t>(next >> 4) << 16 |
         std::uint64_t{64} << 32 | std::uint64_t{1} << 62;
}
// Makes ordinary stores to shared memory visible to products and the copy engine; a barrier must follow.
__device__ inline void publish_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// d[64, N] (+)= a[64, 16] b[N, 16]^T, float32 sums. Warp w of the group holds rows 16 w to 16 w + 15; lane l holds in
// d[4 j ...] row l/4, columns 8 j + 2 (l%4) and + 1, then the same of row l/4 + 8.
template <class T, int N>
struct Products;
// The same with the left operand in registers: a[4] holds rows l/4 and l/4 + 8, columns 2 (l%4) and + 1, then + 8. They are read
// until products_wait says that the product is done.
template <class T, int N>
struct ProductsLeft;

#define FASTLLM_FLOATS4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define FASTLLM_FLOATS16(i) \
  FASTLLM_FLOATS4(i), FASTLLM_FLOATS4((i) + 4), FASTLLM_FLOATS4((i) + 8), FASTLLM_FLOATS4((i) + 12)
#define FASTLLM_FLOATS64(i) \
  FASTLLM_FLOATS16(i), FASTLLM_FLOATS16((i) + 16), FASTLLM_FLOATS16((i) + 32), FASTLLM_FLOATS16((i) + 48)
#define FASTLLM_PRODUCTS(T, NAME, N, REGISTERS, A, B, ADD, ...)                                                  \
  template <>                                                                                                    \
  struct Products<T, N> {                                                                                        \
    __device__ static void add(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD                                                       \
                   ", 0;\n"                                                                                      \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" REGISTERS "}, " A ", " B \
                   ", p, 1, 1, 0, 0;\n}"                                                                         \
                   : __VA_ARGS__                                                                                 \
                   : "l"(a), "l"(b), "r"(accumulate));                                                           \
    }                                                                                                            \
  };

#define FASTLLM_PRODUCTS_LEFT(T, NAME, N, REGISTERS, A, B, ADD, ...)                                               \
  template <>                                                                                                      \
  struct ProductsLeft<T, N> {                                                                                      \
    __device__ static void add(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, int accumulate) {  \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD                                                         \
                   ", 0;\n"                                                                                        \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" REGISTERS "}, {" A "}, " B \
                   ", p, 1, 1, 0;\n}"                                                                              \
                   : __VA_ARGS__                                                                                   \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                         \
    }                                                                                                              \
  };

// Both operands as float8 e4m3, d[64, N] (+)= a[64, 32] b[N, 32]^T.
struct E4m3;
#define FASTLLM_PRODUCTS_E4M3(N, REGISTERS, A, B, ADD, ...)                                              \
  template <>                                                                                            \
  struct Products<E4m3, N> {                                                                             \
    __device__ static void add(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate) {    \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD                                               \
                   ", 0;\n"                                                                              \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" REGISTERS "}, " A ", " B \
                   ", p, 1, 1;\n}"                                                                       \
                   : __VA_ARGS__                                                                         \
                   : "l"(a), "l"(b), "r"(accumulate));                                                   \
    }                                                                                                    \
  };

#define FASTLLM_REGISTERS8 "%0, %1, %2, %3"
FASTLLM_PRODUCTS_E4M3(8, FASTLLM_REGISTERS8, "%4", "%5", "%6", FASTLLM_FLOATS4(0))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 8, FASTLLM_REGISTERS8, "%4", "%5", "%6", FASTLLM_FLOATS4(0))
FASTLLM_PRODUCTS(__half, "f16", 8, FASTLLM_REGISTERS8, "%4", "%5", "%6", FASTLLM_FLOATS4(0))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 8, FASTLLM_REGISTERS8, "%4, %5, %6, %7", "%8", "%9", FASTLLM_FLOATS4(0))
#undef FASTLLM_REGISTERS8
#define FASTLLM_REGISTERS16 "%0, %1, %2, %3, %4, %5, %6, %7"
FASTLLM_PRODUCTS_E4M3(16, FASTLLM_REGISTERS16, "%8", "%9", "%10", FASTLLM_FLOATS4(0), FASTLLM_FLOATS4(4))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 16, FASTLLM_REGISTERS16, "%8", "%9", "%10", FASTLLM_FLOATS4(0),
                 FASTLLM_FLOATS4(4))
FASTLLM_PRODUCTS(__half, "f16", 16, FASTLLM_REGISTERS16, "%8", "%9", "%10", FASTLLM_FLOATS4(0), FASTLLM_FLOATS4(4))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 16, FASTLLM_REGISTERS16, "%8, %9, %10, %11", "%12", "%13",
                      FASTLLM_FLOATS4(0), FASTLLM_FLOATS4(4))
#undef FASTLLM_REGISTERS16
#define FASTLLM_REGISTERS32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
FASTLLM_PRODUCTS_E4M3(32, FASTLLM_REGISTERS32, "%16", "%17", "%18", FASTLLM_FLOATS16(0))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 32, FASTLLM_REGISTERS32, "%16", "%17", "%18", FASTLLM_FLOATS16(0))
FASTLLM_PRODUCTS(__half, "f16", 32, FASTLLM_REGISTERS32, "%16", "%17", "%18", FASTLLM_FLOATS16(0))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 32, FASTLLM_REGISTERS32, "%16, %17, %18, %19", "%20", "%21",
                      FASTLLM_FLOATS16(0))
#undef FASTLLM_REGISTERS32
#define FASTLLM_REGISTERS64                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
FASTLLM_PRODUCTS_E4M3(64, FASTLLM_REGISTERS64, "%32", "%33", "%34", FASTLLM_FLOATS16(0), FASTLLM_FLOATS16(16))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 64, FASTLLM_REGISTERS64, "%32", "%33", "%34", FASTLLM_FLOATS16(0),
                 FASTLLM_FLOATS16(16))
FASTLLM_PRODUCTS(__half, "f16", 64, FASTLLM_REGISTERS64, "%32", "%33", "%34", FASTLLM_FLOATS16(0), FASTLLM_FLOATS16(16))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 64, FASTLLM_REGISTERS64, "%32, %33, %34, %35", "%36", "%37",
                      FASTLLM_FLOATS16(0), FASTLLM_FLOATS16(16))
#undef FASTLLM_REGISTERS64
#define FASTLLM_REGISTERS128                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
FASTLLM_PRODUCTS_E4M3(128, FASTLLM_REGISTERS128, "%64", "%65", "%66", FASTLLM_FLOATS64(0))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 128, FASTLLM_REGISTERS128, "%64", "%65", "%66", FASTLLM_FLOATS64(0))
FASTLLM_PRODUCTS(__half, "f16", 128, FASTLLM_REGISTERS128, "%64", "%65", "%66", FASTLLM_FLOATS64(0))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 128, FASTLLM_REGISTERS128, "%64, %65, %66, %67", "%68", "%69",
                      FASTLLM_FLOATS64(0))
#undef FASTLLM_REGISTERS128
#define FASTLLM_REGISTERS256                                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
FASTLLM_PRODUCTS_E4M3(256, FASTLLM_REGISTERS256, "%128", "%129", "%130", FASTLLM_FLOATS64(0), FASTLLM_FLOATS64(64))
FASTLLM_PRODUCTS(__nv_bfloat16, "bf16", 256, FASTLLM_REGISTERS256, "%128", "%129", "%130", FASTLLM_FLOATS64(0),
                 FASTLLM_FLOATS64(64))
FASTLLM_PRODUCTS(__half, "f16", 256, FASTLLM_REGISTERS256, "%128", "%129", "%130", FASTLLM_FLOATS64(0),
                 FASTLLM_FLOATS64(64))
FASTLLM_PRODUCTS_LEFT(__nv_bfloat16, "bf16", 256, FASTLLM_REGISTERS256, "%128, %129, %130, %131", "%132", "%133",
                      FASTLLM_FLOATS64(0), FASTLLM_FLOATS64(64))
#undef FASTLLM_REGISTERS256
#undef FASTLLM_PRODUCTS
#undef FASTLLM_PRODUCTS_LEFT
#undef FASTLLM_PRODUCTS_E4M3

// The same with the left operand in registers (a[4]: rows l/4 and l/4 + 8, columns 2 (l%4) and + 1, then + 8) and the
// right one stored as [16, N], N contiguous: as transposed_descriptor describes it.
template <class T, int N>
struct ProductsTurned;

#define FASTLLM_PRODUCTS_TURNED(T, NAME, N, REGISTERS, A, B, ...)                                                 \
  template <>                                                                                                     \
  struct ProductsTurned<T, N> {                                                                                   \
    __device__ static void add(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b) {                 \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME \
                   "." NAME " {" REGISTERS "}, {" A "}, " B ", p, 1, 1, 1;\n}"                                    \
                   : __VA_ARGS__                                                                                  \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                         \
    }                                                                                                             \
  };
#define FASTLLM_REGISTERS64                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
FASTLLM_PRODUCTS_TURNED(__nv_bfloat16, "bf16", 64, FASTLLM_REGISTERS64, "%32, %33, %34, %35", "%36",
                        FASTLLM_FLOATS16(0), FASTLLM_FLOATS16(16))
FASTLLM_PRODUCTS_TURNED(__half, "f16", 64, FASTLLM_REGISTERS64, "%32, %33, %34, %35", "%36", FASTLLM_FLOATS16(0),
                        FASTLLM_FLOATS16(16))
#undef FASTLLM_REGISTERS64
#define FASTLLM_REGISTERS128                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
FASTLLM_PRODUCTS_TURNED(__nv_bfloat16, "bf16", 128, FASTLLM_REGISTERS128, "%64, %65, %66, %67", "%68",
                        FASTLLM_FLOATS64(0))
FASTLLM_PRODUCTS_TURNED(__half, "f16", 128, FASTLLM_REGISTERS128, "%64, %65, %66, %67", "%68", FASTLLM_FLOATS64(0))
#undef FASTLLM_REGISTERS128
#undef FASTLLM_PRODUCTS_TURNED
#undef FASTLLM_FLOATS4
#undef FASTLLM_FLOATS16
#undef FASTLLM_FLOATS64

#endif  // FASTLLM_HOPPER_CODE

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// ---- clusters
// ----------------------------------------------------------------------------------------------

// All threads of all blocks of the cluster; shared memory written before is seen by the others after.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The address, in block `rank`'s shared memory, of what lies at `shared` in this block's.
__device__ inline std::uint32_t shared_of(std::uint32_t shared, int rank) {
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared), "r"(rank));
  return there;
}
// Four 8 x 8 matrices of 16-bit elements, each stored column by column: lane l gives the address of what becomes row
// l % 8 of matrix l / 8.
__device__ inline void store_matrix_transposed(std::uint32_t shared, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                               std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}
template <class E>
__device__ inline E load_shared_eight_as(std::uint32_t shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(shared)
               : "memory");
  return *reinterpret_cast<E*>(&v);
}
__device__ inline std::uint32_t load_shared_word(std::uint32_t shared) {
  std::uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(shared) : "memory");
  return v;
}
__device__ inline float4 load_shared(std::uint32_t shared) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(shared)
               : "memory");
  return v;
}
__device__ inline void store_shared(std::uint32_t shared, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(shared), "f"(value) : "memory");
}
__device__ inline float4 load_shared_of(std::uint32_t there) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(there)
               : "memory");
  return v;
}
__device__ inline float load_shared_float_of(std::uint32_t there) {
  float v;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
  return v;
}

#endif

}  // namespace fastllm::cuda
