#pragma once
// Looking inside a step: which values of which sequence are read out or edited while it runs. A model that offers taps
// (named values) runs such a step op by op; right behind the op that makes a value, it first edits the value's rows and
// then hands them out, so a reader sees what the ops behind it see. Everything here is in host memory.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/shape.h"
#include "device/op.h"

namespace fastllm::device {

// A value of a model that probes can name; a probe knows it by its index in the model's list.
struct TapInfo {
  std::string name;    // "blocks.3.attn.z"
  core::Shape row;     // of one token: [heads, head_dim]; of a pattern [heads]
  bool pattern = false;  // [heads, keys] for each token: the softmax weights of an attention
};

// x = x * scale + add, for part of a row and some positions of the sequence. scale 0 clears whatever was there.
struct TapEdit {
  int tap = 0;
  std::int64_t first = 0, last = 0;  // positions, the end excluded
  std::int64_t begin = 0, end = 0;   // elements of a row, flat
  float scale = 1.0f;
  std::vector<float> add;  // none, [end - begin], or one such row for each position from `first` on

  std::int64_t width() const { return end - begin; }
  // `rows` [count, elements] are those of positions from `position` on.
  void apply(std::span<float> rows, std::int64_t elements, std::int64_t position) const;
};

// One sequence's wishes in a step. The model calls; nothing is called twice at a time.
class Probe {
 public:
  virtual ~Probe() = default;
  virtual std::span<const int> reads() const = 0;  // taps, ascending
  virtual std::span<const TapEdit> edits() const = 0;
  // The rows of `reads()[index]` for positions from `position` on: [count, row], of a pattern [count, heads, keys].
  // Does not throw: a reader that cannot keep them says so later.
  virtual void take(std::size_t index, std::int64_t position, std::span<const float> rows,
                    std::int64_t count) noexcept = 0;
};

// A sequence of the step that is probed.
struct ProbedSequence {
  int sequence = 0;  // index in the step
  Probe* probe = nullptr;
};

// The weights of an attention for `count` tokens of one sequence, whose first is at `position`: out [count, heads,
// keys], zero where a token sees nothing. Plain loops, accumulating in double: the reference.
struct PatternCall {
  Attention op;
  const float* q = nullptr;  // [count, heads, dim]
  const float* k = nullptr;  // [keys, kv_heads, dim], positions 0 ... keys - 1
  std::int64_t count = 0, heads = 0, kv_heads = 0, dim = 0, keys = 0, position = 0;
  float* out = nullptr;
};
void attention_pattern(const PatternCall& call);

}  // namespace fastllm::device
