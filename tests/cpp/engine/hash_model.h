// A StepModel for tests that notices every scheduling mistake. Each token leaves a 64-bit mark in the paged cache, made
// of its id, its position and the RoPE length it was run at; the logits of a row are pseudo-random numbers made of all
// marks of the sequence, read through the block table. A block that is lost, shared wrongly, stale or run at another
// length changes every later token.
//
// With `asynchronous` it works like a device: a thread of its own runs queued steps in order, on copies of their arrays,
// and keeps the ids it draws to itself until they are collected.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "device/host_sampler.h"
#include "engine/step_model.h"
#include "sampling/chain.h"

namespace fastllm::test {

inline std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

class HostBackend : public device::Backend {
 public:
  HostBackend() { info_.name = "test"; }
  const device::DeviceInfo& info() const override { return info_; }
  core::DType activation_dtype(core::DType) const override { return core::DType::f32; }
  std::shared_ptr<core::Storage> allocate(std::size_t bytes) override {
    auto* data = new unsigned char[bytes];
    std::memset(data, 0xEE, bytes);  // poison: reading what was not written gives wrong tokens
    return std::make_shared<core::Storage>(data, bytes, core::Place{}, [data] { delete[] data; });
  }
  void copy_in(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy_out(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  core::Tensor place(const core::Tensor& host) override { return host; }
  std::unique_ptr<device::PackedLinear> pack_linear(std::span<const device::LinearPart>, device::PackOptions) override {
    return nullptr;
  }
  void run(const device::OpCall&, const device::StepView*) override {}
  void synchronize() override {}

 private:
  device::DeviceInfo info_;
};

struct HashModelOptions {
  int vocab = 37;
  int context = 256;
  int rope_max = 0;  // > 0: length-dependent RoPE beyond this
  int step_us = 0;
  bool asynchronous = false;
};

class HashModel : public engine::StepModel {
 public:
  explicit HashModel(const HashModelOptions& options = {}) : options_(options), sampler_(options.vocab, 3) {
    if (options.asynchronous) device_ = std::thread([this] { serve(); });
  }
  ~HashModel() override {
    if (!device_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    device_.join();
  }

  int vocab_size() const override { return options_.vocab; }
  int context_length() const override { return options_.context; }
  bool length_dependent_rope() const override { return options_.rope_max > 0; }
  int rope_original_max() const override { return options_.rope_max; }
  std::span<const engine::KvSpec> kv_layers() const override { return layers_; }
  const std::shared_ptr<device::Backend>& backend() const override { return backend_; }
  std::size_t weight_bytes() const override { return 0; }
  void reserve(const engine::StepLimits& limits) override {
    limits_ = limits;
    logits_.resize(static_cast<std::size_t>(limits.max_rows) * static_cast<std::size_t>(options_.vocab));
  }

  static std::uint64_t mark(std::int32_t token, int position, int rope_len, int rope_max) {
    const int length = rope_max > 0 && rope_len > rope_max ? rope_len : 0;
    return mix(mix(static_cast<std::uint64_t>(token) * 1000003 + static_cast<std::uint64_t>(position)) +
               static_cast<std::uint64_t>(length));
  }
  static float logit(std::uint64_t state, int token) {
    return static_cast<float>(mix(state + static_cast<std::uint64_t>(token)) >> 40) * 0x1.0p-24f * 8.0f;
  }

  std::span<float> run(const device::StepView& step) override {
    ++steps;
    if (step.tokens < 1 || step.tokens > limits_.max_tokens || step.rows > limits_.max_rows ||
        step.sequences > limits_.max_sequences) {
      core::fail(core::ErrorCode::internal, core::cat("[hash_model] ", step.tokens, " tokens, ", step.rows, " rows, ",
                                                      step.sequences, " sequences: beyond the limits."));
    }
    if (before_step) before_step();
    if (options_.step_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(options_.step_us));
    auto* cells = static_cast<std::uint64_t*>(step.kv[0].k);
    for (int t = 0; t < step.tokens; ++t) {
      cells[step.slots[t]] =
          mark(step.token_ids[t], step.positions[t], step.rope_len[step.sequence_of[t]], options_.rope_max);
    }
    for (int r = 0; r < step.rows; ++r) {
      const int t = step.selected_rows[r];
      const int s = step.sequence_of[t];
      if (t < step.query_start[s] || t >= step.query_start[s + 1] || step.positions[t] >= step.kv_len[s]) {
        core::fail(core::ErrorCode::internal, "[hash_model] a row lies outside its sequence.");
      }
      std::uint64_t state = 0;
      for (int p = 0; p <= step.positions[t]; ++p) {
        const int block = step.block_table[s * step.max_blocks + p / step.block_tokens];
        state = mix(state ^ cells[std::int64_t{block} * step.block_tokens + p % step.block_tokens]);
      }
      float* row = logits_.data() + static_cast<std::size_t>(r) * static_cast<std::size_t>(options_.vocab);
      for (int v = 0; v < options_.vocab; ++v) row[v] = logit(state, v);
      if (poison_token >= 0 && step.token_ids[t] == poison_token) row[0] = std::numeric_limits<float>::quiet_NaN();
    }
    return {logits_.data(), static_cast<std::size_t>(step.rows) * static_cast<std::size_t>(options_.vocab)};
  }

  bool asynchronous() const override { return options_.asynchronous; }

  void launch(const device::StepView& step) override {
    Queued queued;
    queued.step = step;
    const auto keep = [](auto& to, auto*& from, std::size_t count) {
      to.assign(from, from + count);
      from = to.data();
    };
    const auto tokens = static_cast<std::size_t>(step.tokens);
    const auto sequences = static_cast<std::size_t>(step.sequences);
    const std::lock_guard lock(mutex_);
    if (launched_ - collected_ > 1 || launched_ != sampled_) {
      core::fail(core::ErrorCode::internal, core::cat("[hash_model] step ", launched_, " was launched after ", sampled_,
                                                      " samplings and ", collected_, " readings."));
    }
    ++launched_;
    Queued& kept = queue_.emplace_back(std::move(queued));
    keep(kept.ids, kept.step.token_ids, tokens);
    keep(kept.positions, kept.step.positions, tokens);
    keep(kept.sequence_of, kept.step.sequence_of, tokens);
    keep(kept.slots, kept.step.slots, tokens);
    keep(kept.query_start, kept.step.query_start, sequences + 1);
    keep(kept.kv_len, kept.step.kv_len, sequences);
    keep(kept.rope_len, kept.step.rope_len, sequences);
    keep(kept.table, kept.step.block_table, sequences * static_cast<std::size_t>(step.max_blocks));
    keep(kept.rows, kept.step.selected_rows, static_cast<std::size_t>(step.rows));
    changed_.notify_all();
  }

  void sample(const device::SampleCall& call) override {
    const std::lock_guard lock(mutex_);
    ++sampled_;
    Queued& queued = queue_.emplace_back();
    queued.samples = true;
    queued.sample_rows.assign(call.rows.begin(), call.rows.end());
    queued.edits.assign(call.edits.begin(), call.edits.end());
    changed_.notify_all();
  }

  void collect(std::vector<device::SampledRow>& out) override {
    std::unique_lock lock(mutex_);
    if (collected_ == sampled_) core::fail(core::ErrorCode::internal, "[hash_model] nothing to collect.");
    changed_.wait(lock, [this] { return done_ > collected_ || failure_; });
    if (failure_) std::rethrow_exception(failure_);
    ++collected_;
    sampler_.collect(out);
  }

  // The logits behind `tokens`, computed without an engine.
  static std::vector<float> reference_logits(const HashModelOptions& options, const std::vector<std::int32_t>& tokens,
                                             std::size_t prompt_tokens) {
    std::uint64_t state = 0;
    for (std::size_t p = 0; p < tokens.size(); ++p) {
      const auto rope_len = static_cast<int>(std::max(prompt_tokens, p + 1));
      state = mix(state ^ mark(tokens[p], static_cast<int>(p), rope_len, options.rope_max));
    }
    std::vector<float> row;
    for (int v = 0; v < options.vocab; ++v) row.push_back(logit(state, v));
    return row;
  }

  // What a request must give, whatever else runs: prompt and output.
  static std::vector<std::int32_t> reference(const HashModelOptions& options, std::vector<std::int32_t> tokens,
                                             const sampling::SamplingParams& params, int count) {
    sampling::Chain chain(options.vocab);
    const std::size_t prompt = tokens.size();
    for (int i = 0; i < count && static_cast<int>(tokens.size()) < options.context; ++i) {
      sampling::Sampled sampled;
      chain.sample(reference_logits(options, tokens, prompt), {tokens, prompt}, params, sampled);
      tokens.push_back(sampled.id);
    }
    return tokens;
  }

  std::atomic<int> steps{0};
  std::function<void()> before_step;  // set before the engine starts
  std::int32_t poison_token = -1;  // the row after this token holds NaN

 private:
  struct Queued {  // a step, or the sampling of the one before
    bool samples = false;
    device::StepView step;
    std::vector<std::int32_t> ids, positions, sequence_of, query_start, kv_len, rope_len, table, rows;
    std::vector<std::int64_t> slots;
    std::vector<device::SampleRow> sample_rows;
    std::vector<device::SampleEdit> edits;
  };

  void serve() {
    std::span<float> logits;
    while (true) {
      Queued* work = nullptr;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
        if (queue_.empty()) return;
        if (failure_) {  // a lost device does nothing more
          queue_.clear();
          continue;
        }
        work = &queue_.front();
      }
      try {
        if (!work->samples) {
          {
            const std::lock_guard lock(mutex_);
            sampler_.fill_ids(work->ids.data(), work->step.tokens);
          }
          logits = run(work->step);
        } else {
          const std::lock_guard lock(mutex_);
          if (static_cast<int>(work->sample_rows.size()) * options_.vocab != static_cast<int>(logits.size())) {
            core::fail(core::ErrorCode::internal,
                       core::cat("[hash_model] ", work->sample_rows.size(), " rows for ", logits.size(), " logits."));
          }
          sampler_.sample(logits.data(), {work->sample_rows, work->edits});
          ++done_;
        }
      } catch (...) {
        const std::lock_guard lock(mutex_);
        failure_ = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        queue_.pop_front();
      }
      changed_.notify_all();
    }
  }

  HashModelOptions options_;
  engine::StepLimits limits_;
  std::shared_ptr<device::Backend> backend_ = std::make_shared<HostBackend>();
  std::vector<engine::KvSpec> layers_ = {{1, 2, 2, 0, core::DType::f32}};  // 8 bytes of keys a token: one mark
  std::vector<float> logits_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Queued> queue_;
  device::HostSampler sampler_;
  std::exception_ptr failure_;
  std::uint64_t launched_ = 0, sampled_ = 0, done_ = 0, collected_ = 0;
  bool closing_ = false;
  std::thread device_;
};

}  // namespace fastllm::test
