// Instruction sets of the CPU kernels: which were compiled in, which this machine can run, which one to use.
//
// Kernels are compiled once per set (cmake/CpuIsa.cmake). The backend asks `choose_isa()` once and keeps the answer;
// the environment variable FASTLLM_ISA=portable|avx2|avx512 forces a lower set, for tests and for comparing them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fastllm::core {

// Ordered: a larger value needs everything that a smaller one needs.
enum class Isa { portable = 0, avx2 = 1, avx512 = 2 };

// "portable", "avx2", "avx512".
std::string_view isa_name(Isa isa);

// The set of that name; nothing for an unknown name.
std::optional<Isa> parse_isa(std::string_view name);

// Were kernels for this set compiled into this binary?
bool isa_built(Isa isa);

// Can this CPU and its operating system run it? avx512 means F, BW, DQ, VL, VNNI and BF16 together.
bool isa_runs_here(Isa isa);

// Built and runnable sets, lowest first. Never empty: portable is always there.
std::vector<Isa> usable_isas();

struct IsaChoice {
  Isa isa = Isa::portable;
  std::string why;  // one readable line: what was chosen, and what was passed over for which reason
};

// The highest usable set, or what `wanted` names. An empty `wanted` and "auto" mean: choose. A name that is unknown,
// not built or not runnable gives no choice, and `error` then says why in the form "[isa] fact. hint.".
std::optional<IsaChoice> choose_isa(std::string_view wanted, std::string* error = nullptr);

// The value of the environment variable FASTLLM_ISA, empty when unset.
std::string isa_from_environment();

// Feature names that matter to kernels and are present, e.g. "avx2 fma f16c avx512f"; for `fastllm info` and bug
// reports.
std::string cpu_features();

}  // namespace fastllm::core
