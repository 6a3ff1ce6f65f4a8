"""A tensor that still lies in its file: what every reader of ``fastllm.formats`` hands out."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DTYPE_BITS", "TensorSource"]

#: Bits per element of every dtype name of the safetensors format.
DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True, slots=True)
class TensorSource:
    """One tensor of a mapped file; nothing is read until its bytes are touched.

    Attributes:
        name: Name in the file.
        dtype: Safetensors name of the element type, such as "F32", "BF16", "F8_E4M3".
        shape: Sizes, slowest axis first; () for a scalar.
        nbytes: Bytes in the file.
        file: Path of the file that holds it.
        offset: Position of the first byte in that file. It need not be a multiple of the element size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    offset: int
    _view: memoryview = field(repr=False, compare=False)

    def buffer(self) -> memoryview:
        """The bytes, row-major and little-endian: a read-only view of the map, which it keeps open."""
        return self._view

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count
