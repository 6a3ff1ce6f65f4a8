#pragma once
// What the files of this folder share. Only here is pybind11 included and the GIL named.

#include <pybind11/pybind11.h>

namespace fastllm::bind {

namespace py = pybind11;

void bind_errors(py::module_& m);   // core::Error -> fastllm.errors classes
void bind_device(py::module_& m);   // Device, list_devices, build_info
void bind_tensor(py::module_& m);   // Tensor
void bind_op(py::module_& m);       // run_op, EagerStep
void bind_graph(py::module_& m);    // Graph, Value, Program
void bind_vocab(py::module_& m);    // Vocab, Detokenizer
void bind_request(py::module_& m);  // Request
void bind_engine(py::module_& m);   // Engine, after_fork_in_child

}  // namespace fastllm::bind
