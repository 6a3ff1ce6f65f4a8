#include "engine/outbox.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace fastllm::engine {

namespace {

// Longer waits are cut: a time point beyond the clock's range would wrap.
Clock::time_point deadline(double timeout_s) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(timeout_s, 1e8)));
}

}  // namespace

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::timeout:
      return "timeout";
    case FinishReason::error:
      return "error";
  }
  return "error";
}

int Hub::open_channel() {
  const std::lock_guard lock(mutex_);
  channels_.try_emplace(next_channel_);
  return next_channel_++;
}

bool Hub::has_channel(int channel) {
  const std::lock_guard lock(mutex_);
  return channel == 0 || channels_.contains(channel);
}

void Hub::close_channel(int channel) {
  const std::lock_guard lock(mutex_);
  channels_.erase(channel);
  std::erase(signalled_, channel);
}

void Hub::note(const std::shared_ptr<Request>& request, bool& wake_delivery) {
  if (request->readers > 0) request->arrived.notify_all();
  if (request->spec.channel == 0 || request->in_news || request->abandoned) return;
  const auto found = channels_.find(request->spec.channel);
  if (found == channels_.end()) return;
  request->in_news = true;
  found->second.news.push_back(request);
  if (found->second.signalled) return;
  found->second.signalled = true;
  signalled_.push_back(request->spec.channel);
  wake_delivery = true;
}

void Hub::deliver(std::vector<Delivery>& deliveries) {
  bool wake_delivery = false;
  {
    const std::lock_guard lock(mutex_);
    for (Delivery& delivery : deliveries) {
      Request& request = *delivery.request;
      if (delivery.has_token && !request.abandoned) request.unread.push_back(std::move(delivery.token));
      if (delivery.has_finish) {
        request.finish = std::move(delivery.finish);
        request.state = SequenceState::done;
      }
      note(delivery.request, wake_delivery);
    }
  }
  if (wake_delivery) events_.notify_all();
}

void Hub::set_prompt_ready(Request& request) {
  const std::lock_guard lock(mutex_);
  request.prompt_ready = true;
}

std::vector<int> Hub::wait_events(double timeout_s) {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return woken_ || !signalled_.empty(); };
  if (timeout_s < 0) {
    events_.wait(lock, ready);
  } else {
    events_.wait_until(lock, deadline(timeout_s), ready);
  }
  woken_ = false;
  return std::exchange(signalled_, {});
}

void Hub::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  events_.notify_all();
}

std::vector<std::int64_t> Hub::drain(int channel) {
  std::vector<std::shared_ptr<Request>> news;  // released after the lock: the last owner of a request may be this list
  std::vector<std::int64_t> tags;
  const std::lock_guard lock(mutex_);
  const auto found = channels_.find(channel);
  if (found == channels_.end()) {
    core::fail(core::ErrorCode::invalid_request, core::cat("[drain] there is no channel ", channel, "."),
               "Open one with open_channel().");
  }
  news.swap(found->second.news);
  found->second.signalled = false;
  std::erase(signalled_, channel);
  tags.reserve(news.size());
  for (const auto& request : news) {
    request->in_news = false;
    if (!request->abandoned) tags.push_back(request->spec.tag);
  }
  return tags;
}

void Hub::take(Request& request, std::size_t limit, std::vector<TokenEvent>& out) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(limit, request.unread.size());
  out.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(std::move(request.unread.front()));
    request.unread.pop_front();
  }
}

std::size_t Hub::unread(Request& request) {
  const std::lock_guard lock(mutex_);
  return request.unread.size();
}

std::optional<Finish> Hub::finish(Request& request) {
  const std::lock_guard lock(mutex_);
  return request.finish;
}

bool Hub::prompt_ready(Request& request) {
  const std::lock_guard lock(mutex_);
  return request.prompt_ready;
}

bool Hub::wait(Request& request, double timeout_s) {
  std::unique_lock lock(mutex_);
  const auto ready = [&request] { return !request.unread.empty() || request.finish.has_value(); };
  ++request.readers;
  bool result = true;
  if (timeout_s < 0) {
    request.arrived.wait(lock, ready);
  } else {
    result = request.arrived.wait_until(lock, deadline(timeout_s), ready);
  }
  --request.readers;
  return result;
}

}  // namespace fastllm::engine
