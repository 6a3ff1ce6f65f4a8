// Linear beside the machine's limits, interleaved in one run: decode (one row) against a plain read loop over the same
// bytes with the same threads, batches against the same floor, prefill (many rows) against a loop of independent fused
// multiply-adds.
//
//   linear_bench [--threads N] [--isa avx2] [--seconds S] [--quick] [--cpu-time]
//
// Prints medians of the interleaved rounds and the spread (lowest to highest) of each.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/threads.h"
#include "device/cpu/backend.h"
#include "device/cpu/reference/number.h"

namespace {

using fastllm::core::DType;
using fastllm::core::Shape;
using fastllm::core::Tensor;
using fastllm::core::ThreadPool;
namespace device = fastllm::device;

// Seconds by the wall, or of CPU time a thread with --cpu-time: on a crowded machine what others take is then left out.
bool by_cpu_time = false;
int cpu_threads = 1;
double now() {
  if (by_cpu_time) {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec)) / cpu_threads;
  }

  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__)
#define FASTLLM_BENCH_WIDE __attribute__((target("avx2,fma")))
#else
#define FASTLLM_BENCH_WIDE
#endif

using Lanes = float __attribute__((vector_size(32)));
using Quads = std::uint64_t __attribute__((vector_size(32)));

// The fastest way to touch `bytes` once: eight independent wide xors.
FASTLLM_BENCH_WIDE std::uint64_t read_all(const char* data, std::int64_t bytes) {
  Quads sum[8] = {};
  for (std::int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 8; ++j) {
      Quads v;
      std::memcpy(&v, data + i + j * 32, sizeof(v));
      sum[j] ^= v;
    }
  }
  std::uint64_t folded = 0;
  for (const Quads& s : sum) folded ^= s[0] ^ s[1] ^ s[2] ^ s[3];
  return folded;
}

// Twelve independent chains of a * b + c, each in a register; returns the operations done.
FASTLLM_BENCH_WIDE double multiply_add(std::int64_t rounds, volatile float* sink) {
  Lanes a;
  Lanes b;
  for (int i = 0; i < 8; ++i) a[i] = 0.999f, b[i] = 1e-3f;
  Lanes c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, c10 = a, c11 = a;
  const auto step = [&](Lanes& c) __attribute__((always_inline)) {
#if defined(__x86_64__)
    asm("vfmadd231ps %1, %2, %0" : "+x"(c) : "x"(a), "x"(b));
#else
    c = c + a * b;
#endif
  };
  for (std::int64_t r = 0; r < rounds; ++r)
    step(c0), step(c1), step(c2), step(c3), step(c4), step(c5), step(c6), step(c7), step(c8), step(c9), step(c10),
        step(c11);
  *sink = (c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11)[0];
  return static_cast<double>(rounds) * 12 * 8 * 2;
}

struct Series {
  std::vector<double> values;
  double median() {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
};

struct Shape2 {
  const char* name;
  std::int64_t n;
  std::int64_t k;
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 0;
  double seconds = 1.0;
  std::string isa = fastllm::core::isa_from_environment();
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else if (arg == "--seconds" && i + 1 < argc)
      seconds = std::atof(argv[++i]);
    else if (arg == "--isa" && i + 1 < argc)
      isa = argv[++i];
    else if (arg == "--cpu-time")
      by_cpu_time = true;
    else if (arg == "--quick")
      quick = true;
    else
      return std::fprintf(stderr, "unknown option %s\n", argv[i]), 2;
  }
  std::string why;
  const auto choice = fastllm::core::choose_isa(isa, &why);
  if (!choice) return std::fprintf(stderr, "%s\n", why.c_str()), 2;
  fastllm::cpu::CpuBackend backend({threads}, choice->isa);
  ThreadPool& pool = backend.threads();
  cpu_threads = pool.threads();
  std::printf("%s\n", backend.info().description.c_str());

  const std::vector<Shape2> shapes =
      quick ? std::vector<Shape2>{{"A head", 151936, 896}, {"A gate/up", 9728, 896}}
            : std::vector<Shape2>{{"A head", 151936, 896},    {"A gate/up", 9728, 896}, {"A down", 896, 4864},
                                  {"B gate/up", 16384, 2048}, {"B down", 2048, 8192},   {"B q", 2048, 2048}};
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    if (quick && dtype != DType::bf16) break;
    for (const Shape2& shape : shapes) {
      // Enough copies that no cache holds them all.
      const std::int64_t bytes = shape.n * shape.k * static_cast<std::int64_t>(fastllm::core::dtype_size(dtype));
      const int copies = static_cast<int>(std::max<std::int64_t>(1, (std::int64_t{300} << 20) / bytes));
      std::vector<std::unique_ptr<device::PackedLinear>> weights;
      std::vector<Tensor> tensors;
      for (int c = 0; c < copies; ++c) {
        tensors.push_back(Tensor::empty(dtype, {shape.n, shape.k}));
        if (dtype == DType::f32) {
          for (std::int64_t i = 0; i < shape.n * shape.k; ++i)
            tensors[c].as<float>()[i] = 1e-2f * static_cast<float>(i % 37 - 18);
        } else {
          for (std::int64_t i = 0; i < shape.n * shape.k; ++i)
            tensors[c].as<std::uint16_t>()[i] =
                static_cast<std::uint16_t>((dtype == DType::bf16 ? 0x3c00 : 0x2000) + (i * 7 & 0x1ff));
        }
        const device::LinearPart part{tensors[c], {}};
        weights.push_back(backend.pack_linear({&part, 1}));
      }
      for (const std::int64_t m : {1, 2, 4, 8, 32, 128, 512}) {
        if (m > 8 && (dtype != DType::bf16 || shape.n > 100000)) continue;
        std::vector<float> x(static_cast<std::size_t>(m * shape.k), 0.01f);
        std::vector<float> y(static_cast<std::size_t>(m * shape.n));
        const device::View in{x.data(), DType::f32, Shape{m, shape.k}, Shape{shape.k, 1}};
        const device::View out{y.data(), DType::f32, Shape{m, shape.n}, Shape{shape.n, 1}};
        const device::Op op = device::Linear{};
        const auto product = [&](int c) {
          backend.run({op, {&in, 1}, {&out, 1}, weights[static_cast<std::size_t>(c)].get()}, nullptr);
        };
        product(0);
        Series ours;
        Series limit;
        const double end = now() + seconds;
        volatile std::uint64_t sink = 0;
        volatile float sink_f = 0;
        int turn = 0;
        while (now() < end || ours.values.size() < 5) {
          if (m <= 32) {  // whole passes over all copies
            double start = now();
            for (int c = 0; c < copies; ++c) product(c);
            ours.values.push_back(copies * static_cast<double>(bytes) / (now() - start) * 1e-9);
            start = now();
            for (int c = 0; c < copies; ++c)
              pool.parallel_for(bytes, 1 << 18, [&](std::int64_t from, std::int64_t to) {
                sink = sink ^ read_all(static_cast<const char*>(tensors[static_cast<std::size_t>(c)].data()) + from,
                                       to - from);
              });
            limit.values.push_back(copies * static_cast<double>(bytes) / (now() - start) * 1e-9);
          } else {
            double start = now();
            product(turn++ % copies);
            ours.values.push_back(2.0 * static_cast<double>(m * shape.n * shape.k) / (now() - start) * 1e-9);
            start = now();
            const std::int64_t rounds = 2000000;
            pool.parallel_for(pool.threads(), 1, [&](std::int64_t, std::int64_t) { multiply_add(rounds, &sink_f); });
            limit.values.push_back(pool.threads() * static_cast<double>(rounds) * 12 * 8 * 2 / (now() - start) * 1e-9);
          }
        }
        const double mine = ours.median();
        const double floor = limit.median();
        std::printf(
            "%-8s %-10s [%6lld, %5lld] m=%-4lld %7.1f %s of %7.1f = %3.0f %%   (%.1f to %.1f, limit %.1f to %.1f)\n",
            fastllm::core::dtype_name(dtype), shape.name, static_cast<long long>(shape.n),
            static_cast<long long>(shape.k), static_cast<long long>(m), mine, m <= 32 ? "GB/s" : "GFLOP/s", floor,
            100 * mine / floor, ours.values.front(), ours.values.back(), limit.values.front(), limit.values.back());
        std::fflush(stdout);
      }
    }
  }
  return 0;
}
