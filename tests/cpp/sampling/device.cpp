// The devices' sampling against Chain, over vocabularies of odd sizes and random mixes of parameters, and against
// itself with other teams and chunks: those must agree bit for bit.
#include <barrier>
#include <map>
#include <random>
#include <thread>

#include "check.h"
#include "core/error.h"
#include "device/host_sampler.h"
#include "sampling/device_rows.h"
#include "sampling/rng.h"

using namespace fastllm;
using device::SampledRow;
using device::SampleStatus;
using sampling::Chain;
using sampling::DeviceRows;
using sampling::History;
using sampling::Sampled;
using sampling::SamplingParams;
using Tokens = std::vector<std::int32_t>;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Threads of the host as a team, each a warp of one lane: missing barriers show as wrong results, and under TSan.
class ThreadTeam {
 public:
  struct Common {
    explicit Common(int threads) : barrier(threads), size(threads) {}
    std::barrier<> barrier;
    int size;
    device::sampling::Shared shared{};
  };
  ThreadTeam(Common& common, int rank) : common_(common), rank_(rank) {}
  int rank() const { return rank_; }
  int size() const { return common_.size; }
  int warp() const { return rank_; }
  int warps() const { return common_.size; }
  int lane() const { return 0; }
  int lanes() const { return 1; }
  void sync() { common_.barrier.arrive_and_wait(); }
  device::sampling::Shared& shared() { return common_.shared; }
  std::uint64_t warp_sum(std::uint64_t value) { return value; }
  std::uint64_t warp_max(std::uint64_t value) { return value; }
  std::uint64_t warp_sum_before(std::uint64_t) { return 0; }
  template <class T>
  void add(T& to, T value) {
    std::atomic_ref<T>(to).fetch_add(value);
  }
  std::uint32_t fetch_add(std::uint32_t& to, std::uint32_t value) {
    return std::atomic_ref<std::uint32_t>(to).fetch_add(value);
  }

 private:
  Common& common_;
  int rank_;
};

std::mt19937& bits() {
  static std::mt19937 engine = [] {
    const unsigned seed = std::random_device{}();
    std::printf("   seed %u\n", seed);
    return std::mt19937(seed);
  }();
  return engine;
}

int below(int n) {
  return static_cast<int>(bits()() % static_cast<unsigned>(n));
}

std::vector<float> random_row(int vocab) {
  std::vector<float> row(static_cast<std::size_t>(vocab));
  const int kind = below(6);
  std::normal_distribution<float> normal(0.0f, kind == 0 ? 0.1f : kind == 1 ? 12.0f : 2.5f);
  for (float& x : row) x = normal(bits());
  if (kind == 2) {
    for (float& x : row) x = std::round(x);
  }  // many equals
  if (kind == 3) {
    for (float& x : row) x = below(3) == 0 ? -kInf : x;
  }
  if (kind == 4) {
    std::ranges::fill(row, -0.0f);
    row[0] = 0.0f;
  }     // nothing but equals
  if (kind == 5) row[static_cast<std::size_t>(below(vocab))] = 40.0f;  // one certain token
  return row;
}

SamplingParams random_params(int vocab) {
  SamplingParams params;
  const auto sometimes = [](int in) { return below(in) == 0; };
  params.temperature = sometimes(4) ? 0.0f : sometimes(3) ? 1.0f : 0.3f + 0.01f * static_cast<float>(below(150));
  if (sometimes(2)) params.top_k = 1 + below(sometimes(3) ? vocab + 5 : 60);
  if (sometimes(2)) params.top_p = 0.05f + 0.0095f * static_cast<float>(below(100));
  if (sometimes(4)) params.min_p = 0.001f * static_cast<float>(1 + below(300));
  if (sometimes(6)) params.typical_p = 0.2f + 0.008f * static_cast<float>(below(100));
  if (sometimes(4)) params.logit_bias = {{below(vocab), 3.5f}, {below(vocab), -kInf}, {below(vocab), 1.0f}};
  if (sometimes(5)) params.repetition_penalty = 1.3f;
  if (sometimes(5)) params.presence_penalty = 0.7f;
  if (sometimes(5)) params.frequency_penalty = 0.4f;
  if (sometimes(5)) params.penalty_window = 5;
  if (sometimes(5)) params.no_repeat_ngram = 1 + below(3);
  if (sometimes(5)) params.bad_words = {{below(vocab)}, {1, 2}, {3, below(vocab), 1}};
  if (sometimes(5)) {
    params.min_new_tokens = 6;
    params.eos_token_ids = {below(vocab)};
    params.stop_token_ids = {below(vocab), below(vocab)};
  }
  if (sometimes(3)) params.logprobs = below(8);
  if (sometimes(2)) params.logprobs_mode = sampling::LogprobsMode::sampled;
  params.seed = bits()();
  return params;
}

// The next candidate by id on either side of a draw: what a sum's rounding may turn it into.
bool are_neighbours(const Chain& chain, std::int32_t a, std::int32_t b) {
  std::vector<std::int32_t> possible;
  for (std::size_t i = 0; i < chain.candidates().size(); ++i) {
    if (chain.candidates().probabilities[i] > 0.0f) possible.push_back(chain.candidates().id(i));
  }
  const auto at = std::ranges::find(possible, a);
  const auto to = std::ranges::find(possible, b);
  return at != possible.end() && to != possible.end() && std::abs(at - to) <= 1;
}

}  // namespace

TEST("a draw equals Chain's, for every mix of parameters") {
  int draws = 0;
  int rounded = 0;
  for (const int vocab : {7, 37, 1000, 1024, 1025, 5003, 50257}) {
    Chain chain(vocab);
    DeviceRows rows(vocab);
    const int rounds = vocab > 10000 ? 12 : 60;
    for (int round = 0; round < rounds; ++round) {
      const int count = 1 + below(5);
      std::vector<std::vector<float>> logits;
      std::vector<SamplingParams> params;
      std::vector<Tokens> histories;
      std::vector<float> matrix;
      rows.clear();
      for (int r = 0; r < count; ++r) {
        logits.push_back(random_row(vocab));
        params.push_back(random_params(vocab));
        Tokens tokens;
        for (int i = 0; i < 12; ++i) tokens.push_back(below(std::min(vocab, 9)));
        histories.push_back(tokens);
        matrix.insert(matrix.end(), logits.back().begin(), logits.back().end());
      }
      for (int r = 0; r < count; ++r) {
        const auto i = static_cast<std::size_t>(r);
        REQUIRE(sampling::fits_device(params[i]));
        rows.add({histories[i], 8}, params[i]);
      }
      device::HostSampler sampler(vocab, 1 + below(9));
      sampler.sample(matrix.data(), rows.call());
      std::vector<SampledRow> results;
      sampler.collect(results);
      REQUIRE(static_cast<int>(results.size()) == count);
      for (int r = 0; r < count; ++r) {
        const auto i = static_cast<std::size_t>(r);
        const History history{histories[i], 8};
        Sampled expected;
        std::string error;
        try {
          chain.sample(logits[i], history, params[i], expected);
        } catch (const core::Error& caught) {
          error = caught.what();
        }
        Sampled got;
        try {
          sampling::take(results[i], history, params[i], vocab, got);
          CHECK_EQ(error, "");
        } catch (const core::Error& caught) {
          CHECK_EQ(std::string(caught.what()), error);
          continue;
        }
        ++draws;
        if (got.id != expected.id) {
          // Sums in another order: the mark may fall on the other side of a boundary between two tokens.
          ++rounded;
          CHECK(params[i].temperature > 0.0f && are_neighbours(chain, got.id, expected.id));
          continue;
        }
        CHECK_NEAR(got.logprob, expected.logprob, 3e-6 * std::max(1.0f, std::abs(expected.logprob)));
        CHECK_EQ(got.top.size(), expected.top.size());
        for (std::size_t t = 0; t < std::min(got.top.size(), expected.top.size()); ++t) {
          CHECK_EQ(got.top[t].id, expected.top[t].id);
          if (expected.top[t].logprob == -kInf) {
            CHECK_EQ(got.top[t].logprob, -kInf);
          } else {
            CHECK_NEAR(got.top[t].logprob, expected.top[t].logprob,
                       3e-6 * std::max(1.0f, std::abs(expected.top[t].logprob)));
          }
        }
      }
    }
  }
  std::printf("   %d draws, %d differ by the rounding of a sum\n", draws, rounded);
  CHECK(draws > 500);
  CHECK(rounded * 200 < draws);
}

TEST("the sets that top_k, top_p and min_p leave are Chain's: frequencies over many draws") {
  const int vocab = 300;
  std::vector<float> row(vocab);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  for (float& x : row) x = std::round(normal(bits()) * 4.0f) / 4.0f;  // equals at every cut
  for (int which = 0; which < 6; ++which) {
    SamplingParams params;
    params.temperature = which % 2 == 0 ? 1.0f : 0.7f;
    if (which < 4) params.top_k = 1 + 17 * which;
    if (which > 1) params.top_p = 0.3f + 0.1f * static_cast<float>(which);
    if (which == 5) params.min_p = 0.05f;
    Chain chain(vocab);
    DeviceRows rows(vocab);
    const Tokens tokens = {1, 2, 3};
    std::map<std::int32_t, int> counts;
    const int tries = 4000;
    for (int i = 0; i < tries; ++i) {
      params.seed = bits()();
      rows.clear();
      rows.add({tokens, 3}, params);
      std::vector<float> matrix = row;
      device::HostSampler sampler(vocab);
      sampler.sample(matrix.data(), rows.call());
      std::vector<SampledRow> results;
      sampler.collect(results);
      ++counts[results[0].id];
    }
    Sampled sampled;
    chain.sample(row, {tokens, 3}, params, sampled);
    double total = 0;
    std::map<std::int32_t, double> expected;
    for (std::size_t i = 0; i < chain.candidates().size(); ++i) {
      expected[chain.candidates().id(i)] = static_cast<double>(chain.candidates().probabilities[i]);
      total += static_cast<double>(chain.candidates().probabilities[i]);
    }
    for (const auto& [id, count] : counts) CHECK(expected.contains(id));
    for (const auto& [id, mass] : expected) {
      const double mean = tries * mass / total;
      CHECK_NEAR(counts[id], mean, 6.0 * std::sqrt(mean + 1.0));
    }
  }
}

TEST("damaged rows are told apart, and do not touch their neighbours") {
  const int vocab = 2500;
  std::vector<float> matrix;
  for (int r = 0; r < 5; ++r) {
    std::vector<float> row(vocab, 0.5f);
    row[100] = 3.0f;
    if (r == 1) row[2499] = std::numeric_limits<float>::quiet_NaN();
    if (r == 2) row[0] = kInf;
    if (r == 3) std::ranges::fill(row, -kInf);
    matrix.insert(matrix.end(), row.begin(), row.end());
  }
  for (const float temperature : {0.0f, 0.01f}) {
    for (const int top_k : {0, 5}) {
      DeviceRows rows(vocab);
      SamplingParams params;
      params.temperature = temperature;
      params.top_k = top_k;
      params.logprobs = 2;
      const Tokens tokens = {1};
      for (int r = 0; r < 5; ++r) rows.add({tokens, 1}, params);
      std::vector<float> copy = matrix;
      device::HostSampler sampler(vocab, 3);
      sampler.sample(copy.data(), rows.call());
      std::vector<std::int32_t> ids = {-1, 7, -3, -5, -2};
      sampler.fill_ids(ids.data(), 5);
      CHECK_EQ(ids, (Tokens{100, 7, 0, 100, 0}));  // a damaged row's id is 0, a token like any other
      std::vector<SampledRow> results;
      sampler.collect(results);
      CHECK(results[0].status == SampleStatus::ok);
      CHECK_EQ(results[0].id, 100);
      CHECK(results[1].status == SampleStatus::not_a_number);
      CHECK(results[2].status == SampleStatus::infinite);
      CHECK(results[3].status == SampleStatus::nothing_left);
      CHECK_EQ(results[4].id, 100);
      Sampled out;
      CHECK_THROWS_WITH(sampling::take(results[1], {tokens, 1}, params, vocab, out), core::Error, "NaN");
      CHECK_THROWS_WITH(sampling::take(results[3], {tokens, 1}, params, vocab, out), core::Error,
                        "every logit is -inf");
    }
  }
}

TEST("a team of threads, and any number of chunks, give the same bits") {
  const int threads = 4;
  for (const int vocab : {37, 1500, 20011}) {
    DeviceRows rows(vocab);
    std::vector<float> matrix;
    const int count = 6;
    const Tokens tokens = {1, 2, 3, 1, 2};
    for (int r = 0; r < count; ++r) {
      const auto row = random_row(vocab);
      matrix.insert(matrix.end(), row.begin(), row.end());
      rows.add({tokens, 2}, random_params(vocab));
    }
    device::sampling::JobList jobs;
    device::sampling::make_jobs(rows.call(), vocab, jobs);
    std::vector<float> alone_logits = matrix;
    device::PassMemory alone;
    device::SingleTeam single;
    const auto first = alone.pass(alone_logits.data(), vocab, jobs.after, rows.call().edits, 1);
    for (int job = 0; job < jobs.rows; ++job) device::sampling::apply_edits(single, first, job);
    device::run_pass(single, first);

    std::vector<float> together_logits = matrix;
    device::PassMemory together;
    const auto second = together.pass(together_logits.data(), vocab, jobs.after, rows.call().edits, 7);
    ThreadTeam::Common common(threads);
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        ThreadTeam mine(common, t);
        for (int job = 0; job < jobs.rows; ++job) device::sampling::apply_edits(mine, second, job);
        mine.sync();
        device::run_pass(mine, second);
      });
    }
    for (std::thread& thread : team) thread.join();
    for (std::size_t job = 0; job < jobs.after.size(); ++job) {
      const auto& a = alone.results().job[job];
      const auto& b = together.results().job[job];
      CHECK_EQ(a.id, b.id);
      CHECK(a.status == b.status);
      CHECK_EQ(a.total, b.total);
      CHECK_EQ(a.listed, b.listed);
      for (int i = 0; i < a.listed; ++i) {
        const std::size_t at = job * device::kMostSampledTop + static_cast<std::size_t>(i);
        CHECK_EQ(alone.results().best[at].id, together.results().best[at].id);
        CHECK_EQ(alone.results().best[at].logit, together.results().best[at].logit);
      }
    }
  }
}
