"""Ops that move numbers about without changing them: shapes, parts, dtypes; and eager ones that choose among them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any
from typing import cast as _typed

import numpy as np

from fastllm._ops_array import A
from fastllm._ops_dispatch import run
from fastllm._ops_dtype import as_dtype
from fastllm._ops_record import Symbol
from fastllm.errors import DtypeError, InvalidRequest, ShapeError
from fastllm.tensor import Tensor

__all__ = ["argmax", "cast", "cat", "permute", "reshape", "slice_last", "split", "topk"]


def reshape(x: A, shape: Sequence[Any]) -> A:
    """The same elements in another shape; one size may be -1. A copy only if no view can do it.

    While recording, the first axis stays the tokens: ``reshape(x, (-1, heads, head_dim))``.
    """
    if isinstance(x, Symbol):
        return _typed(A, x.recorder.reshape(x, shape))
    tensor = _typed(Tensor, x)
    sizes = [operator.index(size) for size in shape]
    known = math.prod(size for size in sizes if size >= 0)
    fits = known == tensor.size
    if -1 in sizes and sizes.count(-1) == 1 and known and tensor.size % known == 0:
        sizes[sizes.index(-1)] = tensor.size // known
        fits = True
    if not fits or min(sizes, default=0) < 0:
        fact = f"[reshape] {list(tensor.shape)} has {tensor.size} elements and cannot become {list(shape)}"
        raise ShapeError(f"{fact}.", expected=tensor.shape, actual=tuple(sizes))
    if tuple(sizes) == tensor.shape:
        return x
    try:
        return _typed(A, Tensor._wrap(tensor._handle.reshape(sizes)))
    except ShapeError:
        return _typed(A, Tensor._wrap(tensor.copy()._handle.reshape(sizes)))


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """A view with the axes in another order. Eager only."""
    return x.permute(*axes)


def slice_last(x: A, start: int, stop: int) -> A:
    """``x[..., start:stop]``, a view."""
    if isinstance(x, Symbol):
        return _typed(A, x.recorder.slice_last(x, start, stop))
    return _typed(A, _typed(Tensor, x)[..., start:stop])


def split(x: A, sizes: Sequence[int]) -> list[A]:
    """Cuts the last axis into pieces of these sizes, as views.

    Raises:
        ShapeError: The sizes do not add up to the axis.
    """
    if sum(sizes) != x.shape[-1]:
        fact = (
            f"[split] sizes {list(sizes)} add up to {sum(sizes)} but the last axis of {list(x.shape)} has {x.shape[-1]}"
        )
        raise ShapeError(f"{fact}.", expected=tuple(sizes), actual=tuple(x.shape[-1:]))
    pieces, start = [], 0
    for size in sizes:
        pieces.append(slice_last(x, start, start + size))
        start += size
    return pieces


def cat(tensors: Sequence[Tensor], *, axis: int = 0) -> Tensor:
    """Joins tensors of one dtype along an axis. Eager only."""
    if not tensors:
        raise InvalidRequest("[cat] there are no tensors to join.")
    first = tensors[0]
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise InvalidRequest("[cat] joins Tensors; it cannot be recorded.")
    for tensor in tensors:
        if tensor.dtype != first.dtype:
            fact = f"[cat] cannot join {first.dtype} {list(first.shape)} and {tensor.dtype} {list(tensor.shape)}"
            raise DtypeError(f"{fact}.", expected=first.dtype, actual=tensor.dtype)
    try:
        joined = np.concatenate([tensor.numpy() for tensor in tensors], axis=axis)
    except ValueError:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise ShapeError(f"[cat] {shapes} cannot be joined along axis {axis}.", expected=first.shape) from None
    return Tensor(joined, dtype=first.dtype)


def cast(x: A, dtype: str, *, name: str | None = None) -> A:
    """A copy with another element type, rounded to nearest even."""
    wanted = as_dtype(dtype)
    return run("copy", x, [], {"dtype": str(wanted)}, name=name, half_ok=(0,))


def topk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of the last axis in falling order, and their indices (int64). Eager only."""
    if not 0 < k <= (x.shape[-1] if x.ndim else 0):
        raise InvalidRequest(f"[topk] k is {k} but the tensor's shape is {list(x.shape)}.")
    values = x.numpy()
    order = np.argsort(-values if x.dtype.floating else -values.astype(np.int64), axis=-1, kind="stable")[..., :k]
    return Tensor(np.take_along_axis(values, order, axis=-1), dtype=x.dtype), Tensor(order)


def argmax(x: Tensor, axis: int = -1) -> Tensor:
    """Index of the first largest value along an axis, int64. Eager only."""
    return x.argmax(axis)
