#include "device/cuda/sampler.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace fastllm::cuda {

using device::sampling::Candidate;
using device::sampling::Extreme;
using device::sampling::Job;
using device::sampling::JobResult;
using device::sampling::Pass;

void check(cudaError_t status, const char* what);

namespace {

constexpr int kTeamsPerMultiprocessor = 4;

std::size_t padded(std::size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// At least so large; grown by doubling. What was there may be lost.
template <class Allocate>
void fit(std::shared_ptr<core::Storage>& storage, std::size_t bytes, const Allocate& allocate) {
  if (storage && storage->bytes() >= bytes) return;
  storage = allocate(std::max(bytes, storage ? storage->bytes() * 2 : bytes));
}

}  // namespace

CudaSampler::CudaSampler(device::Backend& backend, std::shared_ptr<CUstream_st> stream, int multiprocessors, int vocab,
                         int max_rows)
    : backend_(backend), stream_(std::move(stream)), multiprocessors_(multiprocessors), vocab_(vocab) {
  for (Slot& slot : slots_) check(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming), "sample");
  ids_ = backend_.allocate(static_cast<std::size_t>(std::max(max_rows, 1)) * 2 * sizeof(std::int32_t));
}

CudaSampler::~CudaSampler() {
  cudaStreamSynchronize(stream_.get());  // kernels write into what goes now
  for (Slot& slot : slots_) {
    if (slot.done) cudaEventDestroy(slot.done);
  }
}

void CudaSampler::fill_ids(std::int32_t* ids, int count) {
  cuda::fill_ids(stream_.get(), static_cast<const std::int32_t*>(ids_->data()), ids, count);
}

// The arrays of a pass, one behind the other in the workspace.
Pass CudaSampler::make_pass(float* logits, const std::vector<Job>& jobs, const char* uploaded, Slot& slot, int which) {
  Pass pass;
  pass.logits = logits;
  pass.vocab = vocab_;
  pass.jobs = static_cast<int>(jobs.size());
  pass.job = reinterpret_cast<const Job*>(uploaded);
  device::sampling::split_rows(pass, kTeamsPerMultiprocessor * multiprocessors_);
  const std::size_t n = jobs.size();
  std::size_t at = 0;
  const auto place = [&](auto*& pointer, std::size_t count, char* base) {
    if (base) pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + at);
    at += padded(count * sizeof(*pointer));
  };
  const auto lay_out = [&](char* base) {
    at = 0;
    place(pass.extremes, n * static_cast<std::size_t>(pass.chunks), base);
    place(pass.counts, n * device::sampling::kBuckets, base);
    place(pass.masses, n * device::sampling::kBuckets, base);
    place(pass.sums, n * static_cast<std::size_t>(device::sampling::sums_of(vocab_)), base);
    place(pass.candidate_counts, n, base);
    place(pass.candidates, n * device::sampling::kMostCandidates, base);
  };
  lay_out(nullptr);
  fit(workspace_, at, [&](std::size_t bytes) { return backend_.allocate(bytes); });
  lay_out(static_cast<char*>(workspace_->data()));
  const auto pinned = [&](std::size_t bytes) { return backend_.allocate_host(bytes); };
  fit(slot.results[which], n * sizeof(JobResult), pinned);
  fit(slot.best[which], n * device::kMostSampledTop * sizeof(Candidate), pinned);
  pass.results = static_cast<JobResult*>(slot.results[which]->data());
  pass.best = static_cast<Candidate*>(slot.best[which]->data());
  return pass;
}

void CudaSampler::sample(float* logits, const device::SampleCall& call) {
  if (under_way_ > 1)
    core::fail(core::ErrorCode::internal, "[sample] two samplings were not collected yet, this is the third.");
  Slot& slot = slots_[next_];
  device::sampling::make_jobs(call, vocab_, slot.jobs);
  const auto& before = slot.jobs.before;
  const auto& after = slot.jobs.after;
  if (!after.empty()) {
    const std::size_t after_at = padded(before.size() * sizeof(Job));
    const std::size_t edits_at = after_at + padded(after.size() * sizeof(Job));
    const std::size_t bytes = edits_at + call.edits.size_bytes();
    fit(slot.upload, bytes, [&](std::size_t size) { return backend_.allocate_host(size); });
    auto* host = static_cast<char*>(slot.upload->data());
    std::memset(host, 0, edits_at);
    if (!before.empty()) std::memcpy(host, before.data(), before.size() * sizeof(Job));
    std::memcpy(host + after_at, after.data(), after.size() * sizeof(Job));
    if (!call.edits.empty()) std::memcpy(host + edits_at, call.edits.data(), call.edits.size_bytes());
    const void* old_place = uploaded_ ? uploaded_->data() : nullptr;
    fit(uploaded_, bytes, [&](std::size_t size) { return backend_.allocate(size); });
    // Greedy steps of one batch ask for the same again and again: no copy then.
    if (uploaded_->data() != old_place || last_upload_.size() != bytes ||
        std::memcmp(last_upload_.data(), host, bytes) != 0) {
      backend_.copy_in(uploaded_->data(), host, bytes);
      last_upload_.assign(host, host + bytes);
    }
    fit(ids_, after.size() * sizeof(std::int32_t), [&](std::size_t size) { return backend_.allocate(size); });
    const auto* device_at = static_cast<const char*>(uploaded_->data());
    const auto needs_of = [](const std::vector<Job>& jobs) {
      PassNeeds needs;
      for (const Job& job : jobs) {
        needs.mass = needs.mass || !device::sampling::is_greedy(job);
        needs.cuts = needs.cuts || device::sampling::cuts(job);
      }
      return needs;
    };
    if (!before.empty()) {
      sample_pass(stream_.get(), make_pass(logits, before, device_at, slot, 0), needs_of(before));
    }
    Pass pass = make_pass(logits, after, device_at + after_at, slot, 1);
    pass.ids = static_cast<std::int32_t*>(ids_->data());
    if (slot.jobs.any_edits) {
      fit(originals_, call.edits.size() * sizeof(float), [&](std::size_t size) { return backend_.allocate(size); });
      pass.edits = reinterpret_cast<const device::SampleEdit*>(device_at + edits_at);
      pass.originals = static_cast<float*>(originals_->data());
      edit_logits(stream_.get(), pass, slot.jobs.rows);
    }
    sample_pass(stream_.get(), pass, needs_of(after));
  }
  check(cudaEventRecord(slot.done, stream_.get()), "sample");
  next_ ^= 1;
  ++under_way_;
}

void CudaSampler::collect(std::vector<device::SampledRow>& out) {
  if (under_way_ == 0) core::fail(core::ErrorCode::internal, "[sample] 0 samplings are under way to collect.");
  Slot& slot = slots_[under_way_ == 1 ? next_ ^ 1 : next_];
  --under_way_;
  check(cudaEventSynchronize(slot.done), "sample");
  const auto results = [&](int which) {
    return device::sampling::Results{
        slot.results[which] ? static_cast<const JobResult*>(slot.results[which]->data()) : nullptr,
        slot.best[which] ? static_cast<const Candidate*>(slot.best[which]->data()) : nullptr};
  };
  device::sampling::read_results(slot.jobs, results(0), results(1), out);
}

}  // namespace fastllm::cuda
