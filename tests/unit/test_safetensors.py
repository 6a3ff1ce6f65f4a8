"""The safetensors reader against the real library, against hand-made faults, and under fuzzing."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastllm.errors import CorruptFile, FastLLMError, LoadError, UnsupportedFormat
from fastllm.formats.safetensors import SafetensorsFile, open_safetensors
from fastllm.formats.source import DTYPE_BITS

NUMPY_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "F16": np.float16,
    "I32": np.int32,
    "U32": np.uint32,
    "F32": np.float32,
    "I64": np.int64,
    "U64": np.uint64,
    "F64": np.float64,
}


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with any header: text, bytes, or a value to be written as JSON."""
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype: str = "F32", shape: object = (2, 3), offsets: object = (0, 24)) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": list(offsets) if isinstance(offsets, tuple) else offsets,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# --- agreement with the library -------------------------------------------------------------------------------------


def test_reads_what_the_library_writes(file: Path) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    generator = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        f"{name}.{rank}": np.asarray(generator.random(tuple(range(2, 2 + rank))) * 100).astype(dtype)
        for name, dtype in NUMPY_DTYPES.items()
        for rank in range(4)
    }
    arrays["empty"] = np.zeros((3, 0, 2), np.float32)
    arrays["name with ünïcode and 🦙"] = np.arange(5, dtype=np.int32)
    numpy_io.save_file(arrays, file, metadata={"format": "pt", "note": "ä"})

    opened = open_safetensors(file)
    assert set(opened.tensors) == set(arrays) and len(opened) == len(arrays)
    assert opened.metadata == {"format": "pt", "note": "ä"}
    assert opened.nbytes == sum(array.nbytes for array in arrays.values())
    for name, array in arrays.items():
        source = opened[name]
        assert source.shape == array.shape and source.nbytes == array.nbytes and source.numel == array.size
        assert NUMPY_DTYPES[source.dtype] == array.dtype
        assert source.file == str(file)
        got: Any = np.frombuffer(source.buffer(), NUMPY_DTYPES[source.dtype]).reshape(source.shape)
        np.testing.assert_array_equal(got, array)
        # The offset is the tensor's real place in the file.
        assert file.read_bytes()[source.offset : source.offset + source.nbytes] == array.tobytes()


def test_reads_every_dtype_torch_can_write(file: Path) -> None:
    torch = pytest.importorskip("torch")
    torch_io = pytest.importorskip("safetensors.torch")
    dtypes = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    tensors = {name: torch.arange(-6, 6).reshape(3, 4).to(dtype) for name, dtype in dtypes.items()}
    torch_io.save_file(tensors, file)
    opened = open_safetensors(file)
    for name, tensor in tensors.items():
        assert opened[name].dtype == name and opened[name].shape == (3, 4)
        raw = tensor.view(torch.uint8).numpy().tobytes()
        assert bytes(opened[name].buffer()) == raw


def test_knows_exactly_the_dtypes_of_the_library(file: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    write(file, {"a": entry("NO_SUCH", (4,), (0, 4))}, b"0000")
    with pytest.raises(Exception, match="expected one of") as caught:
        safetensors.safe_open(file, "numpy")
    names = set(str(caught.value).split("expected one of")[1].split(" at ")[0].replace("`", "").strip().split(", "))
    assert names <= set(DTYPE_BITS)
    for name in names:  # and every element size agrees: 48 elements are 48 * bits / 8 bytes
        write(file, {"a": entry(name, (48,), (0, DTYPE_BITS[name] * 6))}, bytes(DTYPE_BITS[name] * 6))
        assert open_safetensors(file)["a"].nbytes == DTYPE_BITS[name] * 6
        with safetensors.safe_open(file, "numpy") as reference:
            assert list(reference.keys()) == ["a"]


def test_is_zero_copy_and_outlives_its_owner(file: Path) -> None:
    size = 64 << 20
    header = json.dumps({"big": entry("U8", (size,), (0, size))}).encode()
    with open(file, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)  # a sparse file: reading it would take memory, mapping does not
    resident = _resident_bytes()
    view = open_safetensors(file)["big"].buffer()
    assert view.readonly and view.nbytes == size
    assert _resident_bytes() - resident < size // 4
    file.unlink()
    assert view[size - 1] == 0  # the map holds the file's data though file and owner are gone


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_header_may_be_padded_and_metadata_null(file: Path) -> None:
    write(file, json.dumps({"__metadata__": None, "a": entry()}) + "     ", bytes(24))
    opened = open_safetensors(file)
    assert opened["a"].shape == (2, 3) and opened.metadata == {}


def test_file_without_tensors(file: Path) -> None:
    opened = open_safetensors(write(file, {}))
    assert len(opened) == 0 and list(opened) == [] and opened.nbytes == 0
    assert "tensors=0" in repr(opened)


# --- faults ---------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Any, bytes, str]] = {
    "not_json": (b"{nonsense", b"", "not valid JSON"),
    "not_utf8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "not_object": (b"[1, 2]", b"", "starts with"),
    "nan": (b'{"__metadata__": NaN}', b"", "not valid JSON"),
    "deep": (b'{"a":' + b"[" * 200_000, b"", "not valid JSON"),
    "huge_number": (b'{"a":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    "duplicate_name": (f'{{"w": {json.dumps(entry())}, "w": {json.dumps(entry())}}}', bytes(24), "names 'w' twice"),
    "duplicate_key": (b'{"w": {"dtype": "U8", "dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}', b"0", "twice"),
    "surrogate": ({"\ud800": entry()}, bytes(24), "not valid Unicode"),
    "entry_not_object": ({"w": 3}, b"", "entry of 'w'"),
    "entry_lacks_shape": ({"w": {"dtype": "F32", "data_offsets": [0, 24]}}, bytes(24), "entry of 'w'"),
    "entry_has_more": ({"w": {**entry(), "stride": 1}}, bytes(24), "entry of 'w'"),
    "dtype_not_text": ({"w": entry(3)}, bytes(24), "dtype of 'w' is 3"),  # type: ignore[arg-type]
    "shape_not_list": ({"w": entry(shape=6)}, bytes(24), "shape of 'w'"),
    "shape_negative": ({"w": entry(shape=(-2, -3))}, bytes(24), "shape of 'w'"),
    "shape_bool": ({"w": entry("U8", (True,), (0, 1))}, b"0", "shape of 'w'"),
    "shape_float": ({"w": entry(shape=(2.0, 3.0))}, bytes(24), "shape of 'w'"),
    "offsets_one": ({"w": entry(offsets=(0,))}, bytes(24), "data_offsets of 'w'"),
    "offsets_negative": ({"w": entry(offsets=(-24, 0))}, bytes(24), "data_offsets of 'w'"),
    "offsets_reversed": ({"w": entry(offsets=(24, 0))}, bytes(24), "begins at byte 24 but ends at 0"),
    "offsets_outside": (
        {"w": entry(offsets=(0, 24))},
        bytes(20),
        "ends at byte 24 of the data but the file holds only",
    ),
    "too_few_bytes": ({"w": entry(offsets=(0, 20))}, bytes(20), "needs at least 24 bytes but has 20"),
    "too_many_bytes": ({"w": entry(offsets=(0, 28))}, bytes(28), "needs 24 bytes but has 28"),
    "broken_bytes": ({"w": entry("F4", (3,), (0, 2))}, bytes(2), "broken number of bytes"),
    "product_overflows": ({"w": entry("U8", (2**62, 2**62, 4), (0, 0))}, b"", "but has 0"),
    "product_of_many": ({"w": entry("U8", (9**15,) * 5000, (0, 24))}, bytes(24), "but has 24"),
    "overlap": ({"a": entry(), "b": entry(offsets=(20, 44))}, bytes(44), "they overlap"),
    "gap": ({"a": entry(), "b": entry(offsets=(28, 52))}, bytes(52), "4 bytes between 'a' and 'b'"),
    "leading_gap": ({"a": entry(offsets=(4, 28))}, bytes(28), "4 bytes between"),
    "trailing": ({"a": entry()}, bytes(25), "tensors take 24 bytes but the file holds 25"),
    "metadata_not_text": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "metadata_not_object": ({"__metadata__": "x"}, b"", "__metadata__"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str, file: Path) -> None:
    header, data, words = FAULTS[fault]
    write(file, header, data)
    with pytest.raises(CorruptFile) as caught:
        open_safetensors(file)
    assert words in str(caught.value) and str(file) in str(caught.value)
    assert caught.value.path == str(file) and "ownload it again" in caught.value.hint
    assert len(str(caught.value)) < 1500


#: The library lets these pass, though the format forbids them.
STRICTER = {"entry_has_more", "duplicate_name", "duplicate_key"}


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - STRICTER))
def test_the_library_refuses_the_same_faults(fault: str, file: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    header, data, _ = FAULTS[fault]
    write(file, header, data)
    with pytest.raises(Exception):  # noqa: B017
        safetensors.safe_open(file, "numpy")


def test_unknown_dtype_is_unsupported_not_corrupt(file: Path) -> None:
    write(file, {"w": entry("F5_E9M9")}, bytes(24))
    with pytest.raises(UnsupportedFormat, match="unknown dtype 'F5_E9M9'") as caught:
        open_safetensors(file)
    assert "BF16" in caught.value.hint


def test_header_length_beyond_file_and_beyond_format(file: Path) -> None:
    with pytest.raises(CorruptFile, match="claims 1000 bytes but only 2 follow"):
        open_safetensors(write(file, {}, length=1000))
    with pytest.raises(CorruptFile, match="format allows 100000000"):
        open_safetensors(write(file, {}, length=2**63))


def test_no_file_directory_empty_and_lfs_pointer(file: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="does not exist"):
        open_safetensors(file)
    with pytest.raises(LoadError, match="cannot be read"):
        open_safetensors(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(CorruptFile, match="the file has 0 bytes"):
        open_safetensors(file)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(CorruptFile, match="Git LFS pointer") as caught:
        open_safetensors(file)
    assert "git lfs pull" in caught.value.hint


# --- fuzzing: only typed errors, whatever the bytes -----------------------------------------------------------------


def _valid_bytes(path: Path) -> bytes:
    header = {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("BF16", (4,), (24, 32))}
    return write(path, header, bytes(range(32))).read_bytes()


def _opens_or_refuses(path: Path, data: bytes) -> SafetensorsFile | None:
    path.write_bytes(data)
    try:
        opened = open_safetensors(path)
    except FastLLMError as error:
        assert str(path) in str(error)  # noqa: PT017 - whether it raises is up to the bytes
        return None
    for tensor in opened.tensors.values():
        assert len(tensor.buffer()) == tensor.nbytes
        assert tensor.offset + tensor.nbytes <= len(data)
    return opened


def test_truncated_at_every_position(file: Path) -> None:
    data = _valid_bytes(file)
    assert _opens_or_refuses(file, data) is not None
    for size in range(len(data)):
        assert _opens_or_refuses(file, data[:size]) is None, f"{size} of {len(data)} bytes were taken for a whole file"


def test_every_bit_of_the_header_flipped(file: Path) -> None:
    data = _valid_bytes(file)
    header_bytes = len(data) - 32
    survived = 0
    for position in range(header_bytes):
        for bit in range(8):
            mutant = bytearray(data)
            mutant[position] ^= 1 << bit
            survived += _opens_or_refuses(file, bytes(mutant)) is not None
    assert 0 < survived < header_bytes * 8  # a flipped letter of a name is still a file; most flips are not


def test_random_splices(file: Path) -> None:
    random.seed(5)
    data = _valid_bytes(file)
    for _ in range(600):
        mutant = bytearray(data)
        for _ in range(random.randint(1, 4)):
            start = random.randrange(len(mutant))
            mutant[start : start + random.randint(0, 6)] = random.choice(
                [b"", b"[", b"]", b"{", b'"', b"-1", b"1e99", b"99999999999999999999", b"null", os.urandom(3), b"0,0"]
            )
        _opens_or_refuses(file, bytes(mutant))


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "U8", "NOPE"]) | _json_values,
        "shape": st.lists(st.integers(0, 5), max_size=3) | _json_values,
        "data_offsets": st.tuples(st.integers(0, 40), st.integers(0, 40)).map(list) | _json_values,
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(max_size=6), _entries | _json_values, max_size=4), data=st.binary(max_size=48))
def test_any_json_header(header: dict[str, Any], data: bytes, file: Path) -> None:
    write(file, json.dumps(header), data)
    _opens_or_refuses(file, file.read_bytes())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes, file: Path) -> None:
    _opens_or_refuses(file, data)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sound_layout_is_read(data: st.DataObject, file: Path) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=6))
    make: Callable[[int], str] = "t{}".format
    header: dict[str, Any] = {}
    blob = b""
    for index, shape in enumerate(shapes):
        dtype = data.draw(st.sampled_from(["U8", "F16", "F32", "F64"]))
        size = int(np.prod(shape)) * DTYPE_BITS[dtype] // 8
        header[make(index)] = entry(dtype, list(shape), [len(blob), len(blob) + size])
        blob += os.urandom(size)
    keys = data.draw(st.permutations(list(header)))
    write(file, {key: header[key] for key in keys}, blob)
    opened = open_safetensors(file)
    for name, expected in header.items():
        begin, end = expected["data_offsets"]
        assert bytes(opened[name].buffer()) == blob[begin:end]
        assert list(opened[name].shape) == expected["shape"]
