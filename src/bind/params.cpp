// Python values -> sampling::SamplingParams and token ids, with errors that name the field.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <functional>
#include <map>

#include "bind/engine_handle.h"

namespace fastllm::bind {

namespace {

using sampling::SamplingParams;
using Setter = std::function<void(SamplingParams&, py::handle)>;

template <class Value>
Setter field(Value SamplingParams::* member) {
  return [member](SamplingParams& params, py::handle value) { params.*member = value.cast<Value>(); };
}

Setter strings(std::vector<std::string> SamplingParams::* member) {
  return [member](SamplingParams& params, py::handle value) {
    params.*member = py::isinstance<py::str>(value) ? std::vector<std::string>{value.cast<std::string>()}
                                                    : value.cast<std::vector<std::string>>();
  };
}

Setter ids(std::vector<std::int32_t> SamplingParams::* member) {
  return [member](SamplingParams& params, py::handle value) {
    params.*member = py::isinstance<py::int_>(value) ? std::vector<std::int32_t>{value.cast<std::int32_t>()}
                                                     : token_ids_from(value, "submit");
  };
}

const std::map<std::string, Setter, std::less<>>& setters() {
  static const std::map<std::string, Setter, std::less<>> all = {
      {"max_new_tokens", field(&SamplingParams::max_new_tokens)},
      {"min_new_tokens", field(&SamplingParams::min_new_tokens)},
      {"temperature", field(&SamplingParams::temperature)},
      {"top_k", field(&SamplingParams::top_k)},
      {"top_p", field(&SamplingParams::top_p)},
      {"min_p", field(&SamplingParams::min_p)},
      {"typical_p", field(&SamplingParams::typical_p)},
      {"repetition_penalty", field(&SamplingParams::repetition_penalty)},
      {"presence_penalty", field(&SamplingParams::presence_penalty)},
      {"frequency_penalty", field(&SamplingParams::frequency_penalty)},
      {"penalty_window", field(&SamplingParams::penalty_window)},
      {"no_repeat_ngram", field(&SamplingParams::no_repeat_ngram)},
      // Any Python int: seeds count modulo 2**64.
      {"seed",
       [](SamplingParams& params, py::handle value) {
         const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
         if (!number) throw py::error_already_set();
         params.seed = PyLong_AsUnsignedLongLongMask(number.ptr());
       }},
      {"stop", strings(&SamplingParams::stop)},
      {"stop_token_ids", ids(&SamplingParams::stop_token_ids)},
      {"eos_token_ids", ids(&SamplingParams::eos_token_ids)},
      {"include_stop", field(&SamplingParams::include_stop)},
      {"ignore_eos", field(&SamplingParams::ignore_eos)},
      {"skip_special_tokens", field(&SamplingParams::skip_special_tokens)},
      {"logit_bias",
       [](SamplingParams& params, py::handle value) {
         if (py::hasattr(value, "items")) {
           for (const auto& [token, bias] : value.cast<std::map<std::int32_t, float>>())
             params.logit_bias.emplace_back(token, bias);
         } else {
           params.logit_bias = value.cast<std::vector<std::pair<std::int32_t, float>>>();
         }
       }},
      {"bad_words", field(&SamplingParams::bad_words)},
      {"logprobs", field(&SamplingParams::logprobs)},
      {"logprobs_mode",
       [](SamplingParams& params, py::handle value) {
         const auto mode = value.cast<std::string>();
         if (mode != "raw" && mode != "sampled") {
           core::fail(core::ErrorCode::invalid_config,
                      core::cat("[submit] logprobs_mode is \"", mode, "\"; allowed: \"raw\", \"sampled\"."));
         }
         params.logprobs_mode = mode == "raw" ? sampling::LogprobsMode::raw : sampling::LogprobsMode::sampled;
       }},
      {"prompt_logprobs", field(&SamplingParams::prompt_logprobs)},
      {"max_time_s", field(&SamplingParams::max_time_s)},
  };
  return all;
}

}  // namespace

std::vector<std::int32_t> token_ids_from(py::handle source, const char* where) {
  if (py::isinstance<py::array>(source)) {
    const auto array = py::reinterpret_borrow<py::array>(source);
    const char kind = array.dtype().kind();
    if ((kind != 'i' && kind != 'u') || array.ndim() != 1) {
      core::fail(core::ErrorCode::invalid_request,
                 core::cat("[", where, "] token ids are a ", array.ndim(), "-dimensional array of kind '",
                           std::string(1, kind), "'; one dimension of integers is needed."));
    }
    const auto wide = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>::ensure(array);
    if (!wide) throw py::error_already_set();
    std::vector<std::int32_t> ids(static_cast<std::size_t>(wide.size()));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::int64_t id = wide.data()[i];
      ids[i] = id == static_cast<std::int32_t>(id) ? static_cast<std::int32_t>(id) : -1;
    }
    return ids;
  }
  if (!py::isinstance<py::sequence>(source) || py::isinstance<py::str>(source) || py::isinstance<py::bytes>(source)) {
    core::fail(core::ErrorCode::invalid_request,
               core::cat("[", where, "] token ids are a ", Py_TYPE(source.ptr())->tp_name,
                         "; a sequence of integers is needed."));
  }
  std::vector<std::int32_t> ids;
  ids.reserve(py::len(source));
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(source)) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(item.ptr()));
    if (!number) {
      PyErr_Clear();
      core::fail(core::ErrorCode::invalid_request, core::cat("[", where, "] token id ", ids.size(), " is a ",
                                                             Py_TYPE(item.ptr())->tp_name, ", not an integer."));
    }
    int overflow = 0;
    const long long id = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    ids.push_back(overflow == 0 && id == static_cast<std::int32_t>(id) ? static_cast<std::int32_t>(id) : -1);
  }
  return ids;
}

sampling::SamplingParams params_from(const py::dict& fields) {
  SamplingParams params;
  for (const auto& [key, value] : fields) {
    const auto name = py::cast<std::string>(key);
    const auto setter = setters().find(name);
    if (setter == setters().end()) {
      std::string known;
      for (const auto& entry : setters()) known += (known.empty() ? "" : ", ") + entry.first;
      core::fail(core::ErrorCode::invalid_config, core::cat("[submit] there is no sampling parameter \"", name, "\"."),
                 "Known are " + known + ".");
    }
    if (value.is_none()) continue;  // the default
    try {
      setter->second(params, value);
    } catch (const py::cast_error&) {
      core::fail(core::ErrorCode::invalid_config,
                 core::cat("[submit] ", name, " is ", py::repr(value).cast<std::string>(), ", a ",
                           Py_TYPE(value.ptr())->tp_name, "; that does not fit."));
    } catch (const py::error_already_set&) {
      core::fail(core::ErrorCode::invalid_config,
                 core::cat("[submit] ", name, " is ", py::repr(value).cast<std::string>(), ", a ",
                           Py_TYPE(value.ptr())->tp_name, "; that does not fit."));
    }
  }
  return params;
}

}  // namespace fastllm::bind
