// Vocab and Detokenizer.

#include <string_view>

#include <pybind11/stl.h>

#include "bind/engine_handle.h"

namespace fastllm::bind {

namespace {

VocabHandle make_vocab(const py::sequence& token_bytes, const py::sequence& special, bool strip_leading_space) {
  std::vector<py::bytes> owners;
  std::vector<std::string_view> views;
  std::vector<char> flags;
  owners.reserve(token_bytes.size());
  views.reserve(token_bytes.size());
  for (const py::handle item : token_bytes) {
    if (!PyBytes_Check(item.ptr())) {
      core::fail(core::ErrorCode::invalid_request, core::cat("[vocab] entry ", views.size(), " of token_bytes is a ",
                                                             Py_TYPE(item.ptr())->tp_name, ", not bytes."));
    }
    owners.push_back(py::reinterpret_borrow<py::bytes>(item));
    views.emplace_back(PyBytes_AS_STRING(item.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(item.ptr())));
  }
  flags.reserve(special.size());
  for (const py::handle item : special) {
    const int truth = PyObject_IsTrue(item.ptr());
    if (truth < 0) throw py::error_already_set();
    flags.push_back(static_cast<char>(truth));
  }
  return {std::make_shared<const engine::Vocab>(views, std::move(flags), strip_leading_space)};
}

engine::Detokenizer make_detokenizer(const VocabHandle& vocab, const std::vector<std::string>& stop, bool include_stop,
                                     bool skip_special) {
  for (const std::string& text : stop) {
    if (text.empty()) {
      core::fail(core::ErrorCode::invalid_config,
                 "[detokenizer] stop holds \"\"; stop strings need at least one character.");
    }
  }
  return engine::Detokenizer(vocab.vocab, stop, {include_stop, skip_special});
}

}  // namespace

void bind_vocab(py::module_& m) {
  py::class_<VocabHandle>(m, "Vocab")
      .def(py::init(&make_vocab), py::arg("token_bytes"), py::arg("special"), py::kw_only(),
           py::arg("strip_leading_space") = false)
      .def("__len__", [](const VocabHandle& self) { return self.vocab->size(); });

  py::class_<engine::Detokenizer>(m, "Detokenizer")
      .def(py::init(&make_detokenizer), py::arg("vocab"), py::kw_only(), py::arg("stop") = std::vector<std::string>{},
           py::arg("include_stop") = false, py::arg("skip_special") = true)
      .def(
          "push",
          [](engine::Detokenizer& self, std::int32_t token_id, bool hold) {
            engine::Detokenizer::Piece piece;
            self.push(token_id, hold, piece);
            return py::make_tuple(text_of(piece.text), py::bytes(piece.bytes), piece.stopped);
          },
          py::arg("token_id"), py::kw_only(), py::arg("hold") = true)
      .def("finish", [](engine::Detokenizer& self) {
        engine::Detokenizer::Piece piece;
        self.finish(piece);
        return py::make_tuple(text_of(piece.text), py::bytes(piece.bytes));
      });
}

}  // namespace fastllm::bind
