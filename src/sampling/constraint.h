#pragma once
// The seam for constrained decoding: something that knows which tokens may come next. One object per request. The
// engine calls it from the step thread only; an implementation may compute the next mask on a thread of its own after
// accept().

#include <cstdint>
#include <span>

namespace fastllm::sampling {

class Constraint {
 public:
  virtual ~Constraint() = default;
  // One bit a token, lowest bit first: set if the token may come next. At least ceil(vocab / 32) words. Waits if it is
  // still computed.
  virtual std::span<const std::uint32_t> mask() = 0;
  // The token that was chosen. Error(constraint_error) if it was not allowed.
  virtual void accept(std::int32_t token) = 0;
};

}  // namespace fastllm::sampling
