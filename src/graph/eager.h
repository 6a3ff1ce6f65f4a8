#pragma once
// Ops run one at a time, on real tensors: notebooks, tests, and folding constants before a plan is made.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "device/backend.h"
#include "engine/step_model.h"
#include "graph/ir.h"

namespace fastllm::graph {

// The state of one sequence for eager attention: its positions and a paged cache of its own. Used by one thread at a
// time.
class EagerStep {
 public:
  // Error(invalid_request) for sizes that are not positive.
  EagerStep(std::shared_ptr<device::Backend> backend, std::vector<engine::KvSpec> layers, std::int64_t capacity);
  EagerStep(const EagerStep&) = delete;  // view_ points into it
  EagerStep& operator=(const EagerStep&) = delete;

  // A step over these tokens, behind those of earlier steps. Error(context_too_long) beyond the capacity, with
  // nothing changed.
  void begin(std::span<const std::int32_t> token_ids, std::int64_t rope_len);

  std::int64_t length() const { return length_; }  // tokens in the cache once this step has run
  std::int64_t capacity() const { return capacity_; }
  const core::Tensor& token_ids() const { return token_ids_; }  // [T] i32, on the device
  const core::Tensor& positions() const { return positions_; }
  const device::StepView& view() const { return view_; }
  const std::map<int, KvShape>& kv_shapes() const { return kv_shapes_; }
  const std::shared_ptr<device::Backend>& backend() const { return backend_; }

  // The view (host arrays, cache on the device) with these rows selected; `rows` must outlive its use.
  // Error(invalid_request) unless ascending and below T.
  device::StepView with_rows(std::span<const std::int32_t> rows) const;

 private:
  core::Tensor upload(std::span<const std::int32_t> data) const;

  std::shared_ptr<device::Backend> backend_;
  std::vector<std::shared_ptr<core::Storage>> cache_;
  std::vector<device::KvLayer> layers_;
  std::map<int, KvShape> kv_shapes_;
  std::int64_t capacity_ = 0;
  std::int64_t length_ = 0;
  device::StepView view_;
  core::Tensor token_ids_;
  core::Tensor positions_;
  std::vector<std::int32_t> ids_host_, positions_host_, sequence_of_, block_table_;  // what view_ points to
  std::vector<std::int64_t> slots_;
  std::int32_t query_start_[2] = {0, 0};
  std::int32_t kv_len_ = 0;
  std::int32_t rope_len_ = 0;
};

// Checks types, allocates the results on the device, runs under the backend's mutex, waits. Inputs in recording
// order (linear: x, weight, (bias), (residual)); layouts that no kernel takes are made contiguous first. Ids and
// rows are checked against the table.
std::vector<core::Tensor> run_eager(device::Backend& backend, const OpSpec& spec, std::vector<core::Tensor> inputs,
                                    const EagerStep* step);

// The same tensor, or a copy of it with a contiguous last axis (all = false) or all axes contiguous.
core::Tensor as_contiguous(device::Backend& backend, const core::Tensor& tensor, bool all = true);

core::Tensor as_dtype(device::Backend& backend, const core::Tensor& tensor, core::DType dtype);

device::View view_of(const core::Tensor& tensor);

}  // namespace fastllm::graph
