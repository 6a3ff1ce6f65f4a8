// The scheduler without model or threads: each rule alone, then random sequences of everything at once. The "model" is
// hash_model.h's marks, so wrong blocks show up as wrong tokens.
#include "engine/scheduler.h"

#include <memory>
#include <random>
#include <set>

#include "check.h"
#include "core/error.h"
#include "engine/hash_model.h"
#include "engine/runner.h"

using namespace fastllm;
using engine::Scheduler;
using engine::SchedulerConfig;
using engine::Sequence;
using engine::SequenceState;
using engine::Work;
using Tokens = std::vector<std::int32_t>;

namespace {

std::unique_ptr<Sequence> make(std::uint64_t id, Tokens prompt, int priority = 0) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = sequence->arrival = id;
  sequence->priority = priority;
  sequence->prompt_tokens = static_cast<int>(prompt.size());
  sequence->tokens = std::move(prompt);
  return sequence;
}

Tokens prompt_of(int length, int salt = 0) {
  Tokens tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((i * 7 + salt) % 37);
  return tokens;
}

// Plays a step: computes it, then gives every sampled sequence a token (always 5).
std::vector<Work> play(Scheduler& scheduler) {
  const auto planned = scheduler.next();
  const std::vector<Work> work(planned.begin(), planned.end());
  scheduler.advance();
  for (const Work& piece : work) {
    if (piece.samples) piece.sequence->tokens.push_back(5);
  }
  scheduler.check_invariants();
  return work;
}

SchedulerConfig small() {
  SchedulerConfig config;
  config.max_running = 4;
  config.max_batch_tokens = 16;
  config.prefill_chunk = 8;
  config.max_rows = 6;
  return config;
}

}  // namespace

TEST("chunked prefill is mixed with decode, within the budget") {
  kv::PrefixCache cache(100, 4, false);
  Scheduler scheduler(small(), cache);
  auto a = make(1, prompt_of(3));
  auto b = make(2, prompt_of(20, 1));
  scheduler.add(a.get());
  auto work = play(scheduler);
  REQUIRE(work.size() == 1);
  CHECK_EQ(work[0].count, 3);
  CHECK(work[0].samples);
  CHECK_EQ(static_cast<int>(a->state), static_cast<int>(SequenceState::running));
  scheduler.add(b.get());
  for (const int chunk : {8, 8, 4}) {
    work = play(scheduler);
    REQUIRE(work.size() == 2);
    CHECK(work[0].sequence == a.get());  // decode first
    CHECK_EQ(work[0].count, 1);
    CHECK(work[1].sequence == b.get());
    CHECK_EQ(work[1].count, chunk);
    CHECK_EQ(work[1].samples, chunk == 4);
    CHECK_EQ(work[1].rows(), chunk == 4 ? 1 : 0);
  }
  CHECK_EQ(a->generated(), 4);
  CHECK_EQ(b->generated(), 1);
}

TEST("priority first, then arrival; the budget is shared in that order") {
  kv::PrefixCache cache(100, 4, false);
  SchedulerConfig config = small();
  config.max_running = 2;
  Scheduler scheduler(config, cache);
  auto low = make(1, prompt_of(2));
  auto early = make(2, prompt_of(2), 1);
  auto late = make(3, prompt_of(2), 1);
  for (const auto& s : {low.get(), late.get(), early.get()}) scheduler.add(s);
  const auto work = play(scheduler);
  REQUIRE(work.size() == 2);
  CHECK(work[0].sequence == early.get());
  CHECK(work[1].sequence == late.get());
  CHECK_EQ(static_cast<int>(low->state), static_cast<int>(SequenceState::queued));
}

TEST("aging: a low priority is served late, not never") {
  kv::PrefixCache cache(100, 4, false);
  SchedulerConfig config = small();
  config.max_running = 1;
  config.aging_steps = 10;
  Scheduler scheduler(config, cache);
  auto low = make(1, prompt_of(2), 0);
  scheduler.add(low.get());
  std::vector<std::unique_ptr<Sequence>> others;
  std::uint64_t next_id = 2;
  int steps = 0;
  Sequence* current = nullptr;
  while (low->generated() == 0 && steps < 1000) {  // a stream of priority 3 that never ends
    if (current == nullptr || current->generated() >= 2) {
      if (current != nullptr) scheduler.remove(current);
      others.push_back(make(next_id++, prompt_of(2), 3));
      current = others.back().get();
      scheduler.add(current);
    }
    play(scheduler);
    ++steps;
  }
  CHECK(low->generated() > 0);
  CHECK(steps > 20);
  CHECK(steps < 60);
}

TEST("preemption takes the lowest priority, latest arrival; it starts again later and ends the same") {
  kv::PrefixCache cache(4, 2, false);  // 8 tokens
  Scheduler scheduler(small(), cache);
  auto first = make(1, prompt_of(3));
  auto second = make(2, prompt_of(3, 1));
  scheduler.add(first.get());
  scheduler.add(second.get());
  int guard = 0;
  while (first->generated() < 4 && ++guard < 50) play(scheduler);
  CHECK_EQ(first->preemptions, 0);
  CHECK(second->preemptions > 0);
  scheduler.remove(first.get());
  scheduler.check_invariants();
  while (second->generated() < 4 && ++guard < 100) play(scheduler);
  CHECK_EQ(second->generated(), 4);
  scheduler.remove(second.get());
  CHECK_EQ(cache.available(), 4);
}

TEST("parked sequences lose their blocks before anybody is preempted") {
  kv::PrefixCache cache(4, 2, false);
  Scheduler scheduler(small(), cache);
  auto parked = make(1, prompt_of(3), 5);
  parked->allowed = 1;
  scheduler.add(parked.get());
  play(scheduler);
  play(scheduler);
  CHECK_EQ(static_cast<int>(parked->state), static_cast<int>(SequenceState::parked));
  CHECK_EQ(parked->blocks.size(), 2);
  CHECK_EQ(scheduler.running(), 0);
  auto other = make(2, prompt_of(3, 1));
  scheduler.add(other.get());
  while (other->generated() < 4) play(scheduler);
  CHECK_EQ(other->preemptions, 0);
  CHECK(parked->blocks.empty());
  CHECK_EQ(parked->preemptions, 1);
  scheduler.remove(other.get());
  parked->allowed = 3;
  while (parked->generated() < 3) play(scheduler);
  play(scheduler);
  CHECK_EQ(static_cast<int>(parked->state), static_cast<int>(SequenceState::parked));
}

TEST("look-ahead 0: nothing runs before a token is wanted, then one step a token") {
  kv::PrefixCache cache(100, 4, false);
  Scheduler scheduler(small(), cache);
  auto sequence = make(1, prompt_of(3));
  sequence->allowed = 0;
  scheduler.add(sequence.get());
  CHECK(play(scheduler).empty());
  for (int token = 1; token <= 3; ++token) {
    sequence->allowed = token;
    CHECK_EQ(play(scheduler).size(), 1);
    CHECK_EQ(sequence->generated(), token);
    CHECK(play(scheduler).empty());
  }
}

TEST("a resumed sequence that waits for a slot cannot lock the cache") {
  kv::PrefixCache cache(4, 2, false);
  SchedulerConfig config = small();
  config.max_running = 1;
  Scheduler scheduler(config, cache);
  auto a = make(1, prompt_of(3));
  a->allowed = 1;
  scheduler.add(a.get());
  play(scheduler);
  play(scheduler);  // parked, with 2 of 4 blocks
  auto b = make(2, prompt_of(3), 9);
  scheduler.add(b.get());
  play(scheduler);
  a->allowed = 100;  // resumed, but b has the only slot and will need the blocks
  while (b->generated() < 5) CHECK(!play(scheduler).empty());
  scheduler.remove(b.get());
  while (a->generated() < 5) CHECK(!play(scheduler).empty());
}

TEST("prefix reuse: the second sequence runs only its new tokens, at least the last") {
  kv::PrefixCache cache(100, 4);
  Scheduler scheduler(small(), cache);
  auto a = make(1, prompt_of(8));
  scheduler.add(a.get());
  play(scheduler);
  auto b = make(2, prompt_of(8));
  scheduler.add(b.get());
  const auto work = play(scheduler);
  REQUIRE(work.size() == 2);
  CHECK_EQ(work[1].start, 4);
  CHECK_EQ(work[1].count, 4);
  CHECK_EQ(b->cached_tokens, 4);
  CHECK_EQ(a->blocks[0], b->blocks[0]);
}

TEST("all_rows: every prompt position once, within max_rows, without prefix reuse") {
  kv::PrefixCache cache(100, 4);
  Scheduler scheduler(small(), cache);  // 6 rows a step
  auto plain = make(1, prompt_of(8));
  scheduler.add(plain.get());
  play(scheduler);
  auto rows = make(2, prompt_of(13));
  rows->all_rows = true;
  scheduler.add(rows.get());
  std::vector<int> seen;
  while (rows->generated() == 0) {
    int total = 0;
    for (const Work& work : play(scheduler)) {
      total += work.rows();
      if (work.sequence != rows.get()) continue;
      for (int p = work.first_row; p < work.start + work.count; ++p) seen.push_back(p);
    }
    CHECK(total <= 6);
  }
  std::vector<int> expected(13);
  for (int i = 0; i < 13; ++i) expected[static_cast<std::size_t>(i)] = i;
  CHECK_EQ(seen, expected);
  CHECK_EQ(rows->cached_tokens, 0);
}

TEST("a sequence may fill the whole pool") {
  kv::PrefixCache cache(3, 4, false);
  Scheduler scheduler(small(), cache);
  auto sequence = make(1, prompt_of(8));
  scheduler.add(sequence.get());
  while (sequence->size() < 12) CHECK(!play(scheduler).empty());
  CHECK_EQ(sequence->preemptions, 0);
}

TEST("sizes that cannot work are refused") {
  kv::PrefixCache cache(3, 4);
  SchedulerConfig config = small();
  config.max_batch_tokens = 2;
  CHECK_THROWS(Scheduler(config, cache), core::Error);
  config = small();
  config.max_rows = config.max_running;
  CHECK_THROWS(Scheduler(config, cache), core::Error);
}

TEST("random submit, cancel, park, preempt, resume: nobody starves, blocks conserved, tokens as if alone") {
  const unsigned seed = std::random_device{}();
  std::printf("   seed %u\n", seed);
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 60; ++round) {
    test::HashModelOptions options;
    options.context = 64;
    options.rope_max = below(3) == 0 ? 8 + below(16) : 0;
    auto model = std::make_shared<test::HashModel>(options);
    SchedulerConfig config;
    config.max_running = 1 + below(5);
    config.prefill_chunk = 1 + below(9);
    config.max_batch_tokens = config.max_running + below(16);
    config.max_rows = config.max_running + 1 + below(6);
    config.rope_threshold = options.rope_max;
    config.aging_steps = 4 + static_cast<std::uint64_t>(below(64));
    const int bt = 1 + below(6);
    const int blocks = (options.context + bt - 1) / bt + below(20);
    kv::PrefixCache cache(blocks, bt, below(4) != 0);
    Scheduler scheduler(config, cache);
    engine::Runner runner(model, {config.max_batch_tokens, config.max_rows, config.max_running}, blocks, bt,
                          (options.context + bt - 1) / bt, true, true);
    sampling::Chain chain(options.vocab);

    struct Run {
      std::unique_ptr<Sequence> sequence;
      sampling::SamplingParams params;
      int target = 0;
      Tokens expected;
      int rows_seen = 0;
    };
    std::vector<Run> runs;
    std::uint64_t next_id = 1;
    int submitted = 0;
    int finished = 0;
    int idle = 0;
    for (int step = 0; step < 4000 && (submitted < 40 || !runs.empty()); ++step) {
      if (submitted < 40 && below(3) == 0) {
        Run run;
        Tokens prompt;
        const int length = 1 + below(24);
        for (int i = 0; i < length; ++i) prompt.push_back(below(4) == 0 ? below(37) : i);  // many shared prefixes
        run.sequence = make(next_id++, prompt, below(3));
        run.sequence->all_rows = below(6) == 0;
        if (below(3) == 0) run.sequence->allowed = below(3);
        run.params.temperature = below(2) == 0 ? 0.0f : 0.7f;
        run.params.seed = random();
        run.target = 1 + below(16);
        run.expected = test::HashModel::reference(options, prompt, run.params, run.target);
        scheduler.add(run.sequence.get());
        runs.push_back(std::move(run));
        ++submitted;
      }
      for (std::size_t i = 0; i < runs.size();) {
        Sequence& sequence = *runs[i].sequence;
        if (below(4) == 0 && sequence.allowed < 1000) sequence.allowed += 1 + below(3);  // its reader reads on
        if (below(60) == 0) {                                                            // cancelled
          scheduler.remove(&sequence);
          runs.erase(runs.begin() + static_cast<std::ptrdiff_t>(i));
          continue;
        }
        ++i;
      }
      const auto planned = scheduler.next();
      const std::vector<Work> work(planned.begin(), planned.end());
      bool somebody = false;
      for (const Run& run : runs) somebody = somebody || run.sequence->runnable();
      idle = work.empty() && somebody ? idle + 1 : 0;
      CHECK_EQ(idle, 0);  // whenever somebody may run, somebody does
      if (work.empty()) continue;
      int tokens = 0;
      std::set<const Sequence*> distinct;
      for (const Work& piece : work) {
        tokens += piece.count;
        distinct.insert(piece.sequence);
        CHECK(piece.count <= config.prefill_chunk);
      }
      CHECK(tokens <= config.max_batch_tokens);
      CHECK_EQ(distinct.size(), work.size());
      const auto logits = runner.run(work);
      scheduler.check_invariants();
      scheduler.advance();
      std::size_t row = 0;
      for (const Work& piece : work) {
        row += static_cast<std::size_t>(piece.rows());
        const auto run = std::ranges::find_if(runs, [&](const Run& r) { return r.sequence.get() == piece.sequence; });
        REQUIRE(run != runs.end());
        if (piece.sequence->all_rows) run->rows_seen = std::max(run->rows_seen, piece.sequence->rows_done);
        if (!piece.samples) continue;
        const auto vocab = static_cast<std::size_t>(options.vocab);
        sampling::Sampled sampled;
        Sequence& sequence = *piece.sequence;
        chain.sample(logits.subspan((row - 1) * vocab, vocab),
                     {sequence.tokens, static_cast<std::size_t>(sequence.prompt_tokens)}, run->params, sampled);
        sequence.tokens.push_back(sampled.id);
        CHECK(sequence.generated() <= sequence.allowed);
        if (sequence.generated() == run->target) {
          CHECK_EQ(sequence.tokens, run->expected);
          if (sequence.all_rows) CHECK_EQ(run->rows_seen, sequence.prompt_tokens);
          scheduler.remove(&sequence);
          runs.erase(run);
          ++finished;
        }
      }
      scheduler.check_invariants();
    }
    CHECK_EQ(runs.size(), 0);  // nobody starved
    CHECK(finished > 0);
    CHECK_EQ(cache.available(), blocks);
  }
}
