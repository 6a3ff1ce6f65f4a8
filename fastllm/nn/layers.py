"""The small parts: products, tables, norms and feed-forward blocks."""

from __future__ import annotations

import numpy as np

from fastllm import ops
from fastllm._ops_array import A
from fastllm._ops_dtype import DType
from fastllm.nn.module import Module, parameter
from fastllm.tensor import Tensor

__all__ = ["MLP", "Conv1D", "Embedding", "GatedMLP", "LayerNorm", "Linear", "RMSNorm", "rounded"]


class Linear(Module):
    """``x W^T + b``: x [T, in_features] -> [T, out_features]; weight [out_features, in_features]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = parameter((out_features, in_features))
        self.bias = parameter((out_features,)) if bias else None

    def forward(self, x: A) -> A:
        """[T, in_features] -> [T, out_features]."""
        return ops.linear(x, self.weight, self.bias, name="")

    def extra_repr(self) -> str:
        """Sizes in the direction of the data."""
        return f"{self.in_features} → {self.out_features}{'' if self.bias is None else ', bias'}"


class Conv1D(Linear):
    """A Linear whose checkpoint holds the weight as [in, out], as GPT-2's do.

    The weight is turned round once at load, because the kernels read rows: the one exception to mapped weights.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = parameter((out_features, in_features), transposed=True)
        self.bias = parameter((out_features,)) if bias else None


class Embedding(Module):
    """A row for each id: ids [T] -> [T, features]; weight [rows, features].

    Attributes:
        scale: A factor on the rows. It is rounded to the weight's dtype, in which gemma's reference computes it.
    """

    weight: Tensor

    def __init__(self, rows: int, features: int, *, scale: float = 1.0) -> None:
        self.rows, self.features, self.scale = rows, features, scale
        self.weight = parameter((rows, features))

    def forward(self, ids: A) -> A:
        """[T] int32 -> [T, features] float32."""
        return ops.embedding(ids, self.weight, scale=rounded(self.scale, self.weight.dtype), name="")

    def extra_repr(self) -> str:
        """Rows and features."""
        return f"{self.rows} × {self.features}{'' if self.scale == 1 else f', scale {self.scale:.4g}'}"


class RMSNorm(Module):
    """``x / sqrt(mean(x^2) + eps) * (weight_offset + weight)`` over the last axis."""

    weight: Tensor

    def __init__(self, features: int, *, eps: float = 1e-6, weight_offset: float = 0.0) -> None:
        self.eps, self.weight_offset = eps, weight_offset
        self.weight = parameter((features,))

    def forward(self, x: A) -> A:
        """[..., features] -> the same."""
        return ops.rms_norm(x, self.weight, eps=self.eps, weight_offset=self.weight_offset, name="")

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self._parameters['weight'].shape[0]}, eps {self.eps:g}"


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis."""

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight = parameter((features,))
        self.bias = parameter((features,))

    def forward(self, x: A) -> A:
        """[..., features] -> the same."""
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps, name="")

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self._parameters['weight'].shape[0]}, eps {self.eps:g}"


class GatedMLP(Module):
    """``down(act(gate(x)) * up(x))``. Shazeer, 2002.05202."""

    def __init__(self, hidden: int, inner: int, *, activation: str = "silu", bias: bool = False) -> None:
        self.activation = activation
        self.gate_proj = Linear(hidden, inner, bias=bias)
        self.up_proj = Linear(hidden, inner, bias=bias)
        self.down_proj = Linear(inner, hidden, bias=bias)

    def forward(self, x: A) -> A:
        """[T, hidden] -> [T, hidden]."""
        gate, up = ops.tap(self.gate_proj(x), "mlp.pre"), ops.tap(self.up_proj(x), "mlp.up")
        return self.down_proj(ops.tap(ops.gated(gate, up, activation=self.activation), "mlp.post"))


class MLP(Module):
    """``down(act(up(x)))``, the plain feed-forward block."""

    def __init__(self, hidden: int, inner: int, *, activation: str = "gelu", bias: bool = True) -> None:
        self.activation = activation
        self.up_proj = Linear(hidden, inner, bias=bias)
        self.down_proj = Linear(inner, hidden, bias=bias)

    def forward(self, x: A) -> A:
        """[T, hidden] -> [T, hidden]."""
        inner = ops.activation(self.activation, ops.tap(self.up_proj(x), "mlp.pre"))
        return self.down_proj(ops.tap(inner, "mlp.post"))


def rounded(value: float, dtype: DType) -> float:
    """A number as this dtype would hold it."""
    if dtype == "bfloat16":
        bits = np.float32(value).view(np.uint32)
        kept = (int(bits) + 0x7FFF + ((int(bits) >> 16) & 1)) & 0xFFFF0000
        return float(np.uint32(kept).view(np.float32))
    return float(np.array(value, dtype=dtype.numpy)) if dtype.numpy is not None else value
