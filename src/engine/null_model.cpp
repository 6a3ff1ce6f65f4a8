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

NullModel::NullModel(int vocab_size, int context_length, int step_us)
    : vocab_size_(vocab_size),
      context_length_(context_length),
      step_us_(step_us),
      backend_(device::open_device("null")),
      kv_layers_{{.kv_heads = 1, .head_dim = 8, .v_head_dim = 8, .window = 0, .dtype = core::DType::f32}} {
  if (vocab_size < 1 || context_length < 1 || step_us < 0)
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[null_model] vocab_size ", vocab_size, ", context_length ", context_length, ", step_us ",
                         step_us, ": sizes must be positive."));
}

void NullModel::reserve(const StepLimits& limits) {
  const auto want = static_cast<std::size_t>(limits.max_rows) * static_cast<std::size_t>(vocab_size_);
  if (logits_.size() < want) logits_.resize(want);
}

std::span<float> NullModel::run(const device::StepView& step) {
  const auto start = std::chrono::steady_clock::now();
  const auto vocab = static_cast<std::size_t>(vocab_size_);
  const auto rows = static_cast<std::size_t>(step.rows);
  if (rows * vocab > logits_.size())
    core::fail(core::ErrorCode::internal, core::cat("[null_model] ", step.rows, " rows, more than were reserved."));
  const std::span<float> logits(logits_.data(), rows * vocab);
  std::fill(logits.begin(), logits.end(), 0.0f);  // the sampler may have written into them
  for (std::size_t r = 0; r < rows; ++r) {
    const auto token = static_cast<std::size_t>(step.token_ids[step.selected_rows[r]]);
    logits[r * vocab + (token + 1) % vocab] = kPeak;
  }
  if (step_us_ > 0) std::this_thread::sleep_until(start + std::chrono::microseconds(step_us_));
  return logits;
}

}  // namespace fastllm::engine
