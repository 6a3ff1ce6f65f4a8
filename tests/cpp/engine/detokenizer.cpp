// Text without stop strings goes through in pieces; text with them, byte by byte. With a stop string that never begins,
// both must release the same with every token, whatever the bytes.
#include "engine/detokenizer.h"

#include <random>

#include "check.h"

using namespace fastllm;
using engine::Detokenizer;

TEST("with and without stop strings the same text, token by token") {
  const unsigned seed = std::random_device{}();
  std::printf("   seed %u\n", seed);
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const std::vector<std::string> pieces = {
      " ",  "a", "word ", "\xc3", "\xa9",      "\xe2\x82", "\xac", "\xff", "\xf0\x9f\x98\x80",
      "\n", "",  " x",    "\xe2", "\x80\x99s", "tail\xc3"};
  for (const bool strip : {false, true}) {
    std::vector<std::string> table;
    for (int i = 0; i < 60; ++i) {
      std::string bytes;
      for (std::size_t part = below(4); part > 0; --part) bytes += pieces[below(pieces.size())];
      table.push_back(bytes);
    }
    const std::vector<std::string_view> views(table.begin(), table.end());
    const auto vocab = std::make_shared<const engine::Vocab>(views, std::vector<char>(table.size(), 0), strip);
    const std::vector<std::string> never = {"\x01 never"};
    for (int round = 0; round < 300; ++round) {
      Detokenizer plain(vocab, {}, {});
      Detokenizer searched(vocab, never, {});
      Detokenizer::Piece a, b;
      std::string bytes, text, expected;
      for (int i = 0; i < 20; ++i) {
        const auto id = static_cast<std::int32_t>(below(table.size()));
        expected += table[static_cast<std::size_t>(id)];
        plain.push(id, true, a);
        searched.push(id, true, b);
        CHECK_EQ(a.text, b.text);
        CHECK_EQ(a.bytes, b.bytes);
        text += a.text;
        bytes += a.bytes;
      }
      a.clear();
      b.clear();
      plain.finish(a);
      searched.finish(b);
      CHECK_EQ(a.text, b.text);
      CHECK_EQ(a.bytes, b.bytes);
      CHECK_EQ(bytes + a.bytes, expected);
      std::string decoded = engine::decode_utf8(expected);
      if (strip && decoded.starts_with(' ')) decoded.erase(0, 1);
      CHECK_EQ(text + a.text, decoded);
    }
  }
}
