// Graph, Value, Program.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "bind/attrs.h"
#include "bind/bind.h"
#include "engine/null_model.h"
#include "graph/eager.h"
#include "graph/ir.h"
#include "graph/program.h"

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
    fail(ErrorCode::invalid_request,
         cat("[", where, "] the value '", value.value().name, "' belongs to another graph."));
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
        return "<Value " + self.graph->value_text(self.id) + " " + self.value().type.str() + " " +
               core::dtype_name(self.value().type.dtype) + ">";
      });

  using Shared = std::shared_ptr<Graph>;
  py::class_<Graph, Shared>(m, "Graph")
      .def(py::init<>())
      .def("token_ids", [](const Shared& self) { return ValueHandle{self, self->token_ids()}; })
      .def("positions", [](const Shared& self) { return ValueHandle{self, self->positions()}; })
      .def(
          "constant",
          [](const Shared& self, const std::string& name, const core::Tensor& tensor) {
            return ValueHandle{self, self->constant(name, tensor)};
          },
          py::arg("name"), py::arg("tensor"))
      .def(
          "op",
          [](const Shared& self, const std::string& kind, const std::vector<ValueHandle>& inputs, const py::dict& attrs,
             const std::string& name) {
            std::vector<int> ids;
            for (const ValueHandle& value : inputs) ids.push_back(id_in(self, value, kind.c_str()));
            std::vector<ValueHandle> out;
            for (int id : self->op(graph::parse_op(kind, attrs_from(kind, attrs)), ids, name))
              out.push_back({self, id});
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
          "set_output",
          [](const Shared& self, const ValueHandle& logits) { self->set_output(id_in(self, logits, "set_output")); },
          py::arg("logits"))
      .def(
          "tap",
          [](const Shared& self, const std::string& name, const ValueHandle& value, bool pattern) {
            self->tap(name, id_in(self, value, "tap"), pattern);
          },
          py::arg("name"), py::arg("value"), py::kw_only(), py::arg("pattern") = false)
      .def_property_readonly("taps",
                             [](const Shared& self) {
                               py::list out;
                               for (const graph::Tap& tap : self->taps) {
                                 const graph::Type& type = self->values[static_cast<std::size_t>(tap.value)].type;
                                 out.append(py::make_tuple(tap.name, shape_tuple(type), tap.pattern));
                               }
                               return out;
                             })
      .def("dump", &Graph::dump);
}

// Logits of one eager step: what parity tests and notebooks compare with the op-by-op forward.
py::array_t<float> program_logits(const ProgramHandle& self, const graph::EagerStep& step,
                                  const std::optional<std::vector<std::int32_t>>& rows) {
  if (self.model.use_count() > 1)
    fail(ErrorCode::invalid_request, "[program] an engine runs this program.",
         "Ask the engine, or compile a program of your own.");
  const device::StepView& view = step.view();
  if (view.tokens == 0) fail(ErrorCode::invalid_request, "[program] the step has no tokens.", "Call step.begin first.");
  if (step.backend() != self.device.backend)
    fail(ErrorCode::invalid_request,
         cat("[program] the step lives on ", step.backend()->info().name, ", the program on ", self.device.name, "."),
         "Make both with one Device.");
  const auto layers = self.model->kv_layers();
  if (view.kv.size() != layers.size())
    fail(ErrorCode::invalid_request,
         cat("[program] the step has ", view.kv.size(), " cache layers, but the model has ", layers.size(), "."));
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (view.kv[i].kv_heads != layers[i].kv_heads || view.kv[i].head_dim != layers[i].head_dim ||
        view.kv[i].v_head_dim != layers[i].v_head_dim)
      fail(ErrorCode::shape_error,
           cat("[program] layer ", i, " caches ", layers[i].kv_heads, " heads of ", layers[i].head_dim, " and ",
               layers[i].v_head_dim, " channels, but the step's has ", view.kv[i].kv_heads, ", ", view.kv[i].head_dim,
               ", ", view.kv[i].v_head_dim, "."));
  for (int t = 0; t < view.tokens; ++t)
    if (view.token_ids[t] < 0 || view.token_ids[t] >= self.model->vocab_size())
      fail(ErrorCode::invalid_request,
           cat("[program] token id ", view.token_ids[t], " is outside 0..", self.model->vocab_size() - 1, "."));
  if (step.length() > self.model->context_length())
    fail(ErrorCode::context_too_long,
         cat("[program] ", step.length(), " tokens, but the context holds ", self.model->context_length(), "."));
  std::vector<std::int32_t> wanted;
  if (rows) {
    wanted = *rows;
  } else {
    wanted.resize(static_cast<std::size_t>(view.tokens));
    std::iota(wanted.begin(), wanted.end(), 0);
  }
  const device::StepView with_rows = step.with_rows(wanted);
  py::array_t<float> out({static_cast<py::ssize_t>(wanted.size()), static_cast<py::ssize_t>(self.model->vocab_size())});
  float* data = out.mutable_data();
  {
    py::gil_scoped_release unlocked;
    static std::mutex one_at_a_time;  // a program's buffers serve one step
    const std::lock_guard lock(one_at_a_time);
    self.model->reserve({view.tokens, std::max(1, with_rows.rows), 1});
    const std::span<float> logits = self.model->run(with_rows);
    std::copy(logits.begin(), logits.end(), data);
  }
  return out;
}

std::shared_ptr<ProgramHandle> compile(const Graph& graph, const DeviceHandle& device, int context_length,
                                       const std::string& kv_dtype, std::optional<std::vector<std::string>> passes,
                                       bool probes, const ProgramHandle* share,
                                       const std::optional<std::string>& quant) {
  auto handle = std::make_shared<ProgramHandle>();
  const Graph recorded = graph;  // another thread may go on recording
  py::gil_scoped_release unlocked;
  auto program = std::make_shared<graph::Program>(
      recorded, device.backend,
      graph::ProgramOptions{.context_length = context_length,
                            .kv_dtype = kv_dtype,
                            .passes = std::move(passes),
                            .quant = quant ? std::optional(quant::format_of(*quant)) : std::nullopt,
                            .probes = probes,
                            .share = share ? share->graph : nullptr});
  handle->graph = program.get();
  handle->model = std::move(program);
  handle->device = device;
  return handle;
}

}  // namespace

void bind_graph(py::module_& m) {
  bind_graph_class(m);
  m.def("weight_formats", &quant::format_names);
  m.def(
      "weight_format",
      [](const std::string& name) {
        const quant::Format format = quant::format_of(name);
        return py::make_tuple(quant::name_of(format), quant::error_bound(format));
      },
      py::arg("name"));
  m.def(
      "rounded_to",
      [](const core::Tensor& rows, const std::string& name) {
        const quant::Format format = quant::format_of(name);
        if (rows.shape().rank() != 2 || !rows.place().host)
          core::fail(core::ErrorCode::shape_error,
                     core::cat("[quant] a weight of shape ", rows.shape().str(), " on '", rows.place().name, "'."),
                     "Weights are matrices [out, in] in the memory of the CPU.");
        py::gil_scoped_release unlocked;
        return quant::rounded(format, rows);
      },
      py::arg("rows"), py::arg("name"));

  using Shared = std::shared_ptr<ProgramHandle>;
  py::class_<ProgramHandle, Shared>(m, "Program")
      .def(py::init(&compile), py::arg("graph"), py::arg("device"), py::kw_only(), py::arg("context_length"),
           py::arg("kv_dtype") = "auto", py::arg("passes") = py::none(), py::arg("probes") = false,
           py::arg("share") = py::none(), py::arg("quant") = py::none())
      .def_property_readonly("vocab_size", [](const ProgramHandle& self) { return self.model->vocab_size(); })
      .def_property_readonly("context_length", [](const ProgramHandle& self) { return self.model->context_length(); })
      .def_property_readonly("quantized_products", [](const ProgramHandle& self) { return self.graph->quantized(); })
      .def_property_readonly("rounded_products", [](const ProgramHandle& self) { return self.graph->rounded(); })
      .def_property_readonly("weight_bytes", [](const ProgramHandle& self) { return self.model->weight_bytes(); })
      .def_property_readonly("memory",
                             [](const ProgramHandle& self) {
                               py::dict result;
                               const auto* program = dynamic_cast<const graph::Program*>(self.model.get());
                               const graph::ProgramMemory memory =
                                   program != nullptr ? program->memory() : graph::ProgramMemory{};
                               result["activation_bytes"] = memory.activations;
                               result["unshared_activation_bytes"] = memory.unshared;
                               result["logits_bytes"] = memory.logits;
                               result["step_tokens"] = memory.step_tokens;
                               result["step_rows"] = memory.step_rows;
                               return result;
                             })
      .def_property_readonly("device", [](const ProgramHandle& self) { return self.device; })
      .def_property_readonly("kv_bytes_per_token",
                             [](const ProgramHandle& self) { return bind::kv_bytes_per_token(*self.model); })
      .def_property_readonly("kv_layers",
                             [](const ProgramHandle& self) {
                               py::list layers;
                               for (const engine::KvSpec& spec : self.model->kv_layers()) {
                                 py::dict layer;
                                 layer["kv_heads"] = spec.kv_heads;
                                 layer["head_dim"] = spec.head_dim;
                                 layer["v_head_dim"] = spec.v_head_dim;
                                 layer["dtype"] = core::dtype_name(spec.dtype);
                                 layers.append(layer);
                               }
                               return layers;
                             })
      .def_property_readonly("taps",
                             [](const ProgramHandle& self) {
                               py::list out;
                               for (const device::TapInfo& tap : self.model->taps()) {
                                 py::list row;
                                 for (const std::int64_t size : tap.row.dims()) row.append(size);
                                 out.append(py::make_tuple(tap.name, py::tuple(row), tap.pattern));
                               }
                               return out;
                             })
      .def("logits", &program_logits, py::arg("step"), py::arg("rows") = py::none())
      .def("dump",
           [](const ProgramHandle& self) { return self.graph ? self.graph->dump() : std::string("null model\n"); })
      .def_static(
          "null",
          [](int vocab_size, int context_length, int step_us, bool asynchronous) {
            auto model = std::make_shared<engine::NullModel>(vocab_size, context_length, step_us, asynchronous);
            const DeviceHandle device{model->backend(), model->backend()->info().name};
            return std::make_shared<ProgramHandle>(ProgramHandle{std::move(model), device, nullptr});
          },
          py::arg("vocab_size"), py::arg("context_length"), py::arg("step_us") = 0, py::arg("asynchronous") = false);
}

}  // namespace fastllm::bind
