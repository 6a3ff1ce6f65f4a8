#pragma once
// What stats() shows, and the small meters behind it. The step thread publishes a snapshot at each boundary; reading it
// never waits for a step.

#include <array>
#include <cstdint>
#include <string>

#include "engine/request.h"

namespace fastllm::engine {

struct EngineStats {
  int running = 0;      // have a slot, prefilling ones included
  int queued = 0;
  int parked = 0;
  int prefilling = 0;
  int kv_blocks_total = 0;
  int kv_blocks_free = 0;    // can be had at once: never used, or cached and held by nobody
  int kv_blocks_cached = 0;  // of those, cached
  int block_tokens = 0;
  std::size_t kv_bytes = 0;
  std::size_t weight_bytes = 0;
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0;     // run, without those found in the prefix cache
  std::uint64_t generated_tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t finished = 0;          // ended in any way, cancelled ones included
  double decode_tps = 0.0;             // tokens in the last second
  double step_ms = 0.0;                // mean of the last 64 steps
  double uptime_s = 0.0;
  std::string dead;                    // why, or ""
};

// Events in the last second, in tenths.
class RateMeter {
 public:
  void add(Clock::time_point now, int count) {
    const std::int64_t slot = slot_of(now);
    Bucket& bucket = buckets_[static_cast<std::size_t>(slot) % buckets_.size()];
    if (bucket.slot != slot) bucket = {slot, 0};
    bucket.count += count;
  }
  double per_second(Clock::time_point now) const {
    const std::int64_t slot = slot_of(now);
    std::int64_t sum = 0;
    for (const Bucket& bucket : buckets_) sum += bucket.slot > slot - 10 && bucket.slot <= slot ? bucket.count : 0;
    return static_cast<double>(sum);
  }

 private:
  struct Bucket {
    std::int64_t slot = -1;
    std::int64_t count = 0;
  };
  static std::int64_t slot_of(Clock::time_point now) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() / 100;
  }
  std::array<Bucket, 16> buckets_;
};

class MeanMeter {  // of the last 64
 public:
  void add(double value) {
    values_[next_++ % values_.size()] = value;
    if (count_ < values_.size()) ++count_;
  }
  double mean() const {
    double sum = 0.0;
    for (std::size_t i = 0; i < count_; ++i) sum += values_[i];
    return count_ == 0 ? 0.0 : sum / static_cast<double>(count_);
  }

 private:
  std::array<double, 64> values_{};
  std::size_t next_ = 0, count_ = 0;
};

}  // namespace fastllm::engine
