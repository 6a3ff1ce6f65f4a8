#pragma once
// All stop strings at once: an Aho-Corasick automaton (Aho & Corasick 1975) over their UTF-8 bytes. Its state after a
// text is the longest suffix of the text that is a prefix of some stop string, which is exactly what has to be held
// back.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fastllm::engine {

class StopMatcher {
 public:
  StopMatcher() = default;
  explicit StopMatcher(std::span<const std::string> stops);

  bool empty() const { return nodes_.size() <= 1; }
  int next(int state, unsigned char byte) const;
  int depth(int state) const { return nodes_.empty() ? 0 : nodes_[static_cast<std::size_t>(state)].depth; }
  // The longest stop string that ends in this state, or -1.
  int match(int state) const { return nodes_.empty() ? -1 : nodes_[static_cast<std::size_t>(state)].match; }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int>> children;
    int fail = 0;
    int depth = 0;
    int match = -1;
  };
  int child(int state, unsigned char byte) const;
  std::vector<Node> nodes_;
};

}  // namespace fastllm::engine
