"""Ops that work number by number: activations and arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any
from typing import cast as _typed

import numpy as np

from fastllm._ops_array import A, Array
from fastllm._ops_dispatch import as_array, run
from fastllm._ops_dtype import DType, float32, float64
from fastllm._ops_record import Symbol
from fastllm.errors import InvalidRequest
from fastllm.tensor import Tensor

__all__ = [
    "ACTIVATIONS",
    "activation",
    "activation_name",
    "add",
    "affine",
    "div",
    "exp",
    "gated",
    "gelu",
    "gelu_tanh",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "relu",
    "rsqrt",
    "scale",
    "sigmoid",
    "silu",
    "softcap",
    "square",
    "sub",
    "tanh",
]


def silu(x: A, *, name: str | None = None) -> A:
    """``x * sigmoid(x)``. Elfwing et al., 1702.03118."""
    return _unary("silu", x, name)


def gelu(x: A, *, name: str | None = None) -> A:
    """``x * Phi(x)`` with the exact normal distribution. Hendrycks & Gimpel, 1606.08415."""
    return _unary("gelu", x, name)


def gelu_tanh(x: A, *, name: str | None = None) -> A:
    """The tanh approximation of ``gelu`` from the same paper ("gelu_new", "gelu_pytorch_tanh")."""
    return _unary("gelu_tanh", x, name)


def relu(x: A, *, name: str | None = None) -> A:
    """``max(x, 0)``."""
    return _unary("relu", x, name)


def tanh(x: A, *, name: str | None = None) -> A:
    """Hyperbolic tangent."""
    return _unary("tanh", x, name)


def sigmoid(x: A, *, name: str | None = None) -> A:
    """``1 / (1 + exp(-x))``."""
    return _unary("sigmoid", x, name)


def exp(x: A, *, name: str | None = None) -> A:
    """``e ** x``."""
    return _unary("exp", x, name)


def square(x: A, *, name: str | None = None) -> A:
    """``x * x``."""
    return _unary("square", x, name)


def rsqrt(x: A, *, name: str | None = None) -> A:
    """``1 / sqrt(x)``."""
    return _unary("rsqrt", x, name)


def neg(x: A, *, name: str | None = None) -> A:
    """``-x``."""
    if isinstance(x, Tensor) and not _by_kernels(x):
        return _typed(A, Tensor(-x.numpy()))
    return _as_before(x, _unary("neg", x, name))


def softcap(x: A, cap: float, *, name: str | None = None) -> A:
    """``cap * tanh(x / cap)``: keeps values within ±cap. Gemma 2, 2408.00118."""
    if not cap > 0:
        raise InvalidRequest(f"[softcap] the cap is {cap} but must be positive.")
    return run("unary", x, [], {"kind": "softcap", "param": float(cap)}, name="softcap" if name is None else name)


def _unary(kind: str, x: A, name: str | None) -> A:
    return run("unary", x, [], {"kind": kind}, name=kind if name is None else name)


#: Activation functions by the names that configs use.
ACTIVATIONS = {
    "none": "none",
    "linear": "none",
    "identity": "none",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


def activation(kind: str, x: A, *, name: str | None = None) -> A:
    """An activation by its name in a config, see ``ACTIVATIONS``."""
    known = activation_name("activation", kind)
    return x if known == "none" else _unary(known, x, name)


def gated(gate: A, up: Array, *, activation: str = "silu", name: str | None = None) -> A:
    """``act(gate) * up``, both [..., N]: the heart of gated MLPs (SwiGLU, GeGLU). Shazeer, 2002.05202."""
    kind = activation_name("gated_activation", activation)
    if isinstance(gate, Tensor) and gate.ndim != 2:
        width = gate.shape[-1] if gate.ndim else 1
        flat = gated(gate.reshape(-1, width), as_array(up).reshape(-1, width), activation=kind)
        return _typed(A, flat.reshape(gate.shape))
    return run("gated_activation", gate, [up], {"activation": kind}, name=name)


def activation_name(op: str, kind: str) -> str:
    """The engine's name for an activation of a config; ``op`` is for the message."""
    known = ACTIVATIONS.get(kind)
    if known is None:
        names = ", ".join(sorted(ACTIVATIONS))
        raise InvalidRequest(f"[{op}] unknown activation {kind!r}.", hint=f"Known: {names}.")
    return known


def affine(x: A, *, scale: float = 1.0, shift: float = 0.0, name: str | None = None) -> A:
    """``x * scale + shift`` with plain numbers."""
    return run("affine", x, [], {"scale": float(scale), "shift": float(shift)}, name=name)


def scale(x: A, factor: float, *, name: str | None = None) -> A:
    """``x * factor``."""
    return affine(x, scale=factor, name="scale" if name is None else name)


def add(a: Any, b: Any, *, name: str | None = None) -> Any:
    """``a + b``; shapes broadcast as in numpy, either side may be a plain number."""
    return _arithmetic("add", a, b, name)


def sub(a: Any, b: Any, *, name: str | None = None) -> Any:
    """``a - b``, see ``add``."""
    return _arithmetic("sub", a, b, name)


def mul(a: Any, b: Any, *, name: str | None = None) -> Any:
    """``a * b``, see ``add``."""
    return _arithmetic("mul", a, b, name)


def div(a: Any, b: Any, *, name: str | None = None) -> Any:
    """``a / b``, see ``add``; integers divide as real numbers."""
    return _arithmetic("div", a, b, name)


def maximum(a: Any, b: Any, *, name: str | None = None) -> Any:
    """The greater of ``a`` and ``b``, element by element."""
    return _arithmetic("maximum", a, b, name)


def minimum(a: Any, b: Any, *, name: str | None = None) -> Any:
    """The lesser of ``a`` and ``b``, element by element."""
    return _arithmetic("minimum", a, b, name)


_NUMPY_FACE: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def _arithmetic(kind: str, a: Any, b: Any, name: str | None) -> Any:
    label = kind if name is None else name
    if isinstance(a, Array) and _is_number(b) and _by_kernels(a):
        number = float(b)
        if kind in ("add", "sub"):
            return _as_before(a, affine(a, shift=number if kind == "add" else -number, name=label))
        if kind == "mul":
            return _as_before(a, affine(a, scale=number, name=label))
    if isinstance(b, Array) and _is_number(a) and _by_kernels(b) and kind in ("add", "mul", "sub"):
        number = float(a)
        if kind == "mul":
            return _as_before(b, affine(b, scale=number, name=label))
        return _as_before(b, affine(b, scale=-1.0 if kind == "sub" else 1.0, shift=number, name=label))
    left, right = as_array(a), as_array(b)
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return run("binary", left, [right], {"kind": kind}, name=label)
    dtype = _common_dtype(left, right, weak_left=_is_number(a), weak_right=_is_number(b))
    if dtype == "float64" or not dtype.floating:
        with np.errstate(all="ignore"):  # infinities are results, as they are in the kernels
            result = _NUMPY_FACE[kind](left.numpy(), right.numpy())
        return Tensor(result, dtype=dtype if dtype.floating else None if kind != "div" else "float32")
    summed = run("binary", left.astype("float32"), [right.astype("float32")], {"kind": kind})
    return summed if dtype == "float32" else summed.astype(dtype)


def _common_dtype(left: Tensor, right: Tensor, *, weak_left: bool, weak_right: bool) -> DType:
    """The dtype of a result: one dtype stays; a plain number, or integers, join a real tensor; mixtures are float32."""
    a, b = left.dtype, right.dtype
    if a == b or (a.floating and (weak_right or not b.floating)):
        return a
    if b.floating and (weak_left or not a.floating):
        return b
    if not a.floating and not b.floating:
        return a
    return float64 if "float64" in (a, b) else float32


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _by_kernels(x: Array) -> bool:
    """Whether the engine's kernels do arithmetic on this operand; numpy does it on integers and float64."""
    return isinstance(x, Symbol) or (x.dtype.floating and x.dtype != "float64")


def _as_before(x: Array, result: A) -> A:
    """The result in the dtype of the operand: half types stay half."""
    return result.astype(x.dtype) if isinstance(result, Tensor) and result.dtype != x.dtype else result
