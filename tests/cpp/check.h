// A small test harness for the C++ tests.
//
//   #include "check.h"
//
//   TEST("softmax sums to one") {
//     CHECK(sum > 0);
//     CHECK_EQ(rows, 3);
//     CHECK_NEAR(sum, 1.0, 1e-6);            // |a - b| <= tolerance, and false for NaN
//     CHECK_THROWS(parse("x"), Error);       // exactly this type, or one derived from it
//     CHECK_THROWS_WITH(parse("x"), Error, "unknown format");
//     REQUIRE(pointer != nullptr);           // like CHECK, but leaves this test when it fails
//   }
//
// One file is one executable; check.h supplies main. A failed CHECK prints file, line and both values, the test goes
// on, and the program ends with 1. Options: --filter TEXT (names that contain it), --list, --repeat N. CHECK may be
// used from several threads. A run in which no test was selected ends with 2: it proves nothing.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <mutex>
#include <ranges>
#include <source_location>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};

// Thrown by REQUIRE to leave a test; not a std::exception, so code under test does not swallow it.
struct Abandon {};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline std::atomic<int>& failures() {
  static std::atomic<int> count{0};
  return count;
}

inline std::atomic<long>& checks() {
  static std::atomic<long> count{0};
  return count;
}

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

template <typename T>
concept Streamable = requires(std::ostream& out, const T& value) { out << value; };

// A value as text: numbers with all digits, strings quoted, ranges element by element, enums as their number.
template <typename T>
std::string show(const T& value) {
  std::ostringstream out;
  if constexpr (std::is_same_v<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (std::is_same_v<T, std::nullptr_t>) {
    out << "nullptr";
  } else if constexpr (std::is_convertible_v<T, std::string_view>) {
    out << '"' << std::string_view(value) << '"';
  } else if constexpr (std::is_same_v<T, signed char> || std::is_same_v<T, unsigned char>) {
    out << static_cast<int>(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    out.precision(std::is_same_v<T, float> ? 9 : 17);
    out << value;
  } else if constexpr (std::is_enum_v<T>) {
    out << static_cast<long long>(value);
  } else if constexpr (Streamable<T>) {
    out << value;
  } else if constexpr (std::ranges::input_range<const T>) {
    out << '[';
    std::size_t index = 0;
    for (const auto& element : value) {
      if (index == 64) {
        out << ", ...";
        break;
      }
      out << (index++ == 0 ? "" : ", ") << show(element);
    }
    out << ']';
  } else {
    out << "<" << sizeof(T) << " bytes>";
  }
  return out.str();
}

inline void report(const std::source_location& where, const std::string& message) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  ++failures();
  std::fprintf(stderr, "%s:%u: %s\n", where.file_name(), static_cast<unsigned>(where.line()), message.c_str());
}

inline bool is_true(bool ok, const char* text, const std::source_location& where) {
  ++checks();
  if (!ok) report(where, std::string("CHECK(") + text + ") failed");
  return ok;
}

// Integers are compared by value whatever their signs; everything else with ==.
template <typename A, typename B>
bool equal(const A& a, const B& b) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool> &&
                !std::is_same_v<B, bool> && !std::is_same_v<A, char> && !std::is_same_v<B, char>) {
    return std::cmp_equal(a, b);
  } else if constexpr (std::is_convertible_v<A, std::string_view> && std::is_convertible_v<B, std::string_view>) {
    return std::string_view(a) == std::string_view(b);
  } else {
    return a == b;
  }
}

template <typename A, typename B>
bool is_equal(const A& a, const B& b, const char* a_text, const char* b_text, const std::source_location& where) {
  ++checks();
  if (equal(a, b)) return true;
  report(where, std::string("CHECK_EQ(") + a_text + ", " + b_text + ") failed\n    left:  " + show(a) +
                    "\n    right: " + show(b));
  return false;
}

inline bool is_near(double a, double b, double tolerance, const char* a_text, const char* b_text,
                    const std::source_location& where) {
  ++checks();
  if (a == b || std::abs(a - b) <= tolerance) return true;
  report(where, std::string("CHECK_NEAR(") + a_text + ", " + b_text + ") failed\n    left:  " + show(a) +
                    "\n    right: " + show(b) + "\n    apart: " + show(std::abs(a - b)) + " > " + show(tolerance));
  return false;
}

template <typename Expected, typename Function>
bool throws(Function&& function, const char* text, const char* type, std::string_view needle,
            const std::source_location& where) {
  ++checks();
  const std::string call = std::string(text) + " should throw " + type;
  try {
    std::forward<Function>(function)();
  } catch (const Expected& error) {
    if constexpr (std::is_base_of_v<std::exception, Expected>) {
      if (!needle.empty() && std::string_view(error.what()).find(needle) == std::string_view::npos) {
        report(where, call + " saying " + show(needle) + "\n    it says: " + show(std::string_view(error.what())));
        return false;
      }
    }
    return true;
  } catch (const std::exception& error) {
    report(where, call + "\n    it throws: " + error.what());
    return false;
  } catch (...) {
    report(where, call + "\n    it throws something that is no std::exception");
    return false;
  }
  report(where, call + "\n    it throws nothing");
  return false;
}

inline int main(int argc, char** argv) {
  std::string_view filter;
  int repeat = 1;
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--filter" && i + 1 < argc) {
      filter = argv[++i];
    } else if (argument == "--repeat" && i + 1 < argc) {
      repeat = std::max(1, std::atoi(argv[++i]));
    } else if (argument == "--list") {
      list = true;
    } else {
      std::fprintf(stderr, "usage: %s [--filter TEXT] [--repeat N] [--list]\n", argv[0]);
      return 2;
    }
  }
  int ran = 0;
  int failed = 0;
  for (int round = 0; round < repeat; ++round) {
    for (const Test& test : tests()) {
      if (std::string_view(test.name).find(filter) == std::string_view::npos) continue;
      if (list) {
        std::printf("%s\n", test.name);
        ++ran;
        continue;
      }
      const int before = failures();
      const auto start = std::chrono::steady_clock::now();
      try {
        test.run();
      } catch (const Abandon&) {
      } catch (const std::exception& error) {
        report(std::source_location::current(),
               std::string("uncaught exception in \"") + test.name + "\": " + error.what());
      } catch (...) {
        report(std::source_location::current(), std::string("uncaught non-exception in \"") + test.name + "\"");
      }
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      const bool ok = failures() == before;
      ++ran;
      failed += ok ? 0 : 1;
      std::printf("%s %s (%.2f s)\n", ok ? "ok    " : "FAILED", test.name, took.count());
      std::fflush(stdout);
    }
  }
  if (list) return 0;
  std::printf("%d passed, %d failed (%ld checks)\n", ran - failed, failed, checks().load());
  if (ran == 0) return 2;
  return failed == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST(name)                                                                                                  \
  static void CHECK_JOIN(check_test_, __LINE__)();                                                                  \
  static const ::check::Registration CHECK_JOIN(check_registration_, __LINE__)(name,                                \
                                                                               &CHECK_JOIN(check_test_, __LINE__)); \
  static void CHECK_JOIN(check_test_, __LINE__)()

#define CHECK(...) ::check::is_true(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, std::source_location::current())
#define CHECK_EQ(a, b) ::check::is_equal((a), (b), #a, #b, std::source_location::current())
#define CHECK_NEAR(a, b, tolerance)                                                                        \
  ::check::is_near(static_cast<double>(a), static_cast<double>(b), static_cast<double>(tolerance), #a, #b, \
                   std::source_location::current())
#define CHECK_THROWS(expression, type) CHECK_THROWS_WITH(expression, type, "")
#define CHECK_THROWS_WITH(expression, type, needle)                                         \
  ::check::throws<type>([&] { static_cast<void>(expression); }, #expression, #type, needle, \
                        std::source_location::current())
#define REQUIRE(...)                                   \
  do {                                                 \
    if (!CHECK(__VA_ARGS__)) throw ::check::Abandon{}; \
  } while (false)

int main(int argc, char** argv) {
  return ::check::main(argc, argv);
}
