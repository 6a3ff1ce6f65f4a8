"""Float64 formulas of the ops and of a small llama, written from the papers: the truth native results are held to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

F = npt.NDArray[np.float64]


def silu(x: F) -> F:
    return x / (1 + np.exp(-x))


_ERF = np.vectorize(math.erf, otypes=[np.float64])


def activation(name: str, x: F, param: float = 0.0) -> F:
    table = {
        "none": lambda: x,
        "silu": lambda: silu(x),
        "gelu": lambda: 0.5 * x * (1 + _ERF(x / math.sqrt(2))),
        "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu": lambda: np.maximum(x, 0),
        "tanh": lambda: np.tanh(x),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "exp": lambda: np.exp(x),
        "square": lambda: x * x,
        "rsqrt": lambda: 1 / np.sqrt(x),
        "neg": lambda: -x,
        "softcap": lambda: np.tanh(x / param) * param,
    }
    return np.asarray(table[name]())


def rms_norm(x: F, weight: F, eps: float, offset: float = 0.0) -> F:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (offset + weight)


def layer_norm(x: F, weight: F, bias: F, eps: float) -> F:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def rope(x: F, positions: npt.NDArray[Any], inv_freq: F, *, interleaved: bool = False, factor: float = 1.0) -> F:
    """x [T, H, D]; the first 2 * len(inv_freq) channels turn."""
    angles = positions[:, None] * inv_freq[None]
    cos, sin = np.cos(angles)[:, None] * factor, np.sin(angles)[:, None] * factor
    half = len(inv_freq)
    out = x.copy()
    if interleaved:
        a, b = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
        out[..., 0 : 2 * half : 2], out[..., 1 : 2 * half : 2] = a * cos - b * sin, b * cos + a * sin
    else:
        a, b = x[..., :half], x[..., half : 2 * half]
        out[..., :half], out[..., half : 2 * half] = a * cos - b * sin, b * cos + a * sin
    return out


def softmax(x: F) -> F:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: F, k: F, v: F, *, scale: float, window: int = 0, softcap: float = 0.0) -> F:
    """q [T, Hq, D] are the last T of the S tokens of k [S, Hkv, D] and v [S, Hkv, Dv]."""
    tokens, heads, _ = q.shape
    total, kv_heads, _ = k.shape
    out = np.zeros((tokens, heads, v.shape[2]))
    for h in range(heads):
        g = h // (heads // kv_heads)
        scores = scale * q[:, h] @ k[:, g].T
        if softcap:
            scores = np.tanh(scores / softcap) * softcap
        at = np.arange(total - tokens, total)[:, None]
        key = np.arange(total)[None]
        hidden = key > at
        if window:
            hidden |= key <= at - window
        out[:, h] = softmax(np.where(hidden, -np.inf, scores)) @ v[:, g]
    return out


class Llama:
    """A llama with random weights: its numbers in numpy, its graph in the engine."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        vocab: int = 61,
        hidden: int = 24,
        layers: int = 3,
        heads: int = 4,
        kv_heads: int = 2,
        head_dim: int = 10,
        ffn: int = 36,
        bias: bool = False,
        post_norm: bool = False,
        tokens_out: bool = True,
    ) -> None:
        self.vocab, self.hidden, self.layers, self.heads, self.kv_heads = vocab, hidden, layers, heads, kv_heads
        self.head_dim, self.ffn, self.bias, self.post_norm, self.tokens_out = head_dim, ffn, bias, post_norm, tokens_out
        self.eps = 1e-5
        shapes: dict[str, tuple[int, ...]] = {"embed": (vocab, hidden), "norm": (hidden,), "lm_head": (vocab, hidden)}
        for i in range(layers):
            p = f"layers.{i}."
            shapes |= {
                p + "q": (heads * head_dim, hidden),
                p + "k": (kv_heads * head_dim, hidden),
                p + "v": (kv_heads * head_dim, hidden),
                p + "o": (hidden, heads * head_dim),
                p + "gate": (ffn, hidden),
                p + "up": (ffn, hidden),
                p + "down": (hidden, ffn),
                p + "norm1": (hidden,),
                p + "norm2": (hidden,),
                p + "norm3": (hidden,),
            }
            if bias:
                shapes |= {p + "q_bias": (heads * head_dim,), p + "v_bias": (kv_heads * head_dim,)}
        self.weights = {
            name: (
                rng.standard_normal(shape) / math.sqrt(shape[-1]) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
            ).astype(np.float32)
            for name, shape in shapes.items()
        }
        self.inv_freq = (1.0 / 10000 ** (np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)

    def logits(self, ids: list[int]) -> F:
        w = {name: value.astype(np.float64) for name, value in self.weights.items()}
        positions = np.arange(len(ids))
        h = w["embed"][ids]
        for i in range(self.layers):
            p = f"layers.{i}."
            x = rms_norm(h, w[p + "norm1"], self.eps)
            q = x @ w[p + "q"].T + w.get(p + "q_bias", 0.0)
            k = x @ w[p + "k"].T
            v = x @ w[p + "v"].T + w.get(p + "v_bias", 0.0)
            q = rope(q.reshape(len(ids), self.heads, -1), positions, self.inv_freq.astype(np.float64))
            k = rope(k.reshape(len(ids), self.kv_heads, -1), positions, self.inv_freq.astype(np.float64))
            a = attention(q, k, v.reshape(len(ids), self.kv_heads, -1), scale=self.head_dim**-0.5)
            o = a.reshape(len(ids), -1) @ w[p + "o"].T
            if self.post_norm:
                o = rms_norm(o, w[p + "norm3"], self.eps)
            h = h + o
            x = rms_norm(h, w[p + "norm2"], self.eps)
            h = h + (silu(x @ w[p + "gate"].T) * (x @ w[p + "up"].T)) @ w[p + "down"].T
        return np.asarray(rms_norm(h, w["norm"], self.eps) @ w["lm_head"].T)

    def record(self, core: Any, tensors: dict[str, Any] | None = None) -> Any:
        """The graph, op by op. `tensors`: other tensors for the weights (dtypes)."""
        g = core.Graph()
        given = tensors or {}

        def weight(name: str) -> Any:
            tensor = given.get(name)
            return g.constant(name, tensor or core.Tensor.from_numpy(self.weights[name], copy=False))

        def op(op_kind: str, name: str, /, *inputs: Any, **attrs: Any) -> Any:
            out = g.op(op_kind, list(inputs), attrs, name)
            return out[0] if out else None

        def linear(name: str, x: Any) -> Any:
            if name + "_bias" in self.weights:
                return op("linear", name, x, weight(name), weight(name + "_bias"), has_bias=True)
            return op("linear", name, x, weight(name))

        inv_freq = g.constant("inv_freq", core.Tensor.from_numpy(self.inv_freq, copy=False))
        positions = g.positions()
        h = op("embedding", "embed_tokens", g.token_ids(), weight("embed"))
        for i in range(self.layers):
            p = f"layers.{i}."
            x = op("rms_norm", p + "norm1", h, weight(p + "norm1"), eps=self.eps)
            q = g.reshape(linear(p + "q", x), [-1, self.heads, self.head_dim])
            k = g.reshape(linear(p + "k", x), [-1, self.kv_heads, self.head_dim])
            v = g.reshape(linear(p + "v", x), [-1, self.kv_heads, self.head_dim])
            q = op("rope", p + "q_rope", q, positions, inv_freq, rotary_dim=self.head_dim)
            k = op("rope", p + "k_rope", k, positions, inv_freq, rotary_dim=self.head_dim)
            op("kv_write", p + "kv", k, v, layer=i)
            a = op("attention", p + "attn", q, layer=i, scale=self.head_dim**-0.5)
            o = linear(p + "o", g.reshape(a, [-1, self.heads * self.head_dim]))
            if self.post_norm:
                o = op("rms_norm", p + "norm3", o, weight(p + "norm3"), eps=self.eps)
            h = op("binary", p + "add1", h, o, kind="add")
            x = op("rms_norm", p + "norm2", h, weight(p + "norm2"), eps=self.eps)
            act = op("unary", p + "act", linear(p + "gate", x), kind="silu")
            y = linear(p + "down", op("binary", p + "mul", act, linear(p + "up", x), kind="mul"))
            h = op("binary", p + "add2", h, y, kind="add")
        h = op("rms_norm", "norm", h, weight("norm"), eps=self.eps)
        if not self.tokens_out:
            h = op("select_rows", "rows", h)
        g.set_output(linear("lm_head", h))
        return g
