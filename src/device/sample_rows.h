#pragma once
// The sampling algorithm of devices, written once for a team of threads: a block of CUDA threads, or threads of the
// host in tests and in HostSampler. Four passes, each over many (job, chunk) pairs:
//
//   scan      the largest logit of a chunk, NaN                                   every job
//   measure   with the row's maximum known: mass by buckets of 1/16 nat below it (jobs that cut), or by 1024 ids
//   gather    the candidates of jobs that cut: logits in the buckets that can still matter, in no order
//   finish    one team a job: the exact cuts, the draw, the best k
//
// A token's mass is exp(logit - max) as an integer in units of 2^-44. Integer sums do not depend on the order of their
// terms, so every team size and every split into chunks gives the same token, bit for bit. Cuts are exact: a bucket is
// found by prefix sums, the logit in it by a radix descent over its keys (as in radix select: Alabi et al. 2012, "Fast
// k-selection algorithms for graphics processors"), equal logits by their ids. The draw is the inverse CDF in the order
// of ids, by a radix descent over ids weighted with mass.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/target.h"
#include "device/sample.h"

#if defined(__CUDA_ARCH__)
#define FASTLLM_PRAGMA(text) _Pragma(#text)
#define FASTLLM_UNROLL(n) FASTLLM_PRAGMA(unroll n)
#else
#define FASTLLM_UNROLL(n)
#endif

namespace fastllm::device::sampling {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

constexpr int kBuckets = 512;
constexpr float kBucketsPerNat = 16.0f;  // the last bucket is open: everything 32 nats and more below the best
constexpr int kSums = 1024;              // ids per sum of jobs that do not cut
constexpr u32 kMostCandidates = 8192;    // of a row; with more, finish reads the row itself
constexpr float kMassUnit = 0x1.0p44f;   // of the best token; 2^19 of them still fit in 64 bits
constexpr u32 kEveryId = 0x7fffffff;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum class JobKind : std::int32_t { draw, rank };  // rank: the best `top` and the total mass, nothing is drawn

struct Job {
  std::int32_t row = 0;  // of the logits
  JobKind kind = JobKind::draw;
  float temperature = 1.0f;  // 0: the best
  std::int32_t top_k = 0;
  float top_p = 1.0f;
  float log_min_p = 0.0f;  // -inf: off
  u64 draw = 0;
  std::int32_t top = 0;  // how many of the best to list
  std::int32_t first_edit = 0, edits = 0;
  float typical_p = 1.0f;  // no padding: jobs are compared as bytes
};

FASTLLM_BOTH bool is_greedy(const Job& job) {
  return job.kind == JobKind::draw && job.temperature <= 0.0f;
}
FASTLLM_BOTH bool cuts(const Job& job) {
  return !is_greedy(job) && (job.top_k > 0 || job.top_p < 1.0f || job.typical_p < 1.0f || job.log_min_p > -kInfinity);
}

struct Extreme {
  u64 best = 0;  // key of the largest logit above, its inverted id below: the largest, then the lowest id
  u32 has_nan = 0;
};
struct Candidate {
  float logit;
  std::int32_t id;
};
struct JobResult {
  std::int32_t id = 0;
  SampleStatus status = SampleStatus::ok;
  float logit = 0.0f;  // of the id, before edits and temperature
  float cut_logit = 0.0f;  // after them
  float max = 0.0f;
  std::int32_t listed = 0;  // entries of `best`
  u64 total = 0;       // mass of what was drawn from, or ranked
};

// What a pass works on. Arrays lie where the team runs.
struct Pass {
  float* logits = nullptr;  // [R, vocab]
  std::int32_t vocab = 0;
  std::int32_t jobs = 0;
  std::int32_t chunks = 0;      // of a row
  std::int32_t chunk_size = 0;  // a multiple of kSums
  const Job* job = nullptr;     // [jobs]
  const SampleEdit* edits = nullptr;
  float* originals = nullptr;   // [edits] logits before them
  Extreme* extremes = nullptr;  // [jobs, chunks]
  u32* counts = nullptr;        // [jobs, kBuckets]
  u64* masses = nullptr;        // [jobs, kBuckets]
  u64* sums = nullptr;          // [jobs, ceil(vocab / kSums)]
  u32* candidate_counts = nullptr;  // [jobs]
  Candidate* candidates = nullptr;  // [jobs, kMostCandidates]
  std::int32_t* ids = nullptr;      // [jobs] of the draws, for the next step; may be null
  JobResult* results = nullptr;     // [jobs]
  Candidate* best = nullptr;        // [jobs, kMostSampledTop]
};

FASTLLM_BOTH int sums_of(int vocab) {
  return (vocab + kSums - 1) / kSums;
}

// ---- numbers

FASTLLM_BOTH float divided(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}
FASTLLM_BOTH float added(float a, float b) {  // never fused with a product
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
FASTLLM_BOTH float multiplied(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
FASTLLM_BOTH float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
FASTLLM_BOTH u32 bits_of(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  return std::bit_cast<u32>(x);
#endif
}
FASTLLM_BOTH float float_of(u32 bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}
FASTLLM_BOTH int leading_zeros(u32 x) {
#if defined(__CUDA_ARCH__)
  return __clz(static_cast<int>(x));
#else
  return std::countl_zero(x);
#endif
}
// floor(a * b / 2^64)
FASTLLM_BOTH u64 high_product(u64 a, u64 b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

// Unsigned numbers in the order of the floats (no NaN).
FASTLLM_BOTH u32 key_of(float x) {
  const u32 bits = bits_of(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
FASTLLM_BOTH float float_of_key(u32 key) {
  return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The logit a job sees. Adding 0 makes -0 a 0, so that equal numbers have equal keys.
FASTLLM_BOTH float seen(const Job& job, float logit) {
  const float x = job.temperature == 1.0f || job.temperature <= 0.0f ? logit : divided(logit, job.temperature);
  return added(x, 0.0f);
}

FASTLLM_BOTH int bucket_of(float max, float x) {
  const float below = multiplied(added(max, -x), kBucketsPerNat);
  return below < static_cast<float>(kBuckets - 1) ? static_cast<int>(below) : kBuckets - 1;
}

// exp(x - max) in units of 1 / kMassUnit. e^d = 2^n e^r, |r| <= ln2/2, by Taylor's polynomial of degree 7.
FASTLLM_BOTH u64 mass_of(float max, float x) {
  const float d = added(x, -max);
  if (!(d > -31.0f)) return 0;
  const int n = static_cast<int>(added(multiplied(d, 1.44269504f), -0.5f));
  const float whole = static_cast<float>(n);
  const float r = fused(whole, 2.12194440e-4f, fused(whole, -0.693359375f, d));  // ln2 in two parts
  float p = 1.0f / 5040.0f;
  p = fused(p, r, 1.0f / 720.0f);
  p = fused(p, r, 1.0f / 120.0f);
  p = fused(p, r, 1.0f / 24.0f);
  p = fused(p, r, 1.0f / 6.0f);
  p = fused(p, r, 0.5f);
  p = fused(p, r, 1.0f);
  p = fused(p, r, 1.0f);
  return static_cast<u64>(multiplied(multiplied(p, float_of(static_cast<u32>(n + 127) << 23)), kMassUnit));
}

// ---- what a team shares

struct Shared {
  u32 count[kBuckets];
  u32 low[kBuckets], high[kBuckets];  // a 64-bit sum in two halves: adding to it needs 32-bit atomics alone
  u64 up_to_count[kBuckets], up_to_mass[kBuckets];  // inclusive prefix sums
  u64 slots[32];
  u64 found[3];
  u32 counter, base;
  Candidate list[kMostSampledTop];
};

template <class Team>
FASTLLM_BOTH u64 sum(Team& team, u64 value) {
  value = team.warp_sum(value);
  if (team.lane() == 0) team.shared().slots[team.warp()] = value;
  team.sync();
  u64 total = 0;
  for (int w = 0; w < team.warps(); ++w) total += team.shared().slots[w];
  team.sync();
  return total;
}

template <class Team>
FASTLLM_BOTH u64 largest(Team& team, u64 value) {
  value = team.warp_max(value);
  if (team.lane() == 0) team.shared().slots[team.warp()] = value;
  team.sync();
  u64 best = 0;
  for (int w = 0; w < team.warps(); ++w) best = team.shared().slots[w] > best ? team.shared().slots[w] : best;
  team.sync();
  return best;
}

// Inclusive prefix sums in place; `n` entries in shared memory, written before.
template <class Team>
FASTLLM_BOTH void prefix_sums(Team& team, u64* values, int n) {
  team.sync();
  if (team.warp() == 0) {
    const int each = (n + team.lanes() - 1) / team.lanes();
    const int from = team.lane() * each < n ? team.lane() * each : n;
    const int to = from + each < n ? from + each : n;
    u64 own = 0;
    for (int i = from; i < to; ++i) own += values[i];
    u64 running = team.warp_sum_before(own);
    for (int i = from; i < to; ++i) {
      running += values[i];
      values[i] = running;
    }
  }
  team.sync();
}

// The first entry of inclusive prefix sums that reaches the target (the last if none does).
template <class Team>
FASTLLM_BOTH int first_reaching(Team& team, const u64* up_to, int n, u64 target) {
  if (team.rank() == 0) team.shared().counter = static_cast<u32>(n - 1);
  team.sync();
  for (int i = team.rank(); i < n; i += team.size()) {
    if (up_to[i] >= target && (i == 0 || up_to[i - 1] < target)) team.shared().counter = static_cast<u32>(i);
  }
  team.sync();
  const int found = static_cast<int>(team.shared().counter);
  team.sync();
  return found;
}

template <class Team>
FASTLLM_BOTH void add_in_halves(Team& team, u32& low, u32& high, u64 value) {
  const u32 part = static_cast<u32>(value);
  const u32 before = team.fetch_add(low, part);
  const u32 carry = before + part < before ? 1u : 0u;
  const u32 rest = static_cast<u32>(value >> 32) + carry;
  if (rest != 0) team.add(high, rest);
}

struct Found {
  u32 key = 0;
  u64 before = 0;  // weight of all smaller keys
  u64 at = 0;      // weight of this key
};

// The smallest key up to which the weights reach `target` (1 or more). for_each(f) calls f(key, weight) for this
// thread's share of the elements; keys up to `most`.
template <class Team, class ForEach>
FASTLLM_BOTH Found descend(Team& team, u32 most, u64 target, const ForEach& for_each) {
  constexpr int kDigit = 8;
  Shared& shared = team.shared();
  Found found;
  int bits = most == 0 ? 1 : 32 - leading_zeros(most);
  while (bits > 0) {
    const int shift = bits > kDigit ? bits - kDigit : 0;
    const int digits = 1 << (bits - shift);
    for (int i = team.rank(); i < digits; i += team.size()) shared.low[i] = shared.high[i] = 0;
    team.sync();
    const u32 base = found.key;
    for_each([&](u32 key, u64 weight) {
      if (key < base || weight == 0) return;
      const u32 digit = (key - base) >> shift;
      if (digit < static_cast<u32>(digits)) add_in_halves(team, shared.low[digit], shared.high[digit], weight);
    });
    team.sync();
    for (int i = team.rank(); i < digits; i += team.size()) {
      shared.up_to_count[i] = static_cast<u64>(shared.high[i]) << 32 | shared.low[i];
    }
    prefix_sums(team, shared.up_to_count, digits);
    const int digit = first_reaching(team, shared.up_to_count, digits, target - found.before);
    const u64 below = digit > 0 ? shared.up_to_count[digit - 1] : 0;
    found.at = shared.up_to_count[digit] - below;
    found.before += below;
    found.key += static_cast<u32>(digit) << shift;
    bits = shift;
    team.sync();
  }
  return found;
}

// ---- the passes

template <class Team>
FASTLLM_BOTH Extreme row_extreme(Team& team, const Pass& pass, int job) {
  Extreme row;
  u64 best = 0;
  u64 nan = 0;
  for (int c = team.rank(); c < pass.chunks; c += team.size()) {
    const Extreme& chunk = pass.extremes[static_cast<std::int64_t>(job) * pass.chunks + c];
    best = chunk.best > best ? chunk.best : best;
    nan |= chunk.has_nan;
  }
  row.best = largest(team, best);
  row.has_nan = static_cast<u32>(largest(team, nan));
  return row;
}

FASTLLM_BOTH float max_of(const Extreme& extreme) {
  return float_of_key(static_cast<u32>(extreme.best >> 32));
}
FASTLLM_BOTH SampleStatus status_of(const Extreme& extreme) {
  if (extreme.has_nan != 0) return SampleStatus::not_a_number;
  const float max = max_of(extreme);
  if (max == kInfinity) return SampleStatus::infinite;
  return max == -kInfinity ? SampleStatus::nothing_left : SampleStatus::ok;
}

template <class Team>
FASTLLM_BOTH void apply_edits(Team& team, const Pass& pass, int job_index) {
  const Job& job = pass.job[job_index];
  float* row = pass.logits + static_cast<std::int64_t>(job.row) * pass.vocab;
  const int end = job.first_edit + job.edits;
  for (int i = job.first_edit + team.rank(); i < end; i += team.size()) {
    const std::int32_t id = pass.edits[i].id;
    if (i > job.first_edit && pass.edits[i - 1].id == id) continue;  // the first of an id does all of them
    float logit = row[id];
    const float original = logit;
    for (int j = i; j < end && pass.edits[j].id == id; ++j) {
      pass.originals[j] = original;
      const SampleEdit& edit = pass.edits[j];
      if (edit.scales == 0)
        logit = added(logit, edit.value);
      else
        logit = logit < 0.0f ? multiplied(logit, edit.value) : divided(logit, edit.value);
    }
    row[id] = logit;
  }
}

template <class Team>
FASTLLM_BOTH void scan(Team& team, const Pass& pass, int job_index, int chunk) {
  const Job job = pass.job[job_index];
  const float* row = pass.logits + static_cast<std::int64_t>(job.row) * pass.vocab;
  const int from = chunk * pass.chunk_size;
  const int to = from + pass.chunk_size < pass.vocab ? from + pass.chunk_size : pass.vocab;
  float best = -kInfinity;
  int at = from;
  u32 nan = 0;
  FASTLLM_UNROLL(8)
  for (int i = from + team.rank(); i < to; i += team.size()) {
    const float x = seen(job, row[i]);
    nan |= x != x ? 1u : 0u;
    if (x > best || i == from + team.rank()) {
      best = x;
      at = i;
    }
  }
  if (best != best) best = -kInfinity;
  const u64 packed = static_cast<u64>(key_of(best)) << 32 | static_cast<u32>(~static_cast<u32>(at));
  Extreme found;
  found.best = largest(team, from + team.rank() < to ? packed : 0);
  found.has_nan = static_cast<u32>(largest(team, nan));
  if (team.rank() == 0) pass.extremes[static_cast<std::int64_t>(job_index) * pass.chunks + chunk] = found;
  if (cuts(job)) {  // for the passes to come
    const std::int64_t first = static_cast<std::int64_t>(job_index) * kBuckets;
    for (int b = chunk * team.size() + team.rank(); b < kBuckets; b += pass.chunks * team.size()) {
      pass.counts[first + b] = 0;
      pass.masses[first + b] = 0;
    }
    if (chunk == 0 && team.rank() == 0) pass.candidate_counts[job_index] = 0;
  }
}

template <class Team>
FASTLLM_BOTH void measure(Team& team, const Pass& pass, int job_index, int chunk) {
  const Job job = pass.job[job_index];
  if (is_greedy(job)) return;
  const Extreme extreme = row_extreme(team, pass, job_index);
  if (status_of(extreme) != SampleStatus::ok) return;
  const float max = max_of(extreme);
  const float* row = pass.logits + static_cast<std::int64_t>(job.row) * pass.vocab;
  const int from = chunk * pass.chunk_size;
  const int to = from + pass.chunk_size < pass.vocab ? from + pass.chunk_size : pass.vocab;
  if (!cuts(job)) {
    for (int start = from + team.warp() * kSums; start < to; start += team.warps() * kSums) {
      const int end = start + kSums < to ? start + kSums : to;
      u64 mass = 0;
      FASTLLM_UNROLL(8)
      for (int i = start + team.lane(); i < end; i += team.lanes()) mass += mass_of(max, seen(job, row[i]));
      mass = team.warp_sum(mass);
      if (team.lane() == 0) {
        pass.sums[static_cast<std::int64_t>(job_index) * sums_of(pass.vocab) + start / kSums] = mass;
      }
    }
    return;
  }
  Shared& shared = team.shared();
  for (int b = team.rank(); b < kBuckets; b += team.size()) shared.count[b] = shared.low[b] = shared.high[b] = 0;
  team.sync();
  FASTLLM_UNROLL(4)
  for (int i = from + team.rank(); i < to; i += team.size()) {
    const float x = seen(job, row[i]);
    const int bucket = bucket_of(max, x);
    team.add(shared.count[bucket], 1u);
    const u64 mass = mass_of(max, x);
    if (mass != 0) add_in_halves(team, shared.low[bucket], shared.high[bucket], mass);
  }
  team.sync();
  const std::int64_t first = static_cast<std::int64_t>(job_index) * kBuckets;
  for (int b = team.rank(); b < kBuckets; b += team.size()) {
    if (shared.count[b] == 0) continue;
    team.add(pass.counts[first + b], shared.count[b]);
    team.add(pass.masses[first + b], static_cast<u64>(shared.high[b]) << 32 | shared.low[b]);
  }
}

// Mass that a top_p of `mass` asks for: tokens are taken while those before them are less.
FASTLLM_BOTH u64 nucleus(float top_p, u64 mass) {
  const double wanted = static_cast<double>(top_p) * static_cast<double>(mass);
  u64 target = static_cast<u64>(wanted);
  if (static_cast<double>(target) < wanted) ++target;
  return target < 1 ? 1 : target > mass ? mass : target;
}

// Loads the prefix sums of a job's buckets; returns the last bucket that the cuts may leave something of.
template <class Team>
FASTLLM_BOTH int last_bucket(Team& team, const Pass& pass, int job_index, float max) {
  const Job& job = pass.job[job_index];
  Shared& shared = team.shared();
  const std::int64_t first = static_cast<std::int64_t>(job_index) * kBuckets;
  for (int b = team.rank(); b < kBuckets; b += team.size()) {
    shared.up_to_count[b] = pass.counts[first + b];
    shared.up_to_mass[b] = pass.masses[first + b];
  }
  prefix_sums(team, shared.up_to_count, kBuckets);
  prefix_sums(team, shared.up_to_mass, kBuckets);
  int last = kBuckets - 1;
  if (job.top_k > 0 && job.top_k < pass.vocab) {
    last = first_reaching(team, shared.up_to_count, kBuckets, static_cast<u64>(job.top_k));
    if (job.top_p < 1.0f) return last;  // top_p asks for the exact mass of the top k, and so for all of them
  }
  if (job.top_p < 1.0f) {
    last = first_reaching(team, shared.up_to_mass, kBuckets, nucleus(job.top_p, shared.up_to_mass[last]));
  }
  if (job.log_min_p > -kInfinity) {
    const int bucket = bucket_of(max, added(max, job.log_min_p));
    last = bucket < last ? bucket : last;
  }
  return last;
}

template <class Team>
FASTLLM_BOTH void gather(Team& team, const Pass& pass, int job_index, int chunk) {
  const Job job = pass.job[job_index];
  if (!cuts(job)) return;
  const Extreme extreme = row_extreme(team, pass, job_index);
  if (status_of(extreme) != SampleStatus::ok) return;
  const float max = max_of(extreme);
  const int last = last_bucket(team, pass, job_index, max);
  Shared& shared = team.shared();
  if (shared.up_to_count[last] > kMostCandidates) return;
  const float* row = pass.logits + static_cast<std::int64_t>(job.row) * pass.vocab;
  const int from = chunk * pass.chunk_size;
  const int to = from + pass.chunk_size < pass.vocab ? from + pass.chunk_size : pass.vocab;
  u32 own = 0;
  FASTLLM_UNROLL(8)
  for (int i = from + team.rank(); i < to; i += team.size()) {
    own += bucket_of(max, seen(job, row[i])) <= last ? 1u : 0u;
  }
  if (team.rank() == 0) shared.counter = 0;
  team.sync();
  u32 place = own > 0 ? team.fetch_add(shared.counter, own) : 0;
  team.sync();
  if (team.rank() == 0 && shared.counter > 0) {
    shared.base = team.fetch_add(pass.candidate_counts[job_index], shared.counter);
  }
  team.sync();
  if (own == 0) return;
  Candidate* out = pass.candidates + static_cast<std::int64_t>(job_index) * kMostCandidates;
  place += shared.base;
  for (int i = from + team.rank(); i < to; i += team.size()) {
    const float x = seen(job, row[i]);
    if (bucket_of(max, x) <= last) out[place++] = {x, i};
  }
}

// What is left of a row: logits above `key`, and those equal to it with ids up to `id`. With typical_p, of those the
// ones whose distance from the mean surprise is at most `far`.
struct Cut {
  u32 key = 0;
  u32 id = kEveryId;
  bool typical = false;
  float max = 0.0f;
  float mean = 0.0f;  // of max - logit
  u32 far = 0;
};
FASTLLM_BOTH bool keeps(const Cut& cut, u32 key, int id) {
  return key > cut.key || (key == cut.key && static_cast<u32>(id) <= cut.id);
}

// |surprise - entropy| of a token, in the order of its bits: what both have in common, log of the sum, falls out.
FASTLLM_BOTH u32 distance(const Cut& cut, float x) {
  return bits_of(added(added(cut.max, -x), -cut.mean)) & 0x7fffffffu;
}
FASTLLM_BOTH bool leaves(const Cut& cut, float x, int id) {
  return keeps(cut, key_of(x), id) && (!cut.typical || distance(cut, x) <= cut.far);
}

// The part of a row that finish() looks at: its candidates, or the row itself.
struct Source {
  const Candidate* candidates = nullptr;
  const float* row = nullptr;
  int size = 0;
};

template <class Team, class F>
FASTLLM_BOTH void each(Team& team, const Source& source, const Job& job, const F& f) {
  if (source.candidates != nullptr) {
    for (int i = team.rank(); i < source.size; i += team.size()) {
      const Candidate candidate = source.candidates[i];
      f(candidate.logit, candidate.id);
    }
  } else {
    for (int i = team.rank(); i < source.size; i += team.size()) f(seen(job, source.row[i]), i);
  }
}

// The key in `bucket`, of what `cut` keeps, at which the weights, best first, reach `target`.
template <class Team, class Weight>
FASTLLM_BOTH Found find_key(Team& team, const Source& source, const Job& job, float max, int bucket, const Cut& cut,
                            u64 target, const Weight& weight) {
  u64 high = 0;
  u64 low = 0;  // inverted, so that the largest is the lowest
  each(team, source, job, [&](float x, int id) {
    const u32 key = key_of(x);
    if (bucket_of(max, x) != bucket || !keeps(cut, key, id)) return;
    high = key > high ? key : high;
    low = ~key > low ? ~key : low;
  });
  const u32 top = static_cast<u32>(largest(team, high));
  const u32 bottom = ~static_cast<u32>(largest(team, low));
  Found found = descend(team, top - bottom, target, [&](const auto& add) {
    each(team, source, job, [&](float x, int id) {
      const u32 key = key_of(x);
      if (bucket_of(max, x) == bucket && keeps(cut, key, id)) add(top - key, weight(x));
    });
  });
  found.key = top - found.key;
  return found;
}

// The id of the n-th token, in the order of ids, among those with this key.
template <class Team>
FASTLLM_BOTH u32 nth_equal(Team& team, const Source& source, const Job& job, const Pass& pass, u32 wanted, u64 n) {
  return descend(team, static_cast<u32>(pass.vocab - 1), n,
                 [&](const auto& add) {
                   each(team, source, job, [&](float x, int id) {
                     if (key_of(x) == wanted) add(static_cast<u32>(id), 1);
                   });
                 })
      .key;
}

template <class Team>
FASTLLM_BOTH Cut make_cut(Team& team, const Pass& pass, const Source& source, const Job& job, float max, int last) {
  Shared& shared = team.shared();
  Cut cut;
  u64 mass = shared.up_to_mass[kBuckets - 1];
  // descend() writes over the counts, so what is needed of them is taken first.
  const bool by_count = job.top_k > 0 && job.top_k < pass.vocab;
  if (by_count) {
    const u64 k = static_cast<u64>(job.top_k);
    const int bucket = first_reaching(team, shared.up_to_count, kBuckets, k);
    const u64 before = bucket > 0 ? shared.up_to_count[bucket - 1] : 0;
    team.sync();
    if (bucket <= last) {  // else min_p cuts off more
      cut.key = find_key(team, source, job, max, bucket, cut, k - before, [](float) { return u64{1}; }).key;
    }
    if (job.top_p < 1.0f) {
      u64 own = 0;
      each(team, source, job, [&](float x, int) {
        if (bucket_of(max, x) == bucket && key_of(x) >= cut.key) own += mass_of(max, x);
      });
      mass = (bucket > 0 ? shared.up_to_mass[bucket - 1] : 0) + sum(team, own);
    }
  }
  if (job.top_p < 1.0f) {
    const u64 target = nucleus(job.top_p, mass);
    const int bucket = first_reaching(team, shared.up_to_mass, kBuckets, target);
    const u64 before = bucket > 0 ? shared.up_to_mass[bucket - 1] : 0;
    if (bucket <= last) {  // else min_p cuts off more
      const Found found =
          find_key(team, source, job, max, bucket, cut, target - before, [max](float x) { return mass_of(max, x); });
      cut.key = found.key;
      const u64 one = mass_of(max, float_of_key(found.key));  // equal logits have equal masses
      const u64 wanted = one == 0 ? 1 : (target - before - found.before + one - 1) / one;
      if (one > 0 && wanted * one < found.at) cut.id = nth_equal(team, source, job, pass, found.key, wanted);
    }
  }
  if (job.log_min_p > -kInfinity) {
    const u32 key = key_of(added(added(max, job.log_min_p), 0.0f));
    if (key > cut.key) {
      cut.key = key;
      cut.id = kEveryId;
    }
  }
  if (job.typical_p < 1.0f) {
    u64 own = 0;
    u64 parts = 0;     // masses in 25 bits
    u64 weighted = 0;  // times their distances in 2^-20: d * e^-d is below 0.4, so 2^19 of them fit
    each(team, source, job, [&](float x, int id) {
      const u64 mass_here = keeps(cut, key_of(x), id) ? mass_of(max, x) : 0;
      if (mass_here == 0) return;
      own += mass_here;
      parts += mass_here >> 19;
      weighted += (mass_here >> 19) * static_cast<u64>(added(multiplied(added(max, -x), 0x1.0p20f), 0.5f));
    });
    const u64 kept = sum(team, own);
    parts = sum(team, parts);
    weighted = sum(team, weighted);
    cut.max = max;
    cut.mean = static_cast<float>(static_cast<double>(weighted) / static_cast<double>(parts) * 0x1.0p-20);
    cut.far = descend(team, 0x7f800000u, nucleus(job.typical_p, kept), [&](const auto& add) {
                each(team, source, job, [&](float x, int id) {
                  if (keeps(cut, key_of(x), id)) add(distance(cut, x), mass_of(max, x));
                });
              }).key;
    cut.typical = true;
  }
  return cut;
}

// Lists the best `count` of what the cut keeps, by logit, then id.
template <class Team>
FASTLLM_BOTH int list_best(Team& team, const Pass& pass, const Source& source, const Job& job, const Cut& cut,
                           int count, Candidate* out) {
  Shared& shared = team.shared();
  u64 own = 0;
  each(team, source, job, [&](float x, int id) { own += leaves(cut, x, id) ? 1 : 0; });
  const u64 kept = sum(team, own);
  const u64 wanted = kept < static_cast<u64>(count) ? kept : static_cast<u64>(count);
  if (wanted == 0) return 0;
  const Found found = descend(team, 0xffffffffu, wanted, [&](const auto& add) {
    each(team, source, job, [&](float x, int id) {
      if (leaves(cut, x, id)) add(~key_of(x), 1);
    });
  });
  Cut best{~found.key, kEveryId};
  if (found.before + found.at > wanted) {
    best.id = nth_equal(team, source, job, pass, best.key, wanted - found.before);
  }
  if (team.rank() == 0) shared.counter = 0;
  team.sync();
  each(team, source, job, [&](float x, int id) {
    if (leaves(cut, x, id) && keeps(best, key_of(x), id)) {
      const u32 place = team.fetch_add(shared.counter, 1u);
      if (place < static_cast<u32>(kMostSampledTop)) shared.list[place] = {x, id};
    }
  });
  team.sync();
  const int listed = static_cast<int>(wanted);
  for (int i = team.rank(); i < listed; i += team.size()) {
    const Candidate mine = shared.list[i];
    int better = 0;
    for (int j = 0; j < listed; ++j) {
      const Candidate other = shared.list[j];
      better += other.logit > mine.logit || (other.logit == mine.logit && other.id < mine.id) ? 1 : 0;
    }
    out[better] = mine;
  }
  team.sync();
  return listed;
}

template <class Team>
FASTLLM_BOTH void finish(Team& team, const Pass& pass, int job_index) {
  const Job job = pass.job[job_index];
  const Extreme extreme = row_extreme(team, pass, job_index);
  float* row = pass.logits + static_cast<std::int64_t>(job.row) * pass.vocab;
  JobResult result;
  result.status = status_of(extreme);
  result.max = max_of(extreme);
  result.id = 0;
  if (result.status == SampleStatus::ok && is_greedy(job)) {
    result.id = static_cast<std::int32_t>(~static_cast<u32>(extreme.best));
  } else if (result.status == SampleStatus::ok) {
    Shared& shared = team.shared();
    Source source;
    source.row = row;
    source.size = pass.vocab;
    Cut cut;
    const bool cutting = cuts(job);
    if (cutting) {
      const int last = last_bucket(team, pass, job_index, result.max);
      if (shared.up_to_count[last] <= kMostCandidates) {
        source.candidates = pass.candidates + static_cast<std::int64_t>(job_index) * kMostCandidates;
        source.size = static_cast<int>(shared.up_to_count[last]);
      }
      if (job.kind == JobKind::rank) {
        result.total = shared.up_to_mass[kBuckets - 1];
      } else {
        cut = make_cut(team, pass, source, job, result.max, last);
      }
    }
    if (job.kind == JobKind::rank) {
      if (!cutting) {
        u64 own = 0;
        for (int i = team.rank(); i < sums_of(pass.vocab); i += team.size()) {
          own += pass.sums[static_cast<std::int64_t>(job_index) * sums_of(pass.vocab) + i];
        }
        result.total = sum(team, own);
      }
    } else {
      // The draw: the first token, by id, up to which the mass exceeds the mark.
      u64 before = 0;
      int first = 0;
      if (cutting) {
        u64 own = 0;
        each(team, source, job, [&](float x, int id) {
          if (leaves(cut, x, id)) own += mass_of(result.max, x);
        });
        result.total = sum(team, own);
      } else {
        const u64* sums = pass.sums + static_cast<std::int64_t>(job_index) * sums_of(pass.vocab);
        for (int i = team.rank(); i < kBuckets; i += team.size()) {
          shared.up_to_mass[i] = i < sums_of(pass.vocab) ? sums[i] : 0;
        }
        prefix_sums(team, shared.up_to_mass, kBuckets);
        result.total = shared.up_to_mass[kBuckets - 1];
      }
      const u64 target = high_product(result.total, job.draw << 11) + 1;
      if (!cutting) {
        const int part = first_reaching(team, shared.up_to_mass, kBuckets, target);
        before = part > 0 ? shared.up_to_mass[part - 1] : 0;
        first = part * kSums;
        source.row = row + first;
        source.size = pass.vocab - first < kSums ? pass.vocab - first : kSums;
      }
      const Found found = descend(team, static_cast<u32>(cutting ? pass.vocab - 1 : source.size - 1), target - before,
                                  [&](const auto& add) {
                                    each(team, source, job, [&](float x, int id) {
                                      if (leaves(cut, x, id)) {
                                        add(static_cast<u32>(id), mass_of(result.max, x));
                                      }
                                    });
                                  });
      result.id = first + static_cast<std::int32_t>(found.key);
    }
    if (job.top > 0) {
      result.listed = list_best(team, pass, source, job, cut, job.top,
                                pass.best + static_cast<std::int64_t>(job_index) * kMostSampledTop);
    }
  }
  if (job.kind == JobKind::draw && result.status == SampleStatus::ok) {
    // The logit as it came, if edits changed it.
    result.logit = row[result.id];
    result.cut_logit = seen(job, row[result.id]);
    int low = job.first_edit;
    int high = job.first_edit + job.edits;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (pass.edits[middle].id < result.id)
        low = middle + 1;
      else
        high = middle;
    }
    if (low < job.first_edit + job.edits && pass.edits[low].id == result.id) result.logit = pass.originals[low];
  }
  if (team.rank() == 0) {
    pass.results[job_index] = result;
    if (pass.ids != nullptr && job.kind == JobKind::draw) pass.ids[job_index] = result.id;
  }
}

}  // namespace fastllm::device::sampling
