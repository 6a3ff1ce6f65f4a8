#pragma once
// What this machine is: for DeviceInfo.

#include <cstdint>
#include <string>

namespace fastllm::cpu {

std::string cpu_model();              // "AMD EPYC 9654 96-Core Processor"
std::int64_t memory_total_bytes();    // of the machine, or the control group's limit where that is lower
std::int64_t memory_free_bytes();     // what can be taken without swapping, within the same limit

}  // namespace fastllm::cpu
