"""``Tensor``: numbers in the memory of a device, with the manners of a numpy array.

A Tensor is a handle: slices, reshapes and transposes are views that share memory, arithmetic makes new tensors, nothing
changes in place. The work is done by the same kernels that run a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm import _core
from fastllm._ops_array import Array
from fastllm._ops_dtype import DType, as_dtype, float32, int32
from fastllm.errors import DtypeError, ShapeError

if TYPE_CHECKING:
    from fastllm._ops_stats import TensorStats

__all__ = ["Tensor", "arange", "cat", "full", "ones", "zeros"]

_INT32 = np.iinfo(np.int32)


class Tensor(Array):
    """A strided window on the memory of one device.

    Attributes:
        name: The weight's name in its checkpoint, or "".
    """

    __slots__ = ("__weakref__", "_handle", "name")

    _handle: _core.Tensor
    name: str

    def __init__(self, data: Any, dtype: str | None = None, *, device: str = "cpu", name: str = "") -> None:
        """Copies numbers into a new tensor.

        Args:
            data: A number, nested lists, a numpy array, another Tensor, anything with ``__array__`` or ``__dlpack__``.
            dtype: Element type. By default that of ``data``; Python floats become float32, Python ints int32 (int64
                when they need it).
            device: Where the tensor lives.
            name: A label for displays.

        Raises:
            DtypeError: The data are not numbers, or the dtype is unknown.
            ShapeError: Nested lists of unequal lengths, or more axes than the engine has (6).
        """
        if isinstance(data, Tensor):
            handle = data._handle
        else:
            handle = _core.Tensor.from_numpy(_as_numpy(data, dtype), copy=True)
        self._handle = handle
        self.name = name
        if dtype is not None and as_dtype(dtype) != handle.dtype:
            self._handle = self.astype(dtype)._handle
        elif isinstance(data, Tensor):
            self._handle = self.copy()._handle
        if device != self._handle.device:
            self._handle = self.to(device)._handle

    # --- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def _wrap(cls, handle: _core.Tensor, name: str = "") -> Tensor:
        """A Tensor around a native handle, without a copy."""
        self = cls.__new__(cls)
        self._handle, self.name = handle, name
        return self

    @classmethod
    def from_numpy(cls, array: npt.NDArray[Any], *, copy: bool = False, name: str = "") -> Tensor:
        """A tensor on the memory of a numpy array of any strides, which it keeps alive; with ``copy``, on its own.

        Raises:
            DtypeError: The array holds something else than numbers.
        """
        return cls._wrap(_core.Tensor.from_numpy(_checked(np.asarray(array)), copy=copy), name)

    @classmethod
    def from_buffer(cls, buffer: Any, dtype: str, shape: Sequence[int], *, name: str = "") -> Tensor:
        """A contiguous tensor on the memory of a bytes-like object (a mapped file, say), which stays alive."""
        return cls._wrap(_core.Tensor.from_buffer(buffer, str(as_dtype(dtype)), tuple(shape)), name)

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, slowest axis first; () for a single number."""
        return tuple(self._handle.shape)

    @property
    def dtype(self) -> DType:
        """Type of the elements."""
        return as_dtype(self._handle.dtype)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next along each axis."""
        return tuple(self._handle.strides)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, shared or not."""
        return self._handle.nbytes

    @property
    def device(self) -> str:
        """Where the numbers are: "cpu", "cuda:0"."""
        return self._handle.device

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order."""
        return self._handle.contiguous

    @property
    def data_ptr(self) -> int:
        """Address of the first element."""
        return self._handle.data_ptr

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("[len] a tensor of shape [] is a single number.", hint="Use item().", actual=())
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    # --- views -------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any, /) -> Tensor:
        """Ints, slices, ``...`` and None give views; slices with a step, lists and arrays of indices give copies."""
        keys = key if isinstance(key, tuple) else (key,)
        if not all(_is_basic(item) for item in keys):
            index = tuple(np.asarray(item) if isinstance(item, Tensor) else item for item in keys)
            return self._through_numpy(lambda array: array[index])
        handle, shape, axis = self._handle, [], 0
        for item in _expand(keys, self.ndim):
            if item is None:
                shape.append(1)
                continue
            size = self.shape[axis]
            if isinstance(item, slice):
                start, stop, _ = item.indices(size)
                stop = max(start, stop)
                shape.append(stop - start)
            else:
                start = int(item)
                if not -size <= start < size:
                    fact = f"[slice] index {start} is outside axis {axis} of a tensor of shape {list(self.shape)}"
                    raise _IndexShapeError(f"{fact}.", actual=self.shape)
                start %= size
                stop = start + 1
            if (start, stop) != (0, size):
                handle = handle.slice(axis, start, stop)
            axis += 1
        return Tensor._wrap(handle if tuple(handle.shape) == tuple(shape) else handle.reshape(shape))

    def permute(self, *axes: int) -> Tensor:
        """A view with the axes in another order, as ``numpy.transpose``."""
        order = [axis + self.ndim if axis < 0 else axis for axis in axes]
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"[permute] {axes} is not an order of the axes of {list(self.shape)}.", actual=self.shape)
        return Tensor._wrap(self._handle.permute(order))

    @property
    def T(self) -> Tensor:  # noqa: N802 - numpy's name
        """A view with the axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    # --- copies ------------------------------------------------------------------------------------------------------

    def copy(self) -> Tensor:
        """A contiguous copy in memory of its own."""
        return self.astype(self.dtype)

    def to(self, device: str) -> Tensor:
        """The same tensor on a device; itself if it is already there."""
        if device == self.device:
            return self
        from fastllm._ops_dispatch import device_named

        return Tensor._wrap(self._handle.to_device(device_named(device)), self.name)

    def _through_numpy(self, function: Any) -> Tensor:
        """The result of a numpy function of the values, with this tensor's dtype."""
        return Tensor(np.asarray(function(self.numpy())), dtype=self.dtype, device=self.device)

    # --- to Python ---------------------------------------------------------------------------------------------------

    def numpy(self) -> npt.NDArray[Any]:
        """A numpy array: a view where numpy has the dtype, else (bfloat16, float8) a float32 copy."""
        host = self.to("cpu")
        if host.dtype.numpy is None:
            host = host.astype(float32)
        return host._handle.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != np.dtype(dtype):
            if copy is False:
                raise ValueError(f"[tensor] {self.dtype} cannot become {np.dtype(dtype)} without a copy.")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.numpy().tolist()

    def item(self) -> float | int | bool:
        """The one number of a tensor with one element."""
        if self.size != 1:
            fact = f"[item] a tensor of shape {list(self.shape)} has {self.size} elements, not one"
            raise ShapeError(f"{fact}.", hint="Index it first.", actual=self.shape)
        value: float | int | bool = self.numpy().reshape(-1)[0].item()
        return value

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.floating:
            raise TypeError(f"[index] a tensor of {self.dtype} is not an integer.")
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str, /) -> str:
        return format(self.item(), spec) if spec else repr(self)

    # --- reductions (on the host, in float64) ------------------------------------------------------------------------

    def _reduce(self, name: str, axis: int | None, keepdims: bool) -> Tensor:
        if not self.size:
            raise ShapeError(f"[{name}] a tensor of shape {list(self.shape)} has no elements.", actual=self.shape)
        array = self.numpy()
        wide = array.astype(np.float64) if self.dtype.floating else array
        result = np.asarray(getattr(wide, name)(axis=axis, keepdims=keepdims))
        narrow = self.dtype.floating or name in ("mean", "std")
        return Tensor(result, dtype=float32 if narrow and self.dtype != "float64" else None)

    def mean(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Mean over one axis or all."""
        return self._reduce("mean", axis, keepdims)

    def sum(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Sum over one axis or all; integers add up in 64 bits."""
        return self._reduce("sum", axis, keepdims)

    def max(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Largest value over one axis or all; NaN if there is one."""
        return self._reduce("max", axis, keepdims)

    def min(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Smallest value over one axis or all; NaN if there is one."""
        return self._reduce("min", axis, keepdims)

    def std(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Standard deviation of the population over one axis or all."""
        return self._reduce("std", axis, keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """Index of the first largest value along one axis, or in the flattened tensor; int64."""
        if not self.size:
            raise ShapeError(f"[argmax] a tensor of shape {list(self.shape)} has no elements.", actual=self.shape)
        return Tensor(np.asarray(self.numpy().argmax(axis=axis)))

    # --- displays ----------------------------------------------------------------------------------------------------

    def stats(self, *, sample: int | None = None) -> TensorStats:
        """Least, greatest, mean, deviation, zeros, NaN and Inf; of all elements, or of about ``sample`` of them."""
        from fastllm._ops_stats import tensor_stats

        return tensor_stats(self, sample=sample)

    def __repr__(self) -> str:
        from fastllm._ops_stats import one_line

        return one_line(self)

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)

    def __treescope_ndarray_adapter__(self) -> Any:
        """How treescope shows it, if that is installed and asks."""
        from fastllm import _shown

        return _shown.treescope_adapter()

    def inspect(self, *, reference: Tensor | npt.NDArray[Any] | None = None, labels: Any = None) -> Any:
        """Shows the tensor with sliders: heat-map, histogram, values, channels, quantisation, memory.

        Args:
            reference: The numbers that this tensor stands for, of the same shape: the display then tells its errors.
            labels: Names along axes, ``{axis: [name, ...]}``, such as the tokens of a prompt.

        Returns:
            The view, already on the page.
        """
        from fastllm import _shown

        return _shown.show(self, reference=reference, labels=labels)


class _IndexShapeError(ShapeError, IndexError):
    """An index out of range: also an IndexError, which ends Python's own loops over a sequence."""


def _is_basic(item: Any) -> bool:
    if item is None or item is Ellipsis:
        return True
    if isinstance(item, slice):
        return item.step in (None, 1)
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool)


def _expand(keys: tuple[Any, ...], ndim: int) -> list[Any]:
    """One entry for each axis (besides None), with ``...`` and missing entries filled in."""
    used = sum(item is not None and item is not Ellipsis for item in keys)
    dots = sum(item is Ellipsis for item in keys)
    if used > ndim or dots > 1:
        raise _IndexShapeError(f"[slice] {used} indices for a tensor of {ndim} axes.", actual=(used, ndim))
    rest = [slice(None)] * (ndim - used)
    if not dots:
        return [*keys, *rest]
    place = next(index for index, item in enumerate(keys) if item is Ellipsis)
    return [*keys[:place], *rest, *keys[place + 1 :]]


def _as_numpy(data: Any, dtype: str | None) -> npt.NDArray[Any]:
    if isinstance(data, (np.ndarray, np.generic)):
        return _checked(np.asarray(data))
    if hasattr(data, "__array__") or (hasattr(data, "__dlpack__") and not hasattr(data, "__len__")):
        return _checked(np.asarray(data))
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"[tensor] the nested lists are not of equal lengths ({error}).") from None
    except (TypeError, OverflowError) as error:
        raise DtypeError(f"[tensor] {type(data).__name__} does not hold numbers ({error}).") from None
    array = _checked(array)
    if dtype is not None and (given := as_dtype(dtype)).numpy is not None:
        return array.astype(given.numpy)
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype == np.int64 and (not array.size or (array.min() >= _INT32.min and array.max() <= _INT32.max)):
        return array.astype(np.int32)
    return array


def _checked(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "biuf" or array.dtype.name not in _NUMPY_NAMES:
        fact = f"[tensor] numpy's {array.dtype} has no counterpart here"
        raise DtypeError(f"{fact}.", hint="Convert it first, to float32 say.", actual=str(array.dtype))
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


_NUMPY_NAMES = {"bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"}


def full(shape: int | Sequence[int], value: float, dtype: str = float32) -> Tensor:
    """A tensor filled with one value."""
    given = as_dtype(dtype)
    return Tensor(np.full(shape, value, dtype=given.numpy or np.float32), dtype=given)


def zeros(shape: int | Sequence[int], dtype: str = float32) -> Tensor:
    """A tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: int | Sequence[int], dtype: str = float32) -> Tensor:
    """A tensor of ones."""
    return full(shape, 1, dtype)


def arange(start: float, stop: float | None = None, step: float = 1, *, dtype: str | None = None) -> Tensor:
    """Numbers from ``start`` (0 with one argument) to before ``stop``; int32 for ints, float32 for floats."""
    values = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
    return Tensor(values, dtype=dtype or (int32 if values.dtype.kind == "i" else float32))


def cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Joins tensors of one dtype along an axis, as ``numpy.concatenate``.

    Raises:
        ShapeError: Sizes of the other axes differ; the text has the shapes.
        DtypeError: The dtypes differ.
    """
    from fastllm.ops import cat as join

    return join(tensors, axis=axis)
