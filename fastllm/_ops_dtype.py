"""Element types: constants that are strings, so that ``fastllm.bfloat16 == "bfloat16"`` and either may be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastllm.errors import DtypeError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ALL_DTYPES",
    "DType",
    "as_dtype",
    "bfloat16",
    "bool_",
    "float8_e4m3",
    "float8_e5m2",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
]


class DType(str):
    """The type of a tensor's elements. Equal to its name, so plain strings work wherever a DType does.

    Attributes:
        short: Abbreviation used in displays, such as "bf16".
        itemsize: Bytes of one element.
        floating: Whether it holds real numbers.
        numpy: The numpy dtype of the same layout, or None where numpy has none (bfloat16, float8).
    """

    __slots__ = ("floating", "itemsize", "numpy", "short")

    short: str
    itemsize: int
    floating: bool
    numpy: np.dtype[Any] | None

    def __new__(cls, name: str, short: str, itemsize: int, *, floating: bool, numpy: Any = None) -> Self:
        """Makes one of the constants of this module; user code has no reason to make more."""
        self = super().__new__(cls, name)
        self.short, self.itemsize, self.floating = short, itemsize, floating
        self.numpy = None if numpy is None else np.dtype(numpy)
        return self

    def __repr__(self) -> str:
        return f"fastllm.{self!s}"

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (str(self),)


float32 = DType("float32", "f32", 4, floating=True, numpy=np.float32)
float16 = DType("float16", "f16", 2, floating=True, numpy=np.float16)
bfloat16 = DType("bfloat16", "bf16", 2, floating=True)
float64 = DType("float64", "f64", 8, floating=True, numpy=np.float64)
int8 = DType("int8", "i8", 1, floating=False, numpy=np.int8)
uint8 = DType("uint8", "u8", 1, floating=False, numpy=np.uint8)
int16 = DType("int16", "i16", 2, floating=False, numpy=np.int16)
int32 = DType("int32", "i32", 4, floating=False, numpy=np.int32)
int64 = DType("int64", "i64", 8, floating=False, numpy=np.int64)
bool_ = DType("bool", "bool", 1, floating=False, numpy=np.bool_)
float8_e4m3 = DType("float8_e4m3", "f8_e4m3", 1, floating=True)
float8_e5m2 = DType("float8_e5m2", "f8_e5m2", 1, floating=True)

ALL_DTYPES = (
    float32,
    float16,
    bfloat16,
    float64,
    int8,
    uint8,
    int16,
    int32,
    int64,
    bool_,
    float8_e4m3,
    float8_e5m2,
)

_BY_NAME = {str(dtype): dtype for dtype in ALL_DTYPES}
_BY_NAME |= {dtype.short: dtype for dtype in ALL_DTYPES}
_BY_NAME |= {"fp32": float32, "float": float32, "fp16": float16, "half": float16, "double": float64, "fp64": float64}
_BY_NAME |= {"int": int32, "long": int64, "float8_e4m3fn": float8_e4m3}
_BY_NAME |= {"fp8": float8_e4m3, "fp8_e4m3": float8_e4m3}  # as caches of keys and values name it


def as_dtype(name: Any) -> DType:
    """Reads a dtype from its name in any common spelling ("float32", "f32", "F32", "torch.float32", ``numpy.float32``).

    Raises:
        DtypeError: There is no such dtype.
    """
    if isinstance(name, DType):
        return name
    text = name if isinstance(name, str) else str(name)
    found = _BY_NAME.get(text.removeprefix("torch.").lower())
    if found is None:
        try:
            found = _BY_NAME.get(np.dtype(name).name)
        except TypeError:
            found = None
    if found is None:
        known = ", ".join(ALL_DTYPES)
        raise DtypeError(f"[dtype] {text[:60]!r} is not a dtype of fastllm.", hint=f"Known: {known}.", actual=text[:60])
    return found
