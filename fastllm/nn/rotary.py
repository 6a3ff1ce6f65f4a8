"""Rotary position embedding with every way of stretching it.

Su et al. 2104.09864; linear (Chen et al. 2306.15595), dynamic NTK (emozilla), llama3 (Meta's model code), yarn (Peng et
al. 2309.00071), longrope (Ding et al. 2402.13753). Frequencies are computed in float32, in the order in which
checkpoints were trained with them: a float64 table would be nearer to the formula and farther from the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm import ops
from fastllm._ops_array import A
from fastllm._ops_step import Step
from fastllm.errors import LoadError
from fastllm.formats.rope import RopeConfig
from fastllm.nn.module import Module
from fastllm.tensor import Tensor

__all__ = ["RotaryEmbedding", "inverse_frequencies"]

F32 = npt.NDArray[np.float32]
_WIDEST = 1 << 16  # channels of a head: no model comes near, so a larger number is a broken config


class RotaryEmbedding(Module):
    """Rotates the first channels of each head by an angle that grows with the position.

    Attributes:
        inv_freq: [rotary_dim / 2] float32, the angle of each pair at position 1.
        long_inv_freq: longrope: the same for sequences beyond the original context, else None.
        interleaved: Pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
    """

    inv_freq: Tensor
    long_inv_freq: Tensor | None

    def __init__(self, head_dim: int, rope: RopeConfig | None = None, *, interleaved: bool = False) -> None:
        """Makes the tables.

        Args:
            head_dim: Channels of a head.
            rope: Base and scaling; base 10000 without scaling by default.
            interleaved: Which channels make a pair.

        Raises:
            LoadError: The config does not fit the head.
        """
        rope = rope or RopeConfig()
        rotary_dim = rope.rotary_dim(head_dim)
        if rotary_dim < 2 or rotary_dim % 2:
            fact = f"rotates {rotary_dim} of {head_dim} channels of a head, but channels are rotated in pairs"
            raise LoadError(f"[rope] the config {fact}.", hint="Are head_dim and partial_rotary_factor right?")
        self.rope = rope
        self.head_dim, self.rotary_dim, self.interleaved = head_dim, rotary_dim, interleaved
        if rotary_dim > _WIDEST:
            raise LoadError(f"[rope] a head of {head_dim} channels is beyond {_WIDEST}.", hint="Is head_dim right?")
        self.inv_freq = Tensor(inverse_frequencies(rope, rotary_dim), name="rotary_emb.inv_freq")
        self.long_inv_freq = None
        self._length, self._original = "fixed", 0
        if rope.type == "longrope":
            self.long_inv_freq = Tensor(
                inverse_frequencies(rope, rotary_dim, beyond=True), name="rotary_emb.long_inv_freq"
            )
            self._length, self._original = "long_short", rope.original_max_position or 0
        elif rope.type == "dynamic" and rotary_dim > 2:
            if rope.max_position is None:
                fact = "[rope] dynamic scaling needs max_position_embeddings"
                raise LoadError(f"{fact}.", hint="Is config.json complete?")
            self._length, self._original = "dynamic_ntk", rope.max_position

    def forward(self, x: A, step: Step, *, name: str = "rope") -> A:
        """[T, heads, head_dim] -> the same, rotated by the step's positions. ``name`` labels the node."""
        return ops.rope(
            x,
            step.positions,
            self.inv_freq,
            step=step,
            long_inv_freq=self.long_inv_freq,
            interleaved=self.interleaved,
            attention_factor=self.rope.attention_factor,
            length=self._length,
            base=self.rope.theta,
            factor=self.rope.factor,
            original_max=self._original,
            name=name,
        )

    def extra_repr(self) -> str:
        """Base, scaling and the share that is rotated."""
        scaling = "" if self.rope.type == "default" else f", {self.rope.type} × {self.rope.factor:g}"
        return f"{self.rotary_dim} of {self.head_dim}, base {self.rope.theta:g}{scaling}"


def inverse_frequencies(rope: RopeConfig, rotary_dim: int, *, beyond: bool = False) -> F32:
    """The angle of each pair of channels at position 1.

    Args:
        rope: Base and scaling. For "dynamic" the result is the one within the original context.
        rotary_dim: Channels that are rotated.
        beyond: longrope: the frequencies for sequences beyond the original context.

    Returns:
        [rotary_dim / 2] float32.
    """
    with np.errstate(all="ignore"):
        table = _frequencies(rope, rotary_dim, beyond)
    if not np.isfinite(table).all():
        fact = f"base {rope.theta:g} and factor {rope.factor:g} give frequencies that are no finite numbers"
        raise LoadError(f"[rope] {fact}.", hint="Is config.json of this checkpoint sound?")
    return table


def _frequencies(rope: RopeConfig, rotary_dim: int, beyond: bool) -> F32:
    one, base = np.float32(1), np.float32(rope.theta)
    exponents = np.arange(0, rotary_dim, 2).astype(np.float32) / np.float32(rotary_dim)
    powers = np.power(base, exponents)
    plain: F32 = one / powers
    if rope.type == "linear":
        return _f32(plain / np.float32(rope.factor))
    if rope.type == "llama3":
        return _llama3(rope, plain)
    if rope.type == "yarn":
        return _yarn(rope, powers, rotary_dim)
    if rope.type == "longrope":
        divisors = rope.long_factor if beyond else rope.short_factor
        if len(divisors) != rotary_dim // 2:
            name = "long_factor" if beyond else "short_factor"
            fact = f"{name} has {len(divisors)} numbers but a head has {rotary_dim // 2} pairs of rotated channels"
            raise LoadError(f"[rope] {fact}.", hint="Is config.json of this checkpoint sound?")
        return _f32(one / (np.asarray(divisors, np.float32) * powers))
    return plain


def _llama3(rope: RopeConfig, plain: F32) -> F32:
    """Long waves are slowed down, short ones kept, those between blended."""
    original = np.float32(rope.original_max_position or 0)
    low, high = np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    factor = np.float32(rope.factor)
    waves = np.float32(2 * math.pi) / plain
    blend = (original / waves - low) / (high - low)
    blended = (np.float32(1) - blend) * plain / factor + blend * plain
    slowed = np.where(waves > original / low, plain / factor, blended)
    return _f32(np.where(waves < original / high, plain, slowed))


def _yarn(rope: RopeConfig, powers: F32, rotary_dim: int) -> F32:
    """Channels that turn often within the original context are kept, those that turn seldom slowed down."""

    def channel(turns: float) -> float:
        """The channel, as a real number, that turns so often within the original context."""
        length = rope.original_max_position or 1
        return rotary_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = channel(rope.beta_fast), channel(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotary_dim - 1)
    if first == last:
        last += 0.001
    ramp = (np.arange(rotary_dim // 2, dtype=np.float32) - np.float32(first)) / np.float32(last - first)
    kept = np.float32(1) - np.clip(ramp, 0, 1).astype(np.float32)
    one = np.float32(1)
    slow, fast = one / (np.float32(rope.factor) * powers), one / powers
    return _f32(slow * (one - kept) + fast * kept)


def _f32(values: Any) -> F32:
    return np.asarray(values, dtype=np.float32)
