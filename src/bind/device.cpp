// Device, list_devices, build_info.

#include <pybind11/stl.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <utility>

#include "bind/bind.h"
#include "core/isa.h"

namespace fastllm::bind {
namespace {

// One live backend per (process, name, threads): Device("cpu") twice shares a thread pool. The process id is part of
// the key because threads do not survive a fork.
std::shared_ptr<device::Backend> shared_backend(const std::string& name, int threads) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, std::pair<int, int>>, std::weak_ptr<device::Backend>> live;
  const std::pair key{name, std::pair{static_cast<int>(getpid()), threads}};
  {
    const std::lock_guard lock(mutex);
    if (auto backend = live[key].lock()) return backend;
  }
  auto backend = device::open_device(name, {.threads = threads});  // starts threads: outside the lock
  const std::lock_guard lock(mutex);
  auto& slot = live[key];
  if (auto other = slot.lock()) return other;
  slot = backend;
  return backend;
}

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

const char* sanitizer() {
#if defined(__SANITIZE_ADDRESS__)
  return "address";
#elif defined(__SANITIZE_THREAD__)
  return "thread";
#else
  return "";
#endif
}

py::dict build_info() {
  py::list isas;
  for (core::Isa isa : {core::Isa::portable, core::Isa::avx2, core::Isa::avx512})
    if (core::isa_built(isa)) isas.append(py::str(std::string(core::isa_name(isa))));
  std::string why_not;
  const auto choice = core::choose_isa(core::isa_from_environment(), &why_not);
  py::dict info;
  info["version"] = FASTLLM_VERSION;
  info["compiler"] = compiler();
#if FASTLLM_HAVE_CUDA
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  info["isas"] = isas;
  info["isa"] = choice ? std::string(core::isa_name(choice->isa)) : why_not;
  info["sanitizer"] = sanitizer();
  return info;
}

py::dict device_info(const DeviceHandle& device) {
  const device::DeviceInfo& info = device.backend->info();
  py::dict out;
  out["name"] = info.name;
  out["description"] = info.description;
  out["isa"] = info.isa;
  out["memory_total"] = info.memory_total;
  out["memory_free"] = info.memory_free;
  out["threads"] = info.threads;
  return out;
}

}  // namespace

std::size_t kv_bytes_per_token(const engine::StepModel& model) {
  std::size_t bytes = 0;
  for (const engine::KvSpec& layer : model.kv_layers())
    bytes += static_cast<std::size_t>(layer.kv_heads) * static_cast<std::size_t>(layer.head_dim + layer.v_head_dim) *
             core::dtype_size(layer.dtype);
  return bytes;
}

void bind_device(py::module_& m) {
  m.def("build_info", &build_info);
  m.def("list_devices", [] {
    std::vector<device::DeviceReport> reports;
    {
      py::gil_scoped_release unlocked;
      reports = device::list_devices();
    }
    py::list out;
    for (const auto& report : reports) out.append(py::make_tuple(report.name, report.available, report.why));
    return out;
  });
  py::class_<DeviceHandle>(m, "Device")
      .def(py::init([](const std::string& name, int threads) {
             if (threads < 0)
               core::fail(core::ErrorCode::invalid_config, core::cat("[device] threads is ", threads, "."),
                          "Use 0 for one per core, or a positive number.");
             py::gil_scoped_release unlocked;
             auto backend = shared_backend(name, threads);
             std::string own_name = backend->info().name;
             return DeviceHandle{std::move(backend), std::move(own_name)};
           }),
           py::arg("name") = "auto", py::arg("threads") = 0)
      .def_property_readonly("name", [](const DeviceHandle& self) { return self.name; })
      .def_property_readonly("info", &device_info)
      .def("__repr__", [](const DeviceHandle& self) { return "<Device " + self.name + ">"; });
}

}  // namespace fastllm::bind
