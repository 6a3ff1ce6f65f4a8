#pragma once
// Graph passes, one a file. Each leaves the graph's results as they were (up to rounding) and its node order valid;
// each has a test that shows the graph before and after and compares the numbers. A node whose name is in Graph::keep
// or that makes a pinned value is never fused away; a pinned value is whole before anything else is made of it.

#include <span>
#include <string>
#include <vector>

#include "graph/ir.h"

namespace fastllm::graph {

struct Pass {
  const char* name;
  void (*run)(Graph&);
};

void affine_fold(Graph& graph);        // x * s + t into the product, embedding or affine before it
void dead_code(Graph& graph);          // nodes whose results nobody reads
void select_rows(Graph& graph);        // what only the logits need runs on the wanted rows only
void concat_linear(Graph& graph);      // products of one input: one product of several parts (QKV, gate and up)
void gated_activation(Graph& graph);   // act(gate) * up
void linear_activation(Graph& graph);  // act(x W^T) in the product's epilogue
void linear_residual(Graph& graph);    // x W^T + residual in the product's epilogue
void gated_linear(Graph& graph);       // act(gate) * up in the epilogue of the gate/up product; where a backend asks
void linear_float(Graph& graph);       // 16-bit products that end in float32; where a backend asks
void rope_attention(Graph& graph);     // rope_kv_write and its attention; where a backend asks, after rope_kv_write
void rope_kv_write(Graph& graph);      // norms of heads, rotations and the cache write; where a backend asks
void residual_norm(Graph& graph);      // rms_norm(x + residual)

// The default order, for any backend. linear_residual runs before residual_norm: a product that adds in place saves writing and
// reading its result.
std::span<const Pass> all_passes();
std::span<const Pass> backend_passes();  // those that Backend::fusions() may ask for, after the others

// Runs the named passes in the order given. Error(invalid_request) for an unknown name.
void run_passes(Graph& graph, std::span<const std::string> names);

// For passes: true if `value` is the result of a node that may be fused into its only reader.
bool fusible(const Graph& graph, const std::vector<int>& uses, const std::vector<int>& producers, int value);

// Takes out the nodes whose mark is set.
void remove_nodes(Graph& graph, const std::vector<bool>& marked);

}  // namespace fastllm::graph
