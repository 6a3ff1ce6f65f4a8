// Request: take() builds the Python records, take_records() keeps them native.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bind/engine_handle.h"
#include "bind/records.h"

namespace fastllm::bind {

namespace {

using engine::Finish;
using engine::TokenEvent;

py::list take(RequestHandle& self, py::ssize_t limit) {
  self.engine().check_not_forked("take");
  std::vector<TokenEvent> events;
  self.engine().hub().take(self.request(), limit < 0 ? static_cast<std::size_t>(-1) : static_cast<std::size_t>(limit),
                           events);
  py::list tokens(events.size());
  for (std::size_t i = 0; i < events.size(); ++i) tokens[i] = row_of(*self.engine().vocab(), events[i]);
  return tokens;
}

TokenRecords take_records(RequestHandle& self) {
  self.engine().check_not_forked("take_records");
  TokenRecords records;
  self.engine().hub().take(self.request(), static_cast<std::size_t>(-1), records.events);
  records.vocab = self.engine().vocab();
  return records;
}

py::object finish_of(RequestHandle& self) {
  self.engine().check_not_forked("finish");
  const auto finish = self.engine().hub().finish(self.request());
  if (!finish) return py::none();
  py::dict result;
  result["reason"] = engine::finish_reason_name(finish->reason);
  if (const auto* text = std::get_if<std::string>(&finish->stop)) {
    result["stop"] = text_of(*text);
  } else if (const auto* token = std::get_if<std::int32_t>(&finish->stop)) {
    result["stop"] = *token;
  } else {
    result["stop"] = py::none();
  }
  result["tail_text"] = text_of(finish->tail_text);
  result["tail_bytes"] = py::bytes(finish->tail_bytes);
  if (finish->error_code.empty()) {
    result["error"] = py::none();
  } else {
    py::dict error;
    error["code"] = finish->error_code;
    error["message"] = text_of(finish->error_message);
    error["hint"] = text_of(finish->error_hint);
    if (!finish->error_cause.empty()) error["cause"] = text_of(finish->error_cause);
    result["error"] = error;
  }
  py::dict usage;
  usage["prompt_tokens"] = finish->prompt_tokens;
  usage["completion_tokens"] = finish->completion_tokens;
  usage["cached_tokens"] = finish->cached_tokens;
  result["usage"] = usage;
  py::dict timing;
  timing["queue_s"] = finish->queue_s;
  timing["prefill_s"] = finish->prefill_s;
  timing["ttft_s"] = finish->ttft_s;
  timing["decode_s"] = finish->decode_s;
  timing["total_s"] = finish->total_s;
  timing["steps"] = finish->steps;
  timing["preemptions"] = finish->preemptions;
  result["timing"] = timing;
  return result;
}

void check_prompt_ready(RequestHandle& self, const char* where, bool asked) {
  self.engine().check_not_forked(where);
  if (!asked) {
    core::fail(core::ErrorCode::invalid_request, core::cat("[", where, "] the request was submitted without it."),
               "Submit with prompt_logprobs=k or keep_logits=True.");
  }
  if (self.engine().hub().prompt_ready(self.request())) return;
  core::fail(core::ErrorCode::invalid_request,
             core::cat("[", where, "] ", self.request().prompt_done.load(), " of ", self.request().spec.prompt.size(),
                       " prompt tokens are done."),
             "Wait for the first token or the end.");
}

py::list prompt_logprobs(RequestHandle& self) {
  check_prompt_ready(self, "prompt_logprobs", self.request().spec.params.prompt_logprobs >= 0);
  const auto& rows = self.request().prompt_logprobs;
  py::list result(rows.size());
  result[0] = py::none();
  for (std::size_t i = 1; i < rows.size(); ++i) {
    result[i] = py::make_tuple(rows[i].id, rows[i].logprob, rows[i].rank, top_of(*self.engine().vocab(), rows[i].top));
  }
  return result;
}

py::array_t<float> logits(RequestHandle& self) {
  check_prompt_ready(self, "logits", self.request().spec.keep_logits);
  // The array shares the request's memory and keeps it alive.
  auto* owner = new std::shared_ptr<engine::Request>(self.shared());
  const py::capsule keep(owner, [](void* pointer) { delete static_cast<std::shared_ptr<engine::Request>*>(pointer); });
  const auto rows = static_cast<py::ssize_t>(self.request().spec.prompt.size());
  const auto columns = static_cast<py::ssize_t>(self.engine().model()->vocab_size());
  return py::array_t<float>({rows, columns}, self.request().logits.get(), keep);
}

}  // namespace

RequestHandle::~RequestHandle() {
  if (engine_->forked()) {  // a thread that is gone may wait on it: its condition variable could not be destroyed
    new std::shared_ptr<engine::Request>(std::move(request_));
    return;
  }
  engine_->abandon(request_);
  // The last owner of an engine joins its thread: not under the GIL.
  if (engine_.use_count() == 1) {
    const py::gil_scoped_release release;
    request_.reset();
    engine_.reset();
  }
}

void bind_request(py::module_& m) {
  bind_records(m);
  py::class_<RequestHandle>(m, "Request")
      .def_property_readonly("id", [](const RequestHandle& self) { return self.request().id; })
      .def_property_readonly("state",
                             [](const RequestHandle& self) { return engine::state_name(self.request().state.load()); })
      .def_property_readonly("progress",
                             [](const RequestHandle& self) {
                               return py::make_tuple(self.request().prompt_done.load(),
                                                     self.request().spec.prompt.size());
                             })
      .def_property_readonly("ahead",
                             [](const RequestHandle& self) -> py::object {
                               const int ahead = self.request().ahead.load();
                               const bool queued = self.request().state.load() == engine::SequenceState::queued;
                               return queued && ahead >= 0 ? py::object(py::int_(ahead)) : py::object(py::none());
                             })
      .def("cancel", [](const RequestHandle& self) { self.engine().cancel(self.shared()); })
      .def(
          "want", [](const RequestHandle& self, std::int64_t count) { self.engine().want(self.shared(), count); },
          py::arg("count"))
      .def("take", &take, py::arg("limit") = -1)
      .def("take_records", &take_records)
      .def(
          "wait",
          [](RequestHandle& self, double timeout_s) {
            self.engine().check_not_forked("wait");
            return without_gil([&] { return self.engine().hub().wait(self.request(), timeout_s); });
          },
          py::arg("timeout_s"))
      .def_property_readonly("unread",
                             [](RequestHandle& self) {
                               self.engine().check_not_forked("unread");
                               return self.engine().hub().unread(self.request());
                             })
      .def_property_readonly("finish", &finish_of)
      .def("prompt_logprobs", &prompt_logprobs)
      .def("logits", &logits);
}

}  // namespace fastllm::bind
