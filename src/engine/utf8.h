#pragma once
// UTF-8 one byte at a time, by the Unicode standard's table of well-formed sequences (3-7). What cannot be continued is
// one "maximal subpart": each becomes one U+FFFD, exactly as Python's errors="replace" and web browsers do.

#include <cstdint>
#include <string>
#include <string_view>

namespace fastllm::engine {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

class Utf8Scanner {
 public:
  enum class Event : std::uint8_t {
    pending,       // inside a character
    complete,      // pending bytes + this one are a character
    broken,        // the pending bytes are malformed; this byte was not consumed: feed it again
    broken_byte,   // this byte alone is malformed
  };

  Event feed(unsigned char byte) {
    if (needed_ == 0) {
      if (byte < 0x80) return Event::complete;
      if (byte >= 0xC2 && byte <= 0xDF) return start(1, 0x80, 0xBF);
      if (byte >= 0xE0 && byte <= 0xEF) return start(2, byte == 0xE0 ? 0xA0 : 0x80, byte == 0xED ? 0x9F : 0xBF);
      if (byte >= 0xF0 && byte <= 0xF4) return start(3, byte == 0xF0 ? 0x90 : 0x80, byte == 0xF4 ? 0x8F : 0xBF);
      return Event::broken_byte;
    }
    if (byte < low_ || byte > high_) {
      needed_ = 0;
      return Event::broken;
    }
    low_ = 0x80;
    high_ = 0xBF;
    return --needed_ == 0 ? Event::complete : Event::pending;
  }

  bool inside() const { return needed_ != 0; }
  void reset() { needed_ = 0; }

 private:
  Event start(int needed, int low, int high) {
    needed_ = needed;
    low_ = static_cast<unsigned char>(low);
    high_ = static_cast<unsigned char>(high);
    return Event::pending;
  }
  int needed_ = 0;
  unsigned char low_ = 0x80, high_ = 0xBF;
};

// The whole of `bytes` as text, malformed parts replaced.
std::string decode_utf8(std::string_view bytes);

}  // namespace fastllm::engine
