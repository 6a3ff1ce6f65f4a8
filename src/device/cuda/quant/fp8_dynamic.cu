// linear with weights and inputs of float8 e4m3 (quant::Format::dynamic). A first kernel makes codes of the inputs, a
// block a token: the largest size of a row gives its scale; codes, [T, K] padded to 16 bytes a row, and scales [T] go
// to the workspace. Then the product (hopper_product.cuh; hopper_float8.cuh for many tokens) multiplies codes with
// codes and its sums with both scales. Where there is no such product, the inputs are rounded to what the codes say and
// multiplied as they are.
//
// Hopper adds products of float8 with fewer bits than float32 has: of sums of random numbers, 1.4e-3 is lost along K =
// 4096 and 2.9e-3 along 14336 (root mean squares, relative, measured on an H200), where rounding to bfloat16 costs
// 1.7e-3 and the codes themselves 3.7e-2. Taking sums out every 128 numbers would keep 1.3e-4 and take 15 to 25 %
// longer for 2048 tokens: left alone.

#include <algorithm>

#include "core/error.h"
#include "device/cuda/float8.cuh"
#include "device/cuda/hopper_float8.cuh"

namespace fastllm::cuda {
namespace {

constexpr int kAtOnce = 16;  // numbers of a thread: 16 bytes of codes
constexpr int kMostThreads = 1024;

#if FASTLLM_HOPPER_CODE
struct alignas(32) Sixteen {
  uint4 halves[2];
};

__device__ inline std::uint32_t most_of(const uint4& v) {
  constexpr std::uint32_t kSizes =
      0x7fff7fff;  // of two bfloat16; a NaN is larger than an infinity, as words are compared
  const std::uint32_t pairs = __vmaxu2(__vmaxu2(v.x & kSizes, v.y & kSizes), __vmaxu2(v.z & kSizes, v.w & kSizes));
  return max(pairs & 0xffff, pairs >> 16);
}

__device__ inline std::uint32_t codes_of(std::uint32_t low, std::uint32_t high, float inverse) {
  return four_codes(quant::float_of(low << 16), quant::float_of(low & 0xffff0000u), quant::float_of(high << 16),
                    quant::float_of(high & 0xffff0000u), inverse);
}
#endif

// x [T, depth] to codes [T, pitch] and scales [T]. A row stays in registers where kChunks x 16 numbers a thread are
// enough; 0: rows of any length, read twice.
template <int kChunks>
__global__ void __launch_bounds__(kMostThreads)
    codes_kernel(const __nv_bfloat16* x, std::int64_t x_stride, std::uint8_t* codes, std::int64_t pitch, float* scales,
                 int depth) {
#if FASTLLM_HOPPER_CODE
  let_next_start();
  const std::int64_t token = blockIdx.x;
  const int step = static_cast<int>(blockDim.x) * kAtOnce;
  const int first = static_cast<int>(threadIdx.x) * kAtOnce;
  const auto load = [&](int at) {  // depth is a multiple of 8
    Sixteen v{};
    const uint4* from = reinterpret_cast<const uint4*>(x + token * x_stride + at);
    if (at < depth) v.halves[0] = from[0];
    if (at + 8 < depth) v.halves[1] = from[1];
    return v;
  };
  const auto store = [&](int at, const Sixteen& v, float inverse) {
    if (at >= depth) return;
    const uint4& a = v.halves[0];
    const uint4& b = v.halves[1];
    *reinterpret_cast<uint4*>(codes + token * pitch + at) =
        make_uint4(codes_of(a.x, a.y, inverse), codes_of(a.z, a.w, inverse), codes_of(b.x, b.y, inverse),
                   codes_of(b.z, b.w, inverse));
  };
  wait_for_previous();
  Sixteen kept[kChunks > 0 ? kChunks : 1];
  std::uint32_t most = 0;
  if constexpr (kChunks > 0) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) kept[c] = load(first + c * step);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) most = max(most, max(most_of(kept[c].halves[0]), most_of(kept[c].halves[1])));
  } else {
    for (int at = first; at < depth; at += step) {
      kept[0] = load(at);
      most = max(most, max(most_of(kept[0].halves[0]), most_of(kept[0].halves[1])));
    }
  }
  const quant::TokenScale t = quant::token_scale(quant::float_of(block_most(most) << 16));
  if (threadIdx.x == 0) scales[token] = t.scale;
  if constexpr (kChunks > 0) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) store(first + c * step, kept[c], t.inverse);
  } else {
    for (int at = first; at < depth; at += step) store(at, load(at), t.inverse);
  }
#endif
}

// What quant::round_token says, in the row's own dtype.
template <class T>
__global__ void __launch_bounds__(kMostThreads)
    round_kernel(const T* x, std::int64_t x_stride, T* to, std::int64_t pitch, int depth) {
  wait_for_previous();
  const T* from = x + blockIdx.x * x_stride;
  std::uint32_t most = 0;
  for (int k = threadIdx.x; k < depth; k += blockDim.x) most = max(most, quant::bits_of(fabsf(to_float(from[k]))));
  const quant::TokenScale t = quant::token_scale(quant::float_of(block_most(most)));
  for (int k = threadIdx.x; k < depth; k += blockDim.x) {
    const float scaled = to_float(from[k]) * t.inverse;
    to[blockIdx.x * pitch + k] =
        from_float<T>(isnan(scaled) ? scaled : quant::from_e4m3(quant::to_e4m3(scaled)) * t.scale);
  }
}

std::int64_t pitch_of(std::int64_t depth) {
  return (depth + 15) / 16 * 16;
}
// Floats before the codes.
std::int64_t scale_floats(std::int64_t tokens) {
  return (tokens + 63) / 64 * 64;
}

void launch_float8(const Context& c, const View& codes, const DeviceLinear& l, const Product& p) {
  using T = __nv_bfloat16;
  using W = Float8;
  const int tiles = (p.depth + W::kDepth - 1) / W::kDepth;
  const int streaming = splits_for((p.rows + 63) / 64, tiles, 8);
  if (p.tokens <= 8) return launch_shape<T, Shape<W, 64, 8, 11, 2>>(c, codes, l, p, streaming);
  if (p.tokens <= 16) return launch_shape<T, Shape<W, 64, 16, 10, 2>>(c, codes, l, p, streaming);
  if (p.tokens <= 32) return launch_shape<T, Shape<W, 64, 32, 8, 2>>(c, codes, l, p, streaming);
  if (p.tokens <= 64) return launch_shape<T, Shape<W, 64, 64, 6, 2>>(c, codes, l, p, streaming);
  const int medium = (p.rows + 127) / 128 * ((p.tokens + 127) / 128);
  // deterministic: K is cut as for few tokens, whatever else is in the step.
  if (c.deterministic && streaming > 1) return launch_shape<T, Shape<W, 128, 128, 3, 2>>(c, codes, l, p, streaming);
  // So few blocks that each has a multiprocessor, and its memory, for itself.
  const int splits = c.deterministic ? 1 : splits_for(medium, tiles, 8, 1);
  if (splits > 1) return launch_shape<T, Shape<W, 128, 128, 6, 1>>(c, codes, l, p, splits);
  if (p.tokens <= 128 || !p.direct) return launch_shape<T, Shape<W, 128, 128, 3, 2>>(c, codes, l, p, 1);
  if (staying_rounds<256>(c, p) <= staying_rounds<128>(c, p))
    launch_staying<T, 256>(c, codes, p);
  else
    launch_staying<T, 128>(c, codes, p);
}

}  // namespace

std::size_t linear_workspace(const DeviceLinear& l, std::int64_t tokens) {
  if (l.rounds_inputs) return static_cast<std::size_t>(tokens * l.in_features);
  if (!l.format || !l.format->dynamic) return 0;
  return static_cast<std::size_t>(scale_floats(tokens) + tokens * pitch_of(l.in_features) / 4);
}

TokenCodes token_codes(const Context& c, const DeviceLinear& l, std::int64_t tokens) {
  if (!l.format || !l.format->dynamic) return {};
  float* const scales = c.workspace->data;
  return {reinterpret_cast<std::uint8_t*>(scales + scale_floats(tokens)), pitch_of(l.in_features), scales};
}

View rounded_tokens(const Context& c, const View& x) {
  const std::int64_t depth = x.shape[1];
  const View to{c.workspace->data, x.dtype, x.shape, {depth, 1}};
  if (x.stride[1] != 1 && depth > 1)
    core::fail(core::ErrorCode::internal,
               core::cat("[linear] inputs lie ", x.stride[1], " apart; rows must be whole."));
  dispatch_float(x.dtype, "linear", [&](auto t) {
    using T = typename decltype(t)::type;
    launch(c, round_kernel<T>, dim3(static_cast<unsigned>(x.shape[0])), block_threads(depth), 0, 1,
           static_cast<const T*>(x.data), x.stride[0], static_cast<T*>(to.data), depth, static_cast<int>(depth));
  });
  return to;
}

void linear_fp8_dynamic(const Context& c, const device::Linear& op, const View& x, const View* residual,
                        const DeviceLinear& l, const View& out) {
  if (x.shape[0] == 0) return;
  if (!product_fits(x, residual, l, out))
    core::fail(core::ErrorCode::internal, "[linear] operands do not lie as the kernel for float8 reads them.");
  const std::int64_t tokens = x.shape[0];
  const std::int64_t depth = x.shape[1];
  const auto [codes, pitch, scales] = token_codes(c, l, tokens);
  const auto threads = [&](int chunks) {
    const std::int64_t wanted = (depth + kAtOnce * chunks - 1) / (kAtOnce * chunks);
    return static_cast<unsigned>((std::min<std::int64_t>(wanted, kMostThreads) + 31) / 32 * 32);
  };
  const auto run = [&](auto kernel, int chunks) {
    launch(c, kernel, dim3(static_cast<unsigned>(tokens)), threads(chunks), 0, 1,
           static_cast<const __nv_bfloat16*>(x.data), x.stride[0], codes, pitch, scales, static_cast<int>(depth));
  };
  if (c.coded != x.data) {  // else the norm before made them
    // Many tokens: blocks of half the size, of which more take turns in reading and writing.
    if (depth <= (tokens > 64 ? kMostThreads / 2 : kMostThreads) * kAtOnce)
      run(codes_kernel<1>, 1);
    else if (depth <= 2 * kAtOnce * kMostThreads)
      run(codes_kernel<2>, 2);
    else
      run(codes_kernel<0>, 1);
  }
  Product p = product_of(op, x, residual, l, out);
  if (c.deterministic && residual) p.direct = false;  // it rounds before it adds the residual, the other way after
  p.tiles = l.data;
  p.tile_bytes = Float8::kTileBytes;
  p.row_scales = static_cast<const float*>(l.scales->data());
  p.token_scales = scales;
  const View coded{codes, core::DType::f8_e4m3, x.shape, {pitch, 1}};
  launch_float8(c, coded, l, p);
}

}  // namespace fastllm::cuda
