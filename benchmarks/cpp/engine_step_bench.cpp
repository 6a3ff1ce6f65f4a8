// What a step costs the host: scheduling, laying out, accepting, detokenizing and delivering the tokens of a batch, on a
// model that costs nothing. One reader takes everything, as the Python side's delivery thread does.
//
//   engine_step_bench [steps]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/null_model.h"

using namespace fastllm;

namespace {

constexpr int kVocab = 4000;

std::shared_ptr<const engine::Vocab> words() {
  std::vector<std::string> owned;
  for (int i = 0; i < kVocab; ++i) owned.push_back(" word" + std::to_string(i));
  const std::vector<std::string_view> views(owned.begin(), owned.end());
  return std::make_shared<const engine::Vocab>(views, std::vector<char>(owned.size(), 0), false);
}

double us_per_step(int batch, int steps, bool stops) {
  engine::EngineConfig config;
  config.max_running = 256;
  config.kv_memory_bytes = std::size_t{64} * 16 * 100000;
  config.prefix_cache = true;
  const auto model = std::make_shared<engine::NullModel>(kVocab, 4096, 0, /*asynchronous=*/true);
  const auto made = engine::Engine::make(model, words(), config);
  const int channel = made->open_channel();
  std::vector<std::shared_ptr<engine::Request>> requests;
  for (int i = 0; i < batch; ++i) {
    engine::RequestSpec spec;
    for (int t = 0; t < 128; ++t) spec.prompt.push_back((t * 7 + i * 131) % kVocab);
    spec.params.temperature = 0.0f;
    spec.params.max_new_tokens = steps;
    if (stops) spec.params.stop = {"never comes", "\n\n"};
    spec.lookahead = -1;
    spec.channel = channel;
    spec.tag = i;
    requests.push_back(made->submit(std::move(spec)));
  }
  std::vector<engine::TokenEvent> events;
  std::size_t read = 0;
  engine::Clock::time_point first{}, last{};
  const std::size_t all = static_cast<std::size_t>(batch) * static_cast<std::size_t>(steps);
  const auto decode_from = static_cast<std::size_t>(batch) * 10;
  while (read < all) {
    made->hub().wait_events(1.0);
    for (const std::int64_t tag : made->hub().drain(channel)) {
      events.clear();
      made->hub().take(*requests[static_cast<std::size_t>(tag)], 1000000, events);
      read += events.size();
    }
    if (first == engine::Clock::time_point{} && read >= decode_from) first = engine::Clock::now();
  }
  last = engine::Clock::now();
  return engine::seconds_between(first, last) * 1e6 / (steps - 10);
}

}  // namespace

int main(int count, char** arguments) {
  const int steps = count > 1 ? std::max(20, std::atoi(arguments[1])) : 500;
  for (const bool stops : {false, true}) {
    for (const int batch : {1, 32, 256}) {
      std::printf("batch %3d%s: %7.1f us a step\n", batch, stops ? ", stop strings" : "",
                  us_per_step(batch, steps, stops));
    }
  }
  return 0;
}
