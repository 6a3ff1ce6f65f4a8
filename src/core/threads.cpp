// The whole protocol lives in one 64-bit word: [epoch 32 | chunks not yet claimed 16 | chunks being run 16]. Claiming
// a chunk moves one from the second field to the third in a single compare-and-swap, so a job is over exactly when
// both are zero, a claimed chunk pins the job's description, and a thread that is slow to wake can neither hold up a
// job nor see half of the next one.
#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "core/error.h"

namespace fastllm::core {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kActiveOne = 1;
constexpr std::uint64_t kPendingOne = std::uint64_t{1} << 16;
constexpr std::uint64_t kEpochOne = std::uint64_t{1} << 32;
constexpr std::int64_t kMaxChunks = 0xffff;

std::int64_t pending(std::uint64_t word) {
  return static_cast<std::int64_t>(word >> 16 & 0xffff);
}
bool finished(std::uint64_t word) {
  return (word & (kEpochOne - 1)) == 0;
}

// How long a thread looks for news before it sleeps. Longer than the serial ops between two parallel ones, far
// shorter than a step.
constexpr auto kSpin = std::chrono::microseconds(40);

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// Calls done() until it is true or `limit` is over; its last answer.
template <class F>
bool spin_until(Clock::duration limit, F done) {
  if (done()) return true;
  if (limit <= Clock::duration::zero()) return false;
  const auto end = Clock::now() + limit;
  do {
    for (int i = 0; i < 16; ++i) {
      relax();
      if (done()) return true;
    }
  } while (Clock::now() < end);
  return false;
}

// Counts forks of this process: a pool made before one has no workers after it.
std::atomic<unsigned> fork_count{0};

unsigned watched_fork_count() {
  static const bool watching = pthread_atfork(nullptr, nullptr, [] { fork_count.fetch_add(1); }) == 0;
  return watching ? fork_count.load() : 0;
}

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The smallest quota / period of `folder` and its parents below `mount`; 0: none.
template <class Read>
double walk_quota(const std::string& mount, std::string folder, Read read) {
  double smallest = 0;
  for (;;) {
    const double cores = read(mount + (folder == "/" ? "" : folder));
    if (cores > 0 && (smallest == 0 || cores < smallest)) smallest = cores;
    if (folder.empty() || folder == "/") return smallest;
    folder.resize(folder.find_last_of('/'));
  }
}

double quota_v2(const std::string& folder) {
  std::istringstream text(first_line(folder + "/cpu.max"));
  std::string quota;
  double period = 0;
  if (!(text >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::atof(quota.c_str()) / period;
}

double quota_v1(const std::string& folder) {
  const double quota = std::atof(first_line(folder + "/cpu.cfs_quota_us").c_str());
  const double period = std::atof(first_line(folder + "/cpu.cfs_period_us").c_str());
  return quota > 0 && period > 0 ? quota / period : 0;
}

}  // namespace

double cpu_quota(const std::string& membership, const std::string& mount) {
  std::ifstream file(membership);
  double smallest = 0;
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    double cores = 0;
    if (controllers.empty()) {
      cores = walk_quota(mount, path, quota_v2);
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      cores = walk_quota(mount + "/" + controllers, path, quota_v1);
      if (cores == 0) cores = walk_quota(mount + "/cpu", path, quota_v1);
    }
    if (cores > 0 && (smallest == 0 || cores < smallest)) smallest = cores;
  }
  return smallest;
}

int usable_cores() {
  const int cores = affinity_cores();
  const double quota = cpu_quota();
  if (quota <= 0) return cores;
  return std::clamp(static_cast<int>(std::lround(quota)), 1, cores);
}

struct ThreadPool::State {
  // The job; written while no chunk is claimed, read only by holders of a claim.
  Chunk chunk = nullptr;
  void* context = nullptr;
  std::int64_t n = 0;
  std::int64_t grain = 1;
  std::int64_t chunks = 0;

  alignas(64) std::atomic<std::uint64_t> word{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable work;  // for workers
  std::condition_variable done;  // for the caller
  std::mutex caller;  // one job at a time
  std::exception_ptr error;  // first one of the job; under mutex
  std::vector<std::thread> workers;
  Clock::duration spin = kSpin;
  unsigned born_at_fork = 0;

  // Runs claimed chunks until none is left to claim. Returns whether it ran any.
  bool take_part(int worker) {
    bool any = false;
    std::uint64_t seen = word.load(std::memory_order_acquire);
    while (pending(seen) > 0) {
      if (!word.compare_exchange_weak(seen, seen - kPendingOne + kActiveOne, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        continue;
      any = true;
      const std::int64_t begin = (chunks - pending(seen)) * grain;
      try {
        chunk(context, begin, std::min(n, begin + grain), worker);
      } catch (...) {
        drop_rest(std::current_exception());
      }
      seen = word.fetch_sub(kActiveOne) - kActiveOne;
      if (finished(seen) && caller_sleeps.load()) {
        const std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
    return any;
  }

  void drop_rest(std::exception_ptr reason) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::move(reason);
    }
    std::uint64_t seen = word.load();
    while (pending(seen) > 0 &&
           !word.compare_exchange_weak(seen, seen - kPendingOne * static_cast<std::uint64_t>(pending(seen)))) {
    }
  }

  void work_loop(int worker);
};

namespace {
// Which pool's chunk this thread is running, and as which worker.
thread_local const void* running_pool = nullptr;
thread_local int running_worker = 0;
}  // namespace

void ThreadPool::State::work_loop(int worker) {
  pthread_setname_np(pthread_self(), "fastllm-cpu");
  running_pool = this;
  running_worker = worker;
  while (!stopping.load(std::memory_order_acquire)) {
    if (take_part(worker)) continue;
    const auto news = [&] {
      return pending(word.load(std::memory_order_acquire)) > 0 || stopping.load(std::memory_order_relaxed);
    };
    if (spin_until(spin, news)) continue;
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);  // before the last look: a caller either sees the sleeper or is seen here
    while (pending(word.load()) == 0 && !stopping.load()) work.wait(lock);
    sleepers.fetch_sub(1);
  }
}

ThreadPool::ThreadPool(int threads, int concurrency) : state_(std::make_unique<State>()) {
  const int cores = affinity_cores();
  threads_ = threads > 0 ? threads : usable_cores();
  if (concurrency <= 0) concurrency = cores;
  state_->born_at_fork = watched_fork_count();
  if (concurrency > cores) state_->spin = Clock::duration::zero();  // a spinner would take a core from a worker
  // Signals are for the threads of the program: Python's handlers must not run here.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    State* state = state_.get();
    for (int worker = 1; worker < std::min(threads_, concurrency); ++worker)
      state->workers.emplace_back([state, worker] { state->work_loop(worker); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are will do.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  if (state_->born_at_fork != fork_count.load()) {
    static_cast<void>(state_.release());  // nobody to join, and waiters that only exist in the parent
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stopping.store(true);
  }
  state_->work.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

void ThreadPool::run(std::int64_t n, std::int64_t grain, Chunk chunk, void* context) {
  if (n <= 0) return;
  State& state = *state_;
  const bool nested = running_pool == &state;
  grain = std::max({grain, std::int64_t{1}, (n + kMaxChunks - 1) / kMaxChunks});
  if (nested || n <= grain || state.workers.empty() ||
      state.born_at_fork != fork_count.load(std::memory_order_relaxed)) {
    chunk(context, 0, n, nested ? running_worker : 0);
    return;
  }

  const std::lock_guard<std::mutex> one_job(state.caller);
  state.chunk = chunk;
  state.context = context;
  state.n = n;
  state.grain = grain;
  state.chunks = (n + grain - 1) / grain;
  const std::uint64_t epoch = (state.word.load(std::memory_order_relaxed) & ~(kEpochOne - 1)) + kEpochOne;
  state.word.store(epoch + kPendingOne * static_cast<std::uint64_t>(state.chunks));
  if (const int asleep = state.sleepers.load(); asleep > 0) {
    {
      const std::lock_guard<std::mutex> lock(state.mutex);
    }
    const std::int64_t wanted = std::min<std::int64_t>(asleep, state.chunks - 1);
    for (std::int64_t i = 0; i < wanted; ++i) state.work.notify_one();
  }

  const void* outer_pool = running_pool;
  const int outer_worker = running_worker;
  running_pool = &state;
  running_worker = 0;
  state.take_part(0);
  running_pool = outer_pool;
  running_worker = outer_worker;

  const auto over = [&] { return finished(state.word.load(std::memory_order_acquire)); };
  if (!spin_until(state.spin, over)) {
    std::unique_lock<std::mutex> lock(state.mutex);
    state.caller_sleeps.store(true);
    while (!finished(state.word.load())) state.done.wait(lock);
    state.caller_sleeps.store(false);
  }
  if (state.error) {
    // No chunk is running any more: `error` is ours alone.
    std::exception_ptr error = std::move(state.error);
    state.error = nullptr;
    std::rethrow_exception(error);
  }
}

}  // namespace fastllm::core
