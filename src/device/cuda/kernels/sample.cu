// Sampling: the passes of device/sample_rows.h, a block of threads for each (job, chunk). The row is read once to find
// the best (all that greedy rows need), a second time for the mass of each bucket, and where tokens are cut off a third
// time to gather the few candidates that are left; finish, a block a row, works on those. Chunks are made so that
// one row already fills the GPU and many rows do not pay for many small blocks.
//
// Sums are integers, so neither the split nor the order of atomics changes a token: the result is HostSampler's, bit
// for bit.

#include "device/cuda/common.cuh"
#include "device/cuda/sampler.h"

namespace fastllm::cuda {

namespace {

using device::sampling::Pass;
using device::sampling::Shared;
using device::sampling::u32;
using device::sampling::u64;

constexpr int kChunkThreads = 256;
constexpr int kFinishThreads = 512;
constexpr int kGreedyThreads = 128;  // of finish, when it only looks at the chunks' best
constexpr u32 kAll = 0xffffffffu;

// The threads of a block. Compiled for the host as well, because the passes are; only the device runs it.
class BlockTeam {
 public:
  __host__ __device__ explicit BlockTeam(Shared& shared) : shared_(shared) {}
#if defined(__CUDA_ARCH__)
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ int size() const { return static_cast<int>(blockDim.x); }
  __device__ int warp() const { return static_cast<int>(threadIdx.x / 32); }
  __device__ int warps() const { return static_cast<int>(blockDim.x / 32); }
  __device__ int lane() const { return static_cast<int>(threadIdx.x % 32); }
  __device__ int lanes() const { return 32; }
  __device__ void sync() { __syncthreads(); }
  __device__ Shared& shared() { return shared_; }
  __device__ u64 warp_sum(u64 value) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(kAll, value, d);
    return value;
  }
  __device__ u64 warp_max(u64 value) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      const u64 other = __shfl_xor_sync(kAll, value, d);
      value = other > value ? other : value;
    }
    return value;
  }
  __device__ u64 warp_sum_before(u64 value) {
    u64 sum = value;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const u64 other = __shfl_up_sync(kAll, sum, d);
      if (lane() >= d) sum += other;
    }
    return sum - value;
  }
  __device__ void add(u32& to, u32 value) { atomicAdd(&to, value); }
  __device__ void add(u64& to, u64 value) {
    atomicAdd(reinterpret_cast<unsigned long long*>(&to), static_cast<unsigned long long>(value));
  }
  __device__ u32 fetch_add(u32& to, u32 value) { return atomicAdd(&to, value); }
#else
  __host__ __device__ int rank() const { return 0; }
  __host__ __device__ int size() const { return 1; }
  __host__ __device__ int warp() const { return 0; }
  __host__ __device__ int warps() const { return 1; }
  __host__ __device__ int lane() const { return 0; }
  __host__ __device__ int lanes() const { return 1; }
  __host__ __device__ void sync() {}
  __host__ __device__ Shared& shared() { return shared_; }
  __host__ __device__ u64 warp_sum(u64 value) { return value; }
  __host__ __device__ u64 warp_max(u64 value) { return value; }
  __host__ __device__ u64 warp_sum_before(u64) { return 0; }
  template <class T>
  __host__ __device__ void add(T& to, T value) {
    to += value;
  }
  __host__ __device__ u32 fetch_add(u32& to, u32 value) {
    const u32 before = to;
    to += value;
    return before;
  }
#endif

 private:
  Shared& shared_;
};

__global__ void __launch_bounds__(kChunkThreads) scan_kernel(Pass pass) {
  __shared__ Shared shared;
  BlockTeam team(shared);
  device::sampling::scan(team, pass, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kChunkThreads) measure_kernel(Pass pass) {
  __shared__ Shared shared;
  BlockTeam team(shared);
  device::sampling::measure(team, pass, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kChunkThreads) gather_kernel(Pass pass) {
  __shared__ Shared shared;
  BlockTeam team(shared);
  device::sampling::gather(team, pass, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kFinishThreads) finish_kernel(Pass pass) {
  __shared__ Shared shared;
  BlockTeam team(shared);
  device::sampling::finish(team, pass, static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kChunkThreads) edit_kernel(Pass pass) {
  __shared__ Shared shared;
  BlockTeam team(shared);
  device::sampling::apply_edits(team, pass, static_cast<int>(blockIdx.x));
}

__global__ void fill_kernel(const std::int32_t* drawn, std::int32_t* ids, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count && ids[i] < 0) ids[i] = drawn[-1 - ids[i]];
}

}  // namespace

void fill_ids(cudaStream_t stream, const std::int32_t* drawn, std::int32_t* ids, int count) {
  if (count == 0) return;
  fill_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream>>>(drawn, ids, count);
  check_launch("sample");
}

void edit_logits(cudaStream_t stream, const Pass& pass, int rows) {
  edit_kernel<<<static_cast<unsigned>(rows), kChunkThreads, 0, stream>>>(pass);
  check_launch("sample");
}

void sample_pass(cudaStream_t stream, const Pass& pass, const PassNeeds& needs) {
  const dim3 grid(static_cast<unsigned>(pass.chunks), static_cast<unsigned>(pass.jobs));
  scan_kernel<<<grid, kChunkThreads, 0, stream>>>(pass);
  if (needs.mass) measure_kernel<<<grid, kChunkThreads, 0, stream>>>(pass);
  if (needs.cuts) gather_kernel<<<grid, kChunkThreads, 0, stream>>>(pass);
  finish_kernel<<<static_cast<unsigned>(pass.jobs), needs.mass ? kFinishThreads : kGreedyThreads, 0, stream>>>(pass);
  check_launch("sample");
}

}  // namespace fastllm::cuda
