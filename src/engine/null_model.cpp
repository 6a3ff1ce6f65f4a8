#include "engine/null_model.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"

namespace fastllm::engine {

namespace {
constexpr float kPeak =
    20.0f;  // sampling at temperature 1 still gives the expected token, but for one draw in 1e6 at vocab 512
}

NullModel::NullModel(int vocab_size, int context_length, int step_us, bool asynchronous)
    : vocab_size_(vocab_size),
      context_length_(context_length),
      step_us_(step_us),
      backend_(device::open_device("null")),
      kv_layers_{{.kv_heads = 1, .head_dim = 8, .v_head_dim = 8, .window = 0, .dtype = core::DType::f32}},
      asynchronous_(asynchronous),
      sampler_(vocab_size) {
  if (vocab_size < 1 || context_length < 1 || step_us < 0)
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[null_model] vocab_size ", vocab_size, ", context_length ", context_length, ", step_us ",
                         step_us, ": sizes must be positive."));
}

void NullModel::reserve(const StepLimits& limits) {
  const auto want = static_cast<std::size_t>(limits.max_rows) * static_cast<std::size_t>(vocab_size_);
  if (logits_.size() < want) logits_.resize(want);
}

std::span<float> NullModel::logits_of(std::span<const std::int32_t> tokens) {
  const auto vocab = static_cast<std::size_t>(vocab_size_);
  if (tokens.size() * vocab > logits_.size())
    core::fail(core::ErrorCode::internal, core::cat("[null_model] ", tokens.size(), " rows, more than were reserved."));
  const std::span<float> logits(logits_.data(), tokens.size() * vocab);
  std::fill(logits.begin(), logits.end(), 0.0f);  // the sampler may have written into them
  for (std::size_t r = 0; r < tokens.size(); ++r) logits[r * vocab + static_cast<std::size_t>(next(tokens[r]))] = kPeak;
  return logits;
}

std::span<float> NullModel::run(const device::StepView& step) {
  const auto start = Clock::now();
  last_.clear();
  for (int r = 0; r < step.rows; ++r) last_.push_back(step.token_ids[step.selected_rows[r]]);
  const std::span<float> logits = logits_of(last_);
  if (step_us_ > 0) std::this_thread::sleep_until(start + std::chrono::microseconds(step_us_));
  return logits;
}

// The tokens are known at once; the time a step takes is kept by collect().
void NullModel::launch(const device::StepView& step) {
  busy_until_ = std::max(busy_until_, Clock::now()) + std::chrono::microseconds(step_us_);
  last_.clear();
  for (int r = 0; r < step.rows; ++r) {
    const std::int32_t id = step.token_ids[step.selected_rows[r]];
    last_.push_back(id >= 0 ? id : drawn_.at(static_cast<std::size_t>(-1 - id)));
  }
}

void NullModel::sample(const device::SampleCall& call) {
  Done& done = done_.emplace_back();
  done.at = busy_until_;
  const bool plain = std::ranges::all_of(call.rows, [](const device::SampleRow& row) {
    return row.temperature <= 0.0f && row.edits == 0 && row.logprobs < 0;
  });
  if (plain) {
    done.rows.resize(call.rows.size());
    for (std::size_t r = 0; r < done.rows.size(); ++r) done.rows[r].id = next(last_[r]);
  } else {
    sampler_.sample(logits_of(last_).data(), call);
    sampler_.collect(done.rows);
  }
  drawn_.clear();
  for (const device::SampledRow& row : done.rows) drawn_.push_back(row.id);
}

void NullModel::collect(std::vector<device::SampledRow>& out) {
  if (done_.empty()) core::fail(core::ErrorCode::internal, "[null_model] 0 steps are under way to collect.");
  if (step_us_ > 0) std::this_thread::sleep_until(done_.front().at);
  out = std::move(done_.front().rows);
  done_.pop_front();
}

}  // namespace fastllm::engine
