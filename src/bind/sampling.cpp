// sample_logits: the engine's sampling chain on a row of logits, for tests and for looking at what each setting does.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>

#include "bind/engine_handle.h"
#include "sampling/chain.h"

namespace fastllm::bind {

namespace {

using Row = py::array_t<float, py::array::c_style | py::array::forcecast>;

py::dict sample_logits(const Row& logits, const py::object& token_ids, const py::dict& params, int prompt_tokens,
                       int draws) {
  const auto size = static_cast<std::size_t>(logits.size());
  if (logits.ndim() != 1 || size == 0) {
    core::fail(core::ErrorCode::shape_error, core::cat("[sample_logits] logits have ", logits.ndim(), " axes and ",
                                                       size, " elements; one axis [vocab] is needed."));
  }
  const auto tokens = token_ids_from(token_ids, "sample_logits");
  for (const std::int32_t id : tokens) {
    if (id < 0 || static_cast<std::size_t>(id) >= size) {
      core::fail(core::ErrorCode::invalid_request,
                 core::cat("[sample_logits] token_ids hold ", id, "; the row has ", size, " logits."));
    }
  }
  if (prompt_tokens < 0 || static_cast<std::size_t>(prompt_tokens) > tokens.size()) {
    core::fail(core::ErrorCode::invalid_request,
               core::cat("[sample_logits] prompt_tokens is ", prompt_tokens, " of ", tokens.size(), " tokens."));
  }
  auto settings = params_from(params);
  sampling::validate(settings, static_cast<int>(size));
  sampling::Chain chain(static_cast<int>(size));
  sampling::Sampled sampled;
  std::vector<std::int32_t> ids;
  const std::span<const float> row(logits.data(), size);
  const sampling::History history{tokens, static_cast<std::size_t>(prompt_tokens)};
  {
    const py::gil_scoped_release release;
    for (int draw = 0; draw < std::max(1, draws); ++draw, ++settings.seed) {
      chain.sample(row, history, settings, sampled);
      ids.push_back(sampled.id);
    }
  }
  py::list top;
  for (const auto& entry : sampled.top) top.append(py::make_tuple(entry.id, entry.logprob));
  py::dict result;
  result["ids"] = py::array_t<std::int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
  result["logprob"] = settings.logprobs >= 0 ? py::object(py::float_(sampled.logprob)) : py::object(py::none());
  result["top"] = top;
  // The logits that the last draw chose from: -inf where a stage dropped the token. Greedy: after the processors, if
  // there were any.
  py::array_t<float> left(static_cast<py::ssize_t>(size));
  float* values = left.mutable_data();
  std::fill(values, values + size, -std::numeric_limits<float>::infinity());
  const sampling::Candidates& candidates = chain.candidates();
  if (candidates.size() == 0) std::copy(row.begin(), row.end(), values);
  for (std::size_t i = 0; i < candidates.size(); ++i) values[candidates.id(i)] = candidates.logits[i];
  result["logits"] = left;
  return result;
}

}  // namespace

void bind_sampling(py::module_& m) {
  m.def("sample_logits", &sample_logits, py::arg("logits"), py::arg("token_ids"), py::arg("params"), py::kw_only(),
        py::arg("prompt_tokens") = 0, py::arg("draws") = 1);
}

}  // namespace fastllm::bind
