#pragma once
// Delivery: the step thread puts a step's tokens here under one lock and signals; readers take them when they like.
// Requests are grouped in channels, one per event loop, so that one thread can wake each loop once for everything new
// in it.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace fastllm::engine {

struct Delivery {  // what one step brings one request
  std::shared_ptr<Request> request;
  bool has_token = false;
  TokenEvent token;
  bool has_finish = false;
  Finish finish;
};

class Hub {
 public:
  int open_channel();
  bool has_channel(int channel);
  void close_channel(int channel);  // no news from it any more

  // Several at once, so that a reader sees a whole step. The deliveries are moved from.
  void deliver(std::vector<Delivery>& deliveries);
  void set_prompt_ready(Request& request);

  // Channels with news, each once until drained; empty after the timeout (seconds, negative: none) or wake().
  std::vector<int> wait_events(double timeout_s);
  void wake();
  // Tags of the channel's requests that have something new; each request once. Error(invalid_request) for an unknown
  // channel.
  std::vector<std::int64_t> drain(int channel);

  // Reader's side of one request.
  void take(Request& request, std::size_t limit, std::vector<TokenEvent>& out);
  std::size_t unread(Request& request);
  std::optional<Finish> finish(Request& request);
  bool prompt_ready(Request& request);
  bool wait(Request& request, double timeout_s);  // until there is something to read or the end

 private:
  struct Channel {
    std::vector<std::shared_ptr<Request>> news;
    bool signalled = false;
  };
  void note(const std::shared_ptr<Request>& request, bool& wake_delivery);

  std::mutex mutex_;
  std::condition_variable events_;
  std::unordered_map<int, Channel> channels_;
  std::vector<int> signalled_;
  int next_channel_ = 1;
  bool woken_ = false;
};

}  // namespace fastllm::engine
