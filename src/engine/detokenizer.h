#pragma once
// Tokens to text, one at a time. Four rules:
//
// * Bytes are exact: joined, they are the tokens' bytes (without skipped special tokens), minus the stop string and
//   what follows it.
// * Text is UTF-8. An incomplete character waits for its rest; what can never become one is U+FFFD, as Python's
//   errors="replace" has it. The bytes of an incomplete character are released with their token, its text with the
//   token that completes it.
// * Held back, text and bytes alike, is exactly the longest suffix that is a proper prefix of some stop string.
// * The first stop string to be complete ends the text, the longest if several end with the same character; so the
//   result does not depend on how the text was cut into tokens. Malformed bytes are part of no stop string.
//
// A SentencePiece text begins with a space that is no text: with the vocabulary's strip_leading_space it is dropped
// from the text (never from the bytes).

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/stop_matcher.h"
#include "engine/utf8.h"
#include "engine/vocab.h"

namespace fastllm::engine {

struct DetokenizerOptions {
  bool include_stop = false;
  bool skip_special = true;
};

class Detokenizer {
 public:
  Detokenizer(std::shared_ptr<const Vocab> vocab, std::span<const std::string> stops, DetokenizerOptions options);

  struct Piece {
    std::string text;
    std::string bytes;
    bool stopped = false;
    void clear() {
      text.clear();
      bytes.clear();
      stopped = false;
    }
  };

  // What this token releases. hold false: stop strings are not looked for (min_new_tokens) and nothing is held for
  // them. After a stop string every further token gives nothing. Ids without bytes give nothing.
  void push(std::int32_t id, bool hold, Piece& out);

  // The token that ends the text (end of sequence, a stop token): releases everything; its own bytes count if `shown`.
  void push_last(std::int32_t id, bool shown, Piece& out);

  // Releases what is held; an incomplete character becomes one U+FFFD. Idempotent.
  void finish(Piece& out);

  int matched() const { return matched_; }  // index of the stop string, or -1
  bool strip_pending() const { return strip_; }

 private:
  struct Unit {               // one decoded character, not released yet
    std::string text;         // UTF-8, or U+FFFD
    std::string bytes;        // raw bytes not released yet
  };
  void feed(std::string_view bytes, bool hold, Piece& out);
  void complete(std::string_view text, std::string_view raw, bool search, Piece& out);
  void release_front(Piece& out);
  void release_up_to(std::size_t kept_text, Piece& out);
  void emit_text(std::string_view text, Piece& out);

  std::shared_ptr<const Vocab> vocab_;
  std::vector<std::string> stops_;
  StopMatcher matcher_;
  DetokenizerOptions options_;
  Utf8Scanner scanner_;
  std::string pending_;               // bytes of the incomplete character
  std::size_t pending_released_ = 0;  // how many of them are out
  std::deque<Unit> held_;
  std::size_t held_text_ = 0;         // bytes of text in held_
  int state_ = 0;                     // of the matcher after the last complete character
  int matched_ = -1;
  bool strip_;
  bool ended_ = false;
};

}  // namespace fastllm::engine
