"""The vocabulary of model files and notebooks: one function for each op of the engine.

Given Tensors, an op runs now and gives Tensors. Given Symbols (inside a model being recorded), it becomes a node of the
graph. In shapes, T stands for the tokens of a step, H for heads, D for the size of a head. Activations are float32;
weights may be float32, float16 or bfloat16.
"""

from __future__ import annotations

from typing import Any

from fastllm._ops_array import A, Array
from fastllm._ops_dispatch import as_array, recorder_of, run, run_many
from fastllm._ops_elementwise import (
    ACTIVATIONS,
    activation,
    activation_name,
    add,
    affine,
    div,
    exp,
    gated,
    gelu,
    gelu_tanh,
    maximum,
    minimum,
    mul,
    neg,
    relu,
    rsqrt,
    scale,
    sigmoid,
    silu,
    softcap,
    square,
    sub,
    tanh,
)
from fastllm._ops_record import KvLayer, Symbol
from fastllm._ops_shapes import argmax, cast, cat, permute, reshape, slice_last, split, topk
from fastllm._ops_step import EagerStep, Step, SymbolicStep
from fastllm._ops_tap import tap
from fastllm.errors import InvalidRequest, ShapeError
from fastllm.tensor import Tensor

__all__ = [
    "ACTIVATIONS",
    "activation",
    "add",
    "add_rms_norm",
    "affine",
    "argmax",
    "attention",
    "cast",
    "cat",
    "div",
    "embedding",
    "exp",
    "gated",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "linear",
    "matmul",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "permute",
    "relu",
    "reshape",
    "rms_norm",
    "rope",
    "rsqrt",
    "scale",
    "select_rows",
    "sigmoid",
    "silu",
    "slice_last",
    "softcap",
    "softmax",
    "split",
    "square",
    "sub",
    "tanh",
    "tap",
    "topk",
]

# --- products --------------------------------------------------------------------------------------------------------


def linear(
    x: A,
    weight: Array,
    bias: Array | None = None,
    *,
    residual: Array | None = None,
    activation: str = "none",
    scale: float = 1.0,
    name: str | None = None,
) -> A:
    """``act(scale * x W^T + bias) + residual``.

    Args:
        x: [T, K].
        weight: [N, K], as checkpoints store it.
        bias: [N].
        residual: [T, N], added last.
        activation: One of ``ACTIVATIONS``.
        scale: Multiplies the product, before the bias.
        name: Label of the node in a recorded graph.

    Returns:
        [T, N].

    Raises:
        ShapeError: The sizes do not fit; the text has both shapes.
    """
    others = [operand for operand in (weight, bias, residual) if operand is not None]
    attrs: dict[str, Any] = {"has_bias": bias is not None, "add_residual": residual is not None}
    attrs |= {"activation": activation_name("linear", activation), "scale": float(scale)}
    if isinstance(x, Symbol):
        return run("linear", x, others, attrs, name=name)
    lead, x2 = x.shape[:-1], x
    if x.ndim != 2:
        x2 = reshape(x, (-1, x.shape[-1] if x.ndim else 1))
        if residual is not None:
            others[-1] = reshape(as_array(residual), (-1, as_array(residual).shape[-1]))
    weights_at = range(1, len(others) + 1 - (residual is not None))
    y = run("linear", x2, others, attrs, half_ok=tuple(weights_at))
    return y if x.ndim == 2 else reshape(y, (*lead, y.shape[-1]))


def matmul(a: Any, b: Any, *, name: str | None = None) -> Any:
    """Matrix product over the last two axes, [..., M, K] @ [..., K, N] -> [..., M, N]; vectors as in numpy."""
    left, right = as_array(a), as_array(b)
    if recorder_of([left, right]) is not None:
        return run("matmul", left, [right], {}, name=name)
    row, column = left.ndim == 1, right.ndim == 1
    if left.ndim == 0 or right.ndim == 0:
        raise ShapeError(f"[matmul] {list(left.shape)} @ {list(right.shape)}: a single number is no matrix.")
    out = run(
        "matmul",
        reshape(left, (1, -1)) if row else left,
        [reshape(right, (-1, 1)) if column else right],
        {},
    )
    shape = list(out.shape)
    if column:
        shape.pop()
    if row:
        shape.pop(-1 if column else -2)
    return reshape(out, shape)


# --- norms -----------------------------------------------------------------------------------------------------------


def rms_norm(x: A, weight: Array, *, eps: float = 1e-6, weight_offset: float = 0.0, name: str | None = None) -> A:
    """``x / sqrt(mean(x^2) + eps) * (weight_offset + weight)`` over the last axis. Zhang & Sennrich, 1910.07467.

    Args:
        x: [..., N].
        weight: [N].
        eps: Keeps the root away from zero.
        weight_offset: 1 for gemma, whose checkpoints hold weight - 1.
        name: Label of the node in a recorded graph.
    """
    attrs = {"eps": float(eps), "weight_offset": float(weight_offset)}
    return run("rms_norm", x, [weight], attrs, name=name, half_ok=(1,))


def add_rms_norm(
    x: A, residual: Array, weight: Array, *, eps: float = 1e-6, weight_offset: float = 0.0, name: str | None = None
) -> tuple[A, A]:
    """``sum = x + residual`` and ``rms_norm(sum)`` at one go. A pass finds this by itself; see ``rms_norm``."""
    attrs = {"eps": float(eps), "weight_offset": float(weight_offset)}
    total, normed = run_many("add_rms_norm", [x, residual, weight], attrs, name=name, half_ok=(2,))
    return total, normed


def layer_norm(x: A, weight: Array, bias: Array, *, eps: float = 1e-5, name: str | None = None) -> A:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis. Ba et al., 1607.06450."""
    return run("layer_norm", x, [weight, bias], {"eps": float(eps)}, name=name, half_ok=(1, 2))


def softmax(x: A, *, name: str | None = None) -> A:
    """Softmax over the last axis, float32."""
    return run("softmax", x, [], {}, name=name)


# --- tokens and positions --------------------------------------------------------------------------------------------


def embedding(ids: A, weight: Array, *, scale: float = 1.0, name: str | None = None) -> A:
    """``weight[ids] * scale``.

    Args:
        ids: [T] int32.
        weight: [V, N].
        scale: A factor on the rows.
        name: Label of the node in a recorded graph.

    Returns:
        [T, N] float32.

    Raises:
        InvalidRequest: An id is not below V.
    """
    if isinstance(ids, Tensor):
        _check_ids(ids, as_array(weight).shape)
    return run("embedding", ids, [weight], {"scale": float(scale)}, name=name, half_ok=(0, 1))


def rope(
    x: A,
    positions: Array,
    inv_freq: Array,
    *,
    step: Step | None = None,
    long_inv_freq: Array | None = None,
    interleaved: bool = False,
    attention_factor: float = 1.0,
    length: str = "fixed",
    base: float = 10000.0,
    factor: float = 1.0,
    original_max: int = 0,
    name: str | None = None,
) -> A:
    """Rotary position embedding. Su et al., 2104.09864.

    Args:
        x: [T, H, D]; the first ``2 * len(inv_freq)`` channels of each head are rotated, the rest pass through.
        positions: [T] int32.
        inv_freq: [rotary_dim / 2] float32, the angle of each pair at position 1.
        step: Needed where the frequencies depend on the length of the sequence.
        long_inv_freq: The same as ``inv_freq`` for sequences longer than ``original_max`` (longrope).
        interleaved: Pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        attention_factor: Multiplies cos and sin.
        length: "fixed", "dynamic_ntk" or "long_short".
        base: dynamic_ntk: base of the frequencies.
        factor: dynamic_ntk: scaling factor.
        original_max: Length up to which ``inv_freq`` holds.
        name: Label of the node in a recorded graph.
    """
    pairs = as_array(inv_freq).shape[0]
    attrs: dict[str, Any] = {
        "rotary_dim": 2 * int(pairs),
        "interleaved": interleaved,
        "attention_factor": float(attention_factor),
        "length": length,
        "base": float(base),
        "factor": float(factor),
        "original_max": int(original_max),
    }
    tables = [inv_freq] if long_inv_freq is None else [inv_freq, long_inv_freq]
    real_step = step if isinstance(step, EagerStep) else None
    return run("rope", x, [positions, *tables], attrs, name=name, step=real_step, half_ok=(1, 2, 3))


def attention(
    q: A,
    k: Array,
    v: Array,
    step: Step,
    *,
    layer: int,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
    name: str | None = None,
) -> A:
    """Causal attention of each token over its own sequence, whose keys and values this call also stores.

    Args:
        q: [T, H, D].
        k: [T, Hkv, D]; H is a multiple of Hkv, and query head h reads key head h // (H / Hkv).
        v: [T, Hkv, Dv].
        step: Whose tokens these are.
        layer: Index of the layer: its cache is its own.
        scale: Multiplies q·k; 1 / sqrt(D) by default.
        window: If positive, a token sees itself and the window - 1 tokens before it.
        softcap: If positive, scores become ``softcap * tanh(score / softcap)``.
        name: Label of the node in a recorded graph.

    Returns:
        [T, H, Dv].

    For looking inside it names "attn.rot_q", "attn.rot_k", "attn.pattern" and "attn.z".
    """
    if q.ndim != 3 or k.ndim != 3 or v.ndim != 3 or q.shape[2] != k.shape[2] or k.shape[1] != v.shape[1]:
        fact = f"[attention] q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} do not fit together"
        hint = "They are [tokens, heads, head_dim]; q and k share head_dim, k and v share heads."
        raise ShapeError(f"{fact}.", hint=hint, expected=q.shape, actual=k.shape)
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        fact = f"[attention] {q.shape[1]} query heads cannot share {k.shape[1]} key heads evenly"
        raise ShapeError(f"{fact}.", expected=q.shape, actual=k.shape)
    attrs = {"layer": layer, "window": int(window), "softcap": float(softcap)}
    attrs["scale"] = float(q.shape[2]) ** -0.5 if scale is None else float(scale)
    recorder = recorder_of([q, k, v])
    if recorder is not None:
        if not isinstance(step, SymbolicStep):
            raise InvalidRequest("[attention] recorded values need the step that the model's forward was given.")
        kept = KvLayer(int(k.shape[1]), int(k.shape[2]), int(v.shape[2]))
        if recorder.kv_layers.setdefault(layer, kept) != kept or _written(recorder, layer):
            raise InvalidRequest(
                f"[attention] layer {layer} is used twice.", hint="Each attention needs its own index."
            )
    q, k = tap(q, "attn.rot_q"), tap(k, "attn.rot_k")
    run_many("kv_write", [k, v], {"layer": layer}, step=_real(step), name="kv_write")
    mixed = run("attention", q, [], attrs, step=_real(step), name=name)
    return tap(tap(mixed, "attn.pattern", pattern=True), "attn.z")


def _written(recorder: Any, layer: int) -> bool:
    """Whether the layer's cache was already written in this recording."""
    seen: set[int] = recorder.__dict__.setdefault("_kv_written", set())
    if layer in seen:
        return True
    seen.add(layer)
    return False


def _real(step: Step) -> Step | None:
    return step if isinstance(step, EagerStep) else None


def select_rows(x: A, rows: Any = None, *, name: str | None = None) -> A:
    """``x[rows]`` of [T, N].

    Recorded without ``rows``, it keeps the tokens whose logits are wanted; the engine's passes put it in by themselves.
    """
    if rows is None:
        return run("select_rows", x, [], {}, name=name)
    return run("select_rows", x, [_as_ids(rows)], {}, name=name, half_ok=(1,))


def _as_ids(value: Any) -> Array:
    array = as_array(value)
    return array.astype("int32") if isinstance(array, Tensor) and array.dtype != "int32" else array


def _check_ids(ids: Tensor, table: tuple[int, ...]) -> None:
    if ids.dtype != "int32" or ids.ndim != 1:
        fact = f"[embedding] ids are {ids.dtype} {list(ids.shape)} instead of int32 [tokens]"
        raise ShapeError(f"{fact}.", hint='Use Tensor([1, 2, 3], dtype="int32").', actual=ids.shape)
    if ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < table[0]):
        low, high = int(ids.min()), int(ids.max())
        raise InvalidRequest(f"[embedding] ids run from {low} to {high} but the table has {table[0]} rows.")
