// Probe: what one request looks at and changes. read() copies what is complete into a numpy array, without the GIL.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <tuple>
#include <utility>
#include <vector>

#include "bind/engine_handle.h"

namespace fastllm::bind {
namespace {

using engine::RequestProbe;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
// tap, (first, last) positions, (begin, end) elements of a row, scale, what is added
using EditTuple =
    std::tuple<int, std::pair<std::int64_t, std::int64_t>, std::pair<std::int64_t, std::int64_t>, float, Floats>;

std::shared_ptr<RequestProbe> make_probe(const ProgramHandle& program, std::vector<int> reads,
                                         const std::vector<EditTuple>& edits, std::size_t max_bytes,
                                         std::uint64_t group) {
  engine::ProbeSpec spec;
  spec.reads = std::move(reads);
  spec.max_bytes = max_bytes;
  spec.group = group;
  for (const auto& [tap, positions, elements, scale, add] : edits) {
    device::TapEdit edit{tap, positions.first, positions.second, elements.first, elements.second, scale, {}};
    edit.add.assign(add.data(), add.data() + add.size());
    spec.edits.push_back(std::move(edit));
  }
  return std::make_shared<RequestProbe>(program.model, std::move(spec));
}

py::array_t<float> read(const RequestProbe& self, std::size_t index, const std::vector<std::int64_t>& row) {
  if (index >= self.read_count())
    core::fail(core::ErrorCode::invalid_request, core::cat("[probe] read ", index, " of ", self.read_count(), "."));
  const std::int64_t positions = self.done();
  std::vector<py::ssize_t> shape;
  std::int64_t elements = 1;
  if (self.is_pattern(index)) {
    shape = {self.row_elements(index), positions, positions};
    elements = self.row_elements(index);
  } else {
    shape.push_back(positions);
    for (const std::int64_t size : row) {
      shape.push_back(size);
      elements *= size;
    }
  }
  if (elements != self.row_elements(index))
    core::fail(core::ErrorCode::shape_error, core::cat("[probe] a row of read ", index, " has ",
                                                       self.row_elements(index), " elements, not ", elements, "."));
  py::array_t<float> out(shape);
  float* data = out.mutable_data();
  const py::gil_scoped_release unlocked;
  self.copy(index, positions, data);
  return out;
}

}  // namespace

void bind_probe(py::module_& m) {
  py::class_<RequestProbe, std::shared_ptr<RequestProbe>>(m, "Probe")
      .def(py::init(&make_probe), py::arg("program"), py::kw_only(), py::arg("reads"), py::arg("edits"),
           py::arg("max_bytes"), py::arg("group") = 0)
      .def_property_readonly("positions", &RequestProbe::done)
      .def_property_readonly("token_ids", &RequestProbe::tokens)
      .def_property_readonly("nbytes", &RequestProbe::bytes)
      .def("read", &read, py::arg("index"), py::arg("row"));
}

}  // namespace fastllm::bind
