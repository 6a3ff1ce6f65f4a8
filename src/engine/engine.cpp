#include "engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <cmath>

#include "engine/active.h"

namespace fastllm::engine {

namespace {

constexpr std::size_t kRowBytes = std::size_t{32} << 20;  // for logits of prompt positions in one step
constexpr std::size_t kMostBlocks = std::size_t{1} << 22;

std::atomic<std::uint64_t>& fork_counter() {
  static std::atomic<std::uint64_t> count{0};
  return count;
}

void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, &after_fork_in_child);
  static_cast<void>(registered);
}

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

void check_config(const EngineConfig& config) {
  const auto positive = [](const char* name, int value) {
    if (value < 1)
      core::fail(core::ErrorCode::invalid_config, core::cat("[engine] ", name, " is ", value, "; at least 1."));
  };
  positive("max_running", config.max_running);
  positive("block_tokens", config.block_tokens);
  positive("max_batch_tokens", config.max_batch_tokens);
  positive("prefill_chunk", config.prefill_chunk);
  positive("max_queue", config.max_queue);
}

int blocks_in(const StepModel& model, const EngineConfig& config) {
  const std::size_t block_bytes = std::max<std::size_t>(1, kv_bytes_per_token(model)) * at(config.block_tokens);
  const std::size_t context_blocks =
      (at(model.context_length()) + at(config.block_tokens) - 1) / at(config.block_tokens);
  std::size_t blocks = 0;
  if (config.kv_memory_bytes > 0) {
    blocks = config.kv_memory_bytes / block_bytes;
    if (blocks == 0) {
      core::fail(core::ErrorCode::invalid_config,
                 core::cat("[engine] kv_memory is ", config.kv_memory_bytes, " bytes, one block of ",
                           config.block_tokens, " tokens needs ", block_bytes, "."));
    }
  } else {
    // A GPU's memory is for this; the computer's own is for others, too.
    const bool own = model.backend() && model.backend()->info().name.starts_with("cuda");
    blocks = context_blocks * at(own ? config.max_running : std::min(config.max_running, 8));
    const std::int64_t free = model.backend() ? model.backend()->memory_free() : 0;
    const std::size_t share = static_cast<std::size_t>(std::max<std::int64_t>(free, 0)) / 20 * (own ? 16 : 5);
    if (free > 0) blocks = std::clamp<std::size_t>(share / block_bytes, 1, blocks);
  }
  return static_cast<int>(std::min(blocks, kMostBlocks));
}

}  // namespace

void after_fork_in_child() {
  fork_counter().fetch_add(1);
}

Engine::Engine(std::shared_ptr<StepModel> model, std::shared_ptr<const Vocab> vocab, const EngineConfig& config)
    : model_(std::move(model)),
      vocab_(std::move(vocab)),
      config_(config),
      fork_generation_(fork_counter().load()),
      rows_(model_->vocab_size()) {
  watch_forks();
  check_config(config_);
  config_.max_running = std::min(config_.max_running, config_.max_batch_tokens);
  config_.prefill_chunk = std::min(config_.prefill_chunk, config_.max_batch_tokens);
  const int blocks = blocks_in(*model_, config_);
  const std::int64_t pool_tokens = std::int64_t{blocks} * config_.block_tokens;
  limited_by_pool_ = pool_tokens < model_->context_length();
  token_limit_ = static_cast<int>(std::min<std::int64_t>(pool_tokens, model_->context_length()));

  const std::size_t row_bytes = at(model_->vocab_size()) * sizeof(float);
  const int prompt_rows =
      static_cast<int>(std::clamp<std::size_t>(kRowBytes / row_bytes, 1, at(config_.prefill_chunk)));
  SchedulerConfig scheduling;
  scheduling.max_running = config_.max_running;
  scheduling.max_batch_tokens = config_.max_batch_tokens;
  scheduling.prefill_chunk = config_.prefill_chunk;
  scheduling.max_rows = config_.max_running + prompt_rows;
  scheduling.rope_threshold = model_->length_dependent_rope() ? model_->rope_original_max() : 0;
  cache_ = std::make_unique<kv::PrefixCache>(blocks, config_.block_tokens, config_.prefix_cache);
  scheduler_ = std::make_unique<Scheduler>(scheduling, *cache_);
  const int max_blocks = (token_limit_ + config_.block_tokens - 1) / config_.block_tokens;
  runner_ =
      std::make_unique<Runner>(model_, StepLimits{config_.max_batch_tokens, scheduling.max_rows, config_.max_running},
                               blocks, config_.block_tokens, max_blocks, config_.deterministic, config_.recorded);
  chains_.push_back(std::make_unique<sampling::Chain>(model_->vocab_size()));
  counters_.kv_blocks_total = blocks;
  counters_.block_tokens = config_.block_tokens;
  counters_.kv_bytes = runner_->kv_bytes();
  counters_.weight_bytes = model_->weight_bytes();
  publish_stats();
  thread_ = std::make_unique<std::thread>([this] { loop(); });
}

Engine::~Engine() {
  close(/*drain=*/false, -1.0);
}

std::shared_ptr<Engine> Engine::make(std::shared_ptr<StepModel> model, std::shared_ptr<const Vocab> vocab,
                                     const EngineConfig& config) {
  return {new Engine(std::move(model), std::move(vocab), config), [](Engine* engine) {
            if (!engine->forked()) delete engine;
          }};
}

bool Engine::forked() const {
  return fork_counter().load() != fork_generation_;
}

void Engine::check_not_forked(const char* where) const {
  if (!forked()) return;
  core::fail(core::ErrorCode::forked_process,
             core::cat("[", where, "] this model was loaded before fork(); its threads and device are the parent's."),
             "Load the model in the child, or start processes with multiprocessing's 'spawn' method.");
}

// --- callers
// ----------------------------------------------------------------------------------------------------------

void Engine::fail_dead(const std::string& cause) const {
  throw EngineDead(core::cat("[engine] the engine died: ", cause), "Load the model again.", cause);
}

std::shared_ptr<Request> Engine::submit(RequestSpec spec) {
  check_not_forked("submit");
  sampling::validate(spec.params, model_->vocab_size());
  if (spec.prompt.empty()) {
    core::fail(core::ErrorCode::invalid_request, "[submit] the prompt has 0 tokens.",
               "A prompt needs at least 1 token; begin with BOS.");
  }
  for (std::size_t i = 0; i < spec.prompt.size(); ++i) {
    if (spec.prompt[i] < 0 || spec.prompt[i] >= model_->vocab_size()) {
      core::fail(core::ErrorCode::invalid_request,
                 core::cat("[submit] token ", i, " of the prompt is ", spec.prompt[i], "; the vocabulary has ",
                           model_->vocab_size(), " tokens."),
                 "Was the prompt made with another model's tokenizer?");
    }
  }
  if (spec.continued < 0 || static_cast<std::size_t>(spec.continued) >= spec.prompt.size()) {
    core::fail(core::ErrorCode::invalid_request, core::cat("[submit] ", spec.continued, " of ", spec.prompt.size(),
                                                           " tokens are output; at least 1 must be the prompt."));
  }
  if (spec.probe && !spec.probe->claim()) {
    core::fail(core::ErrorCode::invalid_request, "[submit] the probe serves another request already.",
               "Make one for each request.");
  }
  if (spec.lookahead < -1) {
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[submit] lookahead is ", spec.lookahead, "; -1 (no limit) or more."));
  }
  if (!hub_->has_channel(spec.channel)) {
    core::fail(core::ErrorCode::invalid_request, core::cat("[submit] there is no channel ", spec.channel, "."),
               "Open one with open_channel().");
  }
  const int limit = spec.params.max_new_tokens == 0 ? token_limit_ : token_limit_ - 1;
  if (spec.prompt.size() > at(limit)) {
    throw ContextTooLong(core::cat("[submit] the prompt has ", spec.prompt.size(), " tokens; ",
                                   limited_by_pool_ ? "the KV cache" : "the context", " takes ", limit, "."),
                         limited_by_pool_ ? core::cat("The model itself takes ", model_->context_length(),
                                                      " tokens: give the engine more kv_memory, or shorten the prompt.")
                                          : "Shorten the prompt.",
                         static_cast<int>(spec.prompt.size()), limit);
  }
  auto request = std::make_shared<Request>(std::move(spec), next_id_.fetch_add(1));
  if (request->all_rows()) {
    const std::size_t prompt = request->spec.prompt.size();
    if (request->spec.keep_logits) request->logits.reset(new float[prompt * at(model_->vocab_size())]);
    if (request->spec.params.prompt_logprobs >= 0) request->prompt_logprobs.resize(prompt);
  }
  {
    const std::lock_guard lock(mutex_);
    if (!dead_.empty()) fail_dead(dead_);
    if (closing_ != Closing::no) {
      core::fail(core::ErrorCode::engine_closed, "[submit] the engine is closed.", "Load the model again.");
    }
    const int waiting = fresh_.load();
    if (waiting >= config_.max_queue) {
      const double retry = std::clamp(request_s_.load() * waiting / config_.max_running, 0.05, 60.0);
      throw QueueFull(core::cat("[submit] ", waiting, " requests wait already; max_queue is ", config_.max_queue, "."),
                      "Try again later, or raise max_queue.", retry);
    }
    fresh_.fetch_add(1);
    incoming_.push_back(request);
  }
  news_.notify_one();
  return request;
}

void Engine::poke() {
  {
    const std::lock_guard lock(mutex_);
    poked_ = true;
  }
  news_.notify_one();
}

void Engine::cancel(const std::shared_ptr<Request>& request) noexcept {
  if (forked() || request->cancelled.exchange(true)) return;
  if (request->leave_fresh(Request::Phase::ended)) {  // it has not run and never will: ended here and now
    fresh_.fetch_sub(1);
    cancelled_.fetch_add(1);
    finished_.fetch_add(1);
    std::vector<Delivery> deliveries(1);
    deliveries[0].request = request;
    deliveries[0].has_finish = true;
    Finish& finish = deliveries[0].finish;
    finish.reason = FinishReason::cancelled;
    finish.prompt_tokens = static_cast<int>(request->spec.prompt.size());
    finish.queue_s = finish.total_s = seconds_between(request->submitted, Clock::now());
    hub_->deliver(deliveries);
  }
  poke();
}

void Engine::abandon(const std::shared_ptr<Request>& request) noexcept {
  request->abandoned = true;
  if (request->state.load() != SequenceState::done) cancel(request);
}

void Engine::want(const std::shared_ptr<Request>& request, std::int64_t count) {
  if (forked()) return;
  std::int64_t before = request->wanted.load();
  while (before < count && !request->wanted.compare_exchange_weak(before, count)) {
  }
  if (before >= count || request->spec.lookahead < 0) return;
  // The step thread reads `wanted` at each boundary; it needs waking only if it may have gone to sleep over this
  // request. It stores the state first and looks at `wanted` again before it sleeps, so one of the two sees the other.
  const SequenceState state = request->state.load();
  if (state == SequenceState::parked || state == SequenceState::queued) poke();
}

int Engine::open_channel() {
  check_not_forked("open_channel");
  return hub_->open_channel();
}

void Engine::close_channel(int channel) {
  if (forked() || channel == 0) return;
  hub_->close_channel(channel);
  {
    const std::lock_guard lock(mutex_);
    closed_channels_.push_back(channel);
    poked_ = true;
  }
  news_.notify_one();
}

EngineStats Engine::stats() const {
  if (forked()) return EngineStats{};
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  EngineStats stats = snapshot_;
  stats.queued += fresh_.load();
  stats.cancelled = cancelled_.load();
  stats.finished = finished_.load();
  stats.decode_tps = rate_.per_second(now);
  stats.uptime_s = seconds_between(started_, now);
  stats.dead = dead_;
  return stats;
}

void Engine::inject_fault(std::string message) {
  check_not_forked("inject_fault");
  const std::lock_guard lock(mutex_);
  fault_ = message.empty() ? "injected fault" : std::move(message);
}

void Engine::close(bool drain, double timeout_s) {
  if (forked()) return;
  {
    std::unique_lock lock(mutex_);
    const Closing wanted = drain ? Closing::drain : Closing::hard;
    if (closing_.load() < wanted) closing_ = wanted;
    news_.notify_one();
    if (drain && timeout_s >= 0) {
      const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                            std::chrono::duration<double>(std::min(timeout_s, 1e8)));
      if (!stopped_cv_.wait_until(lock, until, [this] { return stopped_; })) {
        closing_ = Closing::hard;
        news_.notify_one();
      }
    }
    stopped_cv_.wait(lock, [this] { return stopped_; });
  }
  const std::lock_guard join(join_mutex_);
  if (thread_ && thread_->joinable()) thread_->join();
  hub_->wake();
}

// --- the step thread, but for the steps themselves (steps.cpp)
// ----------------------------------------------------------------------------------------------------

void Engine::loop() {
  bool more = true;
  while (more) {
    try {
      more = pass_boundary();
    } catch (const std::exception& error) {  // out of memory, or a bug: whatever it is, readers must hear of it
      die(error.what());
    } catch (...) {
      die("an exception of unknown type");
    }
  }
  forget_launched();
  for (const auto& active : actives_) end(*active, FinishReason::cancelled);
  flush();
  publish_stats();
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  stopped_cv_.notify_all();
}

// What callers want, then a step, or sleep. False when the engine is to end.
bool Engine::pass_boundary() {
  if (!collect()) return false;
  refresh_actives();
  if (closing_ == Closing::drain && actives_.empty()) return false;  // nothing can come in any more
  if (run_step()) return true;
  sync_states();
  publish_stats();
  sleep();
  return true;
}

// Takes what callers left. False when the engine is to end at once.
bool Engine::collect() {
  std::vector<int> channels;
  bool go_on = true;
  {
    const std::lock_guard lock(mutex_);
    arriving_.swap(incoming_);
    channels.swap(closed_channels_);
    poked_ = false;
    go_on = closing_ != Closing::hard;
  }
  for (std::shared_ptr<Request>& request : arriving_) {
    auto active = std::make_unique<Active>(std::move(request), vocab_);
    const RequestSpec& spec = active->request->spec;
    active->id = active->arrival = active->request->id;
    active->priority = spec.priority;
    active->prompt_tokens = static_cast<int>(spec.prompt.size()) - spec.continued;
    active->all_rows = active->request->all_rows();
    active->most_tokens = token_limit_;
    if (spec.params.max_new_tokens > 0) {
      active->most_tokens = std::min(active->most_tokens, active->prompt_tokens + spec.params.max_new_tokens);
    }
    if (spec.probe) {
      active->probe = spec.probe.get();
      active->adapter = spec.probe->group();
      active->every_position = spec.probe->captures();
      active->all_rows = active->all_rows || spec.probe->reads_logits();
    }
    const int output = spec.params.max_new_tokens < 0 ? 1024 : std::min(spec.params.max_new_tokens, 1024);
    active->tokens.reserve(spec.prompt.size() + at(output));
    active->tokens = spec.prompt;
    for (int i = active->prompt_tokens; i < active->size(); ++i)  // what was said before was shown before
      active->detokenizer.push(spec.prompt[at(i)], /*hold=*/i - active->prompt_tokens + 1 >= spec.params.min_new_tokens,
                               piece_);
    scheduler_->add(active.get());
    actives_.push_back(std::move(active));
  }
  arriving_.clear();
  if (!channels.empty()) {
    for (const auto& active : actives_) {
      if (std::ranges::find(channels, active->request->spec.channel) == channels.end()) continue;
      active->request->abandoned = true;
      active->request->cancelled = true;
    }
  }
  return go_on;
}

// Cancels, deadlines and reading marks: looked at once a boundary.
void Engine::refresh_actives() {
  const auto now = Clock::now();
  const bool draining = closing_ == Closing::drain;
  for (const auto& active : actives_) {
    const Request& request = *active->request;
    const double most = request.spec.params.max_time_s;
    if (is_dead_) {
      end_with_error(*active, "engine_dead", core::cat("[engine] the engine died: ", cause_), "Load the model again.",
                     cause_);
    } else if (request.cancelled) {
      end(*active, FinishReason::cancelled);
    } else if (most > 0 && seconds_between(request.submitted, now) >= most) {
      end(*active, FinishReason::timeout);
    } else {
      active->allowed = draining ? std::numeric_limits<std::int64_t>::max() : request.allowed();
    }
  }
  flush();
}

// Nothing can run: until somebody submits, reads, cancels or closes, or a deadline is reached.
void Engine::sleep() {
  auto deadline = Clock::time_point::max();
  std::unique_lock lock(mutex_);
  for (const auto& active : actives_) {
    const Request& request = *active->request;
    if (request.cancelled || request.allowed() > active->allowed) return;  // see want()
    const double most = request.spec.params.max_time_s;
    if (most > 0) {
      deadline = std::min(deadline, request.submitted + std::chrono::duration_cast<Clock::duration>(
                                                            std::chrono::duration<double>(most)));
    }
  }
  const bool was_draining = closing_ == Closing::drain;
  const auto ready = [&] {
    return poked_ || !incoming_.empty() || !closed_channels_.empty() || closing_ == Closing::hard ||
           (closing_ == Closing::drain && !was_draining);
  };
  if (deadline == Clock::time_point::max()) {
    news_.wait(lock, ready);
  } else {
    news_.wait_until(lock, deadline, ready);
  }
}

// `place`: of the token in its sequence. Later ones may be under way already.
void Engine::accept_token(Active& active, const sampling::Sampled& sampled, int place) {
  const sampling::SamplingParams& params = active.request->spec.params;
  const std::int32_t id = sampled.id;
  const int index = place - active.prompt_tokens;
  const int written = index + 1;
  if (place < active.size()) {
    active.tokens[at(place)] = id;
    --active.unknown;
  } else {
    active.tokens.push_back(id);
  }
  if (active.first_token == Clock::time_point{}) active.first_token = now_;  // of a fork, the first of its own

  const auto holds = [id](const std::vector<std::int32_t>& ids) { return std::ranges::find(ids, id) != ids.end(); };
  const bool is_stop_token = holds(params.stop_token_ids);
  const bool ends_text = is_stop_token || (!params.ignore_eos && holds(params.eos_token_ids));
  const bool special = vocab_->special(id);
  bool ended = ends_text;
  FinishReason reason = FinishReason::stop;
  if (ends_text) {
    const bool shown =
        special ? !params.skip_special_tokens || (params.include_stop && is_stop_token) : params.include_stop;
    active.detokenizer.push_last(id, shown, piece_);
    active.stop = id;
  } else {
    active.detokenizer.push(id, /*hold=*/written >= params.min_new_tokens, piece_);
    if (piece_.stopped) {
      ended = true;
      active.stop = params.stop[at(active.detokenizer.matched())];
    } else if ((params.max_new_tokens >= 0 && written >= params.max_new_tokens) || place + 1 >= token_limit_) {
      ended = true;
      reason = FinishReason::length;
      active.detokenizer.finish(piece_);
    }
  }

  Delivery& delivery = deliveries_.emplace_back();
  delivery.request = active.request;
  delivery.has_token = true;
  TokenEvent& token = delivery.token;
  token.id = id;
  token.index = index;
  token.text = piece_.text;
  token.bytes = piece_.bytes;
  token.special = special || ends_text;
  token.has_logprob = params.logprobs >= 0;
  token.logprob = sampled.logprob;
  token.top = sampled.top;
  token.time_s = seconds_between(active.request->submitted, now_);
  if (ended) {
    end(active, reason, &delivery);
  } else {
    scheduler_->settle(active);
  }
}

// Ends a request: blocks and slot go back now, the news goes out with the next flush(). `with`: the delivery of its
// last token.
void Engine::end(Active& active, FinishReason reason, Delivery* with) {
  if (active.ended) return;
  active.ended = true;
  any_ended_ = true;
  scheduler_->remove(&active);
  active.tokens.resize(at(active.known()));  // what is still under way for it was for nothing
  active.unknown = 0;
  Request& request = *active.request;
  if (request.leave_fresh(Request::Phase::ended)) {
    fresh_.fetch_sub(1);
  } else if (request.phase.exchange(Request::Phase::ended) == Request::Phase::ended) {
    return;  // cancel() ended it before it ran
  }
  finished_.fetch_add(1);
  if (reason == FinishReason::cancelled) cancelled_.fetch_add(1);
  if (with == nullptr) {
    with = &deliveries_.emplace_back();
    with->request = active.request;
  }
  const auto now = Clock::now();
  with->has_finish = true;
  Finish& finish = with->finish;
  finish.reason = reason;
  finish.stop = active.stop;
  piece_.clear();
  active.detokenizer.finish(piece_);
  finish.tail_text = piece_.text;
  finish.tail_bytes = piece_.bytes;
  finish.prompt_tokens = active.prompt_tokens;
  finish.completion_tokens = active.generated();
  finish.cached_tokens = active.cached_tokens;
  finish.steps = active.steps;
  finish.preemptions = active.preemptions;
  finish.total_s = seconds_between(request.submitted, now);
  finish.queue_s = active.started ? seconds_between(request.submitted, active.first_scheduled) : finish.total_s;
  if (active.first_token != Clock::time_point{}) {
    finish.prefill_s = seconds_between(active.first_scheduled, active.first_token);
    finish.ttft_s = seconds_between(request.submitted, active.first_token);
    finish.decode_s = seconds_between(active.first_token, now);
  } else if (active.started) {
    finish.prefill_s = seconds_between(active.first_scheduled, now);
  }
  request_s_ = 0.9 * request_s_ + 0.1 * finish.total_s;
}

void Engine::end_with_error(Active& active, const std::string& code, const std::string& message,
                            const std::string& hint, const std::string& cause) {
  const std::size_t before = deliveries_.size();
  end(active, FinishReason::error, nullptr);
  if (deliveries_.size() == before) return;
  Finish& finish = deliveries_.back().finish;
  finish.error_code = code;
  finish.error_message = message;
  finish.error_hint = hint;
  finish.error_cause = cause;
}

void Engine::flush() {
  if (any_ended_) publish_stats();  // before the news: who reads of an end finds its blocks free in stats()
  if (!deliveries_.empty()) hub_->deliver(deliveries_);
  deliveries_.clear();
  if (!any_ended_) return;
  any_ended_ = false;
  std::erase_if(actives_, [](const auto& active) { return active->ended && active->in_flight <= 0; });
}

// Every request, present and future, fails from now on. The thread stays to answer those that are on their way in.
void Engine::die(const std::string& cause) {
  {
    const std::lock_guard lock(mutex_);
    dead_ = cause.empty() ? "unknown" : cause;
    cause_ = dead_;
  }
  is_dead_ = true;
  forget_launched();
  refresh_actives();
}

void Engine::sync_states() {
  requeued_ = 0;
  for (const auto& active : actives_) {
    Request& request = *active->request;
    if (request.state.load(std::memory_order_relaxed) != active->state && request.phase != Request::Phase::ended) {
      request.state = active->state;
    }
    const int done = std::min(active->computed, active->prompt_tokens);
    if (done > request.prompt_done) request.prompt_done = done;
    requeued_ += active->state == SequenceState::queued && active->started ? 1 : 0;
    if (active->state != SequenceState::queued) request.ahead.store(-1, std::memory_order_relaxed);
  }
  int place = 0;
  for (const Sequence* sequence : scheduler_->queue()) {
    static_cast<const Active*>(sequence)->request->ahead.store(place++, std::memory_order_relaxed);
  }
}

void Engine::publish_stats() {
  counters_.running = scheduler_->running();
  counters_.queued = requeued_;
  counters_.parked = scheduler_->parked();
  counters_.prefilling = scheduler_->prefilling();
  counters_.kv_blocks_free = cache_->available();
  counters_.kv_blocks_cached = cache_->idle();
  counters_.preemptions = scheduler_->preemptions();
  counters_.step_ms = step_ms_.mean();
  const std::lock_guard lock(mutex_);
  snapshot_ = counters_;
}

}  // namespace fastllm::engine
