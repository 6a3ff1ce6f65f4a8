#pragma once
// Prefix reuse. A full block of keys and values is determined by all tokens up to its end, so a later sequence that
// begins with the same tokens can share it. Blocks form a tree: an entry is (parent entry, its tokens), found by one
// hash and then compared token by token, so a hash collision costs a miss and never a wrong answer. The root carries
// the adapter: weights differ, so do keys.
//
// A block nobody holds stays cached ("idle") until the memory is needed; the least recently used goes first. Sequences
// give their blocks back from the end, so children are older than their parents and chains are shortened from the tail.

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/blocks.h"

namespace fastllm::kv {

class PrefixCache {
 public:
  PrefixCache(int blocks, int block_tokens, bool enabled = true);

  int block_tokens() const { return block_tokens_; }
  bool enabled() const { return enabled_; }
  int total() const { return pool_.total(); }
  int idle() const { return idle_; }                              // cached, held by nobody
  int available() const { return pool_.free_count() + idle_; }    // what acquire() can give
  int held() const { return total() - available(); }
  int references(int block) const { return pool_.references(block); }

  struct Match {
    int blocks = 0;  // full blocks that are cached
    int idle = 0;    // of those, held by nobody: reusing them makes available() smaller
  };
  // The longest cached chain that covers at most `max_tokens` of `tokens`; changes nothing.
  Match probe(std::span<const std::int32_t> tokens, int max_tokens, std::uint64_t adapter) const;

  // The same, taken: appends the blocks to `blocks` with a reference each; `parent` becomes the entry of the last one.
  int reuse(std::span<const std::int32_t> tokens, int max_tokens, std::uint64_t adapter, std::vector<int>& blocks,
            std::uint64_t& parent);

  static std::uint64_t root(std::uint64_t adapter) {
    return adapter << 1 | 1;
  }  // entries are even, roots odd: never the same

  // Publishes a full block whose keys are computed. Returns the entry to use as the next block's parent: this block's,
  // or that of an equal block that was there first (then `block` stays private to its holder).
  std::uint64_t publish(std::uint64_t parent, std::span<const std::int32_t> tokens, int block);

  int acquire();  // an exclusive block; evicts the least recently used idle one; -1 if all are held
  void release(std::span<const int> blocks);  // one reference of each, from the end
  void check_invariants() const;  // Error(internal); O(blocks)

 private:
  struct Entry {
    std::uint64_t serial = 0;  // 0: not cached
    std::uint64_t parent = 0;
    std::uint64_t hash = 0;
    int newer = -1, older = -1;  // in the idle list
    bool is_idle = false;
  };
  std::uint64_t hash_of(std::uint64_t parent, std::span<const std::int32_t> tokens) const;
  int find(std::uint64_t parent, std::span<const std::int32_t> tokens) const;  // block or -1
  std::span<const std::int32_t> tokens_of(int block) const;
  void make_idle(int block);
  void leave_idle(int block);

  BlockPool pool_;
  int block_tokens_;
  bool enabled_;
  int idle_ = 0;
  int newest_ = -1, oldest_ = -1;
  std::uint64_t next_serial_ = 2;
  std::vector<Entry> entries_;  // by block
  std::vector<std::int32_t> tokens_;  // [blocks, block_tokens] of cached blocks
  std::unordered_map<std::uint64_t, int> by_hash_;
};

}  // namespace fastllm::kv
