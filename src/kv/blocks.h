#pragma once
// The pool of KV-cache blocks: who holds which block, nothing about what is in it. A block is an index into the paged
// cache of every layer (device/step.h) and holds `block_tokens` tokens. Reference counted, because sequences with the
// same prefix share blocks.

#include <cstddef>
#include <vector>

namespace fastllm::kv {

class BlockPool {
 public:
  explicit BlockPool(int blocks);

  int total() const { return static_cast<int>(references_.size()); }
  int free_count() const { return static_cast<int>(free_.size()); }
  int references(int block) const { return references_[static_cast<std::size_t>(block)]; }

  int take();                // a free block with one reference, or -1
  void retain(int block);    // one reference more; from 0 as well (a cached block that is used again)
  int release(int block);    // one reference less; what is left. A block at 0 is not free before give_back()
  void give_back(int block); // to the free list; it must have no references

  bool is_free(int block) const { return on_free_list_[static_cast<std::size_t>(block)] != 0; }

  // Error(internal) if a block is lost, doubled, or free and held at once. For tests and for stats in debug runs:
  // O(blocks).
  void check_invariants() const;

 private:
  std::vector<int> references_;
  std::vector<int> free_;          // used as a stack: the block freed last is still warm in the processor's caches
  std::vector<char> on_free_list_;
};

}  // namespace fastllm::kv
