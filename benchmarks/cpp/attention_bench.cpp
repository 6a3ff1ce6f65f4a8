// Attention beside the machine's limits, interleaved in one run: decode (one token a sequence) against a plain read
// loop over the keys and values it must read, with the same threads; prefill of a whole prompt in operations per
// second.
//
//   attention_bench [--threads N] [--isa avx2] [--seconds S] [--cpu-time] [--fp8]     --fp8: a cache of float8
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "device/cpu/backend.h"

namespace {

using fastllm::core::DType;
using fastllm::core::Shape;
namespace device = fastllm::device;

bool by_cpu_time = false;
int cpu_threads = 1;

// Seconds by the wall, or of CPU time a thread with --cpu-time.
double now() {
  if (by_cpu_time) {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec)) / cpu_threads;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

using Quads = std::uint64_t __attribute__((vector_size(32)));

std::uint64_t read_all(const char* data, std::int64_t bytes) {
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

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Case {
  const char* name;
  int q_heads;
  int kv_heads;
  int dim;
  int sequences;
  int past;
  int now;
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 0;
  double seconds = 1.0;
  DType dtype = DType::bf16;
  std::string isa = fastllm::core::isa_from_environment();
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
    else if (arg == "--fp8")
      dtype = DType::f8_e4m3;
    else
      return std::fprintf(stderr, "unknown option %s\n", argv[i]), 2;
  }
  std::string why;
  const auto choice = fastllm::core::choose_isa(isa, &why);
  if (!choice) return std::fprintf(stderr, "%s\n", why.c_str()), 2;
  fastllm::cpu::CpuBackend backend({threads}, choice->isa);
  cpu_threads = backend.threads().threads();
  std::printf("%s\n", backend.info().description.c_str());

  constexpr int kBlockTokens = 16;
  for (const Case& c : {Case{"A decode", 14, 2, 64, 1, 16000, 1}, Case{"A decode", 14, 2, 64, 16, 2000, 1},
                        Case{"B decode", 32, 8, 64, 1, 16000, 1}, Case{"8B decode", 32, 8, 128, 1, 16000, 1},
                        Case{"8B decode", 32, 8, 128, 8, 1000, 1}, Case{"A prefill", 14, 2, 64, 1, 0, 512},
                        Case{"B prefill", 32, 8, 64, 1, 0, 2048}, Case{"8B prefill", 32, 8, 128, 1, 0, 512}}) {
    const int length = c.past + c.now;
    const int blocks_each = (length + kBlockTokens - 1) / kBlockTokens;
    const int blocks = blocks_each * c.sequences;
    const std::int64_t elements = std::int64_t{blocks} * c.kv_heads * kBlockTokens * c.dim;
    std::vector<std::uint16_t> k(static_cast<std::size_t>(elements) * fastllm::core::dtype_size(dtype) / 2);
    for (std::size_t i = 0; i < k.size(); ++i)
      k[i] = static_cast<std::uint16_t>(dtype == DType::bf16 ? 0x3c00 + (i * 7 & 0x1ff) : 0x3030 + (i * 7 & 0x707));
    std::vector<std::uint16_t> v = k;
    const device::KvLayer layer{k.data(), v.data(), c.kv_heads, c.dim, c.dim, dtype};
    std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
    for (int i = 0; i < blocks; ++i)
      table[static_cast<std::size_t>(i)] = static_cast<std::int32_t>((std::int64_t{i} * 7919) % blocks);
    std::vector<std::int32_t> positions, sequence_of, query_start{0}, kv_len;
    for (int s = 0; s < c.sequences; ++s) {
      for (int i = 0; i < c.now; ++i) positions.push_back(c.past + i), sequence_of.push_back(s);
      query_start.push_back(static_cast<std::int32_t>(positions.size()));
      kv_len.push_back(length);
    }
    device::StepView step;
    step.tokens = static_cast<int>(positions.size());
    step.sequences = c.sequences;
    step.max_blocks = blocks_each;
    step.max_kv_len = length;
    step.block_tokens = kBlockTokens;
    step.positions = positions.data();
    step.sequence_of = sequence_of.data();
    step.query_start = query_start.data();
    step.kv_len = kv_len.data();
    step.block_table = table.data();
    step.kv = {&layer, 1};
    const std::int64_t tokens = step.tokens;
    std::vector<float> q(static_cast<std::size_t>(tokens * c.q_heads * c.dim), 0.01f);
    std::vector<float> y(q.size());
    const Shape shape{tokens, c.q_heads, c.dim};
    const device::View in{q.data(), DType::f32, shape, shape.contiguous_strides()};
    const device::View out{y.data(), DType::f32, shape, shape.contiguous_strides()};
    device::Attention attention;
    attention.scale = 0.125f;
    const device::Op op = attention;
    backend.run({op, {&in, 1}, {&out, 1}}, &step);

    const double bytes = 2.0 * static_cast<double>(fastllm::core::dtype_size(dtype)) * static_cast<double>(length) *
                         c.sequences * c.kv_heads * c.dim;
    double flops = 0;  // of the causal half alone
    for (const std::int32_t p : positions) flops += 4.0 * (p + 1) * c.dim * c.q_heads;
    std::vector<double> ours, limit;
    volatile std::uint64_t sink = 0;
    const double end = now() + seconds;
    while (now() < end || ours.size() < 5) {
      double start = now();
      backend.run({op, {&in, 1}, {&out, 1}}, &step);
      ours.push_back((c.now > 1 ? flops : bytes) / (now() - start) * 1e-9);
      if (c.now > 1) continue;
      start = now();
      for (const auto* cache : {&k, &v})
        backend.threads().parallel_for(
            static_cast<std::int64_t>(bytes / 2), 1 << 18, [&](std::int64_t from, std::int64_t to) {
              sink = sink ^ read_all(reinterpret_cast<const char*>(cache->data()) + from, to - from);
            });
      limit.push_back(bytes / (now() - start) * 1e-9);
    }
    const double mine = median(ours);
    std::printf("%-10s heads %2d/%d of %3d, %2d x (%d + %d) tokens: ", c.name, c.q_heads, c.kv_heads, c.dim,
                c.sequences, c.past, c.now);
    if (c.now > 1)
      std::printf("%.1f GFLOP/s\n", mine);
    else
      std::printf("%.1f GB/s of %.1f = %.0f %%  (%.1f GFLOP/s)\n", mine, median(limit), 100 * mine / median(limit),
                  mine * flops / bytes);
    std::fflush(stdout);
  }
  return 0;
}
