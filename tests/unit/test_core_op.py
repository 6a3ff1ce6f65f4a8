"""run_op against float64 formulas, for every op, over shapes, layouts and dtypes."""

from __future__ import annotations

import itertools
from typing import Any

import core_reference as truth
import numpy as np
import pytest

from fastllm import _core as core
from fastllm import errors


@pytest.fixture(scope="module")
def device() -> Any:
    return core.Device("cpu", 2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


def of(array: Any) -> Any:
    return core.Tensor.from_numpy(np.asarray(array), copy=False)


def run(device: Any, op: str, /, *inputs: Any, step: Any = None, **attrs: Any) -> Any:
    out = core.run_op(device, op, [x if isinstance(x, core.Tensor) else of(x) for x in inputs], attrs, step)
    return out[0] if len(out) == 1 else out


def f32(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def cast(device: Any, array: Any, dtype: str) -> tuple[Any, Any]:
    """A tensor of that dtype, and its exact values as float64."""
    half = run(device, "copy", array, dtype=dtype)
    return half, run(device, "copy", half, dtype="float32").numpy().astype(np.float64)


def close(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    got = got.numpy() if isinstance(got, core.Tensor) else got
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 33, 64), (5, 17, 31), (13, 70, 129)])
def test_linear(device: Any, rng: np.random.Generator, dtype: str, m: int, n: int, k: int) -> None:
    x, bias, residual = f32(rng, m, k), f32(rng, n), f32(rng, m, n)
    weight, w = cast(device, f32(rng, n, k), dtype)
    bias_half, b = cast(device, bias, dtype)
    close(run(device, "linear", x, weight), x @ w.T, 1e-4)
    close(run(device, "linear", x, weight, bias_half, has_bias=True), x @ w.T + b, 1e-4)
    got = run(
        device,
        "linear",
        x,
        weight,
        bias_half,
        residual,
        has_bias=True,
        add_residual=True,
        activation="gelu_tanh",
        scale=0.5,
    )
    close(got, truth.activation("gelu_tanh", 0.5 * (x @ w.T) + b) + residual, 1e-4)
    close(run(device, "linear", x, weight, residual, add_residual=True), x @ w.T + residual, 1e-4)


def test_linear_takes_any_arrangement(device: Any, rng: np.random.Generator) -> None:
    x, w = f32(rng, 2, 3, 8), f32(rng, 5, 8)
    close(run(device, "linear", x, w), x @ w.T)
    close(run(device, "linear", x[0, 0], w), w @ x[0, 0])
    close(run(device, "linear", x.transpose(1, 0, 2), w), x.transpose(1, 0, 2) @ w.T)
    wide = f32(rng, 8, 5)
    close(run(device, "linear", x[0], wide.T), x[0] @ wide)  # a transposed weight (Conv1D)
    close(run(device, "linear", x[0, ::-1], w[::2]), x[0, ::-1] @ w[::2].T)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((1, 7), (7, 1))]
)
def test_matmul(device: Any, rng: np.random.Generator, dtype: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    left, x = cast(device, f32(rng, *a), dtype)
    right, y = cast(device, f32(rng, *b), dtype)
    got = run(device, "copy", run(device, "matmul", left, right), dtype="float32")
    close(got, x @ y, {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[dtype])
    m, n = f32(rng, 5, 3), f32(rng, 4, 5)
    close(run(device, "matmul", m.T, n.T), m.T @ n.T)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 3, 64), (4, 129)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_norms(device: Any, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> None:
    x, residual, bias = f32(rng, *shape), f32(rng, *shape), f32(rng, shape[-1])
    weight, w = cast(device, f32(rng, shape[-1]), dtype)
    close(run(device, "rms_norm", x, weight, eps=1e-5), truth.rms_norm(x.astype(np.float64), w, 1e-5))
    close(run(device, "rms_norm", x, weight, weight_offset=1.0), truth.rms_norm(x.astype(np.float64), w, 1e-6, 1.0))
    close(run(device, "layer_norm", x, weight, bias, eps=1e-3), truth.layer_norm(x.astype(np.float64), w, bias, 1e-3))
    total, normed = run(device, "add_rms_norm", x, residual, weight, eps=1e-6)
    close(total, x + residual)
    close(normed, truth.rms_norm(x.astype(np.float64) + residual, w, 1e-6))


def test_norm_of_a_strided_view(device: Any, rng: np.random.Generator) -> None:
    x = f32(rng, 6, 20)
    w = f32(rng, 5)
    close(run(device, "rms_norm", x[:, 3:8], w), truth.rms_norm(x[:, 3:8].astype(np.float64), w, 1e-6))
    close(run(device, "rms_norm", x[:5].T, w), truth.rms_norm(x[:5].T.astype(np.float64), w, 1e-6))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("dim", "rotary"), [(8, 8), (10, 6), (64, 64)])
def test_rope(device: Any, rng: np.random.Generator, interleaved: bool, dim: int, rotary: int) -> None:
    x = f32(rng, 5, 3, dim)
    positions = np.array([0, 1, 7, 100, 1023], np.int32)
    inv_freq = (1 / 10000 ** (np.arange(0, rotary, 2) / rotary)).astype(np.float32)
    got = run(device, "rope", x, positions, inv_freq, rotary_dim=rotary, interleaved=interleaved, attention_factor=1.25)
    want = truth.rope(
        x.astype(np.float64), positions, inv_freq.astype(np.float64), interleaved=interleaved, factor=1.25
    )
    close(got, want, 2e-4)  # angles are float32, as in transformers: at position 1023 that is 6e-5 of a turn


def step_of(
    device: Any,
    layers: int = 1,
    *,
    kv_heads: int = 2,
    dim: int = 8,
    v_dim: int = 8,
    dtype: str = "float32",
    capacity: int = 64,
) -> Any:
    layer = {"kv_heads": kv_heads, "head_dim": dim, "v_head_dim": v_dim, "dtype": dtype}
    return core.EagerStep(device, [layer] * layers, capacity)


@pytest.mark.parametrize("chunks", [[37], [1] * 37, [16, 1, 20]])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (5, 0.0), (0, 2.0), (17, 1.5)])
def test_attention(device: Any, rng: np.random.Generator, chunks: list[int], window: int, softcap: float) -> None:
    q, k, v = f32(rng, 37, 6, 8), f32(rng, 37, 2, 8), f32(rng, 37, 2, 12)
    step = step_of(device, v_dim=12)
    rows = []
    at = 0
    for count in chunks:
        step.begin(list(range(count)))
        assert step.positions.numpy().tolist() == list(range(at, at + count))
        span = slice(at, at + count)
        assert core.run_op(device, "kv_write", [of(k[span]), of(v[span])], {"layer": 0}, step) == []
        rows.append(
            run(device, "attention", q[span], step=step, layer=0, scale=0.3, window=window, softcap=softcap).numpy()
        )
        at += count
    want = truth.attention(*(x.astype(np.float64) for x in (q, k, v)), scale=0.3, window=window, softcap=softcap)
    close(np.concatenate(rows), want)
    assert step.length == 37


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_attention_over_a_half_cache(device: Any, rng: np.random.Generator, dtype: str, tolerance: float) -> None:
    q, k, v = f32(rng, 9, 4, 8), f32(rng, 9, 2, 8), f32(rng, 9, 2, 8)
    step = step_of(device, dtype=dtype)
    step.begin([0] * 9)
    core.run_op(device, "kv_write", [of(k), of(v)], {"layer": 0}, step)
    want = truth.attention(*(x.astype(np.float64) for x in (q, k, v)), scale=0.3)
    close(run(device, "attention", q, step=step, layer=0, scale=0.3), want, tolerance)


@pytest.mark.parametrize(
    "kind", ["silu", "gelu", "gelu_tanh", "relu", "tanh", "sigmoid", "exp", "square", "rsqrt", "neg", "softcap", "none"]
)
def test_unary(device: Any, rng: np.random.Generator, kind: str) -> None:
    x = f32(rng, 4, 33) * 3
    if kind == "rsqrt":
        x = np.abs(x) + 0.1
    close(run(device, "unary", x, kind=kind, param=2.5), truth.activation(kind, x.astype(np.float64), 2.5))
    close(
        run(device, "unary", x.T[::2], kind=kind, param=2.5), truth.activation(kind, x.T[::2].astype(np.float64), 2.5)
    )


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1)), ((), (3,)), ((4,), (2, 1, 4))]
)
def test_binary_broadcasts_as_numpy(
    device: Any, rng: np.random.Generator, kind: str, a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    x, y = f32(rng, *a), f32(rng, *b)
    numpy_name = {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(kind, kind)
    close(run(device, "binary", x, y, kind=kind), getattr(np, numpy_name)(x, y))


def test_gated_affine_softmax(device: Any, rng: np.random.Generator) -> None:
    gate, up = f32(rng, 5, 19), f32(rng, 5, 19)
    for name in ("silu", "gelu", "gelu_tanh", "relu", "sigmoid"):
        close(
            run(device, "gated_activation", gate, up, activation=name),
            truth.activation(name, gate.astype(np.float64)) * up,
        )
    close(run(device, "affine", gate, scale=-2.0, shift=0.5), gate * -2.0 + 0.5)
    close(run(device, "softmax", gate * 30), truth.softmax(gate.astype(np.float64) * 30))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_embedding_and_rows(device: Any, rng: np.random.Generator, dtype: str) -> None:
    weight, w = cast(device, f32(rng, 11, 6), dtype)
    ids = np.array([0, 10, 3, 3], np.int32)
    close(run(device, "embedding", ids, weight, scale=3.0), w[ids] * 3)
    close(run(device, "select_rows", w.astype(np.float32), ids), w[ids])


def test_ids_outside_the_table_raise(device: Any, rng: np.random.Generator) -> None:
    table = f32(rng, 11, 6)
    for kind, inputs in (("embedding", lambda ids: (ids, table)), ("select_rows", lambda ids: (table, ids))):
        for bad in (11, -1, 2**31 - 1):
            with pytest.raises(errors.InvalidRequest, match="outside"):
                run(device, kind, *inputs(np.array([0, bad], np.int32)))


def test_copy_converts_as_numpy(device: Any, rng: np.random.Generator) -> None:
    names = ["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
    small = np.array([0, 1, 2, 3, 100, 0.5, 2.5, 3.5])
    for source, target in itertools.product(names, names):
        array = small.astype(source)
        got = run(device, "copy", array, dtype=target)
        assert got.dtype == target
        np.testing.assert_array_equal(got.numpy(), array.astype(target), err_msg=f"{source} -> {target}")


def test_bfloat16_rounds_to_nearest_even(device: Any, rng: np.random.Generator) -> None:
    x = np.concatenate([f32(rng, 1000), np.float32([0, -0.0, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38])])
    bits = x.view(np.uint32).astype(np.uint64)
    want = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    got = run(device, "copy", run(device, "copy", x, dtype="bf16"), dtype="f32").numpy()
    np.testing.assert_array_equal(got, want)
    assert np.isnan(
        run(device, "copy", run(device, "copy", np.float32([np.nan]), dtype="bf16"), dtype="f32").numpy()
    ).all()


@pytest.mark.parametrize(
    ("kind", "shapes", "attrs", "error"),
    [
        ("linear", [(2, 4), (3, 5)], {}, errors.ShapeError),
        ("linear", [(2, 4), (3, 4), (4,)], {"has_bias": True}, errors.ShapeError),
        ("linear", [(2, 4), (3, 4), (2, 4)], {"add_residual": True}, errors.ShapeError),
        ("linear", [(2, 4), (3, 4), (3,)], {}, errors.InvalidRequest),
        ("linear", [(2, 4)], {}, errors.InvalidRequest),
        ("linear", [], {}, errors.InvalidRequest),
        ("linear", [(), (3, 4)], {}, errors.ShapeError),
        ("rms_norm", [(2, 4), (5,)], {}, errors.ShapeError),
        ("rms_norm", [(), (5,)], {}, errors.ShapeError),
        ("add_rms_norm", [(2, 4), (2, 5), (4,)], {}, errors.ShapeError),
        ("layer_norm", [(2, 4), (4,), (4, 1)], {}, errors.ShapeError),
        ("matmul", [(2, 4), (5, 4)], {}, errors.ShapeError),
        ("matmul", [(4,), (4, 4)], {}, errors.ShapeError),
        ("matmul", [(2, 3, 4), (3, 4, 5)], {}, errors.ShapeError),
        ("binary", [(2, 3), (2, 4)], {}, errors.ShapeError),
        ("gated_activation", [(2, 3), (2, 4)], {}, errors.ShapeError),
        ("embedding", [(2,), (3, 4)], {}, errors.DtypeError),
        ("rope", [(2, 2, 4), (2,), (2,)], {"rotary_dim": 4}, errors.DtypeError),
        ("attention", [(2, 2, 4)], {}, errors.InvalidRequest),
        ("kv_write", [(2, 2, 4), (2, 2, 4)], {}, errors.InvalidRequest),
        ("select_rows", [(2, 3)], {}, errors.ShapeError),
        ("softmax", [()], {}, errors.ShapeError),
        ("copy", [(2, 3)], {"dtype": "float31"}, errors.DtypeError),
        ("unary", [(2, 3)], {"kind": [1]}, errors.InvalidRequest),
        ("attention", [(2, 2, 4)], {"window": -1}, errors.InvalidRequest),
    ],
)
def test_bad_calls_raise(
    device: Any, kind: str, shapes: list[Any], attrs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        run(device, kind, *(np.ones(s, np.float32) for s in shapes), **attrs)
    assert str(caught.value).startswith(f"[{kind}]")


def test_steps_check_what_they_are_given(device: Any, rng: np.random.Generator) -> None:
    step = step_of(device)
    step.begin([1, 2])
    with pytest.raises(errors.ShapeError, match="tokens"):
        run(device, "attention", f32(rng, 3, 4, 8), step=step, layer=0)
    with pytest.raises(errors.ShapeError, match="head_dim"):
        run(device, "attention", f32(rng, 2, 4, 10), step=step, layer=0)
    with pytest.raises(errors.ShapeError, match="multiple"):
        run(device, "attention", f32(rng, 2, 3, 8), step=step, layer=0)
    with pytest.raises(errors.InvalidRequest):
        run(device, "attention", f32(rng, 2, 4, 8), step=step, layer=1)
    with pytest.raises(errors.FastLLMError):
        run(device, "kv_write", f32(rng, 2, 2, 8), f32(rng, 2, 2, 8), step=step, layer=1)
    with pytest.raises(errors.InvalidRequest, match="at least one"):
        step.begin([])
    with pytest.raises(errors.ContextTooLong, match="64"):
        step.begin([0] * 63)
    with pytest.raises(errors.InvalidRequest):
        step_of(device, capacity=0)
    with pytest.raises(errors.InvalidRequest):
        step_of(device, kv_heads=0)
    with pytest.raises(errors.DtypeError):
        step_of(device, dtype="int8")
    with pytest.raises(errors.InvalidRequest, match="no field"):
        core.EagerStep(device, [{"heads": 2}], 8)


def test_length_dependent_rope(device: Any, rng: np.random.Generator) -> None:
    x = f32(rng, 4, 2, 8)
    short = (1 / 10000 ** (np.arange(0, 8, 2) / 8)).astype(np.float32)
    long = (short / 7).astype(np.float32)
    step = step_of(device)
    attrs = {"rotary_dim": 8, "length": "long_short", "original_max": 16}
    with pytest.raises(errors.InvalidRequest, match="step"):
        run(device, "rope", x, np.arange(4, dtype=np.int32), short, long, **attrs)
    for rope_len, table in ((0, short), (17, long)):
        step = step_of(device)
        step.begin([1, 2, 3, 4], rope_len=rope_len)
        got = run(device, "rope", x, step.positions, short, long, step=step, **attrs)
        close(got, truth.rope(x.astype(np.float64), np.arange(4), table.astype(np.float64)), 1e-5)
    step.begin([5], rope_len=40)
    got = run(
        device,
        "rope",
        x[:1],
        step.positions,
        short,
        step=step,
        rotary_dim=8,
        length="dynamic_ntk",
        base=10000.0,
        factor=2.0,
        original_max=16,
    )
    base = 10000 * ((2.0 * 40 / 16) - 1) ** (8 / 6)
    close(got, truth.rope(x[:1].astype(np.float64), np.array([4]), base ** (-np.arange(0, 8, 2) / 8)), 1e-5)
