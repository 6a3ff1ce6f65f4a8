#pragma once
// The engine: a step thread around a model. Readers submit requests, raise what they want, cancel, and take tokens from
// the hub; the step thread alone touches the model, the cache and the scheduler. It knows nothing of Python and waits
// for no reader.
//
// A model whose device samples by itself runs asynchronously: step n + 1 is launched before the tokens of step n are
// read, with the newest token of each sequence still on the device. What ended with n then was in n + 1 for nothing, and
// nobody sees it. Requests that the device cannot sample, or that want logits of the prompt, make their steps wait.
//
// Thread-safe throughout. No lock is held during a step, so stats(), submit() and cancel() return at once whatever the
// model does.
//
// fork(): threads and devices do not survive it. In the child every call fails with forked_process and nothing is
// destroyed that a vanished thread might hold; see forked().

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/threads.h"
#include "engine/detokenizer.h"
#include "engine/outbox.h"
#include "engine/request.h"
#include "engine/runner.h"
#include "engine/scheduler.h"
#include "engine/stats.h"
#include "engine/step_model.h"
#include "engine/vocab.h"
#include "kv/prefix_cache.h"
#include "sampling/device_rows.h"

namespace fastllm::engine {

struct EngineConfig {
  int max_running = 64;
  std::size_t kv_memory_bytes =
      0;  // 0: contexts for 8 requests in a quarter of the free memory; GPU: for max_running in 80 %
  int block_tokens = 16;
  int max_batch_tokens = 2048;
  int prefill_chunk = 512;
  int max_queue = 1024;
  bool deterministic = false;  // the CPU always is
  bool recorded = true;  // decode steps that repeat become one launch (CUDA graphs)
  bool prefix_cache = true;
  bool asynchronous = true;  // launch a step before the last one is read, where the model can
};

class ContextTooLong : public core::Error {
 public:
  ContextTooLong(const std::string& fact, std::string hint, int prompt, int most)
      : core::Error(core::ErrorCode::context_too_long, fact, std::move(hint)), prompt_tokens(prompt), limit(most) {}
  int prompt_tokens;
  int limit;
};

class QueueFull : public core::Error {
 public:
  QueueFull(const std::string& fact, std::string hint, double retry)
      : core::Error(core::ErrorCode::queue_full, fact, std::move(hint)), retry_after_s(retry) {}
  double retry_after_s;
};

class EngineDead : public core::Error {
 public:
  EngineDead(const std::string& fact, std::string hint, std::string why)
      : core::Error(core::ErrorCode::engine_dead, fact, std::move(hint)), cause(std::move(why)) {}
  std::string cause;
};

// Marks all engines that exist as forked. Called by the system after fork() in the child (and harmless to call again).
void after_fork_in_child();

class Engine {
 public:
  // The only way to make one: its last owner closes it (hard). In a forked child it is left where it is instead,
  // because its locks may be held by threads that are gone.
  static std::shared_ptr<Engine> make(std::shared_ptr<StepModel> model, std::shared_ptr<const Vocab> vocab,
                                      const EngineConfig& config);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Never blocks. Error codes: invalid_request, invalid_config, context_too_long, queue_full, engine_closed,
  // engine_dead, forked_process.
  std::shared_ptr<Request> submit(RequestSpec spec);
  void cancel(const std::shared_ptr<Request>& request) noexcept;
  void abandon(const std::shared_ptr<Request>& request) noexcept;  // cancel, and nobody reads what is left
  void want(const std::shared_ptr<Request>& request, std::int64_t count);

  int open_channel();
  void close_channel(int channel);
  Hub& hub() { return *hub_; }

  EngineStats stats() const;
  // drain: what was submitted is finished first (look-ahead marks are lifted), at most timeout_s seconds (negative: no
  // limit).
  void close(bool drain, double timeout_s);
  bool closed() const { return closing_.load() != Closing::no; }
  bool forked() const;
  void check_not_forked(const char* where) const;  // Error(forked_process)
  void inject_fault(std::string message);

  const std::shared_ptr<StepModel>& model() const { return model_; }
  const std::shared_ptr<const Vocab>& vocab() const { return vocab_; }
  int token_limit() const { return token_limit_; }  // prompt and output of one request

 private:
  Engine(std::shared_ptr<StepModel> model, std::shared_ptr<const Vocab> vocab, const EngineConfig& config);
  ~Engine();
  enum class Closing : std::uint8_t { no, drain, hard };
  struct Active;

  void loop();
  bool pass_boundary();
  bool collect();
  void refresh_actives();
  void sleep();
  bool plan_step();
  bool run_step();
  bool needs_host() const;
  void throw_fault();
  void run_here();
  void launch_step();
  void sample_step(std::size_t index, bool late);
  void finish_step();
  void forget_launched();
  void count_step(Clock::time_point start, int written);
  void take_prompt_rows(Active& active, const Work& work, std::span<const float> logits, std::size_t row);
  void sample_rows();
  void accept_token(Active& active, const sampling::Sampled& sampled, int place);
  void end(Active& active, FinishReason reason, Delivery* with = nullptr);
  void end_with_error(Active& active, const std::string& code, const std::string& message, const std::string& hint,
                      const std::string& cause);
  void flush();
  void die(const std::string& cause);
  void sync_states();
  void publish_stats();
  void poke();
  [[noreturn]] void fail_dead(const std::string& cause) const;

  const std::shared_ptr<StepModel> model_;
  const std::shared_ptr<const Vocab> vocab_;
  EngineConfig config_;
  const std::uint64_t fork_generation_;
  const Clock::time_point started_ = Clock::now();
  int token_limit_ = 0;
  bool limited_by_pool_ = false;
  std::shared_ptr<Hub> hub_ = std::make_shared<Hub>();

  // Between callers and the step thread; held for moments only.
  mutable std::mutex mutex_;
  std::condition_variable news_;        // for the step thread
  std::condition_variable stopped_cv_;  // for close()
  std::vector<std::shared_ptr<Request>> incoming_;
  std::vector<int> closed_channels_;
  bool poked_ = false;
  bool stopped_ = false;
  std::string fault_;
  std::string dead_;                    // why, once dead
  EngineStats snapshot_;
  RateMeter rate_;
  std::atomic<Closing> closing_{Closing::no};
  std::atomic<bool> is_dead_{false};
  std::atomic<int> fresh_{0};           // submitted and not started
  std::atomic<std::uint64_t> cancelled_{0}, finished_{0}, next_id_{1};
  std::atomic<double> request_s_{1.0};  // a running mean, for retry_after_s
  std::mutex join_mutex_;
  std::unique_ptr<std::thread> thread_;

  // The step thread's.
  std::unique_ptr<kv::PrefixCache> cache_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Runner> runner_;
  struct Draw {  // a row to sample in this step, and what came out
    Active* active = nullptr;
    std::span<const float> row;
    sampling::Sampled sampled;
    std::optional<core::Error> error;
  };
  std::vector<std::unique_ptr<sampling::Chain>> chains_;  // one a worker; the first is there from the start
  std::unique_ptr<core::ThreadPool> pool_;                // made when a step first has enough to sample
  std::vector<Draw> draws_;
  std::size_t draw_count_ = 0;                            // of draws_, in use
  struct Flight {  // a sequence's share of a launched step
    Active* active = nullptr;
    int prompt_tokens = 0;  // of the prompt, run in this step
    bool samples = false;
    int token = 0;          // which token of the sequence is drawn
  };
  struct Launched {
    std::vector<Flight> flights;
    Clock::time_point start{};
  };
  std::array<Launched, 2> launched_;  // a ring
  std::size_t oldest_ = 0;
  std::size_t launched_count_ = 0;    // launched and not finished
  std::size_t sampled_count_ = 0;     // of those, sampled and not collected
  sampling::DeviceRows rows_;
  std::vector<device::SampledRow> results_;
  sampling::Sampled sampled_;
  std::vector<std::unique_ptr<Active>> actives_;
  std::vector<std::shared_ptr<Request>> arriving_;
  std::vector<Work> work_;
  std::vector<Delivery> deliveries_;    // of this boundary, not yet out
  bool any_ended_ = false;
  Detokenizer::Piece piece_;
  MeanMeter step_ms_;
  EngineStats counters_;
  Clock::time_point now_{};             // when this step's logits or tokens were there
  Clock::time_point last_finish_{};     // of an asynchronous step
  int requeued_ = 0;
  std::string cause_;                   // a copy of dead_
};

}  // namespace fastllm::engine
