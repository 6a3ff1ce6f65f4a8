"""Native tensors: memory shared with Python and numpy, views against numpy's own, lifetimes, errors."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllm import _core as core
from fastllm import errors

DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]


def of(array: Any, *, copy: bool = False) -> Any:
    return core.Tensor.from_numpy(array, copy=copy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_round_trip_shares_memory(dtype: str) -> None:
    array = (np.arange(24) % 2).astype(dtype).reshape(2, 3, 4)
    t = of(array)
    assert (t.dtype, t.shape, t.strides, t.nbytes) == (dtype, (2, 3, 4), (12, 4, 1), array.nbytes)
    assert t.device == "cpu"
    assert t.contiguous
    assert t.data_ptr == array.ctypes.data
    back = t.numpy()
    assert back.dtype == array.dtype
    array[1, 2, 3] = 7
    assert back[1, 2, 3] == array[1, 2, 3]
    back[0, 0, 0] = 1
    assert array[0, 0, 0] == 1


def test_copy_is_a_copy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    t = of(array, copy=True)
    assert t.contiguous
    array[:] = -1
    np.testing.assert_array_equal(t.numpy(), np.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1, ::2],
        lambda a: a.T,
        lambda a: a[1:, :, 3],
        lambda a: a[..., None],
        lambda a: a[:0],
        lambda a: np.broadcast_to(a[:, :1], a.shape),
        lambda a: a[1, 2, 3, ...],
    ],
)
def test_any_strides(view: Any) -> None:
    array = view(np.arange(60, dtype=np.int32).reshape(3, 4, 5))
    t = of(array)
    assert t.shape == array.shape
    np.testing.assert_array_equal(t.numpy(), array)
    copied = core.run_op(core.Device("cpu"), "copy", [t], {"dtype": "int64"})[0]
    np.testing.assert_array_equal(copied.numpy(), array)


def test_read_only_stays_read_only() -> None:
    array = np.arange(4.0)
    array.flags.writeable = False
    t = of(array)
    assert not t.writable
    assert not t.numpy().flags.writeable
    assert of(np.arange(4.0)).writable
    assert not core.Tensor.from_buffer(b"abcd", "uint8", [4]).writable
    assert core.Tensor.from_buffer(bytearray(b"abcd"), "uint8", [4]).writable


def test_from_buffer_is_the_buffer() -> None:
    data = bytearray(np.arange(6, dtype=np.float32).tobytes())
    t = core.Tensor.from_buffer(data, "F32", [2, 3])
    data[:4] = np.float32(9).tobytes()
    assert t.numpy()[0, 0] == 9
    with pytest.raises(BufferError):
        data.append(0)  # exported: the tensor holds it
    del t
    gc.collect()
    data.append(0)
    part = core.Tensor.from_buffer(memoryview(data)[4:12], "f32", [2])
    np.testing.assert_array_equal(part.numpy(), [1, 2])


def test_unaligned_buffers_are_read_right() -> None:
    data = b"x" + np.arange(6, dtype=np.float64).tobytes()
    np.testing.assert_array_equal(core.Tensor.from_buffer(memoryview(data)[1:], "f64", [6]).numpy(), np.arange(6))


def test_views_keep_memory_alive() -> None:
    array = np.arange(1000.0)
    alive = weakref.ref(array)
    view = of(array).slice(0, 10, 20).reshape([2, 5])
    del array
    gc.collect()
    assert alive() is not None
    out = view.numpy()
    del view
    gc.collect()
    np.testing.assert_array_equal(out, np.arange(10.0, 20).reshape(2, 5))
    del out
    gc.collect()
    assert alive() is None


def test_last_owner_in_another_thread() -> None:
    array = np.arange(1000.0)
    before = sys.getrefcount(array)
    box = [of(array)]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert sys.getrefcount(array) == before


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reshape_views_exactly_where_numpy_does(data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    base = np.arange(int(np.prod(dims)) * 2 ** len(dims), dtype=np.int32).reshape([2 * d for d in dims])
    array = base[
        tuple(
            slice(None, None, data.draw(st.sampled_from([2, -2]))) if data.draw(st.booleans()) else slice(0, d)
            for d in dims
        )
    ]
    array = np.asarray(array)
    array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    rest = array.size
    to: list[int] = []
    while rest > 1 and len(to) < 5:
        factor = data.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
        to.append(factor)
        rest //= factor
    to.append(rest)
    to = to[:6] if int(np.prod(to)) == array.size else [array.size]
    reshaped = array.reshape(to)
    viewable = np.shares_memory(reshaped, array)
    t = of(array)
    if viewable:
        np.testing.assert_array_equal(t.reshape(to).numpy(), reshaped)
        assert np.shares_memory(t.reshape(to).numpy(), array)
    else:
        with pytest.raises(errors.ShapeError, match="no view"):
            t.reshape(to)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_slice_and_permute_equal_numpy(data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    array = np.arange(int(np.prod(dims))).reshape(dims)
    t = of(array)
    for _ in range(3):
        axis = data.draw(st.integers(0, len(dims) - 1))
        start = data.draw(st.integers(0, array.shape[axis]))
        stop = data.draw(st.integers(start, array.shape[axis]))
        t, array = t.slice(axis, start, stop), array.take(range(start, stop), axis)
        order = data.draw(st.permutations(range(len(dims))))
        t, array = t.permute(order), array.transpose(order)
        np.testing.assert_array_equal(t.numpy(), array)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: core.Tensor.from_buffer(b"abc", "f32", [1]), errors.ShapeError),
        (lambda: core.Tensor.from_buffer(b"abcd", "f33", [1]), errors.DtypeError),
        (lambda: core.Tensor.from_buffer(b"abcd", "u8", [-4]), errors.ShapeError),
        (lambda: core.Tensor.from_buffer(b"abcd", "u8", [2**32, 2**32]), errors.ShapeError),
        (lambda: core.Tensor.from_buffer(b"abcd", "u8", [1] * 7), errors.ShapeError),
        (lambda: core.Tensor.empty("f32", [2**30, 2**30]), errors.FastLLMError),
        (lambda: of(np.zeros((1,) * 7)), errors.ShapeError),
        (lambda: of(np.zeros(3, np.complex64)), errors.DtypeError),
        (lambda: of(np.array(["a"])), errors.DtypeError),
        (lambda: of(np.array([object()])), errors.DtypeError),
        (lambda: of(np.zeros(3, ">f4")), errors.DtypeError),
        (lambda: of(np.zeros(3, [("a", "u1"), ("b", "f4")])["b"]), errors.ShapeError),
        (lambda: of(np.zeros(3)).reshape([4]), errors.ShapeError),
        (lambda: of(np.zeros(3)).reshape([-1]), errors.ShapeError),
        (lambda: of(np.zeros(3)).slice(1, 0, 1), errors.ShapeError),
        (lambda: of(np.zeros(3)).slice(0, 2, 1), errors.ShapeError),
        (lambda: of(np.zeros(3)).slice(0, 0, 4), errors.ShapeError),
        (lambda: of(np.zeros((2, 3))).permute([0, 0]), errors.ShapeError),
        (lambda: of(np.zeros((2, 3))).permute([0]), errors.ShapeError),
        (lambda: core.Tensor.empty("bf16", [3]).numpy(), errors.DtypeError),
        (lambda: core.Device("tpu"), errors.DeviceNotAvailable),
        (lambda: core.Device("cpu", -1), errors.InvalidConfig),
    ],
)
def test_faults_are_typed(build: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        build()
    assert str(caught.value).startswith("[")


def test_errors_arrive_without_the_error_module() -> None:
    code = (
        "import sys; sys.modules['fastllm.errors'] = None\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('_core', {core.__file__!r}); core = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(core)\n"
        "try: core.Tensor.from_buffer(b'abc', 'f32', [1])\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs 4 bytes" in done.stdout
    assert "shape_error" in done.stdout


def test_exit_while_another_thread_owns_memory() -> None:
    """Memory of Python may be let go after the interpreter is gone."""
    code = (
        "import threading, time, numpy as np\n"
        "from fastllm import _core as core\n"
        "t = core.Tensor.from_numpy(np.zeros(10), copy=False)\n"
        "threading.Thread(target=lambda kept: time.sleep(9), args=(t,), daemon=True).start()\n"
        "g = core.Graph(); g.constant('c', t)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_bfloat16_says_what_to_do() -> None:
    with pytest.raises(errors.DtypeError, match="float32"):
        core.Tensor.empty("bfloat16", [3]).numpy()


def test_device() -> None:
    device = core.Device("cpu", 1)
    assert device.name == "cpu"
    assert device.info["threads"] == 1
    assert device.info["isa"] in core.build_info()["isas"]
    t = of(np.arange(3.0))
    assert t.to_device(device).data_ptr == t.data_ptr  # host memory is the device's
    assert {name for name, _, _ in core.list_devices()} >= {"cpu", "null"}
