#include "device/host_sampler.h"

#include "core/error.h"

namespace fastllm::device {

using sampling::Pass;

sampling::Pass PassMemory::pass(float* logits, int vocab, const std::vector<sampling::Job>& jobs,
                                std::span<const SampleEdit> edits, int teams) {
  Pass pass;
  pass.logits = logits;
  pass.vocab = vocab;
  pass.jobs = static_cast<int>(jobs.size());
  pass.job = jobs.data();
  pass.edits = edits.data();
  sampling::split_rows(pass, teams * pass.jobs);
  const std::size_t n = jobs.size();
  const auto fit = [](auto& array, std::size_t size) {
    if (array.size() < size) array.resize(size);
    return array.data();
  };
  pass.originals = fit(originals_, edits.size());
  pass.extremes = fit(extremes_, n * static_cast<std::size_t>(pass.chunks));
  pass.counts = fit(counts_, n * sampling::kBuckets);
  pass.masses = fit(masses_, n * sampling::kBuckets);
  pass.sums = fit(sums_, n * static_cast<std::size_t>(sampling::sums_of(vocab)));
  pass.candidate_counts = fit(candidate_counts_, n);
  pass.candidates = fit(candidates_, n * sampling::kMostCandidates);
  pass.ids = fit(ids_, n);
  pass.results = fit(results_, n);
  pass.best = fit(best_, n * kMostSampledTop);
  return pass;
}

void HostSampler::fill_ids(std::int32_t* ids, int count) {
  for (int i = 0; i < count; ++i) {
    if (ids[i] < 0) ids[i] = ids_.at(static_cast<std::size_t>(-1 - ids[i]));
  }
}

void HostSampler::sample(float* logits, const SampleCall& call) {
  if (done_.size() > 1)
    core::fail(core::ErrorCode::internal, "[sample] two samplings were not collected yet, this is the third.");
  sampling::make_jobs(call, vocab_, jobs_);
  const Pass before = before_.pass(logits, vocab_, jobs_.before, {}, teams_);
  run_pass(team_, before);
  const Pass after = after_.pass(logits, vocab_, jobs_.after, call.edits, teams_);
  for (int job = 0; job < jobs_.rows; ++job) sampling::apply_edits(team_, after, job);
  run_pass(team_, after);
  ids_.assign(after_.ids().begin(), after_.ids().begin() + jobs_.rows);
  sampling::read_results(jobs_, before_.results(), after_.results(), done_.emplace_back());
}

void HostSampler::collect(std::vector<SampledRow>& out) {
  if (done_.empty()) core::fail(core::ErrorCode::internal, "[sample] 0 samplings are under way to collect.");
  out = std::move(done_.front());
  done_.pop_front();
}

}  // namespace fastllm::device
