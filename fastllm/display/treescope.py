"""A way for treescope to show tensors: `treescope.display(tensor)`, inside any structure that it renders, and faceted.

treescope asks an object for its adapter, so this is imported by treescope's question and by nothing else. It needs
JavaScript in the page; fastllm's own displays, which a notebook shows without being asked, do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from treescope import ndarray_adapters

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["TensorAdapter"]


def _ends(tensor: Tensor, edges: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """The values, of cut axes the first and the last few with one between that means nothing.

    Every piece is cut on the tensor's own device, so that only what is shown is copied from there.
    """
    for axis, edge in enumerate(edges):
        if edge is None:
            continue
        before = (slice(None),) * axis
        keys = [(*before, slice(0, edge)), (*before, slice(tensor.shape[axis] - edge, None))]
        first, last = (tensor[key] for key in keys)
        rest = edges[axis + 1 :]
        low, high = (_ends(part, (*(None,) * (axis + 1), *rest)) for part in (first, last))
        gap = np.zeros((*low.shape[:axis], 1, *low.shape[axis + 1 :]), low.dtype)
        return np.concatenate([low, gap, high], axis=axis)
    return np.asarray(tensor.numpy())


def _mask_ends(mask: npt.NDArray[np.bool_], edges: tuple[int | None, ...]) -> npt.NDArray[np.bool_]:
    for axis, edge in enumerate(edges):
        if edge is not None:
            parts = np.split(mask, [edge, mask.shape[axis] - edge], axis=axis)
            gap = np.zeros((*mask.shape[:axis], 1, *mask.shape[axis + 1 :]), bool)
            mask = np.concatenate([parts[0], gap, parts[2]], axis=axis)
    return mask


class TensorAdapter(ndarray_adapters.NDArrayAdapter):  # type: ignore[misc]
    """What treescope asks of a `fastllm.Tensor`."""

    def get_axis_info_for_array_data(self, array: Tensor) -> tuple[Any, ...]:
        """Axes by position."""
        return tuple(ndarray_adapters.PositionalAxisInfo(axis, size) for axis, size in enumerate(array.shape))

    def get_array_data_with_truncation(
        self, array: Tensor, mask: Any, edge_items_per_axis: tuple[int | None, ...]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The values as numpy has them (bfloat16 and float8 as float32) and the mask, both cut as treescope wants."""
        wide = np.broadcast_to(np.ones((), bool) if mask is None else np.asarray(mask, bool), array.shape)
        return _ends(array, edge_items_per_axis), _mask_ends(wide, edge_items_per_axis)

    def get_array_summary(self, array: Tensor, fast: bool) -> str:
        """The tensor's own line; in haste, its dtype and shape alone."""
        if fast:
            return f"Tensor {array.dtype.short} {list(array.shape)} {array.device}"
        return repr(array).strip("<>")

    def get_numpy_dtype(self, array: Tensor) -> np.dtype[Any]:
        """The dtype of the values that are shown."""
        return np.dtype(np.float32) if array.dtype.numpy is None else np.dtype(array.dtype.numpy)
