// Sampling on the GPU: bit for bit what HostSampler gives (which tests/cpp/sampling holds to Chain), and Chain's tokens,
// over vocabularies of odd sizes, 1 to 256 rows and random mixes of parameters. Prints what a call costs. Without a
// GPU it says so.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "device/host_sampler.h"
#include "gpu.h"
#include "sampling/device_rows.h"

namespace {

using namespace fastllm;
using device::SampledRow;
using sampling::DeviceRows;
using sampling::SamplingParams;
using test::gpu;
using test::random_bits;
using Tokens = std::vector<std::int32_t>;

constexpr float kInf = std::numeric_limits<float>::infinity();

int below(int n) {
  return static_cast<int>(random_bits()() % static_cast<unsigned>(n));
}

std::vector<float> random_rows(int rows, int vocab) {
  std::vector<float> all;
  for (int r = 0; r < rows; ++r) {
    const int kind = below(8);
    std::vector<float> row(static_cast<std::size_t>(vocab));
    std::normal_distribution<float> normal(0.0f, kind == 0 ? 0.05f : kind == 1 ? 12.0f : 2.5f);
    for (float& x : row) x = normal(random_bits());
    if (kind == 2) {
      for (float& x : row) x = std::round(x);
    }
    if (kind == 3) {
      for (float& x : row) x = below(3) == 0 ? -kInf : x;
    }
    if (kind == 4) std::ranges::fill(row, 0.25f);
    if (kind == 5) row[static_cast<std::size_t>(below(vocab))] = 40.0f;
    if (kind == 6 && below(3) == 0) {
      const float damage[] = {std::numeric_limits<float>::quiet_NaN(), kInf};
      row[static_cast<std::size_t>(below(vocab))] = damage[below(2)];
    }
    if (kind == 7 && below(4) == 0) std::ranges::fill(row, -kInf);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

SamplingParams random_params(int vocab) {
  SamplingParams params;
  const auto sometimes = [](int in) { return below(in) == 0; };
  params.temperature = sometimes(3) ? 0.0f : sometimes(3) ? 1.0f : 0.3f + 0.01f * static_cast<float>(below(150));
  if (sometimes(2)) params.top_k = 1 + below(sometimes(3) ? vocab + 5 : 60);
  if (sometimes(2)) params.top_p = 0.05f + 0.0095f * static_cast<float>(below(100));
  if (sometimes(4)) params.min_p = 0.001f * static_cast<float>(1 + below(300));
  if (sometimes(6)) params.typical_p = 0.2f + 0.008f * static_cast<float>(below(100));
  if (sometimes(4)) params.logit_bias = {{below(vocab), 3.5f}, {below(vocab), -kInf}};
  if (sometimes(5)) params.repetition_penalty = 1.3f;
  if (sometimes(5)) params.presence_penalty = 0.7f;
  if (sometimes(5)) params.frequency_penalty = 0.4f;
  if (sometimes(5)) params.no_repeat_ngram = 1 + below(3);
  if (sometimes(3)) params.logprobs = below(20);
  if (sometimes(2)) params.logprobs_mode = sampling::LogprobsMode::sampled;
  params.seed = random_bits()();
  return params;
}

}  // namespace

TEST("the GPU's sampling is the host's, bit for bit") {
  if (!gpu()) return;
  for (const int vocab : {1, 7, 1000, 1023, 1025, 32003, 128256, 151936}) {
    for (const int count : {1, 2, 7, 33, 256}) {
      if (static_cast<std::int64_t>(vocab) * count > 9000000) continue;
      const auto sampler = gpu()->make_sampler(vocab, 4);  // grows
      REQUIRE(sampler != nullptr);
      device::HostSampler host(vocab);
      DeviceRows rows(vocab);
      const std::size_t size = static_cast<std::size_t>(vocab) * static_cast<std::size_t>(count);
      const auto on_device = gpu()->allocate(size * sizeof(float));
      const auto ids_on_device = gpu()->allocate(static_cast<std::size_t>(count) * sizeof(std::int32_t));
      for (int round = 0; round < 3; ++round) {
        std::vector<float> matrix = random_rows(count, vocab);
        rows.clear();
        Tokens tokens;
        for (int i = 0; i < 40; ++i) tokens.push_back(below(std::min(vocab, 30)));
        for (int r = 0; r < count; ++r) {
          SamplingParams params = random_params(vocab);
          if (round == 0) {  // all greedy: only the best of a chunk is looked at
            params = SamplingParams{};
            params.temperature = 0.0f;
          }
          rows.add({tokens, 20}, params);
        }
        gpu()->copy_in(on_device->data(), matrix.data(), size * sizeof(float));
        sampler->sample(static_cast<float*>(on_device->data()), rows.call());
        std::vector<std::int32_t> ids;  // what the next step would be given
        for (int r = 0; r < count; ++r) ids.push_back(r % 3 == 1 ? 5 : -1 - (count - 1 - r));
        gpu()->copy_in(ids_on_device->data(), ids.data(), ids.size() * sizeof(std::int32_t));
        sampler->fill_ids(static_cast<std::int32_t*>(ids_on_device->data()), count);
        std::vector<SampledRow> got;
        sampler->collect(got);
        std::vector<std::int32_t> filled(ids.size());
        gpu()->copy_out(filled.data(), ids_on_device->data(), ids.size() * sizeof(std::int32_t));
        host.sample(matrix.data(), rows.call());
        host.fill_ids(ids.data(), count);
        std::vector<SampledRow> expected;
        host.collect(expected);
        CHECK_EQ(filled, ids);
        REQUIRE(got.size() == expected.size());
        int different = 0;
        for (std::size_t r = 0; r < got.size(); ++r) {
          bool same = got[r].id == expected[r].id && got[r].status == expected[r].status &&
                      got[r].logprob == expected[r].logprob && got[r].top.size() == expected[r].top.size();
          for (std::size_t t = 0; same && t < got[r].top.size(); ++t) {
            same = got[r].top[t].id == expected[r].top[t].id && got[r].top[t].logprob == expected[r].top[t].logprob;
          }
          different += same ? 0 : 1;
        }
        if (different > 0) std::printf("   vocab %d, %d rows, round %d: %d differ\n", vocab, count, round, different);
        CHECK_EQ(different, 0);
      }
    }
  }
}

TEST("two samplings may be under way; they are collected in order, the third is refused") {
  if (!gpu()) return;
  const int vocab = 5000;
  const auto sampler = gpu()->make_sampler(vocab, 1);
  const auto first = gpu()->allocate(vocab * sizeof(float));
  const auto second = gpu()->allocate(vocab * sizeof(float));
  std::vector<float> row(vocab, 0.0f);
  row[17] = 1.0f;
  gpu()->copy_in(first->data(), row.data(), vocab * sizeof(float));
  gpu()->synchronize();
  row[4999] = 2.0f;
  gpu()->copy_in(second->data(), row.data(), vocab * sizeof(float));
  gpu()->synchronize();
  DeviceRows rows(vocab);
  rows.add_unused();
  std::vector<SampledRow> out;
  for (int i = 0; i < 5; ++i) {
    sampler->sample(static_cast<float*>(first->data()), rows.call());
    sampler->sample(static_cast<float*>(second->data()), rows.call());
    CHECK_THROWS_WITH(sampler->sample(static_cast<float*>(first->data()), rows.call()), core::Error, "third");
    sampler->collect(out);
    CHECK_EQ(out[0].id, 17);
    sampler->collect(out);
    CHECK_EQ(out[0].id, 4999);
    sampler->sample(static_cast<float*>(first->data()), {});  // a step without rows
    sampler->collect(out);
    CHECK_EQ(out.size(), 0);
  }
}

TEST("what a sampling of 128256 logits a row costs") {
  if (!gpu()) return;
  const int vocab = 128256;
  const auto sampler = gpu()->make_sampler(vocab, 256);
  const auto on_device = gpu()->allocate(std::size_t{256} * vocab * sizeof(float));
  std::vector<float> row(vocab);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (float& x : row) x = normal(random_bits());
  for (int r = 0; r < 256; ++r) {
    gpu()->copy_in(static_cast<float*>(on_device->data()) + std::ptrdiff_t{r} * vocab, row.data(),
                   vocab * sizeof(float));
  }
  gpu()->synchronize();
  for (const char* what : {"greedy", "temperature", "top_p 0.9", "top_k 50, top_p 0.9", "flat, top_p 0.9"}) {
    std::printf("   %-20s", what);
    for (const int count : {1, 8, 32, 128, 256}) {
      SamplingParams params;
      params.temperature = std::strcmp(what, "greedy") == 0 ? 0.0f : std::strncmp(what, "flat", 4) == 0 ? 50.0f : 1.0f;
      if (std::strstr(what, "top_p") != nullptr) params.top_p = 0.9f;
      if (std::strstr(what, "top_k") != nullptr) params.top_k = 50;
      const Tokens tokens = {1, 2, 3};
      DeviceRows rows(vocab);
      for (int r = 0; r < count; ++r) {
        params.seed = static_cast<std::uint64_t>(r);
        rows.add({tokens, 3}, params);
      }
      std::vector<SampledRow> out;
      const int rounds = 200;
      std::chrono::steady_clock::time_point start;
      for (int i = -20; i < rounds; ++i) {
        if (i == 0) start = std::chrono::steady_clock::now();
        sampler->sample(static_cast<float*>(on_device->data()), rows.call());
        if (i > -20) sampler->collect(out);
      }
      sampler->collect(out);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::printf("  %3d rows %7.1f us", count, seconds * 1e6 / rounds);
    }
    std::printf("\n");
  }
}
