#include "engine/scheduler.h"

#include <algorithm>

#include "core/error.h"

namespace fastllm::engine {

namespace {

bool goes_before(const Sequence* a, const Sequence* b) {
  return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

void insert_by_rank(std::vector<Sequence*>& list, Sequence* sequence) {
  list.insert(std::ranges::upper_bound(list, sequence, goes_before), sequence);
}

void erase_from(std::vector<Sequence*>& list, const Sequence* sequence) {
  const auto found = std::ranges::find(list, sequence);
  if (found != list.end()) list.erase(found);
}

}  // namespace

const char* state_name(SequenceState state) {
  switch (state) {
    case SequenceState::queued:
      return "queued";
    case SequenceState::prefill:
      return "prefill";
    case SequenceState::running:
      return "running";
    case SequenceState::parked:
      return "parked";
    case SequenceState::done:
      return "done";
  }
  return "done";
}

Scheduler::Scheduler(const SchedulerConfig& config, kv::PrefixCache& cache) : config_(config), cache_(cache) {
  if (config.max_running < 1 || config.prefill_chunk < 1 || config.max_batch_tokens < config.max_running ||
      config.max_rows <= config.max_running) {
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[scheduler] max_running ", config.max_running, ", max_batch_tokens ", config.max_batch_tokens,
                         ", prefill_chunk ", config.prefill_chunk, ", max_rows ", config.max_rows,
                         " do not fit together: at least 1, max_running, 1, max_running + 1."));
  }
  running_.reserve(static_cast<std::size_t>(config.max_running));
  work_.reserve(static_cast<std::size_t>(config.max_running));
}

void Scheduler::enqueue(Sequence* sequence) {
  sequence->state = SequenceState::queued;
  sequence->waiting_since = step_;
  insert_by_rank(waiting_, sequence);
}

void Scheduler::add(Sequence* sequence) {
  enqueue(sequence);
}

void Scheduler::remove(Sequence* sequence) {
  switch (sequence->state) {
    case SequenceState::queued:
      erase_from(waiting_, sequence);
      break;
    case SequenceState::parked:
      erase_from(parked_, sequence);
      break;
    case SequenceState::prefill:
    case SequenceState::running:
      erase_from(running_, sequence);
      break;
    case SequenceState::done:
      return;
  }
  unplan(sequence);
  sequence->state = SequenceState::done;
  drop_blocks(*sequence);
}

void Scheduler::drop_blocks(Sequence& sequence) {
  cache_.release(sequence.blocks);
  sequence.blocks.clear();
  sequence.computed = 0;
  sequence.published = 0;
  sequence.parent = 0;
}

// Blocks for all its tokens and the next, but never more than there are: a sequence may fill the whole pool.
int Scheduler::needed_blocks(const Sequence& sequence) const {
  return std::min(blocks_for(sequence.size() + 1), cache_.total());
}

bool Scheduler::may_reuse(const Sequence& sequence) const {
  return !sequence.all_rows && !sequence.every_position &&
         (config_.rope_threshold == 0 || sequence.prompt_tokens <= config_.rope_threshold);
}

// With length-dependent RoPE a token must be run at the length at which it was, or would have been, run the first time.
int Scheduler::chunk_limit(const Sequence& sequence) const {
  if (config_.rope_threshold == 0) return config_.prefill_chunk;
  const int same = std::max(sequence.prompt_tokens, config_.rope_threshold);
  return sequence.computed < same ? std::min(config_.prefill_chunk, same - sequence.computed) : 1;
}

// Takes the blocks of the lowest-ranked parked sequence; when none has any, of one that was resumed and waits for a
// slot. `spared` keeps its own.
bool Scheduler::evict_parked(const Sequence* spared) {
  Sequence* victim = nullptr;
  for (const std::vector<Sequence*>* list : {&parked_, &waiting_}) {
    for (Sequence* sequence : *list) {
      if (sequence->blocks.empty() || sequence == spared) continue;
      if (victim == nullptr || goes_before(victim, sequence)) victim = sequence;
    }
    if (victim != nullptr) break;
  }
  if (victim == nullptr) return false;
  drop_blocks(*victim);
  ++victim->preemptions;
  ++preemptions_;
  return true;
}

void Scheduler::preempt(Sequence* sequence) {
  unplan(sequence);
  erase_from(running_, sequence);
  drop_blocks(*sequence);
  ++sequence->preemptions;
  ++preemptions_;
  preempted_ = true;
  enqueue(sequence);
}

// Blocks for the first `tokens` tokens; takes them from lower-ranked sequences if need be. False if it was itself the
// lowest.
bool Scheduler::ensure_blocks(Sequence& sequence, int tokens) {
  while (static_cast<int>(sequence.blocks.size()) < blocks_for(tokens)) {
    const int block = cache_.acquire();
    if (block >= 0) {
      sequence.blocks.push_back(block);
      continue;
    }
    if (evict_parked(&sequence)) continue;
    Sequence* lowest = running_.back();
    preempt(lowest);
    if (lowest == &sequence) return false;
  }
  return true;
}

void Scheduler::plan(Sequence& sequence, int count) {
  Work work;
  work.sequence = &sequence;
  work.start = sequence.computed;
  work.count = count;
  work.samples = count == sequence.remaining();
  const int end = work.start + count;
  work.first_row = work.samples ? end - 1 : end;
  if (sequence.all_rows && sequence.rows_done < std::min(end, sequence.prompt_tokens)) {
    work.first_row = std::min(work.first_row, std::max(work.start, sequence.rows_done));
  }
  tokens_left_ -= count;
  rows_left_ -= work.rows();
  work_.push_back(work);
}

void Scheduler::unplan(const Sequence* sequence) {
  const auto found = std::ranges::find(work_, sequence, &Work::sequence);
  if (found == work_.end()) return;
  tokens_left_ += found->count;
  rows_left_ += found->rows();
  work_.erase(found);
}

void Scheduler::sort_out_parked() {
  for (std::size_t i = 0; i < running_.size();) {
    Sequence* sequence = running_[i];
    if (sequence->runnable() || sequence->complete()) {
      ++i;
      continue;
    }
    sequence->state = SequenceState::parked;
    parked_.push_back(sequence);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  for (std::size_t i = 0; i < parked_.size();) {
    Sequence* sequence = parked_[i];
    if (!sequence->runnable()) {
      ++i;
      continue;
    }
    parked_.erase(parked_.begin() + static_cast<std::ptrdiff_t>(i));
    enqueue(sequence);
  }
}

void Scheduler::schedule_running(bool decodes) {
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if ((sequence->remaining() == 1) != decodes || sequence->complete()) continue;
    int count = std::min({sequence->remaining(), chunk_limit(*sequence), tokens_left_});
    if (sequence->all_rows) count = std::min(count, rows_left_);
    if (count < 1 || rows_left_ < 1) continue;
    if (!ensure_blocks(*sequence, sequence->computed + count)) return;  // it was the lowest: nobody comes after it
    plan(*sequence, count);
    sequence->state = decodes ? SequenceState::running : SequenceState::prefill;
  }
}

Sequence* Scheduler::head() const {
  Sequence* best = nullptr;
  std::int64_t best_level = 0;
  for (Sequence* sequence : waiting_) {  // by rank: among equal levels the first stands
    if (!sequence->runnable()) continue;
    const std::int64_t level =
        sequence->priority + static_cast<std::int64_t>((step_ - sequence->waiting_since) / config_.aging_steps);
    if (best == nullptr || level > best_level || (level == best_level && sequence->arrival < best->arrival)) {
      best = sequence;
      best_level = level;
    }
  }
  return best;
}

void Scheduler::admit() {
  int promised = 0;  // blocks that running sequences still need for the tokens they have
  for (const Sequence* sequence : running_) {
    promised += std::max(0, needed_blocks(*sequence) - static_cast<int>(sequence->blocks.size()));
  }
  while (running() < config_.max_running && tokens_left_ > 0 && rows_left_ > 0) {
    Sequence* sequence = head();
    if (sequence == nullptr) return;
    const int needed = needed_blocks(*sequence);
    const int usable =
        may_reuse(*sequence) ? sequence->size() - 1 : 0;  // the last token is always run: its logits are wanted
    while (true) {
      kv::PrefixCache::Match match;
      if (sequence->blocks.empty()) match = cache_.probe(sequence->tokens, usable, sequence->adapter);
      const int owned = sequence->blocks.empty() ? match.blocks : static_cast<int>(sequence->blocks.size());
      if (cache_.available() - match.idle - promised >= needed - owned) break;
      if (!evict_parked(sequence)) return;
    }
    if (sequence->blocks.empty()) {
      const int reused = cache_.reuse(sequence->tokens, usable, sequence->adapter, sequence->blocks, sequence->parent);
      sequence->published = reused;
      sequence->computed = reused * cache_.block_tokens();
      if (!sequence->admitted_before) sequence->cached_tokens = sequence->computed;
    }
    sequence->admitted_before = true;
    erase_from(waiting_, sequence);
    insert_by_rank(running_, sequence);
    int count = std::min({sequence->remaining(), chunk_limit(*sequence), tokens_left_});
    if (sequence->all_rows) count = std::min(count, rows_left_);
    sequence->state =
        sequence->remaining() == 1 && sequence->generated() > 0 ? SequenceState::running : SequenceState::prefill;
    if (!ensure_blocks(*sequence, sequence->computed + count)) return;
    plan(*sequence, count);
    promised += std::max(0, needed - static_cast<int>(sequence->blocks.size()));
  }
}

std::span<const Work> Scheduler::next() {
  ++step_;
  work_.clear();
  tokens_left_ = config_.max_batch_tokens;
  rows_left_ = config_.max_rows;
  preempted_ = false;
  sort_out_parked();
  schedule_running(/*decodes=*/true);
  schedule_running(/*decodes=*/false);
  if (!preempted_) admit();
  // A chunk that was admitted behind other chunks may be a single token (a resumed sequence): decodes go first in a
  // step.
  std::ranges::stable_partition(work_, [](const Work& work) { return work.count == 1; });
  return work_;
}

void Scheduler::advance() {
  for (const Work& work : work_) {
    Sequence& sequence = *work.sequence;
    const int before = sequence.computed;
    sequence.computed = work.start + work.count;
    if (sequence.all_rows)
      sequence.rows_done = std::max(sequence.rows_done, std::min(sequence.computed, sequence.prompt_tokens));
    if (sequence.state == SequenceState::prefill && sequence.remaining() == 0) sequence.state = SequenceState::running;
    if (before != sequence.computed) publish(sequence);
  }
  work_.clear();
}

void Scheduler::settle(Sequence& sequence) {
  if (sequence.state != SequenceState::done && !sequence.blocks.empty()) publish(sequence);
}

// Full blocks whose keys are in the cache, or will be before any later step runs, and whose tokens are known.
void Scheduler::publish(Sequence& sequence) {
  if (!cache_.enabled()) return;
  if (sequence.published == 0) sequence.parent = kv::PrefixCache::root(sequence.adapter);
  const int bt = cache_.block_tokens();
  while ((sequence.published + 1) * bt <= std::min(sequence.computed, sequence.known())) {
    const int end = (sequence.published + 1) * bt;
    if (config_.rope_threshold > 0 && rope_length(sequence, end) > config_.rope_threshold) break;
    sequence.parent = cache_.publish(sequence.parent,
                                     std::span<const std::int32_t>(sequence.tokens)
                                         .subspan(static_cast<std::size_t>(end - bt), static_cast<std::size_t>(bt)),
                                     sequence.blocks[static_cast<std::size_t>(sequence.published)]);
    ++sequence.published;
  }
}

int Scheduler::prefilling() const {
  return static_cast<int>(std::ranges::count(running_, SequenceState::prefill, &Sequence::state));
}

void Scheduler::check_invariants() const {
  cache_.check_invariants();
  std::vector<int> references(static_cast<std::size_t>(cache_.total()), 0);
  const auto count = [&](const std::vector<Sequence*>& list, auto&& state_fits) {
    for (const Sequence* sequence : list) {
      if (!state_fits(sequence->state)) {
        core::fail(core::ErrorCode::internal,
                   core::cat("[scheduler] sequence ", sequence->id, " is in the wrong list for state ",
                             state_name(sequence->state), "."));
      }
      if (sequence->computed > static_cast<int>(sequence->blocks.size()) * cache_.block_tokens()) {
        core::fail(core::ErrorCode::internal,
                   core::cat("[scheduler] sequence ", sequence->id, " has ", sequence->computed, " tokens in ",
                             sequence->blocks.size(), " blocks."));
      }
      for (const int block : sequence->blocks) ++references[static_cast<std::size_t>(block)];
    }
  };
  count(running_, [](SequenceState s) { return s == SequenceState::prefill || s == SequenceState::running; });
  count(waiting_, [](SequenceState s) { return s == SequenceState::queued; });
  count(parked_, [](SequenceState s) { return s == SequenceState::parked; });
  for (int block = 0; block < cache_.total(); ++block) {
    if (references[static_cast<std::size_t>(block)] != cache_.references(block)) {
      core::fail(core::ErrorCode::internal,
                 core::cat("[scheduler] block ", block, " has ", cache_.references(block),
                           " references, its sequences hold ", references[static_cast<std::size_t>(block)], "."));
    }
  }
  if (running() > config_.max_running) {
    core::fail(core::ErrorCode::internal,
               core::cat("[scheduler] ", running(), " run, at most ", config_.max_running, " may."));
  }
}

}  // namespace fastllm::engine
