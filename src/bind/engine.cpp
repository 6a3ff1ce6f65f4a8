// Engine and after_fork_in_child.

#include <pybind11/stl.h>

#include "bind/engine_handle.h"

namespace fastllm::bind {

namespace {

std::unique_ptr<EngineHandle> make_engine(const py::object& program, const VocabHandle& vocab, int max_running,
                                          std::int64_t kv_memory_bytes, int block_tokens, int max_batch_tokens,
                                          int prefill_chunk, int max_queue, bool deterministic, bool prefix_cache,
                                          bool asynchronous, bool cuda_graphs) {
  if (kv_memory_bytes < 0) {
    core::fail(core::ErrorCode::invalid_config,
               core::cat("[engine] kv_memory_bytes is ", kv_memory_bytes, "; 0 (automatic) or more."));
  }
  const auto model = program.cast<const ProgramHandle&>().model;
  engine::EngineConfig config;
  config.max_running = max_running;
  config.kv_memory_bytes = static_cast<std::size_t>(kv_memory_bytes);
  config.block_tokens = block_tokens;
  config.max_batch_tokens = max_batch_tokens;
  config.prefill_chunk = prefill_chunk;
  config.max_queue = max_queue;
  config.deterministic = deterministic;
  config.prefix_cache = prefix_cache;
  config.asynchronous = asynchronous;
  config.recorded = cuda_graphs;
  std::shared_ptr<engine::Engine> made;
  {
    const py::gil_scoped_release release;
    made = engine::Engine::make(model, vocab.vocab, config);
  }
  return std::make_unique<EngineHandle>(std::move(made), program);
}

std::unique_ptr<RequestHandle> submit(EngineHandle& self, const py::object& token_ids, const py::dict& params,
                                      int channel, std::int64_t tag, int priority, int lookahead, bool keep_logits,
                                      int continued, std::shared_ptr<engine::RequestProbe> probe) {
  engine::RequestSpec spec;
  spec.prompt = token_ids_from(token_ids, "submit");
  spec.params = params_from(params);
  spec.channel = channel;
  spec.tag = tag;
  spec.priority = priority;
  spec.lookahead = lookahead;
  spec.keep_logits = keep_logits;
  spec.continued = continued;
  spec.probe = std::move(probe);
  return std::make_unique<RequestHandle>(self.shared(), self.get().submit(std::move(spec)));
}

py::dict stats(EngineHandle& self) {
  const engine::EngineStats stats = self.get().stats();
  py::dict result;
  result["running"] = stats.running;
  result["queued"] = stats.queued;
  result["parked"] = stats.parked;
  result["prefilling"] = stats.prefilling;
  result["kv_blocks_total"] = stats.kv_blocks_total;
  result["kv_blocks_free"] = stats.kv_blocks_free;
  result["kv_blocks_cached"] = stats.kv_blocks_cached;
  result["block_tokens"] = stats.block_tokens;
  result["kv_bytes"] = stats.kv_bytes;
  result["weight_bytes"] = stats.weight_bytes;
  result["steps"] = stats.steps;
  result["prompt_tokens"] = stats.prompt_tokens;
  result["generated_tokens"] = stats.generated_tokens;
  result["cached_tokens"] = stats.cached_tokens;
  result["preemptions"] = stats.preemptions;
  result["cancelled"] = stats.cancelled;
  result["finished"] = stats.finished;
  result["decode_tps"] = stats.decode_tps;
  result["step_ms"] = stats.step_ms;
  result["uptime_s"] = stats.uptime_s;
  result["dead"] = stats.dead.empty() ? py::object(py::none()) : py::object(text_of(stats.dead));
  result["forked"] = self.get().forked();
  return result;
}

void translate(std::exception_ptr pointer) {
  const auto raise = [](const core::Error& error, const py::dict& attrs) {
    const py::object made = make_error(error.code(), error.what(), error.hint(), attrs);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
  };
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const engine::ContextTooLong& error) {
    py::dict attrs;
    attrs["prompt_tokens"] = error.prompt_tokens;
    attrs["limit"] = error.limit;
    raise(error, attrs);
  } catch (const engine::QueueFull& error) {
    py::dict attrs;
    attrs["retry_after_s"] = error.retry_after_s;
    raise(error, attrs);
  } catch (const engine::EngineDead& error) {
    py::dict attrs;
    attrs["cause"] = error.cause;
    raise(error, attrs);
  }
}

}  // namespace

EngineHandle::~EngineHandle() {
  const py::gil_scoped_release release;
  engine_->close(/*drain=*/false, -1.0);
  engine_.reset();
}

void bind_engine(py::module_& m) {
  py::register_local_exception_translator(&translate);
  bind_sampling(m);
  m.def("after_fork_in_child", &engine::after_fork_in_child);
  py::class_<EngineHandle>(m, "Engine")
      .def(py::init(&make_engine), py::arg("program"), py::arg("vocab"), py::kw_only(), py::arg("max_running"),
           py::arg("kv_memory_bytes"), py::arg("block_tokens"), py::arg("max_batch_tokens"), py::arg("prefill_chunk"),
           py::arg("max_queue"), py::arg("deterministic"), py::arg("prefix_cache"), py::arg("asynchronous") = true,
           py::arg("cuda_graphs") = true)
      .def("submit", &submit, py::arg("token_ids"), py::arg("params"), py::kw_only(), py::arg("channel") = 0,
           py::arg("tag") = 0, py::arg("priority") = 0, py::arg("lookahead") = 256, py::arg("keep_logits") = false,
           py::arg("continued") = 0, py::arg("probe") = py::none())
      .def("open_channel", [](EngineHandle& self) { return self.get().open_channel(); })
      .def(
          "close_channel", [](EngineHandle& self, int channel) { self.get().close_channel(channel); },
          py::arg("channel"))
      .def(
          "wait_events",
          [](EngineHandle& self, double timeout_s) {
            self.get().check_not_forked("wait_events");
            return without_gil([&] { return self.get().hub().wait_events(timeout_s); });
          },
          py::arg("timeout_s"))
      .def("wake",
           [](EngineHandle& self) {
             if (!self.get().forked()) self.get().hub().wake();
           })
      .def(
          "drain",
          [](EngineHandle& self, int channel) {
            self.get().check_not_forked("drain");
            return self.get().hub().drain(channel);
          },
          py::arg("channel"))
      .def("stats", &stats)
      .def(
          "close",
          [](EngineHandle& self, bool drain, double timeout_s) {
            const py::gil_scoped_release release;
            self.get().close(drain, timeout_s);
          },
          py::kw_only(), py::arg("drain"), py::arg("timeout_s") = -1.0)
      .def_property_readonly("closed", [](const EngineHandle& self) { return self.get().closed(); })
      .def_property_readonly("program", [](const EngineHandle& self) { return self.program(); })
      .def(
          "inject_fault", [](EngineHandle& self, const std::string& message) { self.get().inject_fault(message); },
          py::arg("message"));
}

}  // namespace fastllm::bind
