#pragma once
// What the files of this folder share. Only here is pybind11 included and the GIL named.

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "core/error.h"
#include "device/backend.h"
#include "engine/step_model.h"

namespace fastllm::graph {
class Program;
}

namespace fastllm::bind {

namespace py = pybind11;

// Python's Device: a shared handle on a backend.
struct DeviceHandle {
  std::shared_ptr<device::Backend> backend;
  std::string name;  // the backend's own name: "cpu", "cuda:0"
};

// Python's Program: what an Engine runs. `graph` is null for Program.null.
struct ProgramHandle {
  std::shared_ptr<engine::StepModel> model;
  DeviceHandle device;
  graph::Program* graph = nullptr;  // the same object as `model`
};

std::size_t kv_bytes_per_token(const engine::StepModel& model);

// Raises the class of `code` (fastllm.errors) with attributes, e.g. {"prompt_tokens": 9000, "limit": 4096}. Needs
// the GIL.
[[noreturn]] void raise_error(core::ErrorCode code, const std::string& fact, const std::string& hint,
                              const py::dict& attrs);

// The Python exception object of an error, not raised. Needs the GIL.
py::object make_error(core::ErrorCode code, const std::string& fact, const std::string& hint,
                      const py::dict& attrs = {});

// Runs release(); needs no GIL to be held. Python objects that native memory keeps alive are dropped through it,
// because the last owner may be the step thread, or a thread that outlives the interpreter (then they are leaked on
// purpose).
template <class Release>
void with_gil_if_alive(Release&& release) {
#if PY_VERSION_HEX >= 0x030D0000
  if (!Py_IsInitialized() || Py_IsFinalizing()) return;
#else
  if (!Py_IsInitialized() || _Py_IsFinalizing()) return;
#endif
  py::gil_scoped_acquire gil;
  release();
}

void bind_errors(py::module_& m);   // core::Error -> fastllm.errors classes
void bind_device(py::module_& m);   // Device, list_devices, build_info
void bind_tensor(py::module_& m);   // Tensor
void bind_op(py::module_& m);       // run_op, EagerStep
void bind_graph(py::module_& m);    // Graph, Value, Program
void bind_vocab(py::module_& m);    // Vocab, Detokenizer
void bind_request(py::module_& m);  // Request
void bind_probe(py::module_& m);    // Probe
void bind_engine(py::module_& m);   // Engine, after_fork_in_child

}  // namespace fastllm::bind
