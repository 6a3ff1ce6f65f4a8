#include "core/isa.h"

#include <array>
#include <cstdlib>

#ifndef FASTLLM_HAVE_AVX2
#define FASTLLM_HAVE_AVX2 0
#endif
#ifndef FASTLLM_HAVE_AVX512
#define FASTLLM_HAVE_AVX512 0
#endif

namespace fastllm::core {

namespace {

constexpr std::array<Isa, 3> all_isas{Isa::portable, Isa::avx2, Isa::avx512};

struct Feature {
  const char* name;
  bool present;
  Isa needed_from;  // the lowest set that needs it
};

// __builtin_cpu_supports reads CPUID and XGETBV: a feature whose registers the operating system does not save is
// absent. It takes literals only, hence the list instead of a loop.
std::vector<Feature> probe() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return {
      {"avx2", __builtin_cpu_supports("avx2") != 0, Isa::avx2},
      {"fma", __builtin_cpu_supports("fma") != 0, Isa::avx2},
      {"f16c", __builtin_cpu_supports("f16c") != 0, Isa::avx2},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0, Isa::avx512},
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0, Isa::avx512},
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0, Isa::avx512},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0, Isa::avx512},
      {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0, Isa::avx512},
      {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0, Isa::avx512},
  };
#elif defined(__aarch64__)
  return {{"neon", true, Isa::portable}};
#else
  return {};
#endif
}

const std::vector<Feature>& features() {
  static const std::vector<Feature> found = probe();
  return found;
}

// The features that `isa` needs and this machine lacks, e.g. "avx512vnni avx512bf16"; empty when it runs.
std::string missing_features(Isa isa) {
  std::string missing;
#if defined(__x86_64__)
  for (const Feature& feature : features()) {
    if (feature.needed_from <= isa && !feature.present) {
      missing += missing.empty() ? "" : " ";
      missing += feature.name;
    }
  }
#else
  if (isa != Isa::portable) missing = isa_name(isa);
#endif
  return missing;
}

std::string usable_names() {
  std::string names;
  for (Isa isa : usable_isas()) {
    names += names.empty() ? "" : ", ";
    names += isa_name(isa);
  }
  return names;
}

std::optional<IsaChoice> refuse(std::string* error, std::string message) {
  if (error != nullptr) *error = std::move(message);
  return std::nullopt;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::portable:
      break;
  }
  return "portable";
}

std::optional<Isa> parse_isa(std::string_view name) {
  for (Isa isa : all_isas) {
    if (name == isa_name(isa)) return isa;
  }
  return std::nullopt;
}

bool isa_built(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return FASTLLM_HAVE_AVX512 != 0;
    case Isa::avx2:
      return FASTLLM_HAVE_AVX2 != 0;
    case Isa::portable:
      break;
  }
  return true;
}

bool isa_runs_here(Isa isa) {
  return missing_features(isa).empty();
}

std::vector<Isa> usable_isas() {
  std::vector<Isa> usable;
  for (Isa isa : all_isas) {
    if (isa_built(isa) && isa_runs_here(isa)) usable.push_back(isa);
  }
  return usable;
}

std::optional<IsaChoice> choose_isa(std::string_view wanted, std::string* error) {
  if (!wanted.empty() && wanted != "auto") {
    const std::string shown(wanted);
    const std::optional<Isa> isa = parse_isa(wanted);
    if (!isa) {
      return refuse(error, "[isa] '" + shown + "' is no instruction set. Use auto, portable, avx2 or avx512.");
    }
    if (!isa_built(*isa)) {
      return refuse(error,
                    "[isa] '" + shown + "' was not compiled into this build. Use one of: " + usable_names() + ".");
    }
    if (const std::string missing = missing_features(*isa); !missing.empty()) {
      return refuse(error, "[isa] '" + shown + "' needs " + missing +
                               ", which this CPU lacks. Use one of: " + usable_names() + ".");
    }
    return IsaChoice{*isa, shown + ": asked for"};
  }
  IsaChoice choice;
  std::string passed_over;
  for (Isa isa : all_isas) {
    if (!isa_built(isa)) {
      passed_over += "; " + std::string(isa_name(isa)) + " not built";
    } else if (const std::string missing = missing_features(isa); !missing.empty()) {
      passed_over += "; " + std::string(isa_name(isa)) + " needs " + missing;
    } else {
      choice.isa = isa;
    }
  }
  choice.why = std::string(isa_name(choice.isa)) + ": the highest that runs here" + passed_over;
  return choice;
}

std::string isa_from_environment() {
  const char* value = std::getenv("FASTLLM_ISA");
  return value == nullptr ? std::string() : std::string(value);
}

std::string cpu_features() {
  std::string names;
  for (const Feature& feature : features()) {
    if (feature.present) {
      names += names.empty() ? "" : " ";
      names += feature.name;
    }
  }
  return names;
}

}  // namespace fastllm::core
