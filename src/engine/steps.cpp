// The steps of the engine's thread: planned, then run to the end on logits in host memory, or launched ahead of what is
// known and finished one step later.
#include <algorithm>
#include <cstring>

#include "engine/active.h"

namespace fastllm::engine {

namespace {

constexpr std::size_t kParallelLogits = std::size_t{1} << 18;  // fewer are sampled before other threads have woken up

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

// Plans a step into work_. A request may be cancelled by its caller up to here without having run.
bool Engine::plan_step() {
  const auto planned = scheduler_->next();
  work_.assign(planned.begin(), planned.end());
  std::erase_if(work_, [this](const Work& work) {
    auto& active = static_cast<Active&>(*work.sequence);
    if (active.started) return false;
    if (!active.request->leave_fresh(Request::Phase::started)) {
      scheduler_->remove(&active);
      return true;
    }
    fresh_.fetch_sub(1);
    active.started = true;
    active.first_scheduled = Clock::now();
    counters_.cached_tokens += static_cast<std::uint64_t>(active.cached_tokens);
    return false;
  });
  return !work_.empty();
}

// Runs or launches a step, and finishes the one launched before. False: there is nothing to do.
bool Engine::run_step() {
  if (is_dead_) return false;
  const bool planned = plan_step();
  if (!planned && launched_count_ == 0) return false;
  try {
    if (!planned) {
      finish_step();
      return true;
    }
    sync_states();
    publish_stats();
    throw_fault();
    if (!needs_host()) {
      launch_step();
      return true;
    }
    if (launched_count_ > 0) {
      struct Hold {  // what is planned stays until it is known whether it has ended
        explicit Hold(std::vector<Work>& planned) : work(planned) {
          for (const Work& piece : work) ++static_cast<Active&>(*piece.sequence).in_flight;
        }
        ~Hold() {
          for (const Work& piece : work) --static_cast<Active&>(*piece.sequence).in_flight;
        }
        std::vector<Work>& work;
      };
      {
        const Hold hold(work_);
        finish_step();
      }
      const auto ended = [](const Work& work) { return static_cast<const Active&>(*work.sequence).ended; };
      if (std::erase_if(work_, ended) > 0) {
        any_ended_ = true;
        flush();
      }
    }
    if (!work_.empty()) run_here();
  } catch (const std::exception& error) {
    die(error.what());
  } catch (...) {
    die("an exception of unknown type");
  }
  return true;
}

void Engine::throw_fault() {
  std::string fault;
  {
    const std::lock_guard lock(mutex_);
    fault.swap(fault_);
  }
  if (!fault.empty()) core::fail(core::ErrorCode::device_lost, core::cat("[engine] ", fault));
}

// Whether logits of this step must come to the host.
bool Engine::needs_host() const {
  if (!config_.asynchronous || !model_->asynchronous()) return true;
  return std::ranges::any_of(work_, [](const Work& work) {
    const auto& active = static_cast<const Active&>(*work.sequence);
    return active.probe != nullptr || (active.all_rows && active.rows_done < active.prompt_tokens) ||
           !sampling::fits_device(active.request->spec.params);
  });
}

void Engine::launch_step() {
  const std::size_t index = (oldest_ + launched_count_) % launched_.size();
  Launched& step = launched_[index];
  step.flights.clear();
  step.start = Clock::now();
  runner_->launch(work_);
  ++launched_count_;
  scheduler_->advance();
  bool late = false;
  for (const Work& work : work_) {
    auto& active = static_cast<Active&>(*work.sequence);
    ++active.in_flight;
    const int end_of_chunk = work.start + work.count;
    const int prompt_tokens = std::min(end_of_chunk, active.prompt_tokens) - std::min(work.start, active.prompt_tokens);
    step.flights.push_back({&active, prompt_tokens, work.samples, active.size()});
    late = late || (work.samples && active.unknown > 0 && sampling::needs_history(active.request->spec.params));
  }
  if (!late) sample_step(index, late);
  int row = 0;
  for (const Flight& flight : step.flights) {
    if (!flight.samples) continue;
    Active& active = *flight.active;
    active.row = row++;
    if (active.request->spec.params.max_new_tokens == 0) continue;
    active.tokens.push_back(-1);
    ++active.unknown;
  }
  if (launched_count_ > 1) finish_step();
  if (late) sample_step(index, late);  // what it depends on is known now, and the device still at work on the logits
}

// Queues the sampling of the step launched last.
void Engine::sample_step(std::size_t index, bool late) {
  rows_.clear();
  for (const Flight& flight : launched_[index].flights) {
    if (!flight.samples) continue;
    const Active& active = *flight.active;
    const sampling::SamplingParams& params = active.request->spec.params;
    if (params.max_new_tokens == 0 || (late && active.ended)) {
      rows_.add_unused();
      continue;
    }
    rows_.add({std::span<const std::int32_t>(active.tokens).first(at(flight.token)), at(active.prompt_tokens)}, params);
  }
  model_->sample(rows_.call());
  ++sampled_count_;
}

// Reads the oldest launched step.
void Engine::finish_step() {
  Launched& step = launched_[oldest_];
  model_->collect(results_);
  --sampled_count_;
  now_ = Clock::now();
  int written = 0;
  std::size_t row = 0;
  for (const Flight& flight : step.flights) {
    Active& active = *flight.active;
    --active.in_flight;
    const device::SampledRow* result = flight.samples ? &results_.at(row++) : nullptr;
    counters_.prompt_tokens += static_cast<std::uint64_t>(flight.prompt_tokens);
    if (active.ended) {
      any_ended_ = true;  // it may go now
      continue;
    }
    ++active.steps;
    if (result == nullptr) continue;
    const sampling::SamplingParams& params = active.request->spec.params;
    if (params.max_new_tokens == 0) {
      end(active, FinishReason::length);
      continue;
    }
    try {
      sampling::take(*result,
                     {std::span<const std::int32_t>(active.tokens).first(at(flight.token)), at(active.prompt_tokens)},
                     params, model_->vocab_size(), sampled_);
    } catch (const core::Error& error) {
      end_with_error(active, core::error_code_name(error.code()), error.what(), error.hint(), "");
      continue;
    }
    accept_token(active, sampled_, flight.token);
    ++written;
  }
  step.flights.clear();
  oldest_ = (oldest_ + 1) % launched_.size();
  --launched_count_;
  count_step(std::max(step.start, last_finish_), written);
  last_finish_ = now_;
  flush();
}

// Waits for the device and drops what it brings: the engine ends, or is dead.
void Engine::forget_launched() {
  try {
    for (; sampled_count_ > 0; --sampled_count_) model_->collect(results_);
    if (launched_count_ > 0 && model_->backend()) model_->backend()->synchronize();
  } catch (const std::exception&) {  // it will do nothing any more either
  }
  for (Launched& step : launched_) {
    for (const Flight& flight : step.flights) --flight.active->in_flight;
    step.flights.clear();
  }
  launched_count_ = sampled_count_ = 0;
  any_ended_ = true;
}

// A step on logits in host memory, to its end.
void Engine::run_here() {
  const auto start = Clock::now();
  const std::span<float> logits = runner_->run(work_);
  for (std::size_t i = 0, row = 0; i < work_.size(); ++i) {
    auto& active = static_cast<Active&>(*work_[i].sequence);
    ++active.steps;
    const int end_of_chunk = work_[i].start + work_[i].count;
    counters_.prompt_tokens += static_cast<std::uint64_t>(std::min(end_of_chunk, active.prompt_tokens) -
                                                          std::min(work_[i].start, active.prompt_tokens));
    if (active.probe && active.probe->failure()) {
      const core::Error& error = *active.probe->failure();
      end_with_error(active, core::error_code_name(error.code()), error.what(), error.hint(), "");
    } else if (active.all_rows) {
      take_prompt_rows(active, work_[i], logits, row);
    }
    row += at(work_[i].rows());
  }
  scheduler_->advance();
  const std::size_t vocab = at(model_->vocab_size());
  draw_count_ = 0;
  for (std::size_t i = 0, row = 0; i < work_.size(); ++i) {
    auto& active = static_cast<Active&>(*work_[i].sequence);
    row += at(work_[i].rows());
    if (active.ended) continue;
    if (active.all_rows && !active.prompt_ready && active.rows_done >= active.prompt_tokens) {
      active.prompt_ready = true;
      hub_->set_prompt_ready(*active.request);
    }
    if (!work_[i].samples) continue;
    if (active.request->spec.params.max_new_tokens == 0) {
      end(active, FinishReason::length);
      continue;
    }
    if (draw_count_ == draws_.size()) draws_.emplace_back();
    Draw& draw = draws_[draw_count_++];
    draw.active = &active;
    draw.row = std::span<const float>(logits).subspan((row - 1) * vocab, vocab);
    draw.error.reset();
  }
  sample_rows();
  now_ = Clock::now();
  int written = 0;
  for (std::size_t i = 0; i < draw_count_; ++i) {
    Draw& draw = draws_[i];
    if (draw.error) {
      end_with_error(*draw.active, core::error_code_name(draw.error->code()), draw.error->what(), draw.error->hint(),
                     "");
      continue;
    }
    accept_token(*draw.active, draw.sampled, draw.active->size());
    ++written;
  }
  count_step(start, written);
  flush();
}

// Counted before the news goes out: who reads a token finds its step in stats().
void Engine::count_step(Clock::time_point start, int written) {
  const auto stop = Clock::now();
  step_ms_.add(seconds_between(start, stop) * 1e3);
  ++counters_.steps;
  counters_.generated_tokens += static_cast<std::uint64_t>(written);
  {
    const std::lock_guard lock(mutex_);
    rate_.add(stop, written);
    snapshot_.steps = counters_.steps;
    snapshot_.generated_tokens = counters_.generated_tokens;
  }
}

// Logits of prompt positions, for Request::logits and prompt_logprobs. `row` is the first row of this piece of work.
void Engine::take_prompt_rows(Active& active, const Work& work, std::span<const float> logits, std::size_t row) {
  const std::size_t vocab = at(model_->vocab_size());
  Request& request = *active.request;
  const int top = request.spec.params.prompt_logprobs;
  try {
    for (int position = work.first_row; position < work.start + work.count; ++position, ++row) {
      if (position < active.rows_done || position >= active.prompt_tokens) continue;
      const auto values = logits.subspan(row * vocab, vocab);
      if (request.logits) std::memcpy(request.logits.get() + at(position) * vocab, values.data(), values.size_bytes());
      if (top >= 0 && position + 1 < active.prompt_tokens) {
        request.prompt_logprobs[at(position + 1)] =
            chains_[0]->logprob_of(values, active.tokens[at(position + 1)], top);
      }
    }
  } catch (const core::Error& error) {
    end_with_error(active, core::error_code_name(error.code()), error.what(), error.hint(), "");
  }
}

// A draw depends on its row, its history and (seed, position) alone, so it does not matter who makes it.
void Engine::sample_rows() {
  const auto sample = [this](std::size_t index, sampling::Chain& chain) {
    Draw& draw = draws_[index];
    const Active& active = *draw.active;
    try {
      chain.sample(draw.row, {active.tokens, at(active.prompt_tokens)}, active.request->spec.params, draw.sampled);
    } catch (const core::Error& error) {
      draw.error = error;
    }
  };
  if (draw_count_ < 2 || draw_count_ * at(model_->vocab_size()) < kParallelLogits) {
    for (std::size_t i = 0; i < draw_count_; ++i) sample(i, *chains_[0]);
    return;
  }
  if (!pool_) {
    pool_ = std::make_unique<core::ThreadPool>(model_->backend() ? model_->backend()->info().threads : 0);
    while (static_cast<int>(chains_.size()) < pool_->threads()) {
      chains_.push_back(std::make_unique<sampling::Chain>(model_->vocab_size()));
    }
  }
  pool_->parallel_for(static_cast<std::int64_t>(draw_count_), 1, [&](std::int64_t from, std::int64_t to, int worker) {
    for (std::int64_t i = from; i < to; ++i) sample(static_cast<std::size_t>(i), *chains_[at(worker)]);
  });
}

}  // namespace fastllm::engine
