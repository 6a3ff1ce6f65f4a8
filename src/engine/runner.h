#pragma once
// Carries a schedule to the model: owns the cache memory and the arrays behind StepView, allocated once for the largest
// step.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/scheduler.h"
#include "engine/step_model.h"

namespace fastllm::engine {

// Bytes of cache that one token needs in all layers.
std::size_t kv_bytes_per_token(const StepModel& model);

class Runner {
 public:
  // Error(out_of_memory) with both sizes if the cache does not fit.
  Runner(std::shared_ptr<StepModel> model, const StepLimits& limits, int blocks, int block_tokens, int max_blocks,
         bool deterministic, bool recorded);

  // logits [R, vocab]: the rows of the first piece of work, then of the second ... Valid until the next call.
  std::span<float> run(std::span<const Work> work);
  // Queues the step of an asynchronous model; see StepModel::launch().
  void launch(std::span<const Work> work);
  // Of these some are probed; they run by themselves, on their probe's model, behind the others. A probe that cannot be
  // served says so (RequestProbe::failure), and its rows mean nothing.
  static bool probed(std::span<const Work> work);
  std::span<float> run_probed(std::span<const Work> work);

  std::size_t kv_bytes() const { return kv_bytes_; }

 private:
  device::StepView lay_out(std::span<const Work> work);  // valid until the next call
  std::span<const float> run_probes(StepModel& model, std::span<const Work> work);

  std::shared_ptr<StepModel> model_;
  StepLimits limits_;
  int block_tokens_;
  int max_blocks_;  // of the longest possible sequence
  bool deterministic_;
  bool recorded_;
  std::size_t kv_bytes_ = 0;
  std::vector<std::shared_ptr<core::Storage>> memory_;
  std::vector<device::KvLayer> kv_;
  std::vector<std::int32_t> token_ids_, positions_, sequence_of_;            // [T]
  std::vector<std::int64_t> slots_;                                          // [T]
  std::vector<std::int32_t> query_start_, kv_len_, rope_len_, block_table_;  // [S + 1], [S], [S], [S, max_blocks]
  std::vector<std::int32_t> selected_rows_;                                  // [R]
  std::vector<float> gathered_;                                              // [R, vocab] of a probed step
};

}  // namespace fastllm::engine
