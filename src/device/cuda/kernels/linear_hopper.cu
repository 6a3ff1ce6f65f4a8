// linear on Hopper (sm_90a) with 16-bit weights (hopper_product.cuh), and their tiles.

#include "device/cuda/hopper_product.cuh"

namespace fastllm::cuda {
namespace {

template <class T>
void launch_hopper(const Context& c, const View& x, const DeviceLinear& l, const Product& p) {
  const int tiles = p.depth / Numbers::kDepth;
  const int streaming = splits_for((p.rows + 63) / 64, tiles, 8);
  if (p.tokens <= 8) return launch_shape<T, Shape<Numbers, 64, 8, 11, 2>>(c, x, l, p, streaming);
  if (p.tokens <= 16) return launch_shape<T, Shape<Numbers, 64, 16, 10, 2>>(c, x, l, p, streaming);
  if (p.tokens <= 32) return launch_shape<T, Shape<Numbers, 64, 32, 8, 2>>(c, x, l, p, streaming);
  if (p.tokens <= 64) return launch_shape<T, Shape<Numbers, 64, 64, 6, 2>>(c, x, l, p, streaming);
  const int broad = (p.rows + 127) / 128;
  const int large = broad * ((p.tokens + 255) / 256);
  const bool whole = !c.deterministic || streaming == 1;  // else K is cut as for few tokens
  if (p.tokens > 128 && large >= kTargetBlocks - 42 && whole)
    return launch_shape<T, Shape<Numbers, 128, 256, 4, 1>>(c, x, l, p, 1);
  const int medium = broad * ((p.tokens + 127) / 128);
  const int splits = c.deterministic ? streaming : splits_for(medium, tiles, p.tokens > 128 ? 4 : 8);
  launch_shape<T, Shape<Numbers, 128, 128, 3, 2>>(c, x, l, p, splits);
}

// Rows [first, first + rows) of a [*, depth] matrix into tiles of 64 x 64, each as the products read it from shared memory
// (rows of 128 bytes, 16-byte columns permuted by the row), tile after tile along K. Row r of the matrix becomes row
// place(r). One thread copies 16 bytes.
__global__ void tile_kernel(const uint4* from, uint4* to, std::int64_t first, std::int64_t rows, int depth,
                            std::int64_t half) {
  const int eights = (depth + kSwizzleDepth - 1) / kSwizzleDepth * 8;  // 16-byte columns of a row, the last tile padded
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * eights) return;
  const std::int64_t r = i / eights;
  const int column = static_cast<int>(i % eights);
  const std::int64_t row = first + r;
  const std::int64_t at = half > 0 ? row % half / 8 * 16 + row / half * 8 + row % 8 : row;
  const uint4 value = column * 8 < depth ? from[r * (depth / 8) + column] : uint4{0, 0, 0, 0};
  const std::int64_t tile = at / 64 * (eights / 8) + column / 8;
  to[tile * 512 + at % 64 * 8 + ((column % 8) ^ (at % 8))] = value;
}

}  // namespace

std::size_t tiled_bytes(std::int64_t rows, std::int64_t depth) {
  return static_cast<std::size_t>((rows + 63) / 64 * ((depth + Numbers::kDepth - 1) / Numbers::kDepth)) *
         Numbers::kTileBytes;
}

void tile_rows(const Context& c, const void* from, void* to, std::int64_t first, std::int64_t rows, std::int64_t depth,
               std::int64_t half) {
  const std::int64_t pieces = rows * ((depth + kSwizzleDepth - 1) / kSwizzleDepth * 8);
  if (pieces == 0) return;
  tile_kernel<<<static_cast<unsigned>((pieces + 255) / 256), 256, 0, c.stream>>>(
      static_cast<const uint4*>(from), static_cast<uint4*>(to), first, rows, static_cast<int>(depth), half);
  check_launch("linear");
}

bool linear_hopper(const Context& c, const device::Linear& op, const View& x, const View* residual,
                   const DeviceLinear& l, const View& out) {
  if (!c.hopper || !core::is_half(l.dtype) || !product_fits(x, residual, l, out)) return false;
  Product product = product_of(op, x, residual, l, out);
  if (c.deterministic && residual)
    product.direct = false;  // it rounds before it adds the residual, the other way after
  product.tiles = l.tiled ? l.data : nullptr;
  product.tile_bytes = Numbers::kTileBytes;
  if (l.dtype == core::DType::bf16)
    launch_hopper<__nv_bfloat16>(c, x, l, product);
  else
    launch_hopper<__half>(c, x, l, product);
  return true;
}

}  // namespace fastllm::cuda
