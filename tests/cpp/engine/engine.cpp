// The engine with its step thread: many threads submit, read, cancel and drain; every request gives exactly what it
// gives alone. Run under ThreadSanitizer and AddressSanitizer too. async.cpp runs all of it again on a model that
// works asynchronously.
#include "engine/engine.h"

#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <random>
#include <thread>

#include "check.h"
#include "engine/hash_model.h"

using namespace fastllm;
using engine::Engine;
using engine::EngineConfig;
using engine::Finish;
using engine::FinishReason;
using engine::Request;
using engine::RequestSpec;
using engine::SequenceState;
using engine::TokenEvent;
using test::HashModel;
using test::HashModelOptions;
using Tokens = std::vector<std::int32_t>;
using RequestPtr = std::shared_ptr<Request>;

namespace {

std::shared_ptr<const engine::Vocab> letters(int size) {
  std::vector<std::string> owned;
  for (int i = 0; i < size; ++i) owned.emplace_back(1, static_cast<char>('A' + i % 58));
  const std::vector<std::string_view> views(owned.begin(), owned.end());
  return std::make_shared<const engine::Vocab>(views, std::vector<char>(owned.size(), 0), false);
}

#ifdef FASTLLM_TEST_ASYNCHRONOUS
constexpr bool kAsynchronous = true;
#else
constexpr bool kAsynchronous = false;
#endif

struct Rig {
  explicit Rig(HashModelOptions options = {}, EngineConfig config = {},
               const std::function<void(HashModel&)>& prepare = {}, bool asynchronous = kAsynchronous)
      : model_options(options) {
    options.asynchronous = asynchronous;
    model = std::make_shared<HashModel>(options);
    if (prepare) prepare(*model);
    engine = Engine::make(model, letters(options.vocab), config);
  }
  RequestPtr submit(Tokens prompt, int count, std::uint64_t seed = 0, float temperature = 0.0f, int lookahead = -1) {
    RequestSpec spec;
    spec.prompt = std::move(prompt);
    spec.params.max_new_tokens = count;
    spec.params.seed = seed;
    spec.params.temperature = temperature;
    spec.lookahead = lookahead;
    return engine->submit(std::move(spec));
  }
  Tokens read(const RequestPtr& request, double timeout_s = 60) {  // to the end
    Tokens ids;
    while (true) {
      REQUIRE(engine->hub().wait(*request, timeout_s));
      std::vector<TokenEvent> events;
      engine->hub().take(*request, static_cast<std::size_t>(-1), events);
      for (const TokenEvent& event : events) {
        CHECK_EQ(event.index, static_cast<int>(ids.size()));
        ids.push_back(event.id);
      }
      engine->want(request, static_cast<std::int64_t>(ids.size()) + 1);
      if (events.empty() && engine->hub().finish(*request)) return ids;
    }
  }
  Tokens expected(const RequestPtr& request, int count) const {
    const Tokens all = HashModel::reference(model_options, request->spec.prompt, request->spec.params, count);
    return {all.begin() + static_cast<std::ptrdiff_t>(request->spec.prompt.size()), all.end()};
  }
  template <class Ready>
  bool until(Ready&& ready, double seconds = 20) {
    const auto end = engine::Clock::now() + std::chrono::duration<double>(seconds);
    while (engine::Clock::now() < end) {
      if (ready()) return true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return ready();
  }
  HashModelOptions model_options;
  std::shared_ptr<HashModel> model;
  std::shared_ptr<Engine> engine;
};

Tokens prompt_of(int length, int salt) {
  Tokens tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((i * (1 + salt % 3) + salt / 3) % 37);
  return tokens;
}

}  // namespace

TEST("one request: tokens, finish, usage, timing; blocks come back") {
  Rig rig;
  const auto request = rig.submit(prompt_of(20, 1), 10);
  CHECK_EQ(rig.read(request), rig.expected(request, 10));
  const Finish finish = *rig.engine->hub().finish(*request);
  CHECK(finish.reason == FinishReason::length);
  CHECK_EQ(finish.prompt_tokens, 20);
  CHECK_EQ(finish.completion_tokens, 10);
  CHECK_EQ(finish.steps, 10);
  CHECK(finish.total_s >= finish.ttft_s);
  CHECK(request->state.load() == SequenceState::done);
  CHECK(rig.until([&] { return rig.engine->stats().running == 0; }));
  const auto stats = rig.engine->stats();
  CHECK_EQ(stats.kv_blocks_free, stats.kv_blocks_total);
  CHECK_EQ(stats.generated_tokens, 10);
  CHECK_EQ(stats.finished, 1);
}

TEST("a crowd through a tiny cache gives the same tokens as each alone") {
  EngineConfig config;
  config.max_running = 6;
  config.kv_memory_bytes = 16 * 40 * 3;  // 120 tokens
  config.block_tokens = 4;
  config.max_batch_tokens = 24;
  config.prefill_chunk = 7;
  HashModelOptions options;
  options.rope_max = 30;
  Rig rig(options, config);
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 60; ++i)
    requests.push_back(
        rig.submit(prompt_of(5 + i % 40, i), 24, static_cast<std::uint64_t>(i), i % 2 == 0 ? 0.0f : 1.0f));
  for (const auto& request : requests) CHECK_EQ(rig.read(request), rig.expected(request, 24));
  const auto stats = rig.engine->stats();
  CHECK(stats.preemptions > 0);
  CHECK(rig.until([&] { return rig.engine->stats().kv_blocks_free == stats.kv_blocks_total; }));
}

TEST("threads submit, read, cancel and drop at once; what is read is a prefix of what each gives alone") {
  EngineConfig config;
  config.max_running = 8;
  config.kv_memory_bytes = 16 * 400;
  config.block_tokens = 4;
  config.max_batch_tokens = 40;
  config.prefill_chunk = 9;
  config.max_queue = 100000;
  Rig rig({}, config);
  const unsigned seed = std::random_device{}();
  std::printf("   seed %u\n", seed);
  std::atomic<bool> watching{true};
  std::thread watcher([&] {
    while (watching) {
      const auto stats = rig.engine->stats();
      CHECK(stats.running <= 8);
      CHECK(stats.kv_blocks_free <= stats.kv_blocks_total);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      for (int i = 0; i < 40; ++i) {
        const int count = 1 + static_cast<int>(random() % 20);
        const int lookahead = static_cast<int>(random() % 4) - 1;
        const auto request = rig.submit(prompt_of(1 + static_cast<int>(random() % 30), static_cast<int>(random() % 9)),
                                        count, random(), random() % 2 == 0 ? 0.0f : 0.8f, lookahead);
        if (lookahead >= 0) rig.engine->want(request, 1);
        switch (random() % 3) {
          case 0:
            CHECK_EQ(rig.read(request), rig.expected(request, count));
            break;
          case 1: {
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
            rig.engine->cancel(request);
            const Tokens got = rig.read(request);
            const Tokens all = rig.expected(request, count);
            CHECK(got.size() <= all.size());
            CHECK(std::equal(got.begin(), got.end(), all.begin()));
            break;
          }
          default:
            rig.engine->abandon(request);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  watching = false;
  watcher.join();
  CHECK(rig.until([&] {
    const auto stats = rig.engine->stats();
    return stats.running + stats.queued + stats.parked == 0 && stats.kv_blocks_free == stats.kv_blocks_total;
  }));
  CHECK_EQ(rig.engine->stats().finished, 160);
}

TEST("a queued request that is cancelled never starts and ends at once, even during a long step") {
  HashModelOptions options;
  options.step_us = 200000;
  EngineConfig config;
  config.max_running = 1;
  Rig rig(options, config);
  const auto first = rig.submit({1}, 3);
  CHECK(rig.until([&] { return rig.engine->stats().running == 1; }));
  const auto second = rig.submit({2}, 3);
  CHECK_EQ(rig.engine->stats().queued, 1);
  const auto start = engine::Clock::now();
  rig.engine->cancel(second);
  const auto finish = rig.engine->hub().finish(*second);
  REQUIRE(finish.has_value());
  CHECK(finish->reason == FinishReason::cancelled);
  CHECK_EQ(finish->steps, 0);
  CHECK_EQ(rig.engine->stats().queued, 0);
  CHECK(engine::seconds_between(start, engine::Clock::now()) < 0.1);  // far less than the step
  rig.engine->cancel(second);                                          // again: nothing
  CHECK_EQ(rig.engine->stats().cancelled, 1);
  CHECK_EQ(rig.read(first).size(), 3);
}

TEST("cancel is honoured at the next boundary, between prefill chunks too") {
  HashModelOptions options;
  options.step_us = 20000;
  options.context = 4000;
  EngineConfig config;
  config.prefill_chunk = 16;
  Rig rig(options, config);
  const auto request = rig.submit(Tokens(2000, 1), 5);
  CHECK(rig.until([&] { return request->prompt_done.load() > 0; }));
  rig.engine->cancel(request);
  const int steps = rig.model->steps;
  CHECK(rig.until([&] { return rig.engine->hub().finish(*request).has_value(); }));
  CHECK(rig.model->steps - steps <= (kAsynchronous ? 2 : 1));
  CHECK(rig.engine->hub().finish(*request)->reason == FinishReason::cancelled);
  CHECK(rig.until([&] { return rig.engine->stats().kv_blocks_free == rig.engine->stats().kv_blocks_total; }));
}

TEST("look-ahead: parked at the mark, resumed by want, the same tokens; 0 is one step a token") {
  Rig rig;
  const auto request = rig.submit(prompt_of(6, 2), 20, 0, 0.0f, 5);
  CHECK(rig.until([&] { return rig.engine->stats().parked == 1; }));
  CHECK_EQ(rig.engine->hub().unread(*request), 5);
  CHECK(request->state.load() == SequenceState::parked);
  CHECK_EQ(rig.engine->stats().running, 0);
  CHECK_EQ(rig.read(request), rig.expected(request, 20));

  const auto stepped = rig.submit(prompt_of(6, 3), 4, 0, 0.0f, 0);
  const int before = rig.model->steps;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_EQ(rig.model->steps.load(), before);
  CHECK(stepped->state.load() == SequenceState::queued);
  for (int token = 1; token <= 4; ++token) {
    rig.engine->want(stepped, token);
    CHECK(rig.until([&] { return rig.engine->hub().unread(*stepped) == static_cast<std::size_t>(token); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK_EQ(rig.model->steps.load(), before + token);
  }
  CHECK(rig.engine->hub().finish(*stepped).has_value());
}

TEST("a model that fails ends everything, present and future, with engine_dead and the cause") {
  HashModelOptions options;
  options.step_us = 1000;
  Rig rig(options);
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(rig.submit({1, 2}, 200));
  const auto parked = rig.submit({3}, 50, 0, 0.0f, 1);
  CHECK(rig.until([&] { return rig.engine->stats().parked == 1; }));
  rig.engine->inject_fault("the bus fell off");
  for (const auto& request : requests) rig.read(request);
  requests.push_back(parked);
  for (const auto& request : requests) {
    CHECK(rig.until([&] { return rig.engine->hub().finish(*request).has_value(); }));
    const Finish finish = *rig.engine->hub().finish(*request);
    CHECK(finish.reason == FinishReason::error);
    CHECK_EQ(finish.error_code, "engine_dead");
    CHECK(finish.error_message.find("the bus fell off") != std::string::npos);
  }
  CHECK_THROWS_WITH(rig.submit({1}, 1), engine::EngineDead, "the bus fell off");
  CHECK(rig.engine->stats().dead.find("bus") != std::string::npos);
}

TEST("NaN in one row ends that request only") {
  HashModelOptions options;
  Rig rig(options, {}, [](HashModel& model) { model.poison_token = 11; });
  const auto bad = rig.submit({1, 11}, 5);
  rig.read(bad);
  const Finish finish = *rig.engine->hub().finish(*bad);
  CHECK(finish.reason == FinishReason::error);
  CHECK(finish.error_message.find("NaN") != std::string::npos);
  RequestSpec spec;  // token 11 never comes up
  spec.prompt = {1, 2};
  spec.params.temperature = 0;
  spec.params.max_new_tokens = 20;
  spec.params.logit_bias = {{11, -100.0f}};
  const auto good = rig.engine->submit(std::move(spec));
  CHECK_EQ(rig.read(good).size(), 20);
}

TEST("refusals: typed, with numbers") {
  EngineConfig config;
  config.max_running = 1;
  config.max_queue = 2;
  HashModelOptions options;
  options.context = 32;
  options.step_us = 50000;
  Rig rig(options, config);
  CHECK_THROWS_WITH(rig.submit({}, 1), core::Error, "0 tokens");
  CHECK_THROWS_WITH(rig.submit({37}, 1), core::Error, "37");
  CHECK_THROWS_WITH(rig.submit({-1}, 1), core::Error, "-1");
  CHECK_THROWS_WITH(rig.submit(Tokens(32, 1), 1), engine::ContextTooLong, "32");
  CHECK_EQ(rig.submit(Tokens(32, 1), 0)->spec.prompt.size(), 32);
  CHECK(rig.until([&] { return rig.engine->stats().queued == 0; }));
  rig.submit({1}, 5);
  rig.submit({1}, 5);
  CHECK_THROWS_WITH(
      [&] {
        rig.submit({1}, 5);
        rig.submit({1}, 5);
      }(),
      engine::QueueFull, "max_queue is 2");
  EngineConfig tiny;
  tiny.kv_memory_bytes = 16 * 16;
  Rig small({}, tiny);
  CHECK_THROWS_WITH(small.submit(Tokens(16, 1), 1), engine::ContextTooLong, "KV cache");
}

TEST("the end of the context is \"length\"") {
  HashModelOptions options;
  options.context = 24;
  Rig rig(options);
  const auto request = rig.submit(prompt_of(10, 4), -1);
  CHECK_EQ(rig.read(request).size(), 14);
  CHECK(rig.engine->hub().finish(*request)->reason == FinishReason::length);
}

TEST("max_time_s ends queued, running and parked requests with \"timeout\"") {
  HashModelOptions options;
  options.step_us = 3000;
  options.context = 100000;
  EngineConfig config;
  config.max_running = 1;
  Rig rig(options, config);
  const auto submit = [&](double seconds, int lookahead) {
    RequestSpec spec;
    spec.prompt = {1};
    spec.params.temperature = 0;
    spec.params.max_new_tokens = -1;
    spec.params.max_time_s = seconds;
    spec.lookahead = lookahead;
    return rig.engine->submit(std::move(spec));
  };
  const auto running = submit(0.2, -1);
  const auto queued = submit(0.1, -1);
  const auto unwanted = submit(0.1, 0);
  for (const auto& request : {running, queued, unwanted}) {
    CHECK(rig.until([&] { return rig.engine->hub().finish(*request).has_value(); }));
    CHECK(rig.engine->hub().finish(*request)->reason == FinishReason::timeout);
  }
  CHECK(rig.engine->hub().unread(*running) > 5);
  const auto parked = submit(0.1, 2);
  CHECK(rig.until([&] { return rig.engine->hub().finish(*parked).has_value(); }));
  CHECK(rig.engine->hub().finish(*parked)->reason == FinishReason::timeout);
}

TEST("channels: news once until drained, dropped requests are silent, closing cancels") {
  Rig rig;
  const int channel = rig.engine->open_channel();
  const auto submit = [&](std::int64_t tag, int count) {
    RequestSpec spec;
    spec.prompt = {1, 2};
    spec.params.temperature = 0;
    spec.params.max_new_tokens = count;
    spec.channel = channel;
    spec.tag = tag;
    spec.lookahead = 3;
    return rig.engine->submit(std::move(spec));
  };
  const auto a = submit(7, 2);
  CHECK_EQ(rig.engine->hub().wait_events(5.0), std::vector<int>{channel});
  CHECK(rig.until([&] { return rig.engine->hub().finish(*a).has_value(); }));
  CHECK_EQ(rig.engine->hub().wait_events(0.02), std::vector<int>{});  // not again before drain
  CHECK_EQ(rig.engine->hub().drain(channel), std::vector<std::int64_t>{7});
  CHECK_EQ(rig.engine->hub().drain(channel), std::vector<std::int64_t>{});
  const auto b = submit(8, 100);
  CHECK_EQ(rig.engine->hub().wait_events(5.0), std::vector<int>{channel});
  rig.engine->abandon(b);
  CHECK(rig.until([&] { return rig.engine->stats().parked + rig.engine->stats().running == 0; }));
  CHECK_EQ(rig.engine->hub().drain(channel), std::vector<std::int64_t>{});
  const auto c = submit(9, 100);
  rig.engine->close_channel(channel);
  CHECK(rig.until([&] { return rig.engine->hub().finish(*c).has_value(); }));
  CHECK(rig.engine->hub().finish(*c)->reason == FinishReason::cancelled);
  CHECK_THROWS(submit(10, 1), core::Error);
  std::thread waker([&] { rig.engine->hub().wake(); });
  CHECK_EQ(rig.engine->hub().wait_events(-1.0), std::vector<int>{});
  waker.join();
}

TEST("close: drain finishes what is there, hard cancels it; both join; later calls say closed") {
  for (const bool drain : {true, false}) {
    HashModelOptions options;
    options.step_us = 500;
    Rig rig(options);
    std::vector<RequestPtr> requests;
    for (int i = 0; i < 6; ++i) requests.push_back(rig.submit({1, 2, 3}, 40, 0, 0.0f, i % 2 == 0 ? -1 : 2));
    std::vector<std::thread> closers;
    for (int i = 0; i < 3; ++i) closers.emplace_back([&] { rig.engine->close(drain, -1.0); });
    for (std::thread& closer : closers) closer.join();
    for (const auto& request : requests) {
      const auto finish = rig.engine->hub().finish(*request);
      REQUIRE(finish.has_value());
      CHECK(finish->reason == (drain ? FinishReason::length : FinishReason::cancelled));
    }
    CHECK_THROWS_WITH(rig.submit({1}, 1), core::Error, "closed");
    rig.engine->close(true, 0.0);
  }
  HashModelOptions options;
  options.step_us = 20000;
  Rig rig(options);
  const auto slow = rig.submit({1}, 200);
  const auto start = engine::Clock::now();
  rig.engine->close(true, 0.1);
  CHECK(engine::seconds_between(start, engine::Clock::now()) < 2.0);
  CHECK(rig.engine->hub().finish(*slow)->reason == FinishReason::cancelled);
}

TEST("rows of a large vocabulary, sampled by several threads: the same tokens") {
  HashModelOptions options;
  options.vocab = 60000;
  Rig rig(options);
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 8; ++i)
    requests.push_back(rig.submit(prompt_of(3 + i, i), 6, static_cast<std::uint64_t>(i), i % 2 == 0 ? 0.0f : 1.0f));
  for (const auto& request : requests) CHECK_EQ(rig.read(request), rig.expected(request, 6));
}

TEST("prompt logits and log-probabilities: every position once, equal to the reference, through small chunks") {
  EngineConfig config;
  config.max_running = 2;
  config.prefill_chunk = 5;
  config.max_batch_tokens = 8;
  Rig rig({}, config);
  for (const int count : {0, 3}) {
    RequestSpec spec;
    spec.prompt = prompt_of(17, 5);
    spec.params.temperature = 0;
    spec.params.max_new_tokens = count;
    spec.params.prompt_logprobs = 3;
    spec.keep_logits = true;
    const auto request = rig.engine->submit(std::move(spec));
    CHECK_EQ(static_cast<int>(rig.read(request).size()), count);
    REQUIRE(rig.engine->hub().prompt_ready(*request));
    for (std::size_t p = 0; p < 17; ++p) {
      const Tokens prefix(request->spec.prompt.begin(),
                          request->spec.prompt.begin() + static_cast<std::ptrdiff_t>(p) + 1);
      const auto row = HashModel::reference_logits(rig.model_options, prefix, 17);
      CHECK(std::equal(row.begin(), row.end(), request->logits.get() + p * row.size()));
      if (p + 1 == 17) continue;
      double sum = 0;
      for (const float x : row) sum += std::exp(static_cast<double>(x));
      const std::int32_t next = request->spec.prompt[p + 1];
      const auto& given = request->prompt_logprobs[p + 1];
      CHECK_EQ(given.id, next);
      CHECK_NEAR(given.logprob, static_cast<double>(row[static_cast<std::size_t>(next)]) - std::log(sum), 1e-5);
      CHECK_EQ(given.rank,
               1 + std::ranges::count_if(row, [&](float x) { return x > row[static_cast<std::size_t>(next)]; }));
      CHECK_EQ(given.top.size(), 3);
    }
  }
}

TEST("stop tokens, stop strings, min_new_tokens and hidden end tokens") {
  HashModelOptions options;
  Rig rig(options);
  RequestSpec spec;
  spec.prompt = {3, 4};
  spec.params.temperature = 0;
  spec.params.max_new_tokens = 30;
  const Tokens all = HashModel::reference(options, spec.prompt, spec.params, 30);
  const auto text_of = [&](std::size_t from, std::size_t to) {
    std::string text;
    for (std::size_t i = from; i < to; ++i) text += static_cast<char>('A' + all[i + 2]);
    return text;
  };
  const auto finish_with = [&](RequestSpec given, std::string& text) {
    const auto request = rig.engine->submit(std::move(given));
    CHECK(rig.until([&] { return rig.engine->hub().finish(*request).has_value(); }));
    std::vector<TokenEvent> events;
    rig.engine->hub().take(*request, 1000, events);
    text.clear();
    std::string bytes;
    for (const TokenEvent& event : events) {
      text += event.text;
      bytes += event.bytes;
    }
    CHECK_EQ(text, bytes);
    Finish finish = *rig.engine->hub().finish(*request);
    text += finish.tail_text;
    return std::make_pair(finish, events.size());
  };
  std::string text;
  spec.lookahead = -1;
  spec.params.stop = {text_of(4, 7)};
  const std::size_t at = text_of(0, 30).find(spec.params.stop[0]);
  auto [stopped, count] = finish_with(spec, text);
  CHECK(stopped.reason == FinishReason::stop);
  CHECK_EQ(std::get<std::string>(stopped.stop), spec.params.stop[0]);
  CHECK_EQ(text, text_of(0, at));
  CHECK_EQ(count, at + 3);
  spec.params.include_stop = true;
  finish_with(spec, text);
  CHECK_EQ(text, text_of(0, at + 3));

  spec.params.include_stop = false;
  spec.params.stop.clear();
  spec.params.eos_token_ids = {all[2 + 6]};
  const auto first = static_cast<std::size_t>(std::find(all.begin() + 2, all.end(), all[2 + 6]) - all.begin() - 2);
  auto [ended, tokens] = finish_with(spec, text);
  CHECK(ended.reason == FinishReason::stop);
  CHECK_EQ(std::get<std::int32_t>(ended.stop), all[2 + 6]);
  CHECK_EQ(tokens, first + 1);  // the end token is delivered, without text
  CHECK_EQ(text, text_of(0, first));
  spec.params.ignore_eos = true;
  CHECK_EQ(finish_with(spec, text).second, 30);
  spec.params.ignore_eos = false;
  spec.params.min_new_tokens = static_cast<int>(first) + 3;
  CHECK(finish_with(spec, text).second >= first + 3);
}

TEST("stats() does not wait for a long step") {
  HashModelOptions options;
  options.step_us = 300000;
  Rig rig(options);
  const auto request = rig.submit({1}, 2);
  CHECK(rig.until([&] { return rig.model->steps == 1; }));
  double worst = 0;
  for (int i = 0; i < 50; ++i) {
    const auto start = engine::Clock::now();
    rig.engine->stats();
    worst = std::max(worst, engine::seconds_between(start, engine::Clock::now()));
  }
  CHECK(worst < 0.1);  // a third of the step at most, on a loaded machine; it is microseconds
  rig.engine->cancel(request);
}

TEST("after fork() the child is told so, and the parent goes on") {
  Rig rig;
  const auto request = rig.submit({1, 2}, 30, 0, 0.0f, 2);
  CHECK(rig.until([&] { return rig.engine->stats().parked == 1; }));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs is killed, and the test says so
    int wrong = 0;
    try {
      rig.submit({1}, 1);
      wrong |= 1;
    } catch (const core::Error& error) {
      wrong |= error.code() == core::ErrorCode::forked_process ? 0 : 2;
    }
    rig.engine->cancel(request);
    rig.engine->want(request, 10);
    rig.engine->close(true, -1.0);
    wrong |= rig.engine->forked() ? 0 : 4;
    rig.engine.reset();  // must not wait for a thread that is not there
    _exit(wrong);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0);
  CHECK(!rig.engine->forked());
  CHECK_EQ(rig.read(request), rig.expected(request, 30));
}

TEST("an idle engine sleeps") {
  Rig rig;
  const auto request = rig.submit({1}, 50, 0, 0.0f, 2);  // parked
  CHECK(rig.until([&] { return rig.engine->stats().parked == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC < 0.01);
}
