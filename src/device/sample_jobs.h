#pragma once
// From a SampleCall to the jobs of sample_rows.h and from their results to SampledRows: the host's half of every
// Sampler.

#include <span>
#include <vector>

#include "device/sample_rows.h"

namespace fastllm::device::sampling {

// Two passes. `before`: ranks of the logits as they came. `after`, when edits were applied: the draws, row by row, then
// ranks of what was drawn from.
struct JobList {
  std::vector<Job> before, after;
  std::vector<std::int32_t> rank_of;  // [R] job of a row's rank in `before`, or before.size() + its job in `after`; -1
  std::vector<std::int32_t> logprobs;  // [R] as asked for
  std::vector<char> raw;  // [R]
  int rows = 0;
  bool any_edits = false;
};

void make_jobs(const SampleCall& call, int vocab, JobList& out);

struct Results {  // of one pass
  const JobResult* job = nullptr;
  const Candidate* best = nullptr;  // [jobs, kMostSampledTop]
};

void read_results(const JobList& jobs, const Results& before, const Results& after, std::vector<SampledRow>& out);

// Chunks of a row so that `jobs` rows give about `teams` teams work.
void split_rows(Pass& pass, int teams);

// The largest vocabulary the passes take.
constexpr int kMostVocab = kBuckets * kSums;

}  // namespace fastllm::device::sampling
