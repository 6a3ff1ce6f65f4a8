#include "quant/format.h"

#include <array>

#include "core/error.h"

namespace fastllm::quant {

using core::cat;
using core::ErrorCode;

namespace {

constexpr std::array kGroups = {32, 64, 128};
constexpr int kUsualInt4Group = 128;

// Every format that has a name, in the order in which they are listed.
const std::vector<Format>& known() {
  static const std::vector<Format> formats = [] {
    std::vector<Format> all;
    for (const Code code : {Code::fp8, Code::int8}) {
      all.push_back({code, 0, false});
      for (const int group : kGroups) all.push_back({code, group, false});
      if (code == Code::fp8) all.push_back({code, 0, false, true});
    }
    for (const bool asymmetric : {false, true}) {
      for (const int group : kGroups) all.push_back({Code::int4, group, asymmetric});
      all.push_back({Code::int4, 0, asymmetric});
    }
    return all;
  }();
  return formats;
}

}  // namespace

std::string name_of(const Format& format) {
  const char* const codes[] = {"fp8", "int8", "int4"};
  std::string name = codes[static_cast<int>(format.code)];
  if (format.asymmetric) name += "_asym";
  if (format.dynamic) name += "_dynamic";
  const int usual = format.code == Code::int4 ? kUsualInt4Group : 0;
  if (format.group == usual) return name;
  return name + (format.group == 0 ? "_row" : cat("_g", format.group));
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const Format& format : known()) names.push_back(name_of(format));
  return names;
}

Format format_of(std::string_view name) {
  for (const Format& format : known())
    if (name == name_of(format)) return format;
  if (name == "int4_g128") return {Code::int4, 128, false};
  if (name == "int4_asym_g128") return {Code::int4, 128, true};
  std::string list;
  for (const std::string& n : format_names()) list += (list.empty() ? "" : ", ") + n;
  core::fail(ErrorCode::invalid_config, cat("[quant] '", name.substr(0, 40), "' is no weight format."),
             cat("There are ", list, "."));
}

double bits_per_weight(const Format& format, std::int64_t depth) {
  if (format.scales_sums()) return format.bits() + 32.0 / static_cast<double>(depth);
  const double shared = format.asymmetric ? 20.0 : 16.0;  // scale and zero point
  return format.bits() + shared / static_cast<double>(format.group == 0 ? depth : format.group);
}

double error_bound(const Format& format) {
  // The scale of a group is rounded by up to 2^-9: the largest numbers may then lie past the last level.
  const double rounding = format.scales_sums() ? 1e-6 : 0x1p-8;
  switch (format.code) {
    case Code::fp8:
      return 0x1p-4 + rounding;  // half a step of a 3-bit mantissa
    case Code::int8:
      return 0.5 / 127 + rounding;
    case Code::int4:
      // Symmetric: what has the other sign ends at 7/8 of the largest. Asymmetric: the zero point is rounded as well.
      return (format.asymmetric ? 1.0 / 15 : 1.0 / 8) + rounding;
  }
  return 0.0;
}

}  // namespace fastllm::quant
