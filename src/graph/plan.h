#pragma once
// The memory plan: where every value of a lowered graph lives. One arena holds all intermediate results; two buffers
// share bytes when their lifetimes do not overlap. A result takes over the buffer of an input that dies with it
// where the op allows it, and views (slices, reshapes) are strides on their source. Sizes are those of the largest
// step; a smaller step uses a prefix of each buffer.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/step_model.h"
#include "graph/ir.h"

namespace fastllm::graph {

struct Buffer {
  Lead lead = Lead::tokens;
  std::int64_t row_elements = 0;
  core::DType dtype = core::DType::f32;
  int first = 0;  // index of the node that makes it, and of the last node that reads it
  int last = 0;
  std::size_t offset = 0;  // in the arena
  std::size_t bytes = 0;
};

struct Location {  // of a value, in its buffer; elements
  int buffer = -1;  // none: inputs and constants
  std::int64_t offset = 0;
  core::Shape strides;
};

struct Plan {
  std::vector<Buffer> buffers;
  std::vector<Location> locations;  // by value
  std::size_t arena_bytes = 0;
  std::size_t unshared_bytes = 0;  // what the buffers would take side by side
};

// Copies where a reshape has no view of its strided source, so that every view node of the graph is free.
void legalize_views(Graph& graph);

// The graph is legal: see legalize_views.
Plan make_plan(const Graph& graph, const engine::StepLimits& limits);

std::string plan_text(const Graph& graph, const Plan& plan);

}  // namespace fastllm::graph
