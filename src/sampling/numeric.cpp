// Vectorised by the compiler; see numeric.h. -O2 of g++ 12 only vectorises loops whose trip count needs no epilogue,
// hence the pragma.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math")
#endif

#include "sampling/numeric.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

namespace fastllm::sampling {

namespace {

constexpr std::size_t kLanes = 16;
constexpr int kBuckets = 2048;            // of keep_mass
constexpr float kBucketsPerUnit =
    64.0f;  // a bucket is 1/64 nat wide, the last one open: 32 nats are 14 orders of magnitude

// exp for x <= 0: 2^n * e^r with r in [-ln2/2, ln2/2], a Taylor polynomial of degree 7 for e^r (its error there is
// below 1e-8).
inline float exp_nonpositive(float x) {
  const float bounded = x > -87.0f ? x : -87.0f;
  const int n = static_cast<int>(bounded * 1.44269504f - 0.5f);
  const float whole = static_cast<float>(n);
  const float r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln2 in two parts
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scale = std::bit_cast<float>((n + 127) << 23);
  return x > -87.0f ? p * scale : 0.0f;
}

}  // namespace

Extremes extremes(std::span<const float> x) {
  Extremes result;
  float lane_max[kLanes];
  std::fill(lane_max, lane_max + kLanes, -std::numeric_limits<float>::infinity());
  std::int32_t lane_nan[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float value = x[i + lane];
      lane_max[lane] = value > lane_max[lane] ? value : lane_max[lane];
      lane_nan[lane] |= value != value ? 1 : 0;
    }
  }
  float max = -std::numeric_limits<float>::infinity();
  bool has_nan = false;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    max = std::max(max, lane_max[lane]);
    has_nan = has_nan || lane_nan[lane] != 0;
  }
  for (; i < x.size(); ++i) {
    max = x[i] > max ? x[i] : max;
    has_nan = has_nan || x[i] != x[i];
  }
  result.max = max;
  result.has_nan = has_nan;
  const auto first = std::find(x.begin(), x.end(), max);
  result.argmax = first == x.end() ? 0 : static_cast<std::int32_t>(first - x.begin());
  return result;
}

// A block is summed in float lanes, the blocks in double: exact enough for any vocabulary, and vectorised.
double exp_shifted(std::span<const float> x, float shift, std::span<float> out, std::vector<double>* blocks) {
  const std::size_t n = x.size();
  if (blocks != nullptr) blocks->clear();
  double total = 0.0;
  for (std::size_t start = 0; start < n; start += kSumBlock) {
    const std::size_t end = std::min(n, start + kSumBlock);
    for (std::size_t i = start; i < end; ++i) out[i] = exp_nonpositive(x[i] - shift);
    float lanes[kLanes] = {};
    std::size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += out[i + lane];
    }
    double block = 0.0;
    for (const float lane : lanes) block += lane;
    for (; i < end; ++i) block += out[i];
    total += block;
    if (blocks != nullptr) blocks->push_back(block);
  }
  return total;
}

void divide(std::span<float> x, float by) {
  for (float& value : x) value /= by;
}

void subtract_from(float value, std::span<const float> x, std::span<float> out) {
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = value - x[i];
}

double dot(std::span<const float> a, std::span<const float> b) {
  double total = 0.0;
  for (std::size_t start = 0; start < a.size(); start += kSumBlock) {
    const std::size_t end = std::min(a.size(), start + kSumBlock);
    float lanes[kLanes] = {};
    std::size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
    }
    for (const float lane : lanes) total += lane;
    for (; i < end; ++i) total += static_cast<double>(a[i]) * b[i];
  }
  return total;
}

void indices_from(std::span<const float> x, float threshold, std::vector<std::int32_t>& out) {
  out.resize(x.size());
  std::int32_t* to = out.data();
  std::size_t count = 0;
  for (std::size_t start = 0; start < x.size(); start += kLanes) {
    const std::size_t end = std::min(x.size(), start + kLanes);
    int any = 0;
    for (std::size_t i = start; i < end; ++i) any |= x[i] >= threshold ? 1 : 0;
    if (any == 0) continue;
    for (std::size_t i = start; i < end; ++i) {  // without a branch: where they lie has no pattern
      to[count] = static_cast<std::int32_t>(i);
      count += x[i] >= threshold ? 1 : 0;
    }
  }
  out.resize(count);
}

double log_sum_exp(std::span<const float> x, float max, std::vector<float>& scratch) {
  scratch.resize(x.size());
  return static_cast<double>(max) + std::log(exp_shifted(x, max, scratch));
}

float kth_largest(std::span<const float> x, int k, std::vector<float>& scratch) {
  const std::size_t count = static_cast<std::size_t>(k);
  if (count > 4096) {
    scratch.assign(x.begin(), x.end());
    std::ranges::nth_element(scratch, scratch.begin() + (k - 1), std::greater<>());
    return scratch[count - 1];
  }
  // A heap of the k best so far; in a row without order few values beyond the first k get past its smallest.
  scratch.assign(x.begin(), x.begin() + k);
  std::ranges::make_heap(scratch, std::greater<>());
  float smallest = scratch.front();
  std::size_t i = count;
  for (; i + kLanes <= x.size(); i += kLanes) {
    int above = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) above |= x[i + lane] > smallest ? 1 : 0;
    if (above == 0) continue;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      if (!(x[i + lane] > smallest)) continue;
      std::ranges::pop_heap(scratch, std::greater<>());
      scratch.back() = x[i + lane];
      std::ranges::push_heap(scratch, std::greater<>());
      smallest = scratch.front();
    }
  }
  for (; i < x.size(); ++i) {
    if (!(x[i] > smallest)) continue;
    std::ranges::pop_heap(scratch, std::greater<>());
    scratch.back() = x[i];
    std::ranges::push_heap(scratch, std::greater<>());
    smallest = scratch.front();
  }
  return smallest;
}

void largest(std::span<const float> x, int k, std::vector<Ranked>& out) {
  out.clear();
  const std::size_t count = std::min(static_cast<std::size_t>(std::max(k, 0)), x.size());
  if (count == 0) return;
  const auto better = [](const Ranked& a, const Ranked& b) {
    return a.value > b.value || (a.value == b.value && a.index < b.index);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Ranked candidate{x[i], static_cast<std::int32_t>(i)};
    if (out.size() < count) {
      out.push_back(candidate);
      std::ranges::push_heap(out, better);
    } else if (candidate.value > out.front().value) {  // equals come later in the row and lose
      std::ranges::pop_heap(out, better);
      out.back() = candidate;
      std::ranges::push_heap(out, better);
    }
  }
  std::ranges::sort_heap(out, better);
}

void keep_mass(std::span<const float> keys, std::span<const float> mass, double target, std::span<char> keep,
               MassScratch& scratch) {
  const std::size_t n = keys.size();
  constexpr float last = static_cast<float>(kBuckets - 1);
  scratch.bucket.resize(n);
  std::int32_t* bucket = scratch.bucket.data();
  for (std::size_t i = 0; i < n; ++i) {
    const float scaled = keys[i] * kBucketsPerUnit;
    bucket[i] = static_cast<std::int32_t>(scaled < last ? scaled : last);
  }
  // One histogram finds the bucket in which the target is reached; only that bucket is sorted. Four partial ones,
  // because neighbours that fall into one bucket would wait for each other.
  constexpr std::size_t parts = 4;
  scratch.bucket_mass.assign(parts * kBuckets, 0.0);
  double* sums = scratch.bucket_mass.data();
  for (std::size_t i = 0; i < n; ++i) {
    sums[static_cast<std::size_t>(bucket[i]) * parts + i % parts] += static_cast<double>(mass[i]);
  }
  const auto sum_of = [&](std::int32_t index) {
    const double* four = sums + static_cast<std::size_t>(index) * parts;
    return (four[0] + four[1]) + (four[2] + four[3]);
  };
  double before = 0.0;
  std::int32_t boundary = 0;
  while (boundary + 1 < kBuckets && before + sum_of(boundary) < target) before += sum_of(boundary++);
  for (std::size_t i = 0; i < n; ++i) keep[i] = bucket[i] < boundary ? 1 : 0;
  scratch.boundary.clear();
  for (std::size_t start = 0; start < n; start += kLanes) {
    const std::size_t end = std::min(n, start + kLanes);
    int any = 0;
    for (std::size_t i = start; i < end; ++i) any |= bucket[i] == boundary ? 1 : 0;
    if (any == 0) continue;
    for (std::size_t i = start; i < end; ++i) {
      if (bucket[i] == boundary) scratch.boundary.push_back({keys[i], static_cast<std::int32_t>(i)});
    }
  }
  std::ranges::sort(scratch.boundary, [](const Ranked& a, const Ranked& b) {
    return a.value < b.value || (a.value == b.value && a.index < b.index);
  });
  for (const Ranked& entry : scratch.boundary) {
    if (before >= target && before > 0.0) break;
    const std::size_t index = static_cast<std::size_t>(entry.index);
    keep[index] = 1;
    before += mass[index];
  }
}

}  // namespace fastllm::sampling
