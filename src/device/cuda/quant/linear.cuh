#pragma once
// linear with a weight of codes on Hopper: which shape of the product (hopper_product.cuh) for how many tokens.

#include "core/error.h"
#include "device/cuda/hopper_product.cuh"

namespace fastllm::cuda {
namespace {

template <class W>
void launch_tokens(const Context& c, const View& x, const DeviceLinear& l, const Product& p) {
  using T = __nv_bfloat16;
  constexpr bool kNarrow = W::kCode == quant::Code::int4;
  const int tiles = (p.depth + W::kDepth - 1) / W::kDepth;
  const int streaming = splits_for((p.rows + 63) / 64, tiles, 8);
  if (p.tokens <= 8) return launch_shape<T, Shape<W, 64, 8, kNarrow ? 10 : 6, 3, 2>>(c, x, l, p, streaming);
  if (p.tokens <= 16) return launch_shape<T, Shape<W, 64, 16, kNarrow ? 8 : 5, 3, 2>>(c, x, l, p, streaming);
  if (p.tokens <= 32) return launch_shape<T, Shape<W, 64, 32, kNarrow ? 8 : 6, 2, 2>>(c, x, l, p, streaming);
  // deterministic: K cut as for few tokens, and by two teams, whatever else is in the step.
  if (p.tokens <= 64 || c.deterministic)
    return launch_shape<T, Shape<W, 64, 64, kNarrow ? 5 : 4, 2, 2>>(c, x, l, p, streaming);
  const int blocks = (p.rows + 127) / 128 * ((p.tokens + 127) / 128);
  launch_shape<T, Shape<W, 128, 128, kNarrow ? 5 : 4, 1>>(c, x, l, p,
                                                          splits_for(blocks, tiles, p.tokens > 128 ? 4 : 8, 1));
}

template <quant::Code kCode>
void launch_codes(const Context& c, const device::Linear& op, const View& x, const View* residual,
                  const DeviceLinear& l, const View& out) {
  if (x.shape[0] == 0) return;
  if (!product_fits(x, residual, l, out))
    core::fail(core::ErrorCode::internal, "[linear] operands do not lie as the kernel for codes reads them.");
  Product p = product_of(op, x, residual, l, out);
  p.tiles = l.data;
  p.tile_bytes = static_cast<int>(code_tile_bytes(*l.format));
  p.lines = l.format->scales_sums() ? 0 : l.format->group == 0 ? 1 : Codes<kCode, 4>::kDepth / l.format->group;
  p.zeros = l.format->asymmetric;
  p.row_scales = l.format->scales_sums() ? static_cast<const float*>(l.scales->data()) : nullptr;
  // What most weights have, and whatever else there is.
  if (p.lines == (kCode == quant::Code::int4 ? 1 : 0))
    launch_tokens<Codes<kCode, kCode == quant::Code::int4 ? 1 : 0>>(c, x, l, p);
  else
    launch_tokens<Codes<kCode, 4>>(c, x, l, p);
}

}  // namespace
}  // namespace fastllm::cuda
