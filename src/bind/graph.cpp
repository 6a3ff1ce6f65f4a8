// Graph, Value, Program.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "bind/attrs.h"
#include "bind/bind.h"
#include "engine/null_model.h"
#include "graph/ir.h"

namespace fastllm::bind {
namespace {

using core::cat;
using core::ErrorCode;
using core::fail;
using graph::Graph;

struct ValueHandle {
  std::shared_ptr<Graph> graph;
  int id = -1;
  const graph::Value& value() const { return graph->values[static_cast<std::size_t>(id)]; }
};

int id_in(const std::shared_ptr<Graph>& graph, const ValueHandle& value, const char* where) {
  if (value.graph != graph)
    fail(ErrorCode::invalid_request, cat("[", where, "] the value '", value.value().name, "' belongs to another graph."));
  return value.id;
}

py::tuple shape_tuple(const graph::Type& type) {
  py::tuple out(static_cast<std::size_t>(type.shape.rank()));
  for (int i = 0; i < type.shape.rank(); ++i)
    if (i == 0 && type.lead != graph::Lead::fixed)
      out[0] = type.lead == graph::Lead::tokens ? "tokens" : "rows";
    else
      out[static_cast<std::size_t>(i)] = type.shape[i];
  return out;
}

void bind_graph_class(py::module_& m) {
  py::class_<ValueHandle>(m, "Value")
      .def_property_readonly("shape", [](const ValueHandle& self) { return shape_tuple(self.value().type); })
      .def_property_readonly("dtype", [](const ValueHandle& self) { return core::dtype_name(self.value().type.dtype); })
      .def_property_readonly("name", [](const ValueHandle& self) { return self.value().name; })
      .def("__repr__", [](const ValueHandle& self) {
        return "<Value " + self.graph->value_text(self.id) + " " + self.value().type.str() + " " + core::dtype_name(self.value().type.dtype) + ">";
      });

  using Shared = std::shared_ptr<Graph>;
  py::class_<Graph, Shared>(m, "Graph")
      .def(py::init<>())
      .def("token_ids", [](const Shared& self) { return ValueHandle{self, self->token_ids()}; })
      .def("positions", [](const Shared& self) { return ValueHandle{self, self->positions()}; })
      .def(
          "constant",
          [](const Shared& self, const std::string& name, const core::Tensor& tensor) { return ValueHandle{self, self->constant(name, tensor)}; },
          py::arg("name"), py::arg("tensor"))
      .def(
          "op",
          [](const Shared& self, const std::string& kind, const std::vector<ValueHandle>& inputs, const py::dict& attrs, const std::string& name) {
            std::vector<int> ids;
            for (const ValueHandle& value : inputs) ids.push_back(id_in(self, value, kind.c_str()));
            std::vector<ValueHandle> out;
            for (int id : self->op(graph::parse_op(kind, attrs_from(attrs)), ids, name)) out.push_back({self, id});
            return out;
          },
          py::arg("kind"), py::arg("inputs"), py::arg("attrs"), py::arg("name"))
      .def(
          "reshape",
          [](const Shared& self, const ValueHandle& value, const std::vector<std::int64_t>& shape) {
            return ValueHandle{self, self->reshape(id_in(self, value, "reshape"), shape)};
          },
          py::arg("value"), py::arg("shape"))
      .def(
          "slice",
          [](const Shared& self, const ValueHandle& value, std::int64_t start, std::int64_t stop) {
            return ValueHandle{self, self->slice(id_in(self, value, "slice"), start, stop)};
          },
          py::arg("value"), py::arg("start"), py::arg("stop"))
      .def(
          "set_output", [](const Shared& self, const ValueHandle& logits) { self->set_output(id_in(self, logits, "set_output")); },
          py::arg("logits"))
      .def("dump", &Graph::dump);
}

}  // namespace

void bind_graph(py::module_& m) {
  bind_graph_class(m);

  using Shared = std::shared_ptr<ProgramHandle>;
  py::class_<ProgramHandle, Shared>(m, "Program")
      .def_property_readonly("vocab_size", [](const ProgramHandle& self) { return self.model->vocab_size(); })
      .def_property_readonly("context_length", [](const ProgramHandle& self) { return self.model->context_length(); })
      .def_property_readonly("weight_bytes", [](const ProgramHandle& self) { return self.model->weight_bytes(); })
      .def_property_readonly("device", [](const ProgramHandle& self) { return self.device; })
      .def_property_readonly("kv_bytes_per_token", [](const ProgramHandle& self) { return kv_bytes_per_token(*self.model); })
      .def_static(
          "null",
          [](int vocab_size, int context_length, int step_us) {
            auto model = std::make_shared<engine::NullModel>(vocab_size, context_length, step_us);
            const DeviceHandle device{model->backend(), model->backend()->info().name};
            return std::make_shared<ProgramHandle>(ProgramHandle{std::move(model), device, nullptr});
          },
          py::arg("vocab_size"), py::arg("context_length"), py::arg("step_us") = 0);
}

}  // namespace fastllm::bind
