#pragma once
// One pool of threads that parks. The caller takes part in its own work; chunks are claimed one by one, so whoever
// has time does them, and nobody ever waits for a thread that has not started a chunk. Workers look for new work for
// some microseconds, then sleep; an idle pool costs nothing. More threads than cores are harmless: no more are
// started than there are cores to run them.

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

namespace fastllm::core {

// Cores this process may use: its affinity mask, and no more than the CPU quota of its control group (rounded, at
// least 1).
int usable_cores();

// The smallest CPU quota, in cores, among this process's control group and its ancestors; 0: none. Reads cgroup v2
// (cpu.max) and v1 (cpu.cfs_quota_us). The arguments exist for tests.
double cpu_quota(const std::string& membership = "/proc/self/cgroup", const std::string& mount = "/sys/fs/cgroup");

class ThreadPool {
 public:
  // threads: the calling one included; 0: usable_cores(). concurrency: how many run at once at most, whatever
  // `threads`; 0: the cores of the affinity mask.
  explicit ThreadPool(int threads = 0, int concurrency = 0);
  ~ThreadPool();  // joins its workers; in a forked child, where they do not exist, it just forgets them
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls f(begin, end) or f(begin, end, worker) over all of [0, n) in chunks of `grain`, and returns when all is
  // done. `worker` is in [0, threads()) and no two calls with one worker number overlap. An exception of f comes back
  // out of here (the first one; chunks not yet started are dropped). Called from inside a chunk it runs in line.
  template <class F>
  void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
    using Function = std::remove_reference_t<F>;
    run(
        n, grain,
        [](void* context, std::int64_t begin, std::int64_t end, int worker) {
          Function& call = *static_cast<Function*>(context);
          if constexpr (std::is_invocable_v<Function&, std::int64_t, std::int64_t, int>)
            call(begin, end, worker);
          else
            call(begin, end);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Chunk = void (*)(void* context, std::int64_t begin, std::int64_t end, int worker);
  void run(std::int64_t n, std::int64_t grain, Chunk chunk, void* context);

  struct State;
  std::unique_ptr<State> state_;
  int threads_ = 1;
};

}  // namespace fastllm::core
