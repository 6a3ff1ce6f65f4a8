// Asynchronous steps: everything that engine.cpp asks of the engine, on a model that works like a device, and that a
// request gives the same there as with a model that is waited for, token for token.
#define FASTLLM_TEST_ASYNCHRONOUS 1
#include "engine.cpp"

namespace {

struct Outcome {  // all that a reader sees
  Tokens ids;
  std::string text, bytes, tail;
  std::vector<float> logprobs;
  std::vector<std::vector<sampling::TopLogprob>> tops;
  FinishReason reason = FinishReason::error;
  std::variant<std::monostate, std::string, std::int32_t> stop;
  int completion_tokens = 0;
};

Outcome outcome_of(Rig& rig, const RequestPtr& request) {
  Outcome out;
  rig.engine->want(request, 1);
  while (true) {
    REQUIRE(rig.engine->hub().wait(*request, 60));
    std::vector<TokenEvent> events;
    rig.engine->hub().take(*request, static_cast<std::size_t>(-1), events);
    for (const TokenEvent& event : events) {
      CHECK_EQ(event.index, static_cast<int>(out.ids.size()));
      out.ids.push_back(event.id);
      out.text += event.text;
      out.bytes += event.bytes;
      out.logprobs.push_back(event.logprob);
      out.tops.push_back(event.top);
    }
    rig.engine->want(request, static_cast<std::int64_t>(out.ids.size()) + 1);
    if (events.empty() && rig.engine->hub().finish(*request)) break;
  }
  const Finish finish = *rig.engine->hub().finish(*request);
  out.tail = finish.tail_text;
  out.reason = finish.reason;
  out.stop = finish.stop;
  out.completion_tokens = finish.completion_tokens;
  return out;
}

// A request of any kind, the same for the same number.
RequestSpec random_spec(unsigned number) {
  std::mt19937 random(number);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto sometimes = [&](int in) { return below(in) == 0; };
  RequestSpec spec;
  spec.prompt = prompt_of(1 + below(45), below(9));
  sampling::SamplingParams& params = spec.params;
  params.max_new_tokens = sometimes(8) ? 0 : sometimes(8) ? -1 : 1 + below(30);
  params.temperature = sometimes(2) ? 0.0f : 0.9f;
  params.seed = random();
  if (sometimes(3)) params.top_k = 1 + below(20);
  if (sometimes(3)) params.top_p = 0.8f;
  if (sometimes(6)) params.typical_p = 0.7f;
  if (sometimes(4)) params.repetition_penalty = 1.4f;
  if (sometimes(6)) params.frequency_penalty = 0.5f;
  if (sometimes(5)) params.no_repeat_ngram = 2;
  if (sometimes(5)) params.bad_words = {{3, 4}, {7}};
  if (sometimes(4)) params.stop = {std::string(1, static_cast<char>('A' + below(37))), "BC"};
  if (sometimes(4)) params.eos_token_ids = {below(37), below(37)};
  if (sometimes(4) && params.max_new_tokens > 0) params.min_new_tokens = below(params.max_new_tokens);
  if (sometimes(3)) params.logprobs = below(4);
  if (sometimes(12)) params.logprobs = device::kMostSampledTop + 1;  // the host samples
  if (sometimes(2)) params.logprobs_mode = sampling::LogprobsMode::sampled;
  if (sometimes(8)) params.prompt_logprobs = 1;
  if (sometimes(4)) spec.priority = below(3);
  spec.lookahead = sometimes(2) ? -1 : below(4);
  return spec;
}

}  // namespace

TEST("asynchronous: every request gives what it gives synchronously, through parking, preemption and crowds") {
  EngineConfig config;
  config.max_running = 6;
  config.kv_memory_bytes = 16 * 40 * 3;  // 120 tokens
  config.block_tokens = 4;
  config.max_batch_tokens = 24;
  config.prefill_chunk = 7;
  HashModelOptions options;
  options.rope_max = 30;
  options.context = 100;
  const unsigned seed = std::random_device{}();
  std::printf("   seed %u\n", seed);
  for (const bool prefix_cache : {true, false}) {
    config.prefix_cache = prefix_cache;
    Rig waiting(options, config, {}, false);
    Rig ahead(options, config);
    std::vector<RequestPtr> first, second;
    const unsigned count = 80;
    for (unsigned i = 0; i < count; ++i) {
      first.push_back(waiting.engine->submit(random_spec(seed + i)));
      second.push_back(ahead.engine->submit(random_spec(seed + i)));
    }
    for (unsigned i = 0; i < count; ++i) {
      const Outcome a = outcome_of(waiting, first[i]);
      const Outcome b = outcome_of(ahead, second[i]);
      CHECK_EQ(a.ids, b.ids);
      CHECK_EQ(a.text, b.text);
      CHECK_EQ(a.bytes, b.bytes);
      CHECK_EQ(a.tail, b.tail);
      CHECK(a.reason == b.reason);
      CHECK(a.stop == b.stop);
      CHECK_EQ(a.completion_tokens, b.completion_tokens);
      CHECK_EQ(b.completion_tokens, static_cast<int>(b.ids.size()));
      for (std::size_t t = 0; t < std::min(a.ids.size(), b.ids.size()); ++t) {
        CHECK_NEAR(a.logprobs[t], b.logprobs[t], 1e-4);
        CHECK_EQ(a.tops[t].size(), b.tops[t].size());
      }
    }
    CHECK(ahead.engine->stats().preemptions > 0);
    CHECK(ahead.until([&] { return ahead.engine->stats().kv_blocks_free == ahead.engine->stats().kv_blocks_total; }));
    CHECK_EQ(ahead.engine->stats().generated_tokens, waiting.engine->stats().generated_tokens);
  }
}

TEST("asynchronous: a step is launched before the one before it was read") {
  HashModelOptions options;
  options.step_us = 30000;
  std::atomic<int> started{0};
  Rig rig(options, {}, [&](HashModel& model) { model.before_step = [&] { ++started; }; });
  const auto request = rig.submit({1, 2, 3}, 12);
  // The token of step n is there while step n + 1 runs, and not only when that is done.
  int during = 0;
  for (int n = 1; n < 12; ++n) {
    REQUIRE(rig.engine->hub().wait(*request, 20));
    REQUIRE(rig.until([&] { return rig.engine->hub().unread(*request) >= static_cast<std::size_t>(n); }));
    during += started.load() == n + 1 ? 1 : 0;
  }
  CHECK(during >= 8);  // a loaded machine may wake this thread late
  CHECK_EQ(rig.read(request), rig.expected(request, 12));
  CHECK_EQ(started.load(), 12);  // the last step is known to be the last: nothing is launched for nothing
}

TEST("asynchronous: what ended is in one step more at most, and its end shows nothing of it") {
  HashModelOptions options;
  Rig rig(options);
  RequestSpec spec;
  spec.prompt = {3, 4};
  spec.params.temperature = 0;
  spec.params.max_new_tokens = 30;
  const Tokens all = HashModel::reference(options, spec.prompt, spec.params, 30);
  spec.params.eos_token_ids = {all[2 + 9]};
  const auto first = static_cast<int>(std::find(all.begin() + 2, all.end(), all[2 + 9]) - all.begin() - 2);
  spec.lookahead = -1;
  const auto request = rig.engine->submit(std::move(spec));
  CHECK_EQ(static_cast<int>(rig.read(request).size()), first + 1);
  const Finish finish = *rig.engine->hub().finish(*request);
  CHECK(finish.reason == FinishReason::stop);
  CHECK_EQ(finish.completion_tokens, first + 1);
  CHECK_EQ(finish.steps, first + 1);
  CHECK(rig.until([&] { return rig.engine->stats().steps >= static_cast<std::uint64_t>(rig.model->steps.load()); }));
  CHECK(rig.model->steps.load() <= first + 2);
  CHECK_EQ(rig.engine->stats().generated_tokens, static_cast<std::uint64_t>(first + 1));
}

TEST("asynchronous: a prefix that is published is one whose tokens are known") {
  EngineConfig config;
  config.block_tokens = 4;
  Rig rig({}, config);
  const auto first = rig.submit(prompt_of(10, 1), 21);
  const Tokens output = rig.read(first);
  Tokens longer = first->spec.prompt;
  longer.insert(longer.end(), output.begin(), output.end());
  const auto second = rig.submit(longer, 5);
  CHECK_EQ(rig.read(second), rig.expected(second, 5));
  // 31 tokens: of the 30 that ran, 7 blocks are full.
  CHECK_EQ(rig.engine->hub().finish(*second)->cached_tokens, 28);
}

TEST("asynchronous: a device that fails later than it was asked to ends everything") {
  HashModelOptions options;
  Rig rig(options, {}, [](HashModel& model) {
    model.before_step = [count = 0]() mutable {
      if (++count == 5) core::fail(core::ErrorCode::device_lost, "[test] the device went away.");
    };
  });
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(rig.submit({1, 2, i}, 50));
  for (const auto& request : requests) {
    rig.read(request);
    const Finish finish = *rig.engine->hub().finish(*request);
    CHECK_EQ(finish.error_code, "engine_dead");
    CHECK(finish.error_message.find("went away") != std::string::npos);
  }
  CHECK_THROWS_WITH(rig.submit({1}, 1), engine::EngineDead, "went away");
}
