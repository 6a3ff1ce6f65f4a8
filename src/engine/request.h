#pragma once
// A request as its reader and the step thread share it. What never changes is plain; what both touch is atomic; what is
// delivered lies behind the hub's mutex (outbox.h).

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/probe.h"
#include "engine/sequence.h"
#include "sampling/chain.h"
#include "sampling/params.h"

namespace fastllm::engine {

using Clock = std::chrono::steady_clock;

inline double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

struct TokenEvent {
  std::int32_t id = 0;
  std::int32_t index = 0;  // of the output token, from 0
  std::string text;
  std::string bytes;
  bool special = false;    // a special token, or the token that ended the text
  bool has_logprob = false;
  float logprob = 0.0f;
  std::vector<sampling::TopLogprob> top;
  double time_s = 0.0;     // since submit
};

enum class FinishReason : std::uint8_t { stop, length, cancelled, timeout, error };
const char* finish_reason_name(FinishReason reason);

struct Finish {
  FinishReason reason = FinishReason::cancelled;
  std::variant<std::monostate, std::string, std::int32_t> stop;  // the stop string or token that ended the text
  std::string tail_text;   // held back until the end and carried by no token
  std::string tail_bytes;
  std::string error_code;  // "" without an error
  std::string error_message, error_hint, error_cause;
  int prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  double queue_s = 0.0, prefill_s = 0.0, ttft_s = 0.0, decode_s = 0.0, total_s = 0.0;
  int steps = 0, preemptions = 0;
};

struct RequestSpec {  // what submit() takes
  std::vector<std::int32_t> prompt;
  sampling::SamplingParams params;
  int channel = 0;
  std::int64_t tag = 0;
  int priority = 0;
  int lookahead = 256;  // -1: no limit
  bool keep_logits = false;
  int continued = 0;  // the last so many tokens of `prompt` are the beginning of the output: a fork of another request
  std::shared_ptr<RequestProbe> probe;
};

class Request {
 public:
  Request(RequestSpec given, std::uint64_t number) : spec(std::move(given)), id(number), submitted(Clock::now()) {}

  const RequestSpec spec;
  const std::uint64_t id;
  const Clock::time_point submitted;

  // Who ends a request that has not run yet: the step thread, or cancel() at once. Whoever moves `phase` away from
  // fresh.
  enum class Phase : std::uint8_t { fresh, started, ended };
  std::atomic<Phase> phase{Phase::fresh};
  std::atomic<bool> cancelled{false};
  std::atomic<bool> abandoned{false};  // nobody will read it
  std::atomic<std::int64_t> wanted{0};  // output tokens the reader has asked for
  std::atomic<SequenceState> state{SequenceState::queued};
  std::atomic<int> prompt_done{0};  // prompt tokens computed; never goes back
  std::atomic<int> ahead{-1};  // while it is queued: how many go before it; -1: not in the queue, or not known yet

  bool leave_fresh(Phase to) {
    Phase expected = Phase::fresh;
    return phase.compare_exchange_strong(expected, to);
  }
  // Output tokens it may have written by now.
  std::int64_t allowed() const {
    constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();
    if (spec.lookahead < 0) return unlimited;
    const std::int64_t count = wanted.load() + spec.lookahead;
    return spec.params.max_new_tokens == 0 ? std::max<std::int64_t>(count, 1) : count;
  }
  bool all_rows() const { return spec.keep_logits || spec.params.prompt_logprobs >= 0; }

  // Behind the hub's mutex.
  std::deque<TokenEvent> unread;
  std::optional<Finish> finish;
  std::condition_variable arrived;  // for a blocking reader
  int readers = 0;  // that wait on it
  bool in_news = false;
  bool prompt_ready = false;  // the two below are complete and change no more

  // Written by the step thread until prompt_ready.
  std::vector<sampling::RowLogprob> prompt_logprobs;  // [prompt]; the first is meaningless
  std::unique_ptr<float[]> logits;  // [prompt, vocab] with keep_logits
};

}  // namespace fastllm::engine
