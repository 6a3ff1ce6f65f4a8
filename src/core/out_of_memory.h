#pragma once
// The error of memory that is not there, with both sizes.

#include <cstdint>
#include <string>
#include <utility>

#include "core/error.h"

namespace fastllm::core {

class OutOfMemory : public Error {
 public:
  OutOfMemory(const std::string& fact, std::string hint, std::int64_t needed, std::int64_t available)
      : Error(ErrorCode::out_of_memory, fact, std::move(hint)), needed_bytes(needed), available_bytes(available) {}
  std::int64_t needed_bytes;
  std::int64_t available_bytes;
};

}  // namespace fastllm::core
