// run_op and EagerStep: one op at a time from Python.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>
#include <vector>

#include "bind/attrs.h"
#include "bind/bind.h"
#include "graph/eager.h"

namespace fastllm::bind {

using core::cat;
using core::ErrorCode;
using core::fail;
using core::Tensor;

graph::AttrMap attrs_from(const std::string& kind, const py::dict& attrs) {
  graph::AttrMap out;
  for (const auto& [key, value] : attrs) {
    const auto name = py::cast<std::string>(key);
    if (py::isinstance<py::bool_>(value))
      out[name] = py::cast<bool>(value);
    else if (py::isinstance<py::str>(value))
      out[name] = py::cast<std::string>(value);
    else if (PyFloat_Check(value.ptr()))
      out[name] = py::cast<double>(value);
    else if (PyIndex_Check(value.ptr()))
      out[name] = py::cast<std::int64_t>(value);
    else if (PyNumber_Check(value.ptr()))  // numpy scalars
      out[name] = PyFloat_AsDouble(value.ptr());
    else
      fail(ErrorCode::invalid_request,
           cat("[", kind, "] attribute '", name, "' is a ", Py_TYPE(value.ptr())->tp_name, "."),
           "Attributes are bool, int, float or str.");
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return out;
}

engine::KvSpec kv_spec_from(const py::dict& layer) {
  engine::KvSpec spec;
  for (const auto& [key, value] : layer) {
    const auto name = py::cast<std::string>(key);
    if (name == "kv_heads") {
      spec.kv_heads = py::cast<int>(value);
    } else if (name == "head_dim") {
      spec.head_dim = py::cast<int>(value);
    } else if (name == "v_head_dim") {
      spec.v_head_dim = py::cast<int>(value);
    } else if (name == "dtype") {
      const auto text = py::cast<std::string>(value);
      const auto dtype = core::dtype_from_name(text);
      if (!dtype || !core::is_floating(*dtype))
        fail(ErrorCode::dtype_error, cat("[eager_step] a cache of dtype '", text, "'."),
             "Use float32, float16, bfloat16 or float8_e4m3.");
      spec.dtype = *dtype;
    } else {
      fail(ErrorCode::invalid_request, cat("[eager_step] a layer has no field '", name, "'."),
           "Known: kv_heads, head_dim, v_head_dim, dtype.");
    }
  }
  if (spec.v_head_dim == 0) spec.v_head_dim = spec.head_dim;
  return spec;
}

void bind_op(py::module_& m) {
  using graph::EagerStep;
  py::class_<EagerStep>(m, "EagerStep")
      .def(py::init([](const DeviceHandle& device, const std::vector<py::dict>& layers, std::int64_t capacity) {
             std::vector<engine::KvSpec> specs;
             for (const py::dict& layer : layers) specs.push_back(kv_spec_from(layer));
             py::gil_scoped_release unlocked;
             return std::make_unique<EagerStep>(device.backend, std::move(specs), capacity);
           }),
           py::arg("device"), py::arg("layers"), py::arg("capacity"))
      .def(
          "begin",
          [](EagerStep& self, const std::vector<std::int32_t>& token_ids, std::int64_t rope_len) {
            self.begin(token_ids, rope_len);
          },
          py::arg("token_ids"), py::kw_only(), py::arg("rope_len") = 0)
      .def_property_readonly("length", &EagerStep::length)
      .def_property_readonly("token_ids", &EagerStep::token_ids)
      .def_property_readonly("positions", &EagerStep::positions);

  m.def(
      "run_op",
      [](const DeviceHandle& device, const std::string& kind, const std::vector<Tensor>& inputs, const py::dict& attrs,
         const EagerStep* step) {
        const graph::OpSpec spec = graph::parse_op(kind, attrs_from(kind, attrs));
        py::gil_scoped_release unlocked;
        return graph::run_eager(*device.backend, spec, inputs, step);
      },
      py::arg("device"), py::arg("kind"), py::arg("inputs"), py::arg("attrs"), py::arg("step") = py::none());
}

}  // namespace fastllm::bind
