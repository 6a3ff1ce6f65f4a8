#include "device/sample_jobs.h"

#include <algorithm>
#include <cmath>

namespace fastllm::device::sampling {

namespace {
std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

double log_total(const JobResult& result) {
  return static_cast<double>(result.max) + std::log(static_cast<double>(result.total) / static_cast<double>(kMassUnit));
}
}  // namespace

void make_jobs(const SampleCall& call, int vocab, JobList& out) {
  out.rows = static_cast<int>(call.rows.size());
  out.before.clear();
  out.after.clear();
  out.rank_of.assign(at(out.rows), -1);
  out.logprobs.resize(at(out.rows));
  out.raw.resize(at(out.rows));
  out.any_edits = false;
  const auto rank_job = [&](int row, float temperature, int top) {
    Job job;
    job.row = row;
    job.kind = JobKind::rank;
    job.temperature = temperature;
    job.top = std::min({top, vocab, kMostSampledTop});
    job.top_k = job.top;
    job.log_min_p = -std::numeric_limits<float>::infinity();
    return job;
  };
  for (int r = 0; r < out.rows; ++r) {
    const SampleRow& row = call.rows[at(r)];
    Job job;
    job.row = r;
    job.temperature = row.temperature;
    job.top_k = row.top_k;
    job.top_p = row.top_p;
    job.log_min_p = row.log_min_p;
    job.typical_p = row.typical_p;
    job.draw = row.draw;
    job.first_edit = row.first_edit;
    job.edits = row.edits;
    out.any_edits = out.any_edits || row.edits > 0;
    if (row.logprobs >= 0 && !row.raw_logprobs && cuts(job)) job.top = std::min(row.logprobs, kMostSampledTop);
    out.after.push_back(job);
    out.logprobs[at(r)] = row.logprobs;
    out.raw[at(r)] = row.raw_logprobs ? 1 : 0;
    if (row.logprobs >= 0 && row.raw_logprobs) {
      out.rank_of[at(r)] = static_cast<std::int32_t>(out.before.size());
      out.before.push_back(rank_job(r, 1.0f, row.logprobs));
    }
  }
  for (int r = 0; r < out.rows; ++r) {  // where nothing is cut, the whole row is what was drawn from
    const SampleRow& row = call.rows[at(r)];
    if (row.logprobs < 0 || row.raw_logprobs || cuts(out.after[at(r)])) continue;
    out.rank_of[at(r)] = static_cast<std::int32_t>(out.before.size() + out.after.size());
    out.after.push_back(rank_job(r, row.temperature <= 0.0f ? 1.0f : row.temperature, row.logprobs));
  }
}

void read_results(const JobList& jobs, const Results& before, const Results& after, std::vector<SampledRow>& out) {
  out.resize(at(jobs.rows));
  for (int r = 0; r < jobs.rows; ++r) {
    SampledRow& row = out[at(r)];
    const JobResult& draw = after.job[r];
    row.id = draw.id;
    row.status = draw.status;
    row.logprob = 0.0f;
    row.top.clear();
    if (jobs.logprobs[at(r)] < 0 || row.status != SampleStatus::ok) continue;
    const JobResult* ranked = &draw;
    const Candidate* best = after.best + static_cast<std::ptrdiff_t>(r) * kMostSampledTop;
    if (const int rank = jobs.rank_of[at(r)]; rank >= 0) {
      const int first = static_cast<int>(jobs.before.size());
      const Results& pass = rank < first ? before : after;
      const int index = rank < first ? rank : rank - first;
      ranked = pass.job + index;
      best = pass.best + static_cast<std::ptrdiff_t>(index) * kMostSampledTop;
    }
    const double total = log_total(*ranked);
    row.logprob = static_cast<float>(static_cast<double>(jobs.raw[at(r)] ? draw.logit : draw.cut_logit) - total);
    for (int i = 0; i < ranked->listed; ++i) {
      row.top.push_back({best[i].id, static_cast<float>(static_cast<double>(best[i].logit) - total)});
    }
  }
}

void split_rows(Pass& pass, int teams) {
  const int sums = sums_of(pass.vocab);
  const int chunks = std::clamp(teams / std::max(1, pass.jobs), 1, sums);
  const int sums_each = (sums + chunks - 1) / chunks;
  pass.chunk_size = sums_each * kSums;
  pass.chunks = (sums + sums_each - 1) / sums_each;
}

}  // namespace fastllm::device::sampling
