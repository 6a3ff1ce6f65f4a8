// Opening devices by name, what they say of themselves, the null backend, and FASTLLM_ISA.
#include <cstdlib>

#include "check.h"
#include "core/error.h"
#include "core/isa.h"
#include "core/threads.h"
#include "device/backend.h"

namespace {

using fastllm::core::DType;
using fastllm::core::Error;
using fastllm::core::Tensor;
namespace device = fastllm::device;

}  // namespace

TEST("the CPU opens by its name with the threads asked for") {
  const auto cpu = device::open_device("cpu", {3});
  CHECK_EQ(cpu->info().name, "cpu");
  CHECK_EQ(cpu->info().threads, 3);
  CHECK(cpu->info().description.find("3 threads") != std::string::npos);
  CHECK(cpu->info().memory_total > 0 && cpu->info().memory_free > 0);
  CHECK(cpu->info().memory_free <= cpu->info().memory_total);
  CHECK_EQ(cpu->activation_dtype(DType::bf16), DType::f32);
  CHECK_EQ(device::open_device("cpu")->info().threads, fastllm::core::usable_cores());
  const Tensor host = Tensor::empty(DType::f32, {2, 3});
  CHECK_EQ(cpu->place(host).data(), host.data());  // not copied
  const auto memory = cpu->allocate(100);
  CHECK_EQ(reinterpret_cast<std::uintptr_t>(memory->data()) % 64, 0u);
}

TEST("names that are no device say so") {
  CHECK_THROWS_WITH(device::open_device("tpu"), Error, "there is no device 'tpu'");
  CHECK_THROWS_WITH(device::open_device("cpu", {-1}), Error, "threads is -1");
  bool listed = false;
  for (const device::DeviceReport& report : device::list_devices()) {
    CHECK(!report.why.empty());
    listed = listed || (report.name == "cpu" && report.available);
  }
  CHECK(listed);
}

TEST("the environment chooses the instruction set, and a wrong choice is an error") {
  const std::string before = fastllm::core::isa_from_environment();
  for (const fastllm::core::Isa isa : fastllm::core::usable_isas()) {
    const std::string name(fastllm::core::isa_name(isa));
    setenv("FASTLLM_ISA", name.c_str(), 1);
    CHECK_EQ(device::open_device("cpu")->info().isa, name);
  }
  setenv("FASTLLM_ISA", "sse9", 1);
  CHECK_THROWS_WITH(device::open_device("cpu"), Error, "'sse9'");
  if (before.empty())
    unsetenv("FASTLLM_ISA");
  else
    setenv("FASTLLM_ISA", before.c_str(), 1);
}

TEST("the null device holds shapes and no memory, and reads back as zeros") {
  const auto null = device::open_device("null");
  CHECK_EQ(null->info().name, "null");
  const auto memory = null->allocate(std::size_t{1} << 50);  // a petabyte costs nothing
  CHECK(memory->data() == nullptr);
  CHECK(!memory->place().host);
  const Tensor weight = null->place(Tensor::empty(DType::bf16, {4, 5}));
  CHECK_EQ(weight.shape(), (fastllm::core::Shape{4, 5}));
  const device::LinearPart parts[2] = {{weight, {}}, {weight, {}}};
  const auto packed = null->pack_linear(parts);
  CHECK_EQ(packed->in_features, 5);
  CHECK_EQ(packed->out_features, 8);
  CHECK_EQ(packed->bytes, 80u);
  int value = 7;
  null->copy_out(&value, nullptr, sizeof(value));
  CHECK_EQ(value, 0);
}
