#include "engine/detokenizer.h"

#include <algorithm>

namespace fastllm::engine {

std::string decode_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  Utf8Scanner scanner;
  std::size_t start = 0;  // of the pending character
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    switch (scanner.feed(static_cast<unsigned char>(bytes[i]))) {
      case Utf8Scanner::Event::pending:
        break;
      case Utf8Scanner::Event::complete:
        text += bytes.substr(start, i + 1 - start);
        start = i + 1;
        break;
      case Utf8Scanner::Event::broken_byte:
        text += kReplacement;
        start = i + 1;
        break;
      case Utf8Scanner::Event::broken:
        text += kReplacement;
        start = i;
        --i;  // this byte begins anew
        break;
    }
  }
  if (scanner.inside()) text += kReplacement;
  return text;
}

Detokenizer::Detokenizer(std::shared_ptr<const Vocab> vocab, std::span<const std::string> stops,
                         DetokenizerOptions options)
    : vocab_(std::move(vocab)),
      stops_(stops.begin(), stops.end()),
      options_(options),
      strip_(vocab_->strip_leading_space()) {
  if (!stops_.empty()) matcher_ = StopMatcher(stops_);
}

void Detokenizer::push(std::int32_t id, bool hold, Piece& out) {
  out.clear();
  if (ended_) {
    out.stopped = matched_ >= 0;
    return;
  }
  if (options_.skip_special && vocab_->special(id)) return;
  feed(vocab_->bytes(id), hold, out);
}

void Detokenizer::push_last(std::int32_t id, bool shown, Piece& out) {
  out.clear();
  if (ended_) return;
  if (shown) feed(vocab_->bytes(id), /*hold=*/false, out);
  finish(out);
}

void Detokenizer::finish(Piece& out) {
  if (ended_) return;
  ended_ = true;
  while (!held_.empty()) release_front(out);
  if (scanner_.inside()) {
    out.bytes.append(pending_, pending_released_);
    emit_text(kReplacement, out);
    pending_.clear();
    pending_released_ = 0;
    scanner_.reset();
  }
}

void Detokenizer::feed(std::string_view bytes, bool hold, Piece& out) {
  const bool plain = matcher_.empty();  // nothing is ever held back
  for (std::size_t i = 0; i < bytes.size() && !ended_; ++i) {
    if (plain && !scanner_.inside()) {  // ASCII, most of most texts, all at once
      const auto end = std::find_if(bytes.begin() + static_cast<std::ptrdiff_t>(i), bytes.end(),
                                    [](char byte) { return static_cast<unsigned char>(byte) >= 0x80; });
      const std::string_view run = bytes.substr(i, static_cast<std::size_t>(end - bytes.begin()) - i);
      if (!run.empty()) {
        out.bytes += run;
        emit_text(run, out);
        i += run.size() - 1;
        continue;
      }
    }
    switch (scanner_.feed(static_cast<unsigned char>(bytes[i]))) {
      case Utf8Scanner::Event::pending:
        pending_ += bytes[i];
        break;
      case Utf8Scanner::Event::complete: {
        pending_ += bytes[i];
        const std::string character = std::move(pending_);
        pending_.clear();
        complete(character, character, hold, out);
        break;
      }
      case Utf8Scanner::Event::broken_byte:
        complete(kReplacement, bytes.substr(i, 1), false, out);
        break;
      case Utf8Scanner::Event::broken: {
        const std::string raw = std::move(pending_);
        pending_.clear();
        complete(kReplacement, raw, false, out);
        --i;  // this byte begins anew
        break;
      }
    }
  }
  if (ended_) return;
  // The incomplete character may begin a stop string, or go on with one: look ahead with its bytes. (A stop string
  // begins with a whole character, so the suspect part covers all of the pending bytes or none.)
  std::size_t suspect = 0;
  if (hold && pending_released_ == 0) {
    int state = state_;
    for (const char byte : pending_) state = matcher_.next(state, static_cast<unsigned char>(byte));
    suspect = static_cast<std::size_t>(matcher_.depth(state));
  }
  release_up_to(suspect > pending_.size() ? suspect - pending_.size() : 0, out);
  if (suspect == 0) {
    out.bytes.append(pending_, pending_released_);
    pending_released_ = pending_.size();
  }
}

void Detokenizer::complete(std::string_view text, std::string_view raw, bool search, Piece& out) {
  const std::size_t released = pending_released_;
  pending_released_ = 0;
  held_.push_back({std::string(text), std::string(raw.substr(released))});
  held_text_ += text.size();
  if (!search || released > 0) {
    // Not searched (min_new_tokens), begun before the search was, or malformed: no stop string reaches over this
    // character.
    state_ = 0;
    release_up_to(0, out);
    return;
  }
  for (const char byte : text) state_ = matcher_.next(state_, static_cast<unsigned char>(byte));
  const int match = matcher_.match(state_);
  if (match < 0) {
    release_up_to(static_cast<std::size_t>(matcher_.depth(state_)), out);
    return;
  }
  matched_ = match;
  out.stopped = true;
  const std::size_t stop_size = stops_[static_cast<std::size_t>(match)].size();
  release_up_to(stop_size, out);
  while (options_.include_stop && !held_.empty()) release_front(out);
  held_.clear();
  held_text_ = 0;
  ended_ = true;
}

// Releases characters from the front until at most `kept_text` bytes of text are held.
void Detokenizer::release_up_to(std::size_t kept_text, Piece& out) {
  while (held_text_ > kept_text) release_front(out);
}

void Detokenizer::release_front(Piece& out) {
  held_text_ -= held_.front().text.size();
  out.bytes += held_.front().bytes;
  emit_text(held_.front().text, out);
  held_.pop_front();
}

void Detokenizer::emit_text(std::string_view text, Piece& out) {
  if (strip_) {
    strip_ = false;
    if (text.starts_with(' ')) text.remove_prefix(1);
  }
  out.text += text;
}

}  // namespace fastllm::engine
