#include "engine/vocab.h"

#include "core/error.h"

namespace fastllm::engine {

Vocab::Vocab(std::span<const std::string_view> token_bytes, std::vector<char> special, bool strip_leading_space)
    : special_(std::move(special)), strip_leading_space_(strip_leading_space) {
  if (token_bytes.size() != special_.size() || token_bytes.empty()) {
    core::fail(core::ErrorCode::invalid_request,
               core::cat("[vocab] ", token_bytes.size(), " byte strings came with ", special_.size(),
                         " special flags; both need one entry a token."));
  }
  std::size_t total = 0;
  for (const std::string_view bytes : token_bytes) total += bytes.size();
  all_.reserve(total);
  starts_.reserve(token_bytes.size() + 1);
  for (const std::string_view bytes : token_bytes) {
    starts_.push_back(all_.size());
    all_ += bytes;
  }
  starts_.push_back(all_.size());
}

}  // namespace fastllm::engine
