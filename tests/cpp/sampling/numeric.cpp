// The numeric passes against plain formulas in double, and the random numbers against published vectors. The stages
// themselves are compared with transformers in tests/unit/test_sampling.py.
#include "sampling/numeric.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>

#include "check.h"
#include "core/error.h"
#include "sampling/chain.h"
#include "sampling/rng.h"

using namespace fastllm::sampling;

namespace {

std::vector<float> gaussian(std::size_t size, float spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

const std::size_t kSizes[] = {1, 2, 15, 16, 17, 31, 33, 100, 1000, 1024, 1025, 4099};

}  // namespace

TEST("philox4x32-10: the known answers of Random123") {
  CHECK_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
           (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t f = 0xffffffff;
  CHECK_EQ(philox4x32({f, f, f, f}, {f, f}),
           (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
           (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST("uniform: in [0, 1), flat") {
  int buckets[10] = {};
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double u = uniform(i % 7, i);
    CHECK(u >= 0.0 && u < 1.0);
    ++buckets[static_cast<int>(u * 10)];
  }
  for (const int count : buckets) CHECK_NEAR(count, 2000, 6 * std::sqrt(2000.0));
}

TEST("exp: relative error below 2e-7 wherever a float holds it") {
  std::vector<float> x;
  for (float value = 0.0f; value > -95.0f; value -= 0.00371f) x.push_back(value);
  std::vector<float> y(x.size());
  const double sum = exp_shifted(x, 0.0f, y);
  double expected_sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    expected_sum += expected;
    if (x[i] > -87.0f) CHECK_NEAR(y[i] / expected, 1.0, 2e-7);
    if (x[i] < -87.0f) CHECK_EQ(y[i], 0.0f);
  }
  CHECK_NEAR(sum / expected_sum, 1.0, 1e-6);
  const std::vector<float> infinite = {0.0f, -std::numeric_limits<float>::infinity()};
  std::vector<float> out(2);
  CHECK_EQ(exp_shifted(infinite, 0.0f, out), 1.0);
  CHECK_EQ(out[1], 0.0f);
}

TEST("extremes: the first maximum, NaN wherever it hides") {
  for (const std::size_t size : kSizes) {
    std::vector<float> x = gaussian(size, 2.0f, static_cast<unsigned>(size));
    const auto best = std::max_element(x.begin(), x.end());
    CHECK_EQ(extremes(x).argmax, best - x.begin());
    CHECK_EQ(extremes(x).max, *best);
    CHECK(!extremes(x).has_nan);
    x.push_back(*best);
    CHECK_EQ(extremes(x).argmax, std::max_element(x.begin(), x.end()) - x.begin());
    for (std::size_t i = 0; i < x.size(); i += 1 + x.size() / 20) {
      std::vector<float> bad = x;
      bad[i] = std::numeric_limits<float>::quiet_NaN();
      CHECK(extremes(bad).has_nan);
    }
  }
}

TEST("kth_largest and largest: as a full sort gives them") {
  std::vector<float> scratch;
  std::vector<Ranked> ranked;
  for (const std::size_t size : kSizes) {
    std::vector<float> x = gaussian(size, 2.0f, static_cast<unsigned>(size) + 1);
    for (std::size_t i = 0; i + 3 < size; i += 3) x[i] = x[i + 3];  // equals
    std::vector<std::size_t> order(size);
    for (std::size_t i = 0; i < size; ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
    for (const int k : {1, 2, 7, 16, 50, static_cast<int>(size)}) {
      if (k > static_cast<int>(size)) continue;
      CHECK_EQ(kth_largest(x, k, scratch), x[order[static_cast<std::size_t>(k) - 1]]);
      largest(x, k, ranked);
      CHECK_EQ(ranked.size(), k);
      for (std::size_t i = 0; i < ranked.size(); ++i) CHECK_EQ(ranked[i].index, order[i]);
    }
  }
  std::vector<float> many = gaussian(20000, 1.0f, 5);
  std::vector<float> sorted = many;
  std::ranges::sort(sorted, std::greater<>());
  CHECK_EQ(kth_largest(many, 9000, scratch), sorted[8999]);
}

TEST("keep_mass: as a full sort gives it") {
  MassScratch scratch;
  for (const std::size_t size : kSizes) {
    for (const float spread : {0.0f, 0.01f, 1.0f, 30.0f}) {
      std::vector<float> keys = gaussian(size, spread, static_cast<unsigned>(size) + 2);
      for (float& key : keys) key = std::abs(key);
      std::vector<float> mass(size);
      for (std::size_t i = 0; i < size; ++i) mass[i] = std::exp(-keys[i]);
      double total = 0;
      for (const float m : mass) total += m;
      std::vector<std::size_t> order(size);
      for (std::size_t i = 0; i < size; ++i) order[i] = i;
      std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
      for (const double share : {1e-6, 0.1, 0.5, 0.9371, 0.999}) {
        std::vector<char> keep(size);
        keep_mass(keys, mass, share * total, keep, scratch);
        // Kept is a prefix of the order; its mass reaches the target, one entry fewer does not (to rounding).
        const auto count = static_cast<std::size_t>(std::ranges::count(keep, 1));
        REQUIRE(count >= 1);
        double sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
          CHECK_EQ(keep[order[i]], 1);
          if (i + 1 < count) sum += mass[order[i]];
        }
        CHECK(count == 1 || sum < share * total * (1 + 1e-9));
        CHECK(sum + mass[order[count - 1]] >= share * total * (1 - 1e-9));
      }
    }
  }
}

TEST("a vocabulary of 152k: what the stages cost beside copying the row") {
  const std::vector<float> logits = gaussian(151936, 2.5f, 3);
  Chain chain(151936);
  const std::vector<std::int32_t> tokens = {1, 2, 3};
  const auto best_of = [&](const auto& run) {
    double best = 1e9;
    for (int i = 0; i < 7; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run(i);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best * 1e6;
  };
  std::vector<float> copy;
  const double copying = best_of([&](int) { copy.assign(logits.begin(), logits.end()); });
  const double sorting = best_of([&](int) {
    copy.assign(logits.begin(), logits.end());
    std::ranges::sort(copy, std::greater<>());
  });
  const auto cost = [&](const char* name, SamplingParams params) {
    Sampled sampled;
    const double took = best_of([&](int i) {
      params.seed = static_cast<std::uint64_t>(i);
      chain.sample(logits, {tokens, 1}, params, sampled);
    });
    std::printf("   %-22s %7.0f us   %5.1f copies   %5.3f sorts\n", name, took, took / copying, took / sorting);
    CHECK(took < 2 * sorting);  // far less when alone; the machine may be busy
  };
  SamplingParams params;
  params.temperature = 0.0f;
  cost("greedy", params);
  params.temperature = 0.8f;
  cost("plain", params);
  params.top_k = 50;
  cost("top_k 50", params);
  params.top_p = 0.9f;
  cost("top_k 50, top_p 0.9", params);
  params.top_k = 0;
  cost("top_p 0.9", params);
  params.top_p = 1.0f;
  params.min_p = 0.05f;
  cost("min_p 0.05", params);
  params.min_p = 0.0f;
  params.typical_p = 0.9f;
  cost("typical_p 0.9", params);
  params.typical_p = 1.0f;
  params.logprobs = 5;
  params.top_k = 50;
  cost("top_k 50, 5 logprobs", params);
}
