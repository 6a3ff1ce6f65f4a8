"""Exercises of notebook 04, Inside a transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_array, function

F32 = npt.NDArray[np.float32]


def _random(seed: int, tokens: int, heads: int, kv_heads: int, dim: int) -> tuple[F32, F32, F32]:
    random = np.random.default_rng(seed)
    shapes = ((tokens, heads, dim), (tokens, kv_heads, dim), (tokens, kv_heads, dim))
    q, k, v = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return q, k, v


def _mixed(q: F32, k: F32, v: F32, window: int = 0) -> npt.NDArray[np.float64]:
    """Attention, one query at a time: slow, and hard to get wrong."""
    tokens, heads, dim = q.shape
    share = heads // k.shape[1]
    out = np.zeros((tokens, heads, v.shape[2]))
    for t in range(tokens):
        first = max(0, t + 1 - window) if window else 0
        for h in range(heads):
            scores = k[first : t + 1, h // share].astype(np.float64) @ q[t, h] / dim**0.5
            powers = np.exp(scores - scores.max())
            out[t, h] = powers / powers.sum() @ v[first : t + 1, h // share]
    return out


@exercise(
    "4.1",
    kind="a function windowed(q, k, v, window)",
    hints=(
        "attention above, with one more set of scores that become minus infinity: those too far back.",
        "Token t may see t - window + 1 up to t. np.tril(..., -window) picks what lies below.",
    ),
)
def _(answer: Any) -> str:
    windowed = function(answer, 'check("4.1", windowed)')
    for seed, (tokens, heads, kv_heads, window) in enumerate(((6, 4, 4, 3), (9, 8, 2, 4), (5, 2, 1, 1), (4, 2, 2, 9))):
        q, k, v = _random(seed, tokens, heads, kv_heads, 8)
        with np.errstate(all="ignore"):
            given = windowed(q.copy(), k.copy(), v.copy(), window)
        if isinstance(given, tuple):
            raise NotYet("Only the mixed values, please, without the pattern.")
        found = as_array(given, q.shape)
        where = f"For {tokens} tokens, {heads} heads on {kv_heads}, and a window of {window}"
        if np.abs(found - _mixed(q, k, v, window)).max() < 1e-4:
            continue
        if np.abs(found - _mixed(q, k, v)).max() < 1e-4:
            raise NotYet(f"{where} every token still sees all before it.")
        for off, words in ((1, "one token too many is seen"), (-1, "one token too few is seen")):
            if window + off > 0 and np.abs(found - _mixed(q, k, v, window + off)).max() < 1e-4:
                raise NotYet(f"{where} {words}. The token itself counts.")
        raise NotYet(f"{where} it is off by up to {np.abs(found - _mixed(q, k, v, window)).max():.3g}.")
    return "Mistral and Gemma do this in some layers: the cache of such a layer never grows beyond the window."


@exercise(
    "4.2",
    kind="a function rope_neighbours(x, positions, base)",
    hints=(
        "x[..., 0::2] and x[..., 1::2] are the two sides of each pair.",
        "Make an empty array of x's shape, and fill its [..., 0::2] and [..., 1::2].",
    ),
)
def _(answer: Any) -> str:
    rotate = function(answer, 'check("4.2", rope_neighbours)')
    for seed, (tokens, heads, dim, base) in enumerate(((5, 3, 8, 1e4), (3, 1, 32, 5e5))):
        x = _random(seed, tokens, heads, 1, dim)[0]
        positions = np.arange(tokens) * 7 + seed
        found = as_array(rotate(x.copy(), positions.copy(), base), x.shape)
        pairs = x.reshape(tokens, heads, dim // 2, 2).astype(np.float64)
        turn = np.exp(1j * positions[:, None] * base ** (-np.arange(dim // 2) * 2 / dim))[:, None, :]
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        truth = np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
        if np.abs(found - truth).max() < 1e-4:
            continue
        turned_back = (pairs[..., 0] + 1j * pairs[..., 1]) * turn.conj()
        if np.abs(found - np.stack([turned_back.real, turned_back.imag], axis=-1).reshape(x.shape)).max() < 1e-4:
            raise NotYet("It turns the other way round. Look at the signs.")
        if np.abs(found[..., : dim // 2] - truth[..., 0::2]).max() < 1e-4:
            raise NotYet("The numbers are right, but they do not stand where they stood: put them back side by side.")
        raise NotYet(f"It is off by up to {np.abs(found - truth).max():.3g}.")
    return (
        "A pair of channels is a complex number, and a position is a turn: x · e^(iθ). Some write it in this one line."
    )


@exercise(
    "4.3",
    kind="a function step(q, keys, values)",
    hints=(
        "There is one query, and it may see everything: no mask is needed.",
        "repeat keys and values for the heads that share them, then einsum('hd,thd->ht', ...).",
    ),
)
def _(answer: Any) -> str:
    step = function(answer, 'check("4.3", step)')
    for seed, (tokens, heads, kv_heads) in enumerate(((1, 2, 2), (7, 8, 2), (20, 6, 3))):
        q, k, v = _random(40 + seed, tokens, heads, kv_heads, 16)
        found = as_array(step(q[-1].copy(), k.copy(), v.copy()), (heads, 16))
        truth = _mixed(q, k, v)[-1]
        if np.abs(found - truth).max() > 1e-4:
            raise NotYet(
                f"For {tokens} tokens and {heads} heads on {kv_heads} it is off by up to "
                f"{np.abs(found - truth).max():.3g}."
            )
    return "One row instead of a table: this is what the engine computes for each new token, and why it can remember."
