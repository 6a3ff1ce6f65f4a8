// Embedding and SelectRows: rows picked by index.
#include "device/cpu/reference/number.h"
#include "device/cpu/reference/reference.h"

namespace fastllm::cpu::reference {

using device::View;

void embedding(const device::Embedding& op, Views in, Views out) {
  const View& ids = in[0];     // [T]
  const View& weight = in[1];  // [V, N]
  const View& y = out[0];      // [T, N]
  for (std::int64_t t = 0; t < y.shape[0]; ++t) {
    const std::int64_t row = load_integer(ids.data, ids.dtype, t * ids.stride[0]) * weight.stride[0];
    for (std::int64_t n = 0; n < y.shape[1]; ++n)
      store(y, t * y.stride[0] + n * y.stride[1], load(weight, row + n * weight.stride[1]) * op.scale);
  }
}

void select_rows(const device::SelectRows&, Views in, Views out, const device::StepView* step) {
  const View& x = in[0];   // [T, N]
  const View& y = out[0];  // [R, N]
  for (std::int64_t r = 0; r < y.shape[0]; ++r) {
    const std::int64_t row =
        in.size() > 1 ? load_integer(in[1].data, in[1].dtype, r * in[1].stride[0]) : step->selected_rows[r];
    for (std::int64_t n = 0; n < y.shape[1]; ++n) {
      const std::int64_t from = row * x.stride[0] + n * x.stride[1];
      const std::int64_t to = r * y.stride[0] + n * y.stride[1];
      if (is_integer(x.dtype))
        store_integer(y.data, y.dtype, to, load_integer(x.data, x.dtype, from));
      else
        store(y, to, load(x, from));
    }
  }
}

}  // namespace fastllm::cpu::reference
