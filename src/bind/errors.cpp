// core::Error -> the class of its code in fastllm.errors; std::bad_alloc -> OutOfMemory. When that module cannot be
// imported (a broken installation, an interpreter going down) the error still arrives, as a RuntimeError with the
// same text.

#include <exception>
#include <new>

#include "bind/bind.h"
#include "core/out_of_memory.h"

namespace fastllm::bind {
namespace {

std::string full_text(core::ErrorCode code, const std::string& fact, const std::string& hint) {
  return fact + (hint.empty() ? "" : " " + hint) + " (" + core::error_code_name(code) + ")";
}

void set_error(core::ErrorCode code, const std::string& fact, const std::string& hint, const py::dict& attrs) {
  py::object error = make_error(code, fact, hint, attrs);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

}  // namespace

py::object make_error(core::ErrorCode code, const std::string& fact, const std::string& hint, const py::dict& attrs) {
  try {
    py::object from_code = py::module_::import("fastllm.errors").attr("from_code");
    return from_code(core::error_code_name(code), fact, hint, **attrs);
  } catch (py::error_already_set& broken) {
    py::object error = py::handle(PyExc_RuntimeError)(full_text(code, fact, hint));
    error.attr("__context__") = broken.value();
    return error;
  }
}

void raise_error(core::ErrorCode code, const std::string& fact, const std::string& hint, const py::dict& attrs) {
  set_error(code, fact, hint, attrs);
  throw py::error_already_set();
}

void bind_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const core::OutOfMemory& error) {
      py::dict sizes;
      sizes["needed_bytes"] = error.needed_bytes;
      sizes["available_bytes"] = error.available_bytes;
      set_error(error.code(), error.what(), error.hint(), sizes);
    } catch (const core::Error& error) {
      set_error(error.code(), error.what(), error.hint(), {});
    } catch (const std::bad_alloc&) {
      set_error(core::ErrorCode::out_of_memory, "[allocate] the system has no more memory to give.",
                "Use a smaller batch or context, or a lower-bit model.", {});
    }
  });
}

}  // namespace fastllm::bind
