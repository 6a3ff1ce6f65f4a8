#pragma once
// The bytes behind every token id, in one string: what the detokenizer needs of a tokenizer.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastllm::engine {

class Vocab {
 public:
  // One entry a token each. Error(invalid_request) if the lengths differ or there is no token.
  Vocab(std::span<const std::string_view> token_bytes, std::vector<char> special, bool strip_leading_space);

  int size() const { return static_cast<int>(special_.size()); }
  bool contains(std::int32_t id) const { return id >= 0 && id < size(); }
  // Ids beyond the vocabulary (rows that pad an embedding) have no bytes.
  std::string_view bytes(std::int32_t id) const {
    if (!contains(id)) return {};
    const auto index = static_cast<std::size_t>(id);
    return std::string_view(all_).substr(starts_[index], starts_[index + 1] - starts_[index]);
  }
  bool special(std::int32_t id) const { return contains(id) && special_[static_cast<std::size_t>(id)] != 0; }
  bool strip_leading_space() const {
    return strip_leading_space_;
  }  // SentencePiece: the text begins with a space that is no text

 private:
  std::string all_;
  std::vector<std::size_t> starts_;  // [size + 1]
  std::vector<char> special_;
  bool strip_leading_space_;
};

}  // namespace fastllm::engine
