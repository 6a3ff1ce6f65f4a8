#include "engine/stop_matcher.h"

namespace fastllm::engine {

StopMatcher::StopMatcher(std::span<const std::string> stops) {
  nodes_.emplace_back();
  for (std::size_t i = 0; i < stops.size(); ++i) {
    int state = 0;
    for (const char letter : stops[i]) {
      const auto byte = static_cast<unsigned char>(letter);
      int to = child(state, byte);
      if (to < 0) {
        to = static_cast<int>(nodes_.size());
        nodes_.emplace_back();
        nodes_.back().depth = nodes_[static_cast<std::size_t>(state)].depth + 1;
        nodes_[static_cast<std::size_t>(state)].children.emplace_back(byte, to);
      }
      state = to;
    }
    Node& last = nodes_[static_cast<std::size_t>(state)];
    if (last.match < 0) last.match = static_cast<int>(i);
  }
  std::vector<int> order = {0};  // breadth first: a node's fail link is nearer to the root than the node
  for (std::size_t at = 0; at < order.size(); ++at) {
    const int parent = order[at];
    for (std::size_t c = 0; c < nodes_[static_cast<std::size_t>(parent)].children.size(); ++c) {
      const auto [byte, to] = nodes_[static_cast<std::size_t>(parent)].children[c];
      order.push_back(to);
      Node& node = nodes_[static_cast<std::size_t>(to)];
      node.fail = parent == 0 ? 0 : next(nodes_[static_cast<std::size_t>(parent)].fail, byte);
      if (node.match < 0) node.match = nodes_[static_cast<std::size_t>(node.fail)].match;
    }
  }
}

int StopMatcher::child(int state, unsigned char byte) const {
  for (const auto& [letter, to] : nodes_[static_cast<std::size_t>(state)].children) {
    if (letter == byte) return to;
  }
  return -1;
}

int StopMatcher::next(int state, unsigned char byte) const {
  if (nodes_.empty()) return 0;
  while (true) {
    const int to = child(state, byte);
    if (to >= 0) return to;
    if (state == 0) return 0;
    state = nodes_[static_cast<std::size_t>(state)].fail;
  }
}

}  // namespace fastllm::engine
