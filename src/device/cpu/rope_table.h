#pragma once
// Cosines and sines of a step's positions, shared by all heads and, as layers ask for the same ones again, by all
// layers.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/threads.h"
#include "device/op.h"
#include "device/step.h"

namespace fastllm::cpu {

class RopeTables {
 public:
  struct Table {
    device::Rope op;
    std::vector<std::int32_t> positions;       // [T]
    std::vector<std::int32_t> lengths;         // [T] rope_len of each token's sequence; empty for a fixed length
    std::vector<float> inv_freq;               // [rotary / 2]
    std::vector<float> long_inv_freq;          // likewise, or empty
    std::vector<float> cos;                    // [T, rotary / 2], times attention_factor
    std::vector<float> sin;
    std::uint64_t used = 0;
  };

  // Computed, or found among the last ones. Valid until the next call. in: the op's inputs (positions i32, tables f32
  // contiguous).
  const Table& get(const device::Rope& op, std::span<const device::View> in, const device::StepView* step,
                   core::ThreadPool& pool);

 private:
  std::array<Table, 4> tables_;  // models have up to two or three (local, global)
  std::uint64_t clock_ = 0;
};

}  // namespace fastllm::cpu
