#pragma once
// act(v) on a vector, chosen once outside the loop: with_activation calls f with a function object of the asked kind.

#include "device/cpu/kernels/simd.h"
#include "device/op.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {

template <class F>
static inline void with_activation(device::Activation kind, float param, F&& f) {
  using device::Activation;
  switch (kind) {
    case Activation::none:
      return f([](Vec v) { return v; });
    case Activation::silu:
      return f([](Vec v) { return v * sigmoid(v); });
    case Activation::gelu:
      return f([](Vec v) { return gelu(v); });
    case Activation::gelu_tanh:
      return f([](Vec v) { return gelu_tanh(v); });
    case Activation::relu:
      return f([](Vec v) { return select_less(v, set1(0.0f), set1(0.0f), v); });
    case Activation::tanh:
      return f([](Vec v) { return tanh(v); });
    case Activation::sigmoid:
      return f([](Vec v) { return sigmoid(v); });
    case Activation::exp:
      return f([](Vec v) { return exp(v); });
    case Activation::square:
      return f([](Vec v) { return v * v; });
    case Activation::rsqrt:
      return f([](Vec v) { return set1(1.0f) / sqrt(v); });
    case Activation::neg:
      return f([](Vec v) { return set1(0.0f) - v; });
    case Activation::softcap: {
      const Vec cap = set1(param);
      return f([cap](Vec v) { return tanh(v / cap) * cap; });
    }
  }
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
