#pragma once
// A Sampler that runs the devices' algorithm in host memory, one job after the other: what a device's kernels must
// equal bit for bit, and how steps that sample on the device are tested without one. For the CPU itself
// sampling::Chain is faster.

#include <deque>
#include <vector>

#include "device/sample.h"
#include "device/sample_jobs.h"

namespace fastllm::device {

// A team of one.
class SingleTeam {
 public:
  int rank() const { return 0; }
  int size() const { return 1; }
  int warp() const { return 0; }
  int warps() const { return 1; }
  int lane() const { return 0; }
  int lanes() const { return 1; }
  void sync() {}
  sampling::Shared& shared() { return shared_; }
  sampling::u64 warp_sum(sampling::u64 value) { return value; }
  sampling::u64 warp_max(sampling::u64 value) { return value; }
  sampling::u64 warp_sum_before(sampling::u64) { return 0; }
  template <class T>
  void add(T& to, T value) {
    to += value;
  }
  sampling::u32 fetch_add(sampling::u32& to, sampling::u32 value) {
    const sampling::u32 before = to;
    to += value;
    return before;
  }

 private:
  sampling::Shared shared_{};
};

// The arrays behind a Pass, in host memory.
class PassMemory {
 public:
  // `teams`: how many a row's chunks are split for.
  sampling::Pass pass(float* logits, int vocab, const std::vector<sampling::Job>& jobs,
                      std::span<const SampleEdit> edits, int teams);
  sampling::Results results() const { return {results_.data(), best_.data()}; }
  const std::vector<std::int32_t>& ids() const { return ids_; }

 private:
  std::vector<float> originals_;
  std::vector<sampling::Extreme> extremes_;
  std::vector<sampling::u32> counts_, candidate_counts_;
  std::vector<sampling::u64> masses_, sums_;
  std::vector<sampling::Candidate> candidates_, best_;
  std::vector<std::int32_t> ids_;
  std::vector<sampling::JobResult> results_;
};

// All passes of a job list by `run(pass, function of (team, pass, job, chunk))`.
template <class Team>
void run_pass(Team& team, const sampling::Pass& pass) {
  for (int job = 0; job < pass.jobs; ++job)
    for (int chunk = 0; chunk < pass.chunks; ++chunk) sampling::scan(team, pass, job, chunk);
  team.sync();
  for (int job = 0; job < pass.jobs; ++job)
    for (int chunk = 0; chunk < pass.chunks; ++chunk) sampling::measure(team, pass, job, chunk);
  team.sync();
  for (int job = 0; job < pass.jobs; ++job)
    for (int chunk = 0; chunk < pass.chunks; ++chunk) sampling::gather(team, pass, job, chunk);
  team.sync();
  for (int job = 0; job < pass.jobs; ++job) {
    sampling::finish(team, pass, job);
    team.sync();
  }
}

class HostSampler final : public Sampler {
 public:
  explicit HostSampler(int vocab, int teams = 1) : vocab_(vocab), teams_(teams) {}
  void fill_ids(std::int32_t* ids, int count) override;
  void sample(float* logits, const SampleCall& call) override;
  void collect(std::vector<SampledRow>& out) override;

 private:
  int vocab_;
  int teams_;
  SingleTeam team_;
  PassMemory before_, after_;
  sampling::JobList jobs_;
  std::vector<std::int32_t> ids_;  // of the last sample()
  std::deque<std::vector<SampledRow>> done_;
};

}  // namespace fastllm::device
