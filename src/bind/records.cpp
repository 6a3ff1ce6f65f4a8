// TokenRecords: rows on demand, and the two things a fast display needs of all of them: text, and runs of one shade.

#include "bind/records.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "bind/engine_handle.h"
#include "engine/utf8.h"

namespace fastllm::bind {

namespace {

using engine::TokenEvent;

constexpr py::ssize_t kMostOfARun = 32;  // tokens: where a text must be cut, it is cut between runs

// 0 for a token that was as good as certain, up to 9 for one below a tenth: the same as display's level_of.
int shade_of(const TokenEvent& event, bool shaded) {
  if (!shaded || !event.has_logprob || event.logprob >= 0.0f) return 0;
  return std::min(9, static_cast<int>((1.0 - std::exp(static_cast<double>(event.logprob))) * 10.0));
}

std::pair<py::ssize_t, py::ssize_t> record_bounds(const TokenRecords& self, py::ssize_t start, py::ssize_t stop) {
  const auto size = static_cast<py::ssize_t>(self.events.size());
  stop = std::clamp<py::ssize_t>(stop < 0 ? size : stop, 0, size);
  return {std::clamp<py::ssize_t>(start, 0, stop), stop};
}

py::str record_text(const TokenRecords& self, py::ssize_t start, py::ssize_t stop) {
  const auto [first, end] = record_bounds(self, start, stop);
  std::string joined;
  for (py::ssize_t i = first; i < end; ++i) joined += self.events[static_cast<std::size_t>(i)].text;
  return text_of(joined);
}

// (step, text, tokens) a run; a control token without text is a run of its own with the step -1 - its id.
py::list record_runs(const TokenRecords& self, py::ssize_t start, py::ssize_t stop, bool shaded) {
  const auto [first, end] = record_bounds(self, start, stop);
  py::list result;
  std::string joined;
  int step = 0;
  py::ssize_t count = 0;
  const auto flush = [&] {
    if (count > 0) result.append(py::make_tuple(step, text_of(joined), count));
    joined.clear();
    count = 0;
  };
  for (py::ssize_t i = first; i < end; ++i) {
    const TokenEvent& event = self.events[static_cast<std::size_t>(i)];
    if (event.special && event.text.empty()) {
      flush();
      result.append(py::make_tuple(-1 - event.id, py::str(), 1));
      continue;
    }
    const int here = shade_of(event, shaded);
    if (count == kMostOfARun || (count > 0 && here != step)) flush();
    step = here;
    joined += event.text;
    ++count;
  }
  flush();
  return result;
}

py::tuple record_at(const TokenRecords& self, py::ssize_t index) {
  const auto size = static_cast<py::ssize_t>(self.events.size());
  if (index < 0) index += size;
  if (index < 0 || index >= size) throw py::index_error(core::cat("token ", index, " of ", size));
  return row_of(*self.vocab, self.events[static_cast<std::size_t>(index)]);
}

py::list record_slice(const TokenRecords& self, const py::slice& slice) {
  std::size_t start = 0, stop = 0, step = 0, length = 0;
  if (!slice.compute(self.events.size(), &start, &stop, &step, &length)) throw py::error_already_set();
  py::list rows(length);
  for (std::size_t i = 0; i < length; ++i, start += step) rows[i] = row_of(*self.vocab, self.events[start]);
  return rows;
}

}  // namespace

py::tuple top_of(const engine::Vocab& vocab, const std::vector<sampling::TopLogprob>& top) {
  py::tuple entries(top.size());
  for (std::size_t i = 0; i < top.size(); ++i) {
    entries[i] = py::make_tuple(top[i].id, text_of(engine::decode_utf8(vocab.bytes(top[i].id))), top[i].logprob);
  }
  return entries;
}

py::tuple row_of(const engine::Vocab& vocab, const TokenEvent& event) {
  const py::object logprob = event.has_logprob ? py::object(py::float_(event.logprob)) : py::object(py::none());
  return py::make_tuple(event.id, text_of(event.text), py::bytes(event.bytes), event.index, logprob,
                        top_of(vocab, event.top), event.special, event.time_s);
}

void bind_records(py::module_& m) {
  py::class_<TokenRecords>(m, "TokenRecords")
      .def("__len__", [](const TokenRecords& self) { return self.events.size(); })
      .def("__iter__",
           [](const TokenRecords& self) {
             return py::iter(record_slice(self, py::slice(0, static_cast<py::ssize_t>(self.events.size()), 1)));
           })
      .def("__getitem__", &record_at)
      .def("__getitem__", &record_slice)
      .def("text", &record_text, py::arg("start") = 0, py::arg("stop") = -1)
      .def("runs", &record_runs, py::arg("start") = 0, py::arg("stop") = -1, py::kw_only(), py::arg("shaded") = true);
}

}  // namespace fastllm::bind
