#pragma once
// Python's Engine and Request: shared handles on the native ones. Dropping a Request cancels it; dropping an Engine
// closes it.

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "bind/bind.h"
#include "engine/engine.h"

namespace fastllm::bind {

// Runs a wait without the GIL. At interpreter exit CPython before 3.14 ends a daemon thread that wants the GIL back by
// unwinding its stack; through a destructor (as of py::gil_scoped_release) that is std::terminate. Here the thread is
// held until the process has ended, which is moments away.
template <class Wait>
auto without_gil(Wait&& wait) {
  PyThreadState* state = PyEval_SaveThread();
  const auto restore = [state] {
    try {
      PyEval_RestoreThread(state);
    } catch (...) {  // only the forced unwinding of the thread comes this way
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  };
  std::exception_ptr failure;
  decltype(wait()) result{};
  try {
    result = wait();
  } catch (...) {
    failure = std::current_exception();
  }
  restore();
  if (failure) std::rethrow_exception(failure);
  return result;
}

struct VocabHandle {
  std::shared_ptr<const engine::Vocab> vocab;
};

class EngineHandle {
 public:
  EngineHandle(std::shared_ptr<engine::Engine> engine, py::object program)
      : engine_(std::move(engine)), program_(std::move(program)) {}
  ~EngineHandle();
  EngineHandle(const EngineHandle&) = delete;
  EngineHandle& operator=(const EngineHandle&) = delete;
  engine::Engine& get() const { return *engine_; }
  const std::shared_ptr<engine::Engine>& shared() const { return engine_; }
  const py::object& program() const { return program_; }

 private:
  std::shared_ptr<engine::Engine> engine_;
  py::object program_;
};

class RequestHandle {
 public:
  RequestHandle(std::shared_ptr<engine::Engine> engine, std::shared_ptr<engine::Request> request)
      : engine_(std::move(engine)), request_(std::move(request)) {}
  ~RequestHandle();
  RequestHandle(const RequestHandle&) = delete;
  RequestHandle& operator=(const RequestHandle&) = delete;
  engine::Engine& engine() const { return *engine_; }
  engine::Request& request() const { return *request_; }
  const std::shared_ptr<engine::Request>& shared() const { return request_; }

 private:
  std::shared_ptr<engine::Engine> engine_;
  std::shared_ptr<engine::Request> request_;
};

// A sequence of ints or an integer numpy array. Error(invalid_request) naming the first element that is none.
std::vector<std::int32_t> token_ids_from(py::handle source, const char* where);

// SamplingParams from the fields given by name. Error(invalid_config) for unknown names (with the known ones) and for
// wrong types.
sampling::SamplingParams params_from(const py::dict& fields);

void bind_sampling(py::module_& m);  // sample_logits; called by bind_engine

// Text that is known to be UTF-8.
inline py::str text_of(const std::string& text) {
  PyObject* object = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(object);
}

}  // namespace fastllm::bind
