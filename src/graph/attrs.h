#pragma once
// Ops by name: a kind and a map of attributes <-> the structs of device/op.h. Attribute names are the struct's field
// names, enums are strings. Every op states its fields once, in attrs.cpp; parsing and printing both come from
// there.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/ir.h"

namespace fastllm::graph {

using Attr = std::variant<bool, std::int64_t, double, std::string>;
using AttrMap = std::map<std::string, Attr>;

// Error(invalid_request) for an unknown kind, attribute or enum value, naming the known ones, and for a value of the
// wrong type.
OpSpec parse_op(std::string_view kind, const AttrMap& attrs);

// The attributes that differ from their defaults: "eps=1e-05 weight_offset=1"; "" if none do.
std::string attrs_text(const device::Op& op);

std::vector<std::string> op_kinds();

}  // namespace fastllm::graph
