// The test harness itself: a check that should fail does, counts, and shows both values.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "check.h"

namespace {

// Runs a check that fails on purpose; true when it said so. Its message on stderr is expected.
template <typename Function>
bool fails(Function&& function) {
  const int before = check::failures();
  const bool passed = function();
  const bool counted = check::failures() == before + 1;
  check::failures() = before;
  return !passed && counted;
}

enum class Colour { red = 3 };

}  // namespace

TEST("failing checks fail") {
  std::fprintf(stderr, "the failures printed here are meant\n");
  CHECK(fails([] { return CHECK(1 == 2); }));
  CHECK(fails([] { return CHECK_EQ(1, 2); }));
  CHECK(fails([] { return CHECK_EQ(-1, ~0U); }));
  CHECK(fails([] { return CHECK_EQ(std::vector<int>({1, 2}), std::vector<int>({1, 3})); }));
  CHECK(fails([] { return CHECK_NEAR(1.0, 1.1, 0.05); }));
  CHECK(fails([] { return CHECK_NEAR(std::nan(""), 0.0, 1e9); }));
  CHECK(fails([] { return CHECK_THROWS(1 + 1, std::runtime_error); }));
  CHECK(fails([] { return CHECK_THROWS(throw 3, std::runtime_error); }));
  CHECK(fails([] { return CHECK_THROWS(throw std::logic_error("x"), std::runtime_error); }));
  CHECK(fails([] { return CHECK_THROWS_WITH(throw std::runtime_error("abc"), std::runtime_error, "xyz"); }));
}

TEST("passing checks pass") {
  CHECK(CHECK_EQ(3, 3U));
  CHECK(CHECK_EQ("abc", std::string("abc")));
  CHECK(CHECK_NEAR(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity(), 0));
  CHECK(CHECK_THROWS(throw std::out_of_range("abc"), std::logic_error));
  CHECK(CHECK_THROWS_WITH(throw std::runtime_error("abc"), std::runtime_error, "b"));
}

TEST("values are shown so that they can be told apart") {
  CHECK_EQ(check::show(0.1F), "0.100000001");
  CHECK_EQ(check::show(0.1), "0.10000000000000001");
  CHECK_EQ(check::show(true), "true");
  CHECK_EQ(check::show(static_cast<unsigned char>(65)), "65");
  CHECK_EQ(check::show(Colour::red), "3");
  CHECK_EQ(check::show(std::vector<int>{1, 2}), "[1, 2]");
  CHECK_EQ(check::show(std::string("a")), "\"a\"");
}

TEST("REQUIRE leaves the test") {
  bool left = false;
  const int before = check::failures();
  try {
    REQUIRE(false);
  } catch (const check::Abandon&) {
    left = true;
  }
  check::failures() = before;
  CHECK(left);
}
