#pragma once
// Sampling on the GPU: the passes of device/sample_rows.h as kernels, queued behind the step whose logits they read.
// Results are written by the kernels straight into pinned host memory; an event says when they are there.

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "device/backend.h"
#include "device/sample_jobs.h"

namespace fastllm::cuda {

// kernels/sample.cu
void fill_ids(cudaStream_t stream, const std::int32_t* drawn, std::int32_t* ids, int count);
void edit_logits(cudaStream_t stream, const device::sampling::Pass& pass, int rows);
struct PassNeeds {  // of any job
  bool mass = false;  // something is drawn or ranked
  bool cuts = false;
};
void sample_pass(cudaStream_t stream, const device::sampling::Pass& pass, const PassNeeds& needs);

class CudaSampler final : public device::Sampler {
 public:
  CudaSampler(device::Backend& backend, std::shared_ptr<CUstream_st> stream, int multiprocessors, int vocab,
              int max_rows);
  ~CudaSampler() override;
  void fill_ids(std::int32_t* ids, int count) override;
  void sample(float* logits, const device::SampleCall& call) override;
  void collect(std::vector<device::SampledRow>& out) override;

 private:
  struct Slot {  // one sampling under way
    device::sampling::JobList jobs;
    std::shared_ptr<core::Storage> upload;                // pinned: jobs and edits on their way to the device
    std::shared_ptr<core::Storage> results[2], best[2];  // pinned: of the passes before and after edits
    cudaEvent_t done = nullptr;
  };
  device::sampling::Pass make_pass(float* logits, const std::vector<device::sampling::Job>& jobs, const char* uploaded,
                                   Slot& slot, int which);

  device::Backend& backend_;
  std::shared_ptr<CUstream_st> stream_;
  int multiprocessors_;
  int vocab_;
  Slot slots_[2];
  int next_ = 0;
  int under_way_ = 0;
  std::shared_ptr<core::Storage> ids_;        // [rows] of the last sample()
  std::shared_ptr<core::Storage> uploaded_;   // jobs before, jobs after, edits
  std::vector<char> last_upload_;             // what is there
  std::shared_ptr<core::Storage> workspace_;  // of one pass at a time
  std::shared_ptr<core::Storage> originals_;
};

}  // namespace fastllm::cuda
