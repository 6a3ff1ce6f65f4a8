#pragma once
// Python dicts of attributes, for op.cpp and graph.cpp.

#include "bind/bind.h"
#include "graph/attrs.h"

namespace fastllm::bind {

// Error(invalid_request) for values that are no bool, int, float or str.
graph::AttrMap attrs_from(const std::string& kind, const py::dict& attrs);

}  // namespace fastllm::bind
