#include "device/cpu/machine.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace fastllm::cpu {
namespace {

// The text after "key" and a colon in a /proc file; empty when there is none.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::int64_t number_in(const std::string& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return file >> value ? value : 0;  // "max" is no number: no limit
}

struct GroupMemory {
  std::int64_t limit = 0;  // 0: none
  std::int64_t used = 0;
};

GroupMemory group_memory() {
  for (const auto& [limit, used] :
       {std::pair("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        std::pair("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")}) {
    if (const std::int64_t bytes = number_in(limit); bytes > 0) return {bytes, number_in(used)};
  }
  return {};
}

std::int64_t machine_bytes(const char* key) {
  return std::atoll(proc_value("/proc/meminfo", key).c_str()) * 1024;
}

}  // namespace

std::string cpu_model() {
  std::string name = proc_value("/proc/cpuinfo", "model name");
#if defined(__aarch64__)
  if (name.empty()) name = "64-bit Arm";
#endif
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.empty() ? "CPU" : name;
}

std::int64_t memory_total_bytes() {
  std::int64_t total = machine_bytes("MemTotal");
  if (total == 0) total = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  const GroupMemory group = group_memory();
  return group.limit > 0 ? std::min(total, group.limit) : total;
}

std::int64_t memory_free_bytes() {
  std::int64_t free = machine_bytes("MemAvailable");
#if defined(_SC_AVPHYS_PAGES)
  if (free == 0) free = std::int64_t{sysconf(_SC_AVPHYS_PAGES)} * sysconf(_SC_PAGESIZE);
#endif
  const GroupMemory group = group_memory();
  return group.limit > 0 ? std::clamp<std::int64_t>(group.limit - group.used, 0, free) : free;
}

}  // namespace fastllm::cpu
