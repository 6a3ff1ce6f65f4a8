// Tensor: Python buffers and numpy arrays in and out of core::Tensor without copies.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "bind/bind.h"
#include "core/tensor.h"

namespace fastllm::bind {
namespace {

using core::cat;
using core::DType;
using core::ErrorCode;
using core::fail;
using core::Shape;
using core::Storage;
using core::Tensor;

// numpy's name of a dtype; null where numpy has none.
const char* numpy_name(DType dtype) {
  switch (dtype) {
    case DType::bf16:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return nullptr;
    default:
      return core::dtype_name(dtype);
  }
}

DType dtype_named(const std::string& name) {
  if (const auto dtype = core::dtype_from_name(name)) return *dtype;
  std::string known;
  for (int i = 0; i <= static_cast<int>(DType::f8_e5m2); ++i)
    known += (i ? ", " : "") + std::string(core::dtype_name(DType(i)));
  fail(ErrorCode::dtype_error, cat("[tensor] there is no dtype '", name, "'."), "Known: " + known + ".");
}

Shape shape_of(const std::vector<std::int64_t>& dims) {
  return Shape(std::span<const std::int64_t>(dims));
}

py::tuple tuple_of(const Shape& shape) {
  py::tuple out(static_cast<std::size_t>(shape.rank()));
  for (int i = 0; i < shape.rank(); ++i) out[static_cast<std::size_t>(i)] = shape[i];
  return out;
}

Tensor from_buffer(const py::object& buffer, const std::string& dtype_name, const std::vector<std::int64_t>& dims) {
  const DType dtype = dtype_named(dtype_name);
  const Shape shape = shape_of(dims);
  auto view = std::make_unique<Py_buffer>();
  bool writable = true;
  if (PyObject_GetBuffer(buffer.ptr(), view.get(), PyBUF_WRITABLE) != 0) {
    PyErr_Clear();
    writable = false;
    if (PyObject_GetBuffer(buffer.ptr(), view.get(), PyBUF_SIMPLE) != 0) throw py::error_already_set();
  }
  Py_buffer* held = view.release();
  auto storage = std::make_shared<Storage>(
      held->buf, static_cast<std::size_t>(held->len), core::Place{},
      [held] {
        with_gil_if_alive([held] {
          PyBuffer_Release(held);
          delete held;
        });
      },
      writable);
  Tensor tensor(std::move(storage), dtype, shape);
  if (reinterpret_cast<std::uintptr_t>(tensor.data()) % core::dtype_size(dtype) == 0) return tensor;
  Tensor aligned = Tensor::empty(dtype, shape);  // kernels read whole elements
  std::memcpy(aligned.data(), tensor.data(), tensor.nbytes());
  return aligned;
}

// The dtype of a numpy array in the machine's byte order.
DType dtype_of(const py::array& array) {
  const py::dtype dtype = array.dtype();
  const auto name = py::cast<std::string>(dtype.attr("name"));
  const auto found = core::dtype_from_name(name);
  if (!found || dtype.kind() == 'V')
    fail(ErrorCode::dtype_error, cat("[from_numpy] numpy's dtype '", name, "' has no counterpart here."),
         "Convert with array.astype to float32, float16, float64, bool or an integer of up to 64 bits.");
  if (!py::cast<bool>(dtype.attr("isnative")))
    fail(ErrorCode::dtype_error, "[from_numpy] the array is in foreign byte order.",
         "Convert with array.astype(array.dtype.newbyteorder('=')).");
  return *found;
}

Tensor from_numpy(const py::array& given, bool copy) {
  const DType dtype = dtype_of(given);
  const auto size = static_cast<std::int64_t>(core::dtype_size(dtype));
  py::array array = given;
  if (copy) array = py::array(given.attr("copy")("C"));
  if (array.ndim() > core::kMaxRank)
    fail(ErrorCode::shape_error,
         cat("[from_numpy] the array has ", array.ndim(), " axes, but a tensor has at most ", core::kMaxRank, "."));
  std::vector<std::int64_t> dims(static_cast<std::size_t>(array.ndim()));
  for (std::size_t i = 0; i < dims.size(); ++i) dims[i] = array.shape(static_cast<py::ssize_t>(i));
  const Shape shape = shape_of(dims);
  Shape strides = shape;
  std::int64_t low = 0;  // bytes from the first element down to the lowest one, and up to the end of the highest
  std::int64_t high = size;
  for (int i = 0; i < shape.rank(); ++i) {
    const std::int64_t step = array.strides(i);
    if (step % size != 0 && shape[i] > 1)
      fail(ErrorCode::shape_error,
           cat("[from_numpy] axis ", i, " steps by ", step, " bytes, no multiple of the element's ", size, "."),
           "Pass a copy: array.copy().");
    strides[i] = shape[i] > 1 ? step / size : 1;
    const std::int64_t reach = (shape[i] > 0 ? shape[i] - 1 : 0) * strides[i] * size;
    (reach < 0 ? low : high) += reach;
  }
  if (shape.numel() == 0) {
    low = 0;
    high = 0;
    strides = shape.contiguous_strides();
  }
  auto* first = const_cast<char*>(static_cast<const char*>(array.data()));
  if (reinterpret_cast<std::uintptr_t>(first) % static_cast<std::uintptr_t>(size) != 0)
    fail(ErrorCode::shape_error, "[from_numpy] the array's memory is not aligned to its element size.",
         "Pass a copy: array.copy().");
  const bool writable = array.writeable();
  PyObject* held = array.release().ptr();
  auto storage = std::make_shared<Storage>(
      first + low, static_cast<std::size_t>(high - low), core::Place{},
      [held] { with_gil_if_alive([held] { Py_DECREF(held); }); }, writable);
  return Tensor(std::move(storage), dtype, shape, strides, -low);
}

py::array to_numpy(const py::object& self) {
  const auto& tensor = self.cast<const Tensor&>();
  if (!tensor.place().host)
    fail(ErrorCode::device_not_available,
         cat("[numpy] the tensor lives on ", tensor.place().name, ", where the CPU cannot read it."),
         "Copy it first: tensor.to_device(Device('cpu')).");
  const char* name = numpy_name(tensor.dtype());
  if (!name)
    fail(ErrorCode::dtype_error, cat("[numpy] numpy has no ", core::dtype_name(tensor.dtype()), "."),
         "Cast to float32 first.");
  std::vector<py::ssize_t> shape;
  std::vector<py::ssize_t> strides;
  for (int i = 0; i < tensor.shape().rank(); ++i) {
    shape.push_back(tensor.shape()[i]);
    strides.push_back(tensor.strides()[i] * static_cast<py::ssize_t>(core::dtype_size(tensor.dtype())));
  }
  py::array out(py::dtype(name), shape, strides, tensor.data(), self);
  if (!tensor.storage()->writable()) out.attr("flags").attr("writeable") = false;
  return out;
}

}  // namespace

Tensor copy_to(device::Backend& backend, const Tensor& tensor) {
  if (tensor.place().host || tensor.place().name == backend.info().name) return backend.place(tensor);
  fail(ErrorCode::device_not_available, cat("[to_device] the tensor lives on ", tensor.place().name,
                                            ", which cannot copy to ", backend.info().name, " directly."));
}

void bind_tensor(py::module_& m) {
  py::class_<Tensor>(m, "Tensor")
      .def_static("from_buffer", &from_buffer, py::arg("buffer"), py::arg("dtype"), py::arg("shape"))
      .def_static("from_numpy", &from_numpy, py::arg("array").noconvert(), py::kw_only(), py::arg("copy"))
      .def_static(
          "empty",
          [](const std::string& dtype, const std::vector<std::int64_t>& shape) {
            return Tensor::empty(dtype_named(dtype), shape_of(shape));
          },
          py::arg("dtype"), py::arg("shape"))
      .def_property_readonly("dtype", [](const Tensor& self) { return core::dtype_name(self.dtype()); })
      .def_property_readonly("shape", [](const Tensor& self) { return tuple_of(self.shape()); })
      .def_property_readonly("strides", [](const Tensor& self) { return tuple_of(self.strides()); })
      .def_property_readonly("nbytes", &Tensor::nbytes)
      .def_property_readonly("device", [](const Tensor& self) { return self.place().name; })
      .def_property_readonly("writable", [](const Tensor& self) { return self.storage()->writable(); })
      .def_property_readonly("contiguous", &Tensor::contiguous)
      .def_property_readonly("data_ptr",
                             [](const Tensor& self) { return reinterpret_cast<std::uintptr_t>(self.data()); })
      .def(
          "reshape",
          [](const Tensor& self, const std::vector<std::int64_t>& shape) { return self.reshape(shape_of(shape)); },
          py::arg("shape"))
      .def("slice", &Tensor::slice, py::arg("axis"), py::arg("start"), py::arg("stop"))
      .def(
          "permute", [](const Tensor& self, const std::vector<int>& axes) { return self.permute(axes); },
          py::arg("axes"))
      .def("numpy", &to_numpy)
      .def(
          "to_device",
          [](const Tensor& self, const DeviceHandle& device) {
            py::gil_scoped_release unlocked;
            return copy_to(*device.backend, self);
          },
          py::arg("device"))
      .def("__repr__", [](const Tensor& self) {
        return "<_core.Tensor " + std::string(core::dtype_name(self.dtype())) + " " + self.shape().str() + " on " +
               self.place().name + ">";
      });
}

}  // namespace fastllm::bind
