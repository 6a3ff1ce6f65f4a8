#pragma once
// One rule per op: the types of its results from the types of its inputs. The same rules check recorded graphs
// (symbolic first axis) and eager calls (concrete sizes), and are the only place where shapes are checked: backends
// trust them.

#include <map>
#include <span>
#include <vector>

#include "graph/ir.h"

namespace fastllm::graph {

struct InferContext {
  core::DType activation = core::DType::f32;  // what embeddings produce
  std::map<int, KvShape>* kv = nullptr;       // caches by layer: kv_write fills or checks, attention reads
};

// Inputs in recording order; linear: x, weight, (bias), (residual). Error(shape_error, dtype_error, invalid_request).
std::vector<Type> infer(const OpSpec& spec, std::span<const Type> inputs, const InferContext& context);

}  // namespace fastllm::graph
