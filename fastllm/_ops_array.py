"""What real tensors and recorded values have in common: shape, dtype and operators.

The operators are written once, in terms of ``fastllm.ops``, so an expression means the same on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fastllm._ops_dtype import DType

if TYPE_CHECKING:
    from types import ModuleType

    from typing_extensions import Self

__all__ = ["A", "Array", "Scalar"]

Scalar: TypeAlias = "float | int"


class Array:
    """A ``Tensor`` (numbers) or a ``Symbol`` (a value of a graph being recorded)."""

    __slots__ = ()
    __array_priority__ = 1000.0  # numpy leaves `array + tensor` to us
    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes, slowest axis first; a recorded value's first may be the word "tokens" or "rows"."""
        raise NotImplementedError

    @property
    def dtype(self) -> DType:
        """Type of the elements."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        """The same elements in another shape; one size may be -1."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        result: Self = _ops().reshape(self, sizes)
        return result

    def astype(self, dtype: str, /) -> Self:
        """A copy with another element type, rounded to nearest even."""
        result: Self = _ops().cast(self, dtype)
        return result

    def __add__(self, other: Any) -> Self:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Self:
        return _binary("add", self, other, swap=True)

    def __sub__(self, other: Any) -> Self:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Self:
        return _binary("sub", self, other, swap=True)

    def __mul__(self, other: Any) -> Self:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Self:
        return _binary("mul", self, other, swap=True)

    def __truediv__(self, other: Any) -> Self:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return _binary("div", self, other, swap=True)

    def __matmul__(self, other: Any) -> Self:
        result: Self = _ops().matmul(self, other)
        return result

    def __rmatmul__(self, other: Any) -> Any:
        return _ops().matmul(other, self)

    def __neg__(self) -> Self:
        result: Self = _ops().neg(self)
        return result


A = TypeVar("A", bound=Array)


def _ops() -> ModuleType:
    """``fastllm.ops``, which itself needs this module."""
    from fastllm import ops

    return ops


def _binary(kind: str, left: A, right: Any, *, swap: bool = False) -> A:
    op = getattr(_ops(), kind)
    result: A = op(right, left) if swap else op(left, right)
    return result
