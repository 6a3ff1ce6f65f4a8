// The block pool and the prefix cache against a plain model of what they should hold.
#include "kv/prefix_cache.h"

#include <map>
#include <random>
#include <vector>

#include "check.h"
#include "core/error.h"

using fastllm::core::Error;
using fastllm::kv::BlockPool;
using fastllm::kv::PrefixCache;
using Tokens = std::vector<std::int32_t>;

namespace {

// Runs a prompt through the cache as a sequence would: reuse, acquire the rest, publish full blocks. Returns what it
// holds.
struct Holder {
  Tokens tokens;
  std::vector<int> blocks;
  int reused = 0;
};

Holder hold(PrefixCache& cache, const Tokens& tokens, std::uint64_t adapter = 0) {
  Holder holder{tokens, {}, 0};
  std::uint64_t parent = 0;
  holder.reused = cache.reuse(tokens, static_cast<int>(tokens.size()) - 1, adapter, holder.blocks, parent);
  const auto bt = static_cast<std::size_t>(cache.block_tokens());
  while (holder.blocks.size() * bt < tokens.size()) holder.blocks.push_back(cache.acquire());
  for (std::size_t b = static_cast<std::size_t>(holder.reused); (b + 1) * bt <= tokens.size(); ++b) {
    parent = cache.publish(parent, std::span(tokens).subspan(b * bt, bt), holder.blocks[b]);
  }
  return holder;
}

Tokens range(int from, int count) {
  Tokens tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

}  // namespace

TEST("pool: every block once, then none") {
  BlockPool pool(5);
  std::vector<int> taken;
  for (int i = 0; i < 5; ++i) taken.push_back(pool.take());
  std::ranges::sort(taken);
  CHECK_EQ(taken, (std::vector<int>{0, 1, 2, 3, 4}));
  CHECK_EQ(pool.take(), -1);
  CHECK_EQ(pool.release(3), 0);
  pool.give_back(3);
  CHECK_EQ(pool.take(), 3);
  pool.check_invariants();
  CHECK_THROWS(BlockPool(0), Error);
}

TEST("pool: misuse is an error, not a corrupted list") {
  BlockPool pool(2);
  const int block = pool.take();
  CHECK_THROWS(pool.give_back(block), Error);
  pool.release(block);
  CHECK_THROWS(pool.release(block), Error);
  pool.give_back(block);
  CHECK_THROWS(pool.give_back(block), Error);
  CHECK_THROWS(pool.retain(block), Error);
}

TEST("prefix: an equal prompt reuses all full blocks but never the last token") {
  PrefixCache cache(16, 4);
  const Tokens prompt = range(100, 8);  // exactly two blocks
  Holder first = hold(cache, prompt);
  CHECK_EQ(first.reused, 0);
  Holder second = hold(cache, prompt);
  CHECK_EQ(second.reused, 1);  // two would leave no token to run
  CHECK_EQ(second.blocks[0], first.blocks[0]);
  CHECK(second.blocks[1] != first.blocks[1]);
  cache.release(first.blocks);
  cache.release(second.blocks);
  cache.check_invariants();
  CHECK_EQ(cache.available(), 16);
  CHECK_EQ(hold(cache, range(100, 9)).reused, 2);
}

TEST("prefix: another adapter or another beginning shares nothing") {
  PrefixCache cache(16, 4);
  cache.release(hold(cache, range(1, 9), 0).blocks);
  CHECK_EQ(cache.probe(range(1, 9), 8, 0).blocks, 2);
  CHECK_EQ(cache.probe(range(1, 9), 8, 1).blocks, 0);
  Tokens shifted = range(1, 9);
  shifted[0] = 7;  // the second block is equal, what leads to it is not
  CHECK_EQ(cache.probe(shifted, 8, 0).blocks, 0);
}

TEST("prefix: the least recently used chain goes first, from its tail") {
  PrefixCache cache(4, 2);
  cache.release(hold(cache, {1, 2, 3, 4}).blocks);
  cache.release(hold(cache, {5, 6, 7, 8}).blocks);
  CHECK_EQ(cache.idle(), 4);
  Holder other = hold(cache, {9, 9});  // needs one block: takes the tail of the older chain
  CHECK_EQ(cache.probe({{1, 2, 3, 4, 0}}, 4, 0).blocks, 1);
  CHECK_EQ(cache.probe({{5, 6, 7, 8, 0}}, 4, 0).blocks, 2);
  cache.release(other.blocks);
  cache.check_invariants();
}

TEST("prefix: switched off it is a plain pool") {
  PrefixCache cache(4, 2, false);
  cache.release(hold(cache, {1, 2, 3}).blocks);
  CHECK_EQ(cache.idle(), 0);
  CHECK_EQ(hold(cache, {1, 2, 3}).reused, 0);
  cache.check_invariants();
}

TEST("prefix: random holders; blocks conserved, contents right") {
  const unsigned seed = std::random_device{}();
  std::printf("   seed %u\n", seed);
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 30; ++round) {
    const int bt = 1 + below(4);
    const int total = 8 + below(24);
    PrefixCache cache(total, bt);
    std::vector<Holder> holders;
    std::map<int, Tokens> content;  // what was computed into a block: all tokens up to its end
    for (int step = 0; step < 400; ++step) {
      if (below(2) == 0 && !holders.empty()) {
        const auto index = static_cast<std::size_t>(below(static_cast<int>(holders.size())));
        cache.release(holders[index].blocks);
        holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(index));
      } else {
        Tokens prompt;
        const int length = 1 + below(12);
        for (int i = 0; i < length; ++i) prompt.push_back(below(2));  // few tokens: many shared prefixes
        const auto match = cache.probe(prompt, length - 1, 0);
        const int needed = (length + bt - 1) / bt - match.blocks;
        if (cache.available() - match.idle < needed) continue;
        Holder holder = hold(cache, prompt);
        CHECK_EQ(holder.reused, match.blocks);
        for (std::size_t b = 0; b < holder.blocks.size(); ++b) {
          const auto end = std::min((b + 1) * static_cast<std::size_t>(bt), prompt.size());
          const Tokens prefix(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(end));
          if (static_cast<int>(b) < holder.reused) {
            CHECK_EQ(content[holder.blocks[b]], prefix);
          } else {
            content[holder.blocks[b]] = prefix;
          }
        }
        holders.push_back(std::move(holder));
      }
      cache.check_invariants();
    }
    for (const Holder& holder : holders) cache.release(holder.blocks);
    cache.check_invariants();
    CHECK_EQ(cache.available(), total);
  }
}
