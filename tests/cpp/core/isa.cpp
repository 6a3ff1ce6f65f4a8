// The choice of instruction set, against what the kernel of the operating system says about the CPU.
#include "core/isa.h"

#include <fstream>
#include <set>
#include <sstream>

#include "check.h"

using fastllm::core::choose_isa;
using fastllm::core::Isa;

namespace {

// The flags of the first CPU of /proc/cpuinfo; empty where there is no such file.
std::set<std::string> flags_by_proc() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::set<std::string> flags;
    for (std::string word; words >> word;) flags.insert(word);
    return flags;
  }
  return {};
}

}  // namespace

TEST("names and values go both ways") {
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    const auto parsed = fastllm::core::parse_isa(fastllm::core::isa_name(isa));
    REQUIRE(parsed.has_value());
    CHECK_EQ(*parsed, isa);
  }
  CHECK(!fastllm::core::parse_isa("AVX2"));
  CHECK(!fastllm::core::parse_isa(""));
}

TEST("portable is always usable, and first") {
  const std::vector<Isa> usable = fastllm::core::usable_isas();
  REQUIRE(!usable.empty());
  CHECK_EQ(usable.front(), Isa::portable);
  for (const Isa isa : usable) CHECK(fastllm::core::isa_built(isa) && fastllm::core::isa_runs_here(isa));
}

#if defined(__x86_64__)
TEST("the CPU's features are those the operating system lists") {
  const std::set<std::string> flags = flags_by_proc();
  if (flags.empty()) return;
  const bool avx2 = flags.count("avx2") && flags.count("fma") && flags.count("f16c");
  const bool avx512 = avx2 && flags.count("avx512f") && flags.count("avx512bw") && flags.count("avx512dq") &&
                      flags.count("avx512vl") && flags.count("avx512_vnni") && flags.count("avx512_bf16");
  CHECK_EQ(fastllm::core::isa_runs_here(Isa::avx2), avx2);
  CHECK_EQ(fastllm::core::isa_runs_here(Isa::avx512), avx512);
}
#endif

TEST("auto takes the highest and says what it passed over") {
  const auto choice = choose_isa("auto");
  REQUIRE(choice.has_value());
  CHECK_EQ(choice->isa, fastllm::core::usable_isas().back());
  CHECK(choice->why.find(fastllm::core::isa_name(choice->isa)) == 0);
  if (choice->isa != Isa::avx512) CHECK(choice->why.find("avx512") != std::string::npos);
  CHECK_EQ(choose_isa("")->isa, choice->isa);
}

TEST("a wish is granted or refused with the reason") {
  std::string error;
  REQUIRE(choose_isa("portable").has_value());
  CHECK_EQ(choose_isa("portable")->isa, Isa::portable);
  CHECK(!choose_isa("sse9", &error).has_value());
  CHECK(error.find("[isa] 'sse9'") == 0);
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    const bool usable = fastllm::core::isa_built(isa) && fastllm::core::isa_runs_here(isa);
    error.clear();
    CHECK_EQ(choose_isa(fastllm::core::isa_name(isa), &error).has_value(), usable);
    CHECK_EQ(error.empty(), usable);
  }
}
