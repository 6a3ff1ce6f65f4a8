#include "kv/prefix_cache.h"

#include <algorithm>

#include "core/error.h"

namespace fastllm::kv {

namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

// splitmix64's finaliser (Steele et al. 2014): every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

PrefixCache::PrefixCache(int blocks, int block_tokens, bool enabled)
    : pool_(blocks), block_tokens_(block_tokens), enabled_(enabled) {
  if (block_tokens < 1) {
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[kv] block_tokens must be at least 1, not ", block_tokens, "."));
  }
  entries_.resize(at(blocks));
  if (enabled) {
    tokens_.resize(at(blocks) * at(block_tokens));
    by_hash_.reserve(at(blocks));
  }
}

std::uint64_t PrefixCache::hash_of(std::uint64_t parent, std::span<const std::int32_t> tokens) const {
  std::uint64_t hash = mix(parent);
  for (const std::int32_t token : tokens) hash = mix(hash ^ static_cast<std::uint32_t>(token));
  return hash;
}

std::span<const std::int32_t> PrefixCache::tokens_of(int block) const {
  return {tokens_.data() + at(block) * at(block_tokens_), at(block_tokens_)};
}

int PrefixCache::find(std::uint64_t parent, std::span<const std::int32_t> tokens) const {
  const auto found = by_hash_.find(hash_of(parent, tokens));
  if (found == by_hash_.end()) return -1;
  const int block = found->second;
  if (entries_[at(block)].parent != parent || !std::ranges::equal(tokens_of(block), tokens)) return -1;
  return block;
}

PrefixCache::Match PrefixCache::probe(std::span<const std::int32_t> tokens, int max_tokens,
                                      std::uint64_t adapter) const {
  Match match;
  if (!enabled_) return match;
  std::uint64_t parent = root(adapter);
  for (int end = block_tokens_; end <= max_tokens; end += block_tokens_) {
    const int block = find(parent, tokens.subspan(at(end - block_tokens_), at(block_tokens_)));
    if (block < 0) break;
    parent = entries_[at(block)].serial;
    ++match.blocks;
    match.idle += entries_[at(block)].is_idle ? 1 : 0;
  }
  return match;
}

int PrefixCache::reuse(std::span<const std::int32_t> tokens, int max_tokens, std::uint64_t adapter,
                       std::vector<int>& blocks, std::uint64_t& parent) {
  parent = root(adapter);
  int taken = 0;
  if (!enabled_) return taken;
  for (int end = block_tokens_; end <= max_tokens; end += block_tokens_) {
    const int block = find(parent, tokens.subspan(at(end - block_tokens_), at(block_tokens_)));
    if (block < 0) break;
    if (entries_[at(block)].is_idle) leave_idle(block);
    pool_.retain(block);
    blocks.push_back(block);
    parent = entries_[at(block)].serial;
    ++taken;
  }
  return taken;
}

std::uint64_t PrefixCache::publish(std::uint64_t parent, std::span<const std::int32_t> tokens, int block) {
  if (!enabled_) return parent;
  const std::uint64_t hash = hash_of(parent, tokens);
  const auto [place, added] = by_hash_.try_emplace(hash, block);
  if (!added) {
    const int other = place->second;
    const bool equal = entries_[at(other)].parent == parent && std::ranges::equal(tokens_of(other), tokens);
    // A colliding block: this chain ends here, since nothing published under a fresh serial will ever be looked up.
    return equal ? entries_[at(other)].serial : (next_serial_ += 2);
  }
  Entry& entry = entries_[at(block)];
  entry.serial = next_serial_ += 2;
  entry.parent = parent;
  entry.hash = hash;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(at(block) * at(block_tokens_)));
  return entry.serial;
}

int PrefixCache::acquire() {
  if (pool_.free_count() == 0 && oldest_ >= 0) {
    const int block = oldest_;
    leave_idle(block);
    Entry& entry = entries_[at(block)];
    by_hash_.erase(entry.hash);
    entry = Entry{};
    pool_.give_back(block);
  }
  return pool_.take();
}

void PrefixCache::release(std::span<const int> blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    if (pool_.release(*block) > 0) continue;
    if (entries_[at(*block)].serial != 0) {
      make_idle(*block);
    } else {
      pool_.give_back(*block);
    }
  }
}

void PrefixCache::make_idle(int block) {
  Entry& entry = entries_[at(block)];
  entry.is_idle = true;
  entry.newer = -1;
  entry.older = newest_;
  if (newest_ >= 0) entries_[at(newest_)].newer = block;
  newest_ = block;
  if (oldest_ < 0) oldest_ = block;
  ++idle_;
}

void PrefixCache::leave_idle(int block) {
  Entry& entry = entries_[at(block)];
  (entry.newer >= 0 ? entries_[at(entry.newer)].older : newest_) = entry.older;
  (entry.older >= 0 ? entries_[at(entry.older)].newer : oldest_) = entry.newer;
  entry.newer = entry.older = -1;
  entry.is_idle = false;
  --idle_;
}

void PrefixCache::check_invariants() const {
  pool_.check_invariants();
  int listed = 0;
  for (int block = newest_; block >= 0; block = entries_[at(block)].older) {
    if (++listed > total() || !entries_[at(block)].is_idle) break;
  }
  int cached = 0;
  int idle = 0;
  int held = 0;
  for (int block = 0; block < total(); ++block) {
    const Entry& entry = entries_[at(block)];
    cached += entry.serial != 0 ? 1 : 0;
    idle += entry.is_idle ? 1 : 0;
    held += pool_.references(block) > 0 ? 1 : 0;
    const bool found = entry.serial == 0 || (by_hash_.count(entry.hash) == 1 && by_hash_.at(entry.hash) == block);
    const bool sound = entry.is_idle ? entry.serial != 0 && pool_.references(block) == 0 && !pool_.is_free(block)
                                     : pool_.references(block) > 0 || pool_.is_free(block);
    if (!found || !sound) {
      core::fail(core::ErrorCode::internal,
                 core::cat("[kv] block ", block, " is idle: ", entry.is_idle, ", references: ", pool_.references(block),
                           ", free: ", pool_.is_free(block), ", found by hash: ", found, "."));
    }
  }
  if (listed != idle_ || idle != idle_ || cached != static_cast<int>(by_hash_.size()) ||
      held + idle_ + pool_.free_count() != total()) {
    core::fail(core::ErrorCode::internal,
               core::cat("[kv] blocks are not conserved: ", held, " held, ", idle, " idle (", listed, " listed, ",
                         idle_, " counted), ", pool_.free_count(), " free, ", cached, " cached (", by_hash_.size(),
                         " hashed) of ", total(), "."));
  }
}

}  // namespace fastllm::kv
