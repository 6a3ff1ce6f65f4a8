// A Program whose device samples, under the engine: the same tokens as the Program that is waited for. The device is the
// CPU's backend with HostSampler added, so what is new is all there: ids filled in on the way into a step, recordings,
// sampling behind the logits.
#include <random>

#include "check.h"
#include "device/host_sampler.h"
#include "engine/engine.h"
#include "graph/program.h"
#include "graph/small_llama.h"

using namespace fastllm;

namespace {

class SamplingBackend : public device::Backend {
 public:
  const device::DeviceInfo& info() const override { return cpu_->info(); }
  core::DType activation_dtype(core::DType weights) const override { return cpu_->activation_dtype(weights); }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void copy_in(void* to, const void* from, std::size_t bytes) override { cpu_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, std::size_t bytes) override { cpu_->copy_out(to, from, bytes); }
  core::Tensor place(const core::Tensor& host) override { return cpu_->place(host); }
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart> parts,
                                                    device::PackOptions options) override {
    return cpu_->pack_linear(parts, options);
  }
  std::unique_ptr<device::Sampler> make_sampler(int vocab, int) override {
    ++samplers;
    return std::make_unique<device::HostSampler>(vocab, 2);
  }
  void run(const device::OpCall& call, const device::StepView* step) override { cpu_->run(call, step); }
  void synchronize() override { cpu_->synchronize(); }
  int samplers = 0;

 private:
  std::shared_ptr<device::Backend> cpu_ = device::open_device("cpu", {.threads = 1});
};

std::shared_ptr<const engine::Vocab> letters(int size) {
  std::vector<std::string> owned;
  for (int i = 0; i < size; ++i) owned.emplace_back(1, static_cast<char>('A' + i % 58));
  const std::vector<std::string_view> views(owned.begin(), owned.end());
  return std::make_shared<const engine::Vocab>(views, std::vector<char>(owned.size(), 0), false);
}

std::vector<std::vector<std::int32_t>> run_all(const std::shared_ptr<device::Backend>& backend) {
  const small::Options options;
  graph::ProgramOptions program;
  program.context_length = 64;
  auto model = std::make_shared<graph::Program>(small::llama(options), backend, program);
  engine::EngineConfig config;
  config.max_running = 5;
  config.block_tokens = 4;
  config.max_batch_tokens = 32;
  config.prefill_chunk = 8;
  config.kv_memory_bytes = engine::kv_bytes_per_token(*model) * 150;
  const auto engine = engine::Engine::make(model, letters(options.vocab), config);
  std::vector<std::shared_ptr<engine::Request>> requests;
  for (int i = 0; i < 16; ++i) {
    engine::RequestSpec spec;
    spec.prompt = small::random_ids(3 + i * 2, options.vocab, static_cast<unsigned>(i));
    spec.params.max_new_tokens = 4 + i;
    spec.params.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    spec.params.seed = static_cast<std::uint64_t>(i);
    if (i % 3 == 0) spec.params.top_p = 0.9f;
    if (i % 4 == 0) spec.params.repetition_penalty = 1.2f;
    if (i % 5 == 0) spec.params.prompt_logprobs = 0;
    spec.lookahead = -1;
    requests.push_back(engine->submit(std::move(spec)));
  }
  std::vector<std::vector<std::int32_t>> out;
  for (const auto& request : requests) {
    while (!engine->hub().finish(*request)) {
      std::vector<engine::TokenEvent> none;
      REQUIRE(engine->hub().wait(*request, 30));
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    std::vector<engine::TokenEvent> events;
    engine->hub().take(*request, 1000, events);
    auto& ids = out.emplace_back();
    for (const auto& event : events) ids.push_back(event.id);
    CHECK_EQ(static_cast<int>(ids.size()), request->spec.params.max_new_tokens);
  }
  return out;
}

}  // namespace

TEST("a program whose device samples gives the tokens of the one that is waited for") {
  const auto ahead = std::make_shared<SamplingBackend>();
  const auto expected = run_all(device::open_device("cpu", {.threads = 1}));
  const auto got = run_all(ahead);
  CHECK(ahead->samplers > 0);
  CHECK(expected == got);
}
