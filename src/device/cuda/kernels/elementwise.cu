// unary, binary, affine, gated_activation, copy, embedding, select_rows, softmax: one thread an element (softmax: one
// block a row). Offsets are computed from the index, so any strides work; float32 inside.

#include "device/cuda/common.cuh"
#include "device/cuda/fp8.cuh"
#include "device/cuda/launch.h"

namespace fastllm::cuda {
namespace {

constexpr int kThreads = 256;

inline int blocks_for(std::int64_t n) {
  return static_cast<int>((n + kThreads - 1) / kThreads);
}

// Offset of linear element e of `like` in the view v, whose axes are aligned to the right and broadcast where they
// have size 1.
__device__ inline std::int64_t offset_of(const KView& v, const KView& like, std::int64_t e) {
  std::int64_t offset = 0;
  for (int i = like.rank - 1; i >= 0; --i) {
    const std::int64_t index = e % like.shape[i];
    e /= like.shape[i];
    const int axis = i - (like.rank - v.rank);
    if (axis >= 0 && v.shape[axis] != 1) offset += index * v.stride[axis];
  }
  return offset;
}

template <class T, class F>
__global__ void map1_kernel(KView x, KView out, std::int64_t n, F f) {
  const std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e >= n) return;
  const float value = to_float(static_cast<const T*>(x.data)[offset_of(x, out, e)]);
  static_cast<T*>(out.data)[offset_of(out, out, e)] = from_float<T>(f(value));
}

template <class T, class F>
__global__ void map2_kernel(KView a, KView b, KView out, std::int64_t n, F f) {
  const std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e >= n) return;
  const float left = to_float(static_cast<const T*>(a.data)[offset_of(a, out, e)]);
  const float right = load_any(b.data, b.dtype, offset_of(b, out, e));
  static_cast<T*>(out.data)[offset_of(out, out, e)] = from_float<T>(f(left, right));
}

struct UnaryOf {
  device::Activation kind;
  float param;
  __device__ float operator()(float x) const { return activate(kind, x, param); }
};

struct AffineOf {
  float scale;
  float shift;
  __device__ float operator()(float x) const { return x * scale + shift; }
};

struct GatedOf {
  device::Activation kind;
  __device__ float operator()(float gate, float up) const { return activate(kind, gate, 0.0f) * up; }
};

struct BinaryOf {
  device::BinaryKind kind;
  __device__ float operator()(float a, float b) const {
    switch (kind) {
      case device::BinaryKind::add:
        return a + b;
      case device::BinaryKind::sub:
        return a - b;
      case device::BinaryKind::mul:
        return a * b;
      case device::BinaryKind::div:
        return a / b;
      case device::BinaryKind::maximum:
        return fmaxf(a, b);
      case device::BinaryKind::minimum:
        return fminf(a, b);
    }
    return a;
  }
};

template <class T>
__global__ void embedding_kernel(const std::int32_t* ids, KView weight, KView out, float scale) {
  let_next_start();
  wait_for_previous();
  const std::int64_t n = out.shape[1];
  const std::int64_t row = static_cast<std::int64_t>(ids[blockIdx.x]) * weight.stride[0];
  T* to = static_cast<T*>(out.data) + blockIdx.x * out.stride[0];
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)
    to[i] = from_float<T>(load_any(weight.data, weight.dtype, row + i) * scale);
}

__global__ void select_rows_kernel(KView x, const std::int32_t* rows, KView out, int element) {
  let_next_start();
  wait_for_previous();
  const std::int64_t bytes = x.shape[1] * element;
  const char* from =
      static_cast<const char*>(x.data) + static_cast<std::int64_t>(rows[blockIdx.x]) * x.stride[0] * element;
  char* to = static_cast<char*>(out.data) + blockIdx.x * out.stride[0] * element;
  for (std::int64_t i = threadIdx.x * 2; i < bytes; i += blockDim.x * 2)
    *reinterpret_cast<std::uint16_t*>(to + i) = *reinterpret_cast<const std::uint16_t*>(from + i);
}

template <class T>
__global__ void softmax_kernel(KView x, KView out) {
  __shared__ float scratch[32];
  const std::int64_t n = x.shape[x.rank - 1];
  const T* in = static_cast<const T*>(x.data) + row_offset(x, blockIdx.x);
  const std::int64_t to = row_offset(out, blockIdx.x);
  float top = -INFINITY;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, to_float(in[i]));
  top = block_reduce<Max>(top, scratch);
  float sum = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += expf(to_float(in[i]) - top);
  sum = block_reduce<Sum>(sum, scratch);
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)
    static_cast<float*>(out.data)[to + i] = expf(to_float(in[i]) - top) / sum;
}

template <class From, class To>
__global__ void copy_kernel(KView x, KView out, std::int64_t n) {
  const std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e >= n) return;
  const From value = static_cast<const From*>(x.data)[offset_of(x, out, e)];
  To* to = static_cast<To*>(out.data) + offset_of(out, out, e);
  if constexpr (std::is_same_v<From, To>)
    *to = value;
  else
    *to = from_float<To>(to_float(value));
}

template <class Size>
void copy_same(const Context& c, const View& x, const View& out, std::int64_t n) {
  copy_kernel<Size, Size><<<blocks_for(n), kThreads, 0, c.stream>>>(kview(x), kview(out), n);
}

template <class F>
void map1(const Context& c, const char* op, const View& x, const View& out, F f) {
  const std::int64_t n = out.shape.numel();
  if (n == 0) return;
  dispatch_float(x.dtype, op, [&](auto t) {
    using T = typename decltype(t)::type;
    map1_kernel<T><<<blocks_for(n), kThreads, 0, c.stream>>>(kview(x), kview(out), n, f);
  });
  check_launch(op);
}

template <class F>
void map2(const Context& c, const char* op, const View& a, const View& b, const View& out, F f) {
  const std::int64_t n = out.shape.numel();
  if (n == 0) return;
  dispatch_float(a.dtype, op, [&](auto t) {
    using T = typename decltype(t)::type;
    map2_kernel<T><<<blocks_for(n), kThreads, 0, c.stream>>>(kview(a), kview(b), kview(out), n, f);
  });
  check_launch(op);
}

}  // namespace

void unary(const Context& c, const device::Unary& op, const View& x, const View& out) {
  map1(c, "unary", x, out, UnaryOf{op.kind, op.param});
}

void affine(const Context& c, const device::Affine& op, const View& x, const View& out) {
  map1(c, "affine", x, out, AffineOf{op.scale, op.shift});
}

void binary(const Context& c, const device::Binary& op, const View& a, const View& b, const View& out) {
  map2(c, "binary", a, b, out, BinaryOf{op.kind});
}

void gated_activation(const Context& c, const device::GatedActivation& op, const View& gate, const View& up,
                      const View& out) {
  map2(c, "gated_activation", gate, up, out, GatedOf{op.activation});
}

void embedding(const Context& c, const device::Embedding& op, const View& ids, const View& weight, const View& out) {
  if (out.shape[0] == 0) return;
  dispatch_float(out.dtype, "embedding", [&](auto t) {
    using T = typename decltype(t)::type;
    launch(c, &embedding_kernel<T>, dim3(static_cast<unsigned>(out.shape[0])),
           static_cast<unsigned>(block_threads(out.shape[1], 256)), 0, 1, static_cast<const std::int32_t*>(ids.data),
           kview(weight), kview(out), op.scale);
  });
  check_launch("embedding");
}

void select_rows(const Context& c, const View& x, const std::int32_t* rows, const View& out) {
  if (out.shape[0] == 0) return;
  const int element = static_cast<int>(core::dtype_size(x.dtype));
  launch(c, &select_rows_kernel, dim3(static_cast<unsigned>(out.shape[0])),
         static_cast<unsigned>(block_threads(out.shape[1] / 2, 256)), 0, 1, kview(x), rows, kview(out), element);
  check_launch("select_rows");
}

void softmax(const Context& c, const View& x, const View& out) {
  const std::int64_t rows = row_count(x);
  if (rows == 0) return;
  dispatch_float(x.dtype, "softmax", [&](auto t) {
    using T = typename decltype(t)::type;
    softmax_kernel<T><<<rows, block_threads(x.shape.back() / 4), 0, c.stream>>>(kview(x), kview(out));
  });
  check_launch("softmax");
}

void copy(const Context& c, const View& x, const View& out) {
  const std::int64_t n = out.shape.numel();
  if (n == 0) return;
  if (x.dtype == out.dtype) {
    switch (core::dtype_size(x.dtype)) {
      case 1:
        copy_same<std::uint8_t>(c, x, out, n);
        break;
      case 2:
        copy_same<std::uint16_t>(c, x, out, n);
        break;
      case 4:
        copy_same<std::uint32_t>(c, x, out, n);
        break;
      default:
        copy_same<std::uint64_t>(c, x, out, n);
        break;
    }
  } else {
    dispatch_cache(x.dtype, "copy", [&](auto t) {
      dispatch_float(out.dtype, "copy", [&](auto u) {
        using From = typename decltype(t)::type;
        using To = typename decltype(u)::type;
        copy_kernel<From, To><<<blocks_for(n), kThreads, 0, c.stream>>>(kview(x), kview(out), n);
      });
    });
  }
  check_launch("copy");
}

}  // namespace fastllm::cuda
