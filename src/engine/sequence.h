#pragma once
// One sequence as the scheduler sees it: plain data, owned by the step thread. The text side of a request is in
// request.h.

#include <cstdint>
#include <limits>
#include <vector>

namespace fastllm::engine {

class RequestProbe;

enum class SequenceState : std::uint8_t { queued, prefill, running, parked, done };
const char* state_name(SequenceState state);

struct Sequence {
  // Given at submit.
  std::uint64_t id = 0;
  std::uint64_t arrival = 0;  // order of submission
  int priority = 0;           // higher goes first
  std::uint64_t adapter = 0;  // the weights that make its keys: prefixes are shared within one adapter
  int prompt_tokens = 0;
  bool all_rows = false;  // logits of every prompt position are wanted (prompt_logprobs, keep_logits): no prefix reuse

  bool every_position = false;  // all of them are looked at: no prefix reuse
  RequestProbe* probe = nullptr;  // what of it is looked at or changed in each step

  std::vector<std::int32_t> tokens;  // prompt, then output; the engine appends
  // Of those, how many at the end are drawn but not known yet: in steps that were launched and not collected. Their
  // entries are negative. Everything that counts tokens counts them.
  int unknown = 0;
  int row = 0;  // where the step launched last draws the newest of them

  // With so many tokens it ends, whatever they are.
  int most_tokens = std::numeric_limits<int>::max();

  // How many output tokens its reader allows by now (want + lookahead). At the mark it is parked.
  std::int64_t allowed = std::numeric_limits<std::int64_t>::max();

  // The scheduler's.
  SequenceState state = SequenceState::queued;
  int computed = 0;  // tokens whose keys are in the cache
  int rows_done = 0;  // all_rows: prompt positions whose logits were delivered
  std::vector<int> blocks;  // of the cache, in order
  int published = 0;  // of those, how many the prefix cache knows (or knows an equal of)
  std::uint64_t parent = 0;  // prefix-cache entry of the last published block
  int cached_tokens = 0;  // prompt tokens found in the prefix cache when it was first admitted
  int preemptions = 0;
  bool admitted_before = false;
  std::uint64_t waiting_since = 0;  // scheduler step at which it began to wait

  int size() const { return static_cast<int>(tokens.size()); }
  int generated() const { return size() - prompt_tokens; }
  int remaining() const { return size() - computed; }  // tokens to run before the next can be sampled
  int known() const { return size() - unknown; }
  bool runnable() const { return generated() < allowed; }
  bool complete() const { return unknown > 0 && size() >= most_tokens; }  // it only waits to be told its last token
};

}  // namespace fastllm::engine
