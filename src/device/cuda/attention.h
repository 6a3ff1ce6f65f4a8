#pragma once
// What the backend asks of attention besides running it: memory.

#include "device/cuda/launch.h"

namespace fastllm::cuda {

// Floats of workspace, behind those of attention_workspace(), in which a step with prompts has the keys and values of a
// float8 cache as 16-bit numbers, for the prefill kernel that reads no codes. 0: another cache, another GPU, or too many.
std::size_t widened_workspace(const Context& c, const device::KvLayer& layer, const StepView& step);

}  // namespace fastllm::cuda
