"""Reader of the safetensors format: memory-mapped, nothing copied, everything checked before use.

Layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length N, N bytes of JSON, then the
data. The JSON maps each tensor name to ``dtype``, ``shape`` and ``data_offsets`` [begin, end) counted from the data's
start; ``__metadata__`` maps strings to strings. The tensors must tile the data exactly, without gap or overlap.

The map follows the file: if another process shortens a file while it is open, touching the lost part kills the process
(SIGBUS), as with every mapped file. Replace checkpoints by renaming, not by writing into them.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from fastllm.errors import CorruptFile, LoadError, UnsupportedFormat
from fastllm.formats.source import DTYPE_BITS, TensorSource

__all__ = ["MAX_HEADER_BYTES", "SafetensorsFile", "TensorSource", "open_safetensors"]

#: The largest header that the format allows.
MAX_HEADER_BYTES = 100_000_000

_AGAIN = "The file is damaged or was cut short: download it again."
_LFS_MAGIC = b"version https://git-lfs.github.com/spec/"


class SafetensorsFile:
    """An open safetensors file. Its tensors keep the map alive, so the file needs no closing.

    Attributes:
        path: The file.
        tensors: Its tensors by name, in the order of their data.
        metadata: The ``__metadata__`` strings.
        nbytes: Bytes of all tensors.
    """

    def __init__(self, path: str, tensors: Mapping[str, TensorSource], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.tensors = MappingProxyType(dict(tensors))
        self.metadata = MappingProxyType(dict(metadata))
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors.values())

    def __getitem__(self, name: str) -> TensorSource:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        return f"SafetensorsFile({self.path!r}, tensors={len(self)}, nbytes={self.nbytes})"


class _DuplicateKeyError(ValueError):
    """A JSON object names a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def open_safetensors(path: str | os.PathLike[str]) -> SafetensorsFile:
    """Maps a file and checks its whole header.

    Args:
        path: The file.

    Returns:
        The file's tensors and metadata; the data itself is not touched.

    Raises:
        LoadError: The file is not there, is a directory, or may not be read.
        CorruptFile: The file contradicts the format (cut short, bad JSON, overlapping or gapped data, ...).
        UnsupportedFormat: A tensor has a dtype that this version does not know.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError as error:
        raise LoadError(f"[safetensors] {name} does not exist.", path=name, hint="Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LoadError(f"[safetensors] {name} cannot be read: {reason}.", path=name) from error
    view = memoryview(data)
    header, start = _read_header(name, view)
    metadata = _check_metadata(name, header.pop("__metadata__", {}))
    return SafetensorsFile(name, _check_tensors(name, header, view, start), metadata)


def _corrupt(path: str, fact: str, hint: str = _AGAIN) -> CorruptFile:
    return CorruptFile(f"[safetensors] {path}: {fact}.", path=path, hint=hint)


def _read_header(path: str, view: memoryview) -> tuple[dict[str, Any], int]:
    """Returns the decoded JSON and the position of the data."""
    size = len(view)
    if bytes(view[: len(_LFS_MAGIC)]) == _LFS_MAGIC:
        fact = f"this is a Git LFS pointer of {size} bytes, not the weights themselves"
        raise _corrupt(path, fact, "Run `git lfs pull` in the checkpoint's repository.")
    if size < 8:
        raise _corrupt(path, f"the file has {size} bytes but the header's length alone takes 8")
    length = int.from_bytes(view[:8], "little")
    if length > MAX_HEADER_BYTES:
        hint = f"Is this a safetensors file? {_AGAIN}"
        raise _corrupt(path, f"the header claims {length} bytes but the format allows {MAX_HEADER_BYTES}", hint)
    if 8 + length > size:
        raise _corrupt(path, f"the header claims {length} bytes but only {size - 8} follow its length")
    raw = bytes(view[8 : 8 + length])
    if raw[:1] != b"{":
        raise _corrupt(path, f"the header starts with {raw[:1]!r} instead of b'{{'", f"Is this safetensors? {_AGAIN}")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except _DuplicateKeyError as error:
        raise _corrupt(path, f"the header names {str(error)!r} twice") from error
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"the header of {length} bytes is not valid JSON ({str(error) or 'too deep'})") from error
    return dict(header), 8 + length


def _check_metadata(path: str, metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt(path, "__metadata__ is not a map of strings to strings")
    return metadata


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_tensors(path: str, header: dict[str, Any], view: memoryview, start: int) -> dict[str, TensorSource]:
    found: list[tuple[int, int, str, str, tuple[int, ...]]] = []
    available = len(view) - start
    for name, entry in header.items():
        if not _encodes(name):
            raise _corrupt(path, f"tensor name {name!r} is not valid Unicode")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _corrupt(path, f"the entry of {name!r} must have just dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str):
            raise _corrupt(path, f"the dtype of {name!r} is {_short(dtype)} instead of a string")
        if dtype not in DTYPE_BITS:
            raise UnsupportedFormat(
                f"[safetensors] {path}: {name!r} has the unknown dtype {_short(dtype)}.",
                path=path,
                hint=f"Known dtypes: {', '.join(DTYPE_BITS)}. Convert the checkpoint to one of them.",
            )
        if not isinstance(shape, list) or not all(map(_is_size, shape)):
            raise _corrupt(path, f"the shape of {name!r} is {_short(shape)} instead of a list of sizes")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
            raise _corrupt(path, f"the data_offsets of {name!r} are {_short(offsets)} instead of two positions")
        begin, end = offsets
        if end < begin:
            raise _corrupt(path, f"{name!r} begins at byte {begin} but ends at {end}")
        if end > available:
            raise _corrupt(path, f"{name!r} ends at byte {end} of the data but the file holds only {available}")
        _check_bytes(path, name, dtype, shape, end - begin)
        found.append((begin, end, name, dtype, tuple(shape)))

    found.sort()
    tensors: dict[str, TensorSource] = {}
    position, previous = 0, "the header"
    for begin, end, name, dtype, tuple_shape in found:
        if begin < position:
            raise _corrupt(path, f"{name!r} begins at byte {begin} but {previous!r} ends at {position}: they overlap")
        if begin > position:
            raise _corrupt(path, f"{begin - position} bytes between {previous!r} and {name!r} belong to no tensor")
        data = view[start + begin : start + end]
        tensors[name] = TensorSource(name, dtype, tuple_shape, end - begin, path, start + begin, data)
        position, previous = end, name
    if position != available:
        raise _corrupt(path, f"the tensors take {position} bytes but the file holds {available} bytes of data")
    return tensors


def _check_bytes(path: str, name: str, dtype: str, shape: list[int], nbytes: int) -> None:
    """Compares shape times element size with the bytes there are, without multiplying hostile sizes out."""
    bits = 0 if 0 in shape else DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
        if bits > nbytes * 8:
            break
    if bits != nbytes * 8:
        need = (
            "a broken number of bytes" if bits % 8 else f"{'at least ' if bits > nbytes * 8 else ''}{bits // 8} bytes"
        )
        raise _corrupt(path, f"{name!r} of dtype {dtype} and shape {_short(shape)} needs {need} but has {nbytes}")


def _encodes(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object, limit: int = 80) -> str:
    """A value for a message; hostile ones may be huge, or integers too long to print."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
