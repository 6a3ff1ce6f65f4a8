// Rows of a weight to codes on the device, bit for bit as the reference (quant/quantize.cpp), and codes to the tiles that the
// product reads (hopper_product.cuh, hopper_codes.cuh).

#include "device/cuda/common.cuh"
#include "device/cuda/launch.h"
#include "quant/encode.h"

namespace fastllm::cuda {
namespace {

constexpr int kDepth = 128;  // of a tile
constexpr int kWarps = 8;
constexpr float kFp8Unit = 0x1p120f;  // what the product's way from e4m3 to bfloat16 leaves to the scale

int lines_of(const quant::Format& f) {
  return f.scales_sums() ? 0 : f.group == 0 ? 1 : kDepth / f.group;
}

__device__ std::int64_t place_of(std::int64_t row, std::int64_t half) {
  return half > 0 ? row % half / 8 * 16 + row / half * 8 + row % 8 : row;
}

// A warp a group; the group of a whole row has a block, and its warps meet.
template <class T>
__global__ void __launch_bounds__(kWarps * 32)
    quantize_kernel(quant::Format format, const T* from, PlainCodes to, std::int64_t first, int depth, int width,
                    std::int64_t half) {
  __shared__ float lows[kWarps], highs[kWarps];
  const std::int64_t row = place_of(first + blockIdx.x, half);
  const int groups = (depth + width - 1) / width;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const bool whole = groups == 1;
  const T* numbers = from + static_cast<std::int64_t>(blockIdx.x) * depth;
  for (int g = whole ? 0 : warp; g < groups; g += whole ? 1 : kWarps) {
    const int begin = g * width;
    const int end = min(depth, begin + width);
    const int step = whole ? kWarps * 32 : 32;
    const int start = begin + (whole ? static_cast<int>(threadIdx.x) : lane);
    float low = to_float(numbers[begin]);
    float high = low;
    bool finite = true;
    for (int k = start; k < end; k += step) {
      const float x = to_float(numbers[k]);
      finite = finite && isfinite(x);
      low = fminf(low, x);
      high = fmaxf(high, x);
    }
    if (!finite) *to.bad = 1;
    for (int offset = 16; offset > 0; offset /= 2) {
      low = fminf(low, __shfl_xor_sync(~0u, low, offset));
      high = fmaxf(high, __shfl_xor_sync(~0u, high, offset));
    }
    if (whole) {
      if (lane == 0) {
        lows[warp] = low;
        highs[warp] = high;
      }
      __syncthreads();
      for (int w = 0; w < kWarps; ++w) {
        low = fminf(low, lows[w]);
        high = fmaxf(high, highs[w]);
      }
    }
    const quant::Group group = quant::group_of(format.code, format.asymmetric, !format.scales_sums(), low, high);
    if (whole ? threadIdx.x == 0 : lane == 0) {
      to.scales[row * groups + g] = group.scale;
      if (to.zeros) to.zeros[row * groups + g] = group.zero;
    }
    for (int k = start; k < end; k += step)
      to.codes[row * depth + k] = quant::encode(format.code, group, to_float(numbers[k]));
  }
}

// One thread a 32-bit word of a tile: for each warp its codes, then lines of scales, then lines of zero points.
__global__ void tile_codes_kernel(quant::Format format, PlainCodes from, std::uint32_t* to, std::int64_t rows,
                                  int depth, int lines, int tile_words, std::int64_t words) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= words) return;
  const bool narrow = format.code == quant::Code::int4;
  const int code_words = narrow ? 256 : 512;  // of a warp
  const int tiles = (depth + kDepth - 1) / kDepth;
  const std::int64_t tile = i / tile_words;
  const int warp = static_cast<int>(i % tile_words) / (tile_words / 4);
  const int word = static_cast<int>(i % tile_words) % (tile_words / 4);
  const std::int64_t first_row = tile / tiles * 64;
  const int first_k = static_cast<int>(tile % tiles) * kDepth;
  const int width = format.group == 0 ? depth : format.group;
  const int groups = (depth + width - 1) / width;
  std::uint32_t value = 0;
  if (format
          .dynamic) {  // rows of 128 codes, whose 16-byte columns are permuted by the row: as they lie in shared memory
    const std::int64_t row = first_row + warp * 16 + word / 32;
    const int at = first_k + (word % 32 / 4 ^ static_cast<int>(row % 8)) * 16 + word % 4 * 4;
    for (int j = 0; j < 4; ++j)
      if (row < rows && at + j < depth) value |= std::uint32_t{from.codes[row * depth + at + j]} << (8 * j);
  } else if (word < code_words) {
    const int plane = word / 128;
    const int lane = word % 128 / 4;
    const int part = word % 4;
    const int step = narrow ? plane * 4 + part : plane * 2 + part / 2;  // products of depth 16
    const int row = warp * 16 + lane / 4;
    const int k = first_k + step * 16 + lane % 4 * 2;
    const auto code = [&](int j, int high) -> std::uint32_t {  // number j of the fragment's four pairs
      const std::int64_t r = first_row + row + j % 2 * 8;
      const int at = k + j / 2 * 8 + high;
      if (r >= rows || at >= depth) return narrow ? 8 : 0;
      return from.codes[r * depth + at];
    };
    if (narrow) {
      for (int j = 0; j < 4; ++j) value |= code(j, 0) << (4 * j) | code(j, 1) << (4 * j + 16);
    } else {
      for (int j = 0; j < 2; ++j)
        value |= code(part % 2 * 2 + j, 0) << (8 * j) | code(part % 2 * 2 + j, 1) << (8 * j + 16);
    }
  } else {
    const int line = (word - code_words) / 8;
    const int row = warp * 16 + word % 8;
    const int at = first_k + line % lines * (kDepth / lines);
    const auto factor = [&](int row_in_tile) -> std::uint32_t {
      const std::int64_t r = first_row + row_in_tile;
      const std::int64_t g = r * groups + at / width;
      const bool inside = r < rows && at < depth;
      float x = line < lines ? (inside ? from.scales[g] : 0.0f) : 128.0f + (inside ? from.zeros[g] : 8.0f);
      if (line < lines && format.code == quant::Code::fp8) x *= kFp8Unit;
      return quant::bits_of(x) >> 16;  // exact: both are bfloat16 already
    };
    value = factor(row) | factor(row + 8) << 16;
  }
  to[i] = value;
}

}  // namespace

bool has_codes(const Context& c, const quant::Format&, core::DType dtype, std::int64_t depth) {
  return c.hopper && dtype == core::DType::bf16 && depth % 8 == 0;
}

std::size_t code_tile_bytes(const quant::Format& f) {
  const std::size_t lines = static_cast<std::size_t>(lines_of(f)) * (f.asymmetric ? 2 : 1);
  return static_cast<std::size_t>(64 * kDepth * f.bits() / 8) + lines * 128;
}

std::size_t code_bytes(const quant::Format& f, std::int64_t rows, std::int64_t depth) {
  return static_cast<std::size_t>((rows + 63) / 64 * ((depth + kDepth - 1) / kDepth)) * code_tile_bytes(f);
}

void quantize_rows(const Context& c, const quant::Format& f, core::DType dtype, const void* from, const PlainCodes& to,
                   std::int64_t first, std::int64_t rows, std::int64_t depth, std::int64_t half) {
  if (rows == 0) return;
  dispatch_float(dtype, "linear", [&](auto t) {
    using T = typename decltype(t)::type;
    quantize_kernel<T><<<static_cast<unsigned>(rows), kWarps * 32, 0, c.stream>>>(
        f, static_cast<const T*>(from), to, first, static_cast<int>(depth),
        static_cast<int>(f.group == 0 ? depth : f.group), half);
  });
  check_launch("linear");
}

void tile_codes(const Context& c, const quant::Format& f, const PlainCodes& from, void* to, std::int64_t rows,
                std::int64_t depth) {
  const int tile_words = static_cast<int>(code_tile_bytes(f) / 4);
  const std::int64_t words = static_cast<std::int64_t>(code_bytes(f, rows, depth) / 4);
  if (words == 0) return;
  tile_codes_kernel<<<static_cast<unsigned>((words + 255) / 256), 256, 0, c.stream>>>(
      f, from, static_cast<std::uint32_t*>(to), rows, static_cast<int>(depth), lines_of(f), tile_words, words);
  check_launch("linear");
}

}  // namespace fastllm::cuda
