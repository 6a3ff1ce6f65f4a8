#include "kv/blocks.h"

#include "core/error.h"

namespace fastllm::kv {

namespace {
std::size_t at(int block) {
  return static_cast<std::size_t>(block);
}
}  // namespace

BlockPool::BlockPool(int blocks) {
  if (blocks < 1) {
    core::fail(core::ErrorCode::invalid_config, core::cat("[kv] a pool needs at least 1 block, not ", blocks, "."),
               "Give the KV cache more memory.");
  }
  references_.assign(at(blocks), 0);
  on_free_list_.assign(at(blocks), 1);
  free_.reserve(at(blocks));
  for (int block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

int BlockPool::take() {
  if (free_.empty()) return -1;
  const int block = free_.back();
  free_.pop_back();
  on_free_list_[at(block)] = 0;
  references_[at(block)] = 1;
  return block;
}

void BlockPool::retain(int block) {
  if (is_free(block))
    core::fail(core::ErrorCode::internal, core::cat("[kv] block ", block, " is free and was retained."));
  ++references_[at(block)];
}

int BlockPool::release(int block) {
  if (references_[at(block)] <= 0) {
    core::fail(core::ErrorCode::internal, core::cat("[kv] block ", block, " was released more often than retained."));
  }
  return --references_[at(block)];
}

void BlockPool::give_back(int block) {
  if (references_[at(block)] != 0 || is_free(block)) {
    core::fail(core::ErrorCode::internal, core::cat("[kv] block ", block, " with ", references_[at(block)],
                                                    " references cannot go to the free list."));
  }
  on_free_list_[at(block)] = 1;
  free_.push_back(block);
}

void BlockPool::check_invariants() const {
  std::vector<char> seen(references_.size(), 0);
  for (const int block : free_) {
    if (block < 0 || block >= total() || seen[at(block)] != 0) {
      core::fail(core::ErrorCode::internal, core::cat("[kv] block ", block, " is twice on the free list."));
    }
    seen[at(block)] = 1;
  }
  for (int block = 0; block < total(); ++block) {
    if ((seen[at(block)] != 0) != is_free(block) || (is_free(block) && references_[at(block)] != 0) ||
        references_[at(block)] < 0) {
      core::fail(core::ErrorCode::internal, core::cat("[kv] block ", block, " has ", references_[at(block)],
                                                      " references and is ", is_free(block) ? "" : "not ", "free."));
    }
  }
}

}  // namespace fastllm::kv
