"""Tensor against numpy."""

from __future__ import annotations

import operator
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllm import errors
from fastllm._ops_dtype import ALL_DTYPES, DType, as_dtype, bfloat16, float32
from fastllm.tensor import Tensor, arange, cat, full, ones, zeros

RNG = np.random.default_rng(0)


def test_dtypes_are_their_names() -> None:
    assert bfloat16 == "bfloat16"
    assert isinstance(bfloat16, DType)
    assert as_dtype("bf16") is bfloat16
    assert as_dtype("BF16") is bfloat16
    assert as_dtype("torch.bfloat16") is bfloat16
    assert as_dtype(np.float32) is float32
    assert as_dtype(np.dtype("int64")) == "int64"
    assert pickle.loads(pickle.dumps(bfloat16)) is bfloat16
    assert repr(bfloat16) == "fastllm.bfloat16"
    for dtype in ALL_DTYPES:
        assert as_dtype(dtype.short) is dtype
        assert dtype.numpy is None or dtype.numpy.itemsize == dtype.itemsize
    with pytest.raises(errors.DtypeError, match="float33"):
        as_dtype("float33")
    with pytest.raises(errors.DtypeError):
        as_dtype(object())


def test_made_from_python_values() -> None:
    assert Tensor([1, 2]).dtype == "int32"
    assert Tensor([1, 2**40]).dtype == "int64"
    assert Tensor([1.0, 2]).dtype == "float32"
    assert Tensor([[True], [False]]).dtype == "bool"
    assert Tensor(3.5).shape == ()
    assert Tensor(3.5).item() == 3.5
    assert Tensor([[1, 2], [3, 4]], dtype="float16").tolist() == [[1, 2], [3, 4]]
    assert Tensor(np.float64([1, 2])).dtype == "float64"
    assert Tensor([]).shape == (0,)
    with pytest.raises(errors.ShapeError):
        Tensor([[1, 2], [3]])
    with pytest.raises(errors.DtypeError):
        Tensor(["a"])
    with pytest.raises(errors.DtypeError):
        Tensor(np.array([1 + 2j]))
    with pytest.raises(errors.ShapeError):
        Tensor(np.zeros((1,) * 7))


def test_copies_and_views_of_numpy() -> None:
    array = RNG.normal(size=(3, 4)).astype(np.float32)
    copied, shared = Tensor(array), Tensor.from_numpy(array)
    array[1, 2] = 7
    assert float(shared[1, 2]) == 7
    assert float(copied[1, 2]) != 7
    assert np.shares_memory(shared.numpy(), array)
    assert np.shares_memory(shared[1:, 2].numpy(), array)
    assert np.shares_memory(shared.T.numpy(), array)
    strided = Tensor.from_numpy(array[::2, ::-1])
    assert np.array_equal(strided.numpy(), array[::2, ::-1])
    array.flags.writeable = False
    assert not Tensor.from_numpy(array).numpy().flags.writeable
    assert np.array_equal(Tensor(array.astype(">f4")).numpy(), array)


def test_lives_as_long_as_its_views() -> None:
    view = Tensor(np.arange(1000, dtype=np.float32))[990:].numpy()
    import gc

    gc.collect()
    assert view.tolist() == list(range(990, 1000))


def test_buffer_is_not_copied() -> None:
    memory = bytearray(np.arange(6, dtype=np.float32).tobytes())
    tensor = Tensor.from_buffer(memory, "f32", (2, 3))
    memory[:4] = np.float32(42).tobytes()
    assert tensor.tolist() == [[42, 1, 2], [3, 4, 5]]
    with pytest.raises(errors.FastLLMError, match=r"\[2, 4\]|32|24"):
        Tensor.from_buffer(memory, "f32", (2, 4))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_round_trip_of_dtypes(dtype: str) -> None:
    values = RNG.normal(size=100).astype(np.float32)
    tensor = Tensor(values, dtype=dtype)
    assert tensor.dtype == dtype
    bits = {"float32": 24, "float16": 11, "bfloat16": 8, "float64": 24}[dtype]
    assert np.allclose(tensor.numpy(), values, rtol=2.0**-bits, atol=1e-7)
    assert np.asarray(tensor).dtype == (np.float32 if dtype == "bfloat16" else np.dtype(dtype))


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8], np.float32)
    assert Tensor(values, dtype="bf16").tolist() == [1.0, 1 + 2**-6, 1 + 2**-7, -1.0]


KEYS = [
    1,
    -1,
    slice(1, 3),
    slice(None),
    slice(5, 2),
    slice(-2, None),
    (slice(1, 3), 0),
    (0, slice(2), 1),
    (Ellipsis, 0),
    (Ellipsis, slice(1, 2)),
    (0, Ellipsis, 1),
    (None, 1),
    (slice(None), None, 2),
    (1, 2, 3),
    slice(None, None, 2),
    (slice(None), slice(None, None, -1)),
    [0, 2],
    (slice(None), [1, 0]),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing(key: object) -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    expected = array[key]  # type: ignore[index]
    actual = Tensor(array)[key]
    assert actual.shape == expected.shape
    assert np.array_equal(actual.numpy(), expected)


def test_indexing_errors_have_the_shape() -> None:
    tensor = zeros((3, 4))
    with pytest.raises(IndexError, match=r"3.*\[3, 4\]"):
        tensor[3]
    with pytest.raises(errors.ShapeError, match="3 indices"):
        tensor[0, 0, 0]
    assert len(list(tensor)) == 3


def test_shapes() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensor = Tensor(array)
    assert np.array_equal(tensor.reshape(6, -1).numpy(), array.reshape(6, -1))
    assert np.array_equal(tensor.reshape((4, 6)).numpy(), array.reshape(4, 6))
    assert np.array_equal(tensor.permute(2, 0, 1).numpy(), array.transpose(2, 0, 1))
    assert np.array_equal(tensor.permute(-1, 0, 1).reshape(-1).numpy(), array.transpose(2, 0, 1).reshape(-1))
    assert np.array_equal(tensor.T.numpy(), array.T)
    assert tensor.T.strides == (1, 4, 12)
    assert not tensor.T.contiguous
    assert tensor.T.copy().contiguous
    with pytest.raises(errors.ShapeError, match=r"\[2, 3, 4\] has 24 .*\[5, 5\]"):
        tensor.reshape(5, 5)
    with pytest.raises(errors.ShapeError):
        tensor.reshape(-1, -1)
    with pytest.raises(errors.ShapeError):
        tensor.permute(0, 0, 1)


OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), ()), ((4,), (2, 1, 4))]
)
def test_arithmetic_broadcasts(op: object, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (RNG.uniform(0.5, 2, size=shape).astype(np.float32) for shape in shapes)
    expected = op(a, b)  # type: ignore[operator]
    for left, right in ((Tensor(a), Tensor(b)), (Tensor(a), b), (a, Tensor(b))):
        actual = op(left, right)  # type: ignore[operator]
        assert isinstance(actual, Tensor)
        assert actual.dtype == "float32"
        assert np.allclose(actual.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_arithmetic_with_numbers_keeps_the_dtype(op: object, dtype: str) -> None:
    tensor = Tensor([0.5, 1.0, 2.0], dtype=dtype)
    array = tensor.numpy()
    for actual, expected in ((op(tensor, 4), op(array, 4)), (op(4, tensor), op(4, array))):  # type: ignore[operator]
        assert actual.dtype == dtype
        assert np.allclose(actual.numpy(), expected, rtol=1e-6)
    assert (-tensor).tolist() == (-array).tolist()
    assert (-tensor).dtype == dtype


def test_dtypes_of_mixtures() -> None:
    half, wide, whole = Tensor([1.5], dtype="bf16"), Tensor([2.5]), Tensor([3])
    assert (half + half).dtype == "bfloat16"
    assert (half + wide).dtype == "float32"
    assert (whole + whole).dtype == "int32"
    assert (whole + wide).tolist() == [5.5]
    assert (whole / 2).tolist() == [1.5]
    assert (whole * 0.5).tolist() == [1.5]
    assert (wide + Tensor([1.0], dtype="float64")).dtype == "float64"
    assert (Tensor([2**40 + 1], dtype="int64") + 1).tolist() == [2**40 + 2]


def test_matmul() -> None:
    for left, right in [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((4,), (4, 5)), ((3, 4), (4,))]:
        a, b = RNG.normal(size=left).astype(np.float32), RNG.normal(size=right).astype(np.float32)
        actual = Tensor(a) @ Tensor(b)
        assert actual.shape == (a @ b).shape
        assert np.allclose(actual.numpy(), a @ b, rtol=1e-5, atol=1e-6)
    with pytest.raises(errors.ShapeError, match=r"\[3, 4\].*\[3, 4\]"):
        zeros((3, 4)) @ zeros((3, 4))
    a = RNG.normal(size=(4, 4)).astype(np.float32)
    assert np.allclose((Tensor(a).T @ Tensor(a)).numpy(), a.T @ a, rtol=1e-5, atol=1e-6)


def test_broadcast_errors_have_both_shapes() -> None:
    with pytest.raises(errors.ShapeError, match=r"\[3, 4\].*\[5\]"):
        zeros((3, 4)) + zeros(5)


@pytest.mark.parametrize("name", ["mean", "sum", "max", "min", "std"])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_reductions(name: str, axis: int | None) -> None:
    array = RNG.normal(size=(5, 6)).astype(np.float32)
    actual = getattr(Tensor(array), name)(axis)
    expected = getattr(array.astype(np.float64), name)(axis=axis)
    assert actual.shape == np.shape(expected)
    assert np.allclose(actual.numpy(), expected, rtol=1e-6)
    kept = getattr(Tensor(array), name)(axis, keepdims=True)
    assert kept.shape == getattr(array, name)(axis=axis, keepdims=True).shape


def test_more_reductions() -> None:
    assert Tensor([3, 1, 3]).argmax().item() == 0
    assert Tensor([[1.0, 5.0], [7.0, 2.0]]).argmax(1).tolist() == [1, 0]
    assert Tensor([1, 2]).sum().item() == 3
    assert Tensor([1, 2]).mean().item() == 1.5
    assert Tensor([2**30] * 4).sum().item() == 2**32
    with pytest.raises(errors.ShapeError, match="no elements"):
        zeros(0).max()


def test_makers() -> None:
    assert zeros((2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert ones(2, "bf16").dtype == "bfloat16"
    assert full((2,), 7, "int64").tolist() == [7, 7]
    assert arange(5).tolist() == [0, 1, 2, 3, 4]
    assert arange(5).dtype == "int32"
    assert arange(1, 2, 0.25).tolist() == [1, 1.25, 1.5, 1.75]
    assert cat([ones((1, 2)), zeros((2, 2))]).shape == (3, 2)
    assert cat([ones((1, 2), "bf16"), zeros((1, 3), "bf16")], axis=-1).tolist() == [[1, 1, 0, 0, 0]]
    with pytest.raises(errors.ShapeError, match=r"\[1, 2\], \[1, 3\]"):
        cat([ones((1, 2)), ones((1, 3))])
    with pytest.raises(errors.DtypeError):
        cat([ones(2), ones(2, "int32")])


def test_to_python_numbers() -> None:
    assert float(Tensor([2.5])) == 2.5
    assert int(Tensor(7)) == 7
    assert [10, 20, 30][Tensor(2)] == 30
    assert bool(Tensor([1.0]))
    assert f"{Tensor(2.5):.2f}" == "2.50"
    with pytest.raises(errors.ShapeError, match="2 elements"):
        Tensor([1, 2]).item()
    with pytest.raises(TypeError):
        [1, 2][Tensor(1.0)]


def test_dlpack() -> None:
    array = RNG.normal(size=(2, 3)).astype(np.float32)
    assert np.array_equal(np.from_dlpack(Tensor(array)), array)
    torch = pytest.importorskip("torch")
    assert np.array_equal(torch.from_dlpack(Tensor(array)).numpy(), array)
    assert np.array_equal(Tensor(torch.tensor(array)).numpy(), array)


def test_devices() -> None:
    tensor = ones(3)
    assert tensor.device == "cpu"
    assert tensor.to("cpu") is tensor
    with pytest.raises(errors.DeviceNotAvailable):
        tensor.to("cuda:99")


# --- displays ---------------------------------------------------------------------------------------------------------


def test_repr_is_one_line_of_facts() -> None:
    array = RNG.normal(size=(32, 64)).astype(np.float16)
    array[0] = 0
    line = repr(Tensor(array))
    assert line.startswith("Tensor f16 [32, 64] cpu 4 KiB · x∈[")
    assert "\n" not in line
    assert f"{array.min():.3g} " in line
    assert f" {array.max():.3g}]" in line
    assert f"σ={array.astype(float).std():.3g}" in line
    assert "3.1 % zero" in line
    assert any(bar in line for bar in "▁▂▃▄▅▆▇█")


def test_repr_of_special_tensors() -> None:
    assert repr(Tensor([1, 2, 3])) == "Tensor i32 [3] cpu 12 B · [1, 2, 3]"
    assert repr(Tensor(2.5)) == "Tensor f32 [] cpu 4 B · 2.5"
    assert repr(zeros((0, 3))) == "Tensor f32 [0, 3] cpu 0 B · empty"
    assert repr(zeros(9)) == "Tensor f32 [9] cpu 36 B · all 0"
    bad = np.ones(20, np.float32)
    bad[:3], bad[3] = np.nan, np.inf
    assert "NaN!×3" in repr(Tensor(bad))
    assert "Inf!×1" in repr(Tensor(bad))
    assert "NaN!×9" in repr(Tensor([float("nan")] * 9))
    named = Tensor(np.arange(10.0), name="model.norm.weight")
    assert "model.norm.weight" in repr(named)


def test_stats_are_exact_for_all_elements() -> None:
    array = RNG.normal(size=(50, 40)).astype(np.float32)
    array[0, :4] = [np.nan, np.inf, -np.inf, 0]
    stats = Tensor(array).stats()
    finite = array[np.isfinite(array)].astype(np.float64)
    assert (stats.count, stats.nan, stats.inf, stats.zeros) == (2000, 1, 2, 1)
    assert not stats.sampled
    assert stats.min == finite.min()
    assert stats.max == finite.max()
    assert stats.mean == pytest.approx(finite.mean())
    assert stats.std == pytest.approx(finite.std())
    assert sum(stats.histogram) == finite.size
    edges = np.histogram(finite, bins=7)[0]
    assert list(stats.histogram) == edges.tolist()


def test_repr_of_a_big_tensor_is_quick_and_fair() -> None:
    array = RNG.normal(loc=3, size=(2000, 3000)).astype(np.float32)
    plain = Tensor.from_numpy(array)
    half = plain.astype("bf16")
    for tensor in (plain, plain.T, plain.reshape(2, 3, -1), half, half.T):
        spent = []
        for _ in range(5):
            started = time.perf_counter()
            line = repr(tensor)
            spent.append(time.perf_counter() - started)
        assert min(spent) < 0.25  # a few milliseconds when nothing else runs
        assert "sampled" in line
        stats = tensor.stats(sample=1 << 16)
        assert stats.sampled
        assert stats.count < array.size / 10
        assert stats.mean == pytest.approx(3, abs=0.1)
        assert stats.std == pytest.approx(1, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_repr_survives_any_numbers(values: list[float]) -> None:
    assert repr(Tensor(np.array(values, np.float32))).startswith("Tensor f32")


# --- any shape, any index ---------------------------------------------------------------------------------------------

_SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
_ITEM = st.one_of(
    st.integers(-1, 0),
    st.slices(4).filter(lambda part: part.step in (None, 1)),
    st.slices(4),
    st.just(None),
    st.just(Ellipsis),
)


@settings(max_examples=150, deadline=None)
@given(shape=_SHAPES, items=st.lists(_ITEM, max_size=4), order=st.randoms(use_true_random=False))
def test_any_index_of_any_layout(shape: list[int], items: list[object], order: object) -> None:
    """Indexing a transposed view gives what numpy gives."""
    axes = list(range(len(shape)))
    order.shuffle(axes)  # type: ignore[attr-defined]
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).transpose(axes)
    tensor = Tensor.from_numpy(array.transpose(np.argsort(axes))).permute(*axes)
    assert np.array_equal(tensor.numpy(), array)
    key = tuple(items)
    try:
        expected = array[key]
    except IndexError:
        with pytest.raises(IndexError):
            tensor[key]
        return
    if np.ndim(expected) > 6:
        with pytest.raises(errors.ShapeError):  # more axes than a tensor has
            tensor[key]
        return
    actual = tensor[key]
    assert actual.shape == expected.shape
    assert np.array_equal(actual.numpy(), expected)
    assert np.array_equal(actual.reshape(-1).numpy(), expected.reshape(-1))
