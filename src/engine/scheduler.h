#pragma once
// Who runs in the next step, and on which cache blocks. Pure data: no model, no thread, no clock, so that it can be
// tested alone.
//
// Continuous batching: each step holds one token of every running sequence whose prompt is done, then chunks of
// prompts, within max_batch_tokens. A prompt runs in chunks of at most prefill_chunk, so that long ones do not hold up
// the others.
//
// Order. Higher priority first, then earlier arrival. Aging: a waiting sequence gains one level of priority per
// `aging_steps` steps, so lower priorities are served late but not never; within a priority nothing is overtaken. Only
// the head of the queue is admitted; a smaller request behind it does not slip past, or a large one might starve.
//
// Admission. A sequence is admitted when the blocks for all its present tokens and one more are there, beyond what
// admitted ones still need for theirs. So prefill does not preempt; only growth does.
//
// Preemption. When growth finds no block: parked sequences lose theirs first, then the running sequence of the lowest
// priority, latest arrival, goes back to the queue. What it had is recomputed later (full blocks often survive in the
// prefix cache), with the same result.
//
// Parking. A sequence whose reader is `lookahead` tokens behind leaves the batch and its slot, and keeps its blocks
// while nobody needs them. A sequence with lookahead 0 does not start before its first token is wanted.
//
// Steps may be planned one ahead of what is known: the newest token of a sequence is then counted and has blocks, but is
// published to nobody. Such a sequence ran in the step before, so it is never one that has to compute its tokens again.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "kv/prefix_cache.h"

namespace fastllm::engine {

struct SchedulerConfig {
  int max_running = 64;
  int max_batch_tokens = 2048;
  int prefill_chunk = 512;
  int max_rows = 128;        // logits rows of a step; more than max_running, or all_rows requests make no progress
  int rope_threshold = 0;    // > 0: RoPE changes for sequences longer than this (length-dependent scaling)
  std::uint64_t aging_steps = 256;
};

struct Work {  // a sequence's share of a step
  Sequence* sequence = nullptr;
  int start = 0;      // first token (its position)
  int count = 0;
  int first_row = 0;  // positions from here to the end of the chunk need logits: start + count - first_row rows
  bool samples = false;  // the last row is that of the newest token: the next token comes from it
  int rows() const { return start + count - first_row; }
};

class Scheduler {
 public:
  // `cache` outlives the scheduler.
  Scheduler(const SchedulerConfig& config, kv::PrefixCache& cache);

  const SchedulerConfig& config() const { return config_; }
  int capacity_tokens() const { return cache_.total() * cache_.block_tokens(); }

  void add(Sequence* sequence);     // queued
  void remove(Sequence* sequence);  // done, from whatever state; blocks go back

  // The next step; empty when nobody can run. Valid until the next call. Decodes lie before prefill chunks.
  std::span<const Work> next();
  // The step of the last next() ran, or was launched: its keys are in the cache for every later step. Call before new
  // tokens are appended.
  void advance();
  // Tokens of the sequence that were unknown are known now.
  void settle(Sequence& sequence);

  // kv_len and rope_len as StepView wants them.
  static int rope_length(const Sequence& sequence, int kv_length) {
    return std::max(sequence.prompt_tokens, kv_length);
  }

  int running() const { return static_cast<int>(running_.size()); }
  int prefilling() const;
  int waiting() const { return static_cast<int>(waiting_.size()); }
  std::span<Sequence* const> queue() const { return waiting_; }  // the next to be admitted first
  int parked() const { return static_cast<int>(parked_.size()); }
  std::uint64_t preemptions() const { return preemptions_; }
  void check_invariants() const;  // Error(internal)

 private:
  int blocks_for(int tokens) const { return (tokens + cache_.block_tokens() - 1) / cache_.block_tokens(); }
  int needed_blocks(const Sequence& sequence) const;
  int chunk_limit(const Sequence& sequence) const;
  bool may_reuse(const Sequence& sequence) const;
  bool ensure_blocks(Sequence& sequence, int tokens);
  bool evict_parked(const Sequence* spared);
  void preempt(Sequence* sequence);
  void drop_blocks(Sequence& sequence);
  void enqueue(Sequence* sequence);
  void plan(Sequence& sequence, int count);
  void unplan(const Sequence* sequence);
  void publish(Sequence& sequence);
  void sort_out_parked();
  void schedule_running(bool decodes);
  void admit();
  Sequence* head() const;

  SchedulerConfig config_;
  kv::PrefixCache& cache_;
  std::vector<Sequence*> running_;  // by rank: priority, then arrival
  std::vector<Sequence*> waiting_;  // the same
  std::vector<Sequence*> parked_;   // by time of parking
  std::vector<Work> work_;
  int tokens_left_ = 0;
  int rows_left_ = 0;
  bool preempted_ = false;          // in this step
  std::uint64_t step_ = 0;
  std::uint64_t preemptions_ = 0;
};

}  // namespace fastllm::engine
