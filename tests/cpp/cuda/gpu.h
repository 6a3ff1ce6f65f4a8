#pragma once
// What CUDA tests share: the GPU or a reason to skip, random operands, copies home, distances.
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>

#include "core/error.h"
#include "device/backend.h"
#include "quant/encode.h"

namespace fastllm::test {

using core::DType;
using core::Tensor;
using device::View;

inline std::shared_ptr<device::Backend> gpu() {
  static const std::shared_ptr<device::Backend> backend = []() -> std::shared_ptr<device::Backend> {
    try {
      return device::open_device("cuda:0");
    } catch (const core::Error& error) {
      std::printf("SKIPPED: %s\n", error.what());
      return nullptr;
    }
  }();
  return backend;
}

inline device::Backend& cpu() {
  static const auto backend = device::open_device("cpu");
  return *backend;
}

inline std::mt19937& random_bits() {
  static std::mt19937 bits = [] {
    const unsigned seed = std::random_device{}();
    std::printf("seed %u\n", seed);
    return std::mt19937(seed);
  }();
  return bits;
}

inline View view(const Tensor& t) {
  return {t.data(), t.dtype(), t.shape(), t.strides()};
}

inline Tensor convert(const Tensor& t, DType dtype) {
  Tensor out = Tensor::empty(dtype, t.shape());
  if (t.dtype() == DType::f32 && dtype == DType::f8_e4m3) {  // the CPU's copy takes a microsecond for each
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      const float x = t.as<float>()[i];
      out.as<std::uint8_t>()[i] = std::isnan(x) ? std::uint8_t{0x7f} : quant::to_e4m3(x);
    }
    return out;
  }
  if (t.dtype() == DType::f8_e4m3 && dtype == DType::f32) {
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      const std::uint8_t code = t.as<std::uint8_t>()[i];
      out.as<float>()[i] = (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : quant::from_e4m3(code);
    }
    return out;
  }
  const View in[] = {view(t)};
  const View to[] = {view(out)};
  const device::Op op = device::Copy{};
  cpu().run({op, in, to}, nullptr);
  return out;
}

// Random numbers as `dtype` holds them.
inline Tensor random_tensor(core::Shape shape, DType dtype, float scale, float mean = 0.0f) {
  Tensor raw = Tensor::empty(DType::f32, shape);
  std::normal_distribution<float> normal(mean, scale);
  for (std::int64_t i = 0; i < raw.numel(); ++i) raw.as<float>()[i] = normal(random_bits());
  return convert(raw, dtype);
}

inline Tensor poisoned(core::Shape shape, DType dtype) {
  Tensor t = Tensor::empty(DType::f32, shape);
  std::fill_n(t.as<float>(), t.numel(), std::numeric_limits<float>::quiet_NaN());
  return convert(t, dtype);
}

inline Tensor home(const Tensor& there) {
  Tensor host = Tensor::empty(there.dtype(), there.shape());
  gpu()->copy_out(host.data(), there.data(), host.nbytes());
  return host;
}

// Of two float32 tensors: the norm of their difference over that of b; NaN when anything is.
inline double distance(const Tensor& a, const Tensor& b) {
  double difference = 0.0;
  double size = 1e-30;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double d = double(a.as<float>()[i]) - double(b.as<float>()[i]);
    difference += d * d;
    size += double(b.as<float>()[i]) * double(b.as<float>()[i]);
  }
  return std::sqrt(difference / size);
}

}  // namespace fastllm::test
