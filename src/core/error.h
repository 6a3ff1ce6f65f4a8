#pragma once
// Every failure of the native engine is a core::Error: a code (one Python class each), a fact and a hint.
// Texts read "[where] fact, with both values. hint." Nothing in src/ exits, aborts, prints or asserts.

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace fastllm::core {

enum class ErrorCode {
  internal,              // a bug of ours, never the caller's fault
  corrupt_file,
  unsupported_format,
  unsupported_architecture,
  missing_tensor,
  out_of_memory,
  device_not_available,
  device_lost,
  invalid_request,
  invalid_config,
  shape_error,
  dtype_error,
  context_too_long,
  queue_full,
  engine_closed,
  engine_dead,
  forked_process,
  constraint_error,
  capture_too_large,
};

// The stable snake_case name: the Python attribute `code` and the HTTP `code`.
const char* error_code_name(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& fact, std::string hint = "")
      : std::runtime_error(fact), code_(code), hint_(std::move(hint)) {}
  ErrorCode code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string hint_;
};

// cat("[rms_norm] weight has ", 4096, " elements") -> std::string
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

[[noreturn]] inline void fail(ErrorCode code, const std::string& fact, std::string hint = "") {
  throw Error(code, fact, std::move(hint));
}

}  // namespace fastllm::core
