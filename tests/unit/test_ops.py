"""Ops: eager against numpy in float64, and what is recorded when they are given symbols."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastllm import errors, ops
from fastllm._ops_dispatch import device_named
from fastllm._ops_record import KvLayer, Recorder, Symbol, name_scope
from fastllm._ops_step import EagerStep, SymbolicStep
from fastllm.tensor import Tensor

RNG = np.random.default_rng(1)


def _random(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


# --- eager ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_linear(dtype: str) -> None:
    x, w, b, r = _random(5, 7), Tensor(_random(3, 7), dtype=dtype), Tensor(_random(3), dtype=dtype), _random(5, 3)
    product = x.astype(np.float64) @ w.numpy().T.astype(np.float64)
    actual = ops.linear(Tensor(x), w)
    assert actual.dtype == "float32"
    assert np.allclose(actual.numpy(), product, atol=1e-5)
    full = ops.linear(Tensor(x), w, b, residual=Tensor(r), activation="relu", scale=0.5)
    assert np.allclose(full.numpy(), np.maximum(product * 0.5 + b.numpy(), 0) + r, atol=1e-5)
    assert np.allclose(ops.linear(Tensor(x), w, residual=Tensor(r)).numpy(), product + r, atol=1e-5)


def test_linear_takes_any_leading_axes() -> None:
    x, w = _random(2, 3, 7), _random(4, 7)
    assert np.allclose(ops.linear(Tensor(x), Tensor(w)).numpy(), x @ w.T, atol=1e-5)
    assert np.allclose(ops.linear(Tensor(x[0, 0]), Tensor(w)).numpy(), x[0, 0] @ w.T, atol=1e-5)
    with pytest.raises(errors.ShapeError, match=r"\[4, 6\].* 7"):
        ops.linear(Tensor(x), Tensor(_random(4, 6)))


def test_norms() -> None:
    x, w, b = _random(4, 9), _random(9), _random(9)
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3)
    assert np.allclose(ops.rms_norm(Tensor(x), Tensor(w), eps=1e-3).numpy(), wide / root * w, atol=1e-5)
    offset = ops.rms_norm(Tensor(x), Tensor(w, dtype="bf16"), eps=1e-3, weight_offset=1).numpy()
    assert np.allclose(offset, wide / root * (1 + Tensor(w, dtype="bf16").numpy()), atol=1e-5)
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    actual = ops.layer_norm(Tensor(x), Tensor(w), Tensor(b), eps=1e-2).numpy()
    assert np.allclose(actual, (wide - mean) / np.sqrt(var + 1e-2) * w + b, atol=1e-5)
    total, normed = ops.add_rms_norm(Tensor(x), Tensor(x), Tensor(w), eps=1e-3)
    assert np.allclose(total.numpy(), 2 * x)
    assert np.allclose(normed.numpy(), ops.rms_norm(Tensor(2 * x), Tensor(w), eps=1e-3).numpy(), atol=1e-6)
    shifted = np.exp(wide - wide.max(-1, keepdims=True))
    assert np.allclose(ops.softmax(Tensor(x)).numpy(), shifted / shifted.sum(-1, keepdims=True), atol=1e-6)


def test_embedding() -> None:
    table = _random(11, 6)
    ids = Tensor([3, 0, 10, 3])
    assert np.array_equal(ops.embedding(ids, Tensor(table)).numpy(), table[[3, 0, 10, 3]])
    half = Tensor(table, dtype="bf16")
    assert np.allclose(ops.embedding(ids, half, scale=2.5).numpy(), half.numpy()[[3, 0, 10, 3]] * 2.5)
    with pytest.raises(errors.InvalidRequest, match=r"0 to 11 .* 11 rows"):
        ops.embedding(Tensor([0, 11]), Tensor(table))
    with pytest.raises(errors.InvalidRequest, match="-1"):
        ops.embedding(Tensor([-1]), Tensor(table))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary", [8, 4])
def test_rope(interleaved: bool, rotary: int) -> None:
    x, positions = _random(5, 3, 8), np.array([0, 1, 7, 300, 2], np.int32)
    frequencies = (10000.0 ** (-np.arange(0, rotary, 2) / rotary)).astype(np.float32)
    angles = positions[:, None].astype(np.float64) * frequencies
    cos, sin = np.cos(angles)[:, None] * 1.5, np.sin(angles)[:, None] * 1.5
    expected = x.astype(np.float64).copy()
    pairs = (
        (slice(0, rotary, 2), slice(1, rotary, 2)) if interleaved else (slice(rotary // 2), slice(rotary // 2, rotary))
    )
    first, second = x[..., pairs[0]], x[..., pairs[1]]
    expected[..., pairs[0]] = first * cos - second * sin
    expected[..., pairs[1]] = second * cos + first * sin
    actual = ops.rope(
        Tensor(x), Tensor(positions), Tensor(frequencies), interleaved=interleaved, attention_factor=1.5
    ).numpy()
    assert np.allclose(actual, expected, atol=2e-4)
    assert np.array_equal(actual[..., rotary:], x[..., rotary:])


def _attend(
    q: npt.NDArray[Any], k: npt.NDArray[Any], v: npt.NDArray[Any], scale: float, window: int, softcap: float
) -> npt.NDArray[np.float64]:
    """Attention written out in float64: q [T, H, D] at the end of k [S, Hkv, D]."""
    tokens, heads, _ = q.shape
    length, kv_heads, _ = k.shape
    out = np.zeros((tokens, heads, v.shape[2]))
    for token in range(tokens):
        position = length - tokens + token
        first = max(0, position - window + 1) if window else 0
        for head in range(heads):
            kv = head // (heads // kv_heads)
            scores = k[first : position + 1, kv].astype(np.float64) @ q[token, head] * scale
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            out[token, head] = weights / weights.sum() @ v[first : position + 1, kv]
    return out


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("softcap", [0.0, 0.7])
def test_attention(window: int, softcap: float) -> None:
    q, k, v = _random(9, 6, 4), _random(9, 2, 4), _random(9, 2, 5)
    step = EagerStep(device_named("cpu"), {0: KvLayer(2, 4, 5)}, capacity=9, kv_dtype="float32")
    pieces = []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        step.begin([0] * (stop - start))
        pieces.append(
            ops.attention(
                Tensor(q[start:stop]), Tensor(k[start:stop]), Tensor(v[start:stop]), step,
                layer=0, scale=0.9, window=window, softcap=softcap,
            ).numpy()
        )  # fmt: skip
    assert np.allclose(np.concatenate(pieces), _attend(q, k, v, 0.9, window, softcap), atol=1e-5)


def test_attention_errors() -> None:
    step = EagerStep(device_named("cpu"), {0: KvLayer(2, 4, 4)}, capacity=3, kv_dtype="float32")
    step.begin([1, 2])
    q, k = Tensor(_random(2, 6, 4)), Tensor(_random(2, 2, 4))
    with pytest.raises(errors.ShapeError, match=r"\[2, 6, 4\].*\[2, 2, 5\]"):
        ops.attention(q, Tensor(_random(2, 2, 5)), k, step, layer=0)
    with pytest.raises(errors.ShapeError, match="6 query heads cannot share 4"):
        ops.attention(q, Tensor(_random(2, 4, 4)), Tensor(_random(2, 4, 4)), step, layer=0)
    with pytest.raises(errors.ContextTooLong, match=r"2 tokens and 2 more .* 3") as caught:
        step.begin([3, 4])
    assert caught.value.limit == 3
    with pytest.raises(errors.InvalidRequest):
        step.begin([])
    with pytest.raises(errors.InvalidRequest, match="without a gap"):
        EagerStep(device_named("cpu"), {1: KvLayer(2, 4, 4)}, capacity=3, kv_dtype="float32")


def _gelu(x: float) -> float:
    return x * (1 + erf(x / sqrt(2))) / 2


UNARY: list[tuple[Callable[[Tensor], Tensor], Callable[[Any], Any]]] = [
    (ops.silu, lambda x: x / (1 + np.exp(-x))),
    (ops.gelu, np.vectorize(_gelu)),
    (ops.gelu_tanh, lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))),
    (ops.relu, lambda x: np.maximum(x, 0)),
    (ops.tanh, np.tanh),
    (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    (ops.exp, np.exp),
    (ops.square, np.square),
    (ops.neg, np.negative),
    (lambda x: ops.softcap(x, 2.0), lambda x: 2 * np.tanh(x / 2)),
    (lambda x: ops.rsqrt(ops.square(x)), lambda x: 1 / np.abs(x)),
    (lambda x: ops.affine(x, scale=3, shift=-1), lambda x: 3 * x - 1),
    (lambda x: ops.scale(x, 0.25), lambda x: x / 4),
]


@pytest.mark.parametrize("pair", UNARY, ids=str)
def test_elementwise(pair: tuple[Any, Any]) -> None:
    x = np.linspace(-6, 6, 200, dtype=np.float32).reshape(4, 50)
    assert np.allclose(pair[0](Tensor(x)).numpy(), pair[1](x.astype(np.float64)), atol=1e-5, rtol=1e-5)


def test_activations_by_config_names() -> None:
    x = Tensor(_random(3, 8))
    assert np.array_equal(ops.activation("gelu_pytorch_tanh", x).numpy(), ops.gelu_tanh(x).numpy())
    assert np.array_equal(ops.activation("swish", x).numpy(), ops.silu(x).numpy())
    assert ops.activation("none", x) is x
    gated = ops.gated(x, x, activation="gelu_new").numpy()
    assert np.allclose(gated, ops.gelu_tanh(x).numpy() * x.numpy(), atol=1e-6)
    with pytest.raises(errors.InvalidRequest, match=r"'mish'.*Known: .*silu"):
        ops.activation("mish", x)
    with pytest.raises(errors.InvalidRequest):
        ops.softcap(x, 0)


def test_maximum_and_minimum() -> None:
    a, b = _random(3, 4), _random(4)
    assert np.array_equal(ops.maximum(Tensor(a), Tensor(b)).numpy(), np.maximum(a, b))
    assert np.array_equal(ops.minimum(Tensor(a), 0.0).numpy(), np.minimum(a, 0))


def test_rows_parts_and_order() -> None:
    x = _random(6, 10)
    assert np.array_equal(ops.select_rows(Tensor(x), [1, 4]).numpy(), x[[1, 4]])
    a, b, c = ops.split(Tensor(x), (2, 5, 3))
    assert np.array_equal(b.numpy(), x[:, 2:7])
    assert c.shape == (6, 3)
    assert a.data_ptr == Tensor.from_numpy(a.numpy()).data_ptr
    with pytest.raises(errors.ShapeError, match="add up to 9"):
        ops.split(Tensor(x), (4, 5))
    values, places = ops.topk(Tensor(x), 3)
    assert np.array_equal(values.numpy(), -np.sort(-x, axis=-1)[:, :3])
    assert np.array_equal(np.take_along_axis(x, places.numpy(), -1), values.numpy())
    assert ops.argmax(Tensor(x)).tolist() == x.argmax(-1).tolist()
    with pytest.raises(errors.InvalidRequest):
        ops.topk(Tensor(x), 11)
    assert ops.cast(Tensor(x), "f16").dtype == "float16"


def test_ops_refuse_integers() -> None:
    with pytest.raises(errors.DtypeError, match=r"silu|unary.*int32"):
        ops.silu(Tensor([1, 2]))


# --- recording --------------------------------------------------------------------------------------------------------


def test_the_same_calls_are_recorded() -> None:
    recorder = Recorder()
    ids, step = recorder.token_ids(), SymbolicStep(recorder)
    table = Tensor(_random(11, 6), name="embed.weight")
    with name_scope("model.layers.0"):
        x = ops.embedding(ids, table, name="")
        assert isinstance(x, Symbol)
        assert x.shape == ("tokens", 6)
        q = x.reshape(-1, 3, 2)
        y = ops.attention(q, q, q, step, layer=0).reshape(-1, 6)
        z = ops.linear(y * 2 + x, table)
        a, b = ops.split(z, (5, 6))
        assert (a.shape, b.shape) == (("tokens", 5), ("tokens", 6))
        assert z[..., 5:].shape == ("tokens", 6)
    text = recorder.graph.dump()
    assert "# model.layers.0.attention" in text
    assert text.count("embed.weight") == 2
    assert recorder.kv_layers == {0: KvLayer(3, 2, 2)}
    with pytest.raises(errors.InvalidRequest, match="layer 0 is used twice"):
        ops.attention(q, q, q, step, layer=0)


def test_names_are_unique_and_constants_shared() -> None:
    recorder = Recorder()
    x = ops.embedding(recorder.token_ids(), Tensor(_random(5, 4), name="w"))
    same = Tensor(_random(4), name="norm")
    with name_scope("block"):
        for _ in range(3):
            x = ops.rms_norm(x, same)
        x = x * Tensor(_random(4)) + Tensor(_random(4), name="norm")
    names = [line.split("# ")[1] for line in recorder.graph.dump().splitlines() if "# " in line]
    assert [name for name in names if "rms_norm" in name] == ["block.rms_norm", "block.rms_norm_2", "block.rms_norm_3"]
    assert len(set(names)) == len(names)
    assert "norm_2" in recorder.graph.dump()


def test_numbers_are_refused_while_recording() -> None:
    recorder = Recorder()
    x = ops.embedding(recorder.token_ids(), Tensor(_random(5, 4)))
    for ask in (bool, np.asarray, lambda x: x.numpy(), lambda x: x[0]):
        with pytest.raises(errors.InvalidRequest, match="record"):
            ask(x)
    with pytest.raises(errors.ShapeError, match="-1"):
        x.reshape(2, 2)
    with pytest.raises(errors.ShapeError, match="weight has"):
        ops.rms_norm(x, Tensor(_random(5)))
    other = Recorder()
    y = ops.embedding(other.token_ids(), Tensor(_random(5, 4)))
    with pytest.raises(errors.InvalidRequest, match="another graph"):
        x + y
