"""Rotary position parameters, read from every style of config.json into one.

Old style: ``rope_theta`` and ``rope_scaling`` ({"type" or "rope_type", "factor", ...}) at the top. New style, since
transformers 5: ``rope_parameters``, flat or one entry for each attention type. Gemma 3, old style: ``rope_theta`` with
``rope_scaling`` for full attention and ``rope_local_base_freq`` for sliding attention.

Papers: linear (Chen et al. 2306.15595), dynamic NTK (bloc97, emozilla), yarn (Peng et al. 2309.00071), longrope (Ding
et al. 2402.13753); llama3 is defined by Meta's model code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastllm.errors import LoadError, UnsupportedFormat

__all__ = ["ROPE_TYPES", "RopeConfig", "rope_config"]

#: The kinds of scaling that ``RopeConfig.type`` can name.
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")

_ALIASES = {"su": "longrope", "none": "default", "ntk": "dynamic"}
_HINT = "Is the config.json of this checkpoint complete?"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary embedding of one kind of attention layer.

    Attributes:
        theta: Base of the frequencies.
        type: One of ``ROPE_TYPES``.
        factor: How many times longer the context is than in pretraining.
        max_position: Positions the model is configured for, or None if the config does not say.
        original_max_position: Positions in pretraining, or None where the type does not use it.
        low_freq_factor: llama3: wavelengths above original / this are fully scaled.
        high_freq_factor: llama3: wavelengths below original / this are not scaled.
        beta_fast: yarn: rotations above which a dimension is not scaled.
        beta_slow: yarn: rotations below which a dimension is fully scaled.
        truncate: yarn: whether the bounds of the ramp are rounded to whole dimensions.
        mscale: yarn: numerator scale of the attention factor, or None.
        mscale_all_dim: yarn: denominator scale of the attention factor, or None.
        attention_factor: Multiplies cos and sin; already computed where the config leaves it to the formula.
        short_factor: longrope: divisors, one for each pair of dimensions, within the original context.
        long_factor: longrope: the same beyond it.
        partial_rotary_factor: Share of each head's dimensions that is rotated.
    """

    theta: float = 10000.0
    type: str = "default"
    factor: float = 1.0
    max_position: int | None = None
    original_max_position: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float = 1.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    partial_rotary_factor: float = 1.0

    def rotary_dim(self, head_dim: int) -> int:
        """Dimensions of a head that are rotated."""
        return int(head_dim * self.partial_rotary_factor)

    def inverse_frequencies(self, head_dim: int, *, length: int | None = None) -> list[float]:
        """The angle of each pair of dimensions at position 1, computed in double precision.

        Args:
            head_dim: Dimensions of a head.
            length: Tokens in the sequence; dynamic and longrope depend on it. None means within the original context.

        Returns:
            ceil(rotary_dim / 2) values.
        """
        dim = self.rotary_dim(head_dim)
        theta = self.theta
        if self.type == "dynamic" and dim > 2:
            known = self.max_position or 0
            stretched = max(length or 0, known)
            if known:
                theta *= (self.factor * stretched / known - (self.factor - 1)) ** (dim / (dim - 2))
        plain = [theta ** (-2 * pair / dim) for pair in range((dim + 1) // 2)]
        if self.type == "linear":
            return [value / self.factor for value in plain]
        if self.type == "llama3":
            return [self._llama3(value) for value in plain]
        if self.type == "yarn":
            return self._yarn(plain, dim)
        if self.type == "longrope":
            beyond = (length or 0) > (self.original_max_position or 0)
            divisors = self.long_factor if beyond else self.short_factor
            if len(divisors) != len(plain):
                fact = f"longrope has {len(divisors)} factors but the head has {len(plain)} pairs of dimensions"
                raise LoadError(f"[rope] {fact}.", hint=_HINT)
            return [value / divisor for value, divisor in zip(plain, divisors, strict=True)]
        return plain

    def _llama3(self, frequency: float) -> float:
        original = self.original_max_position or 0
        wavelength = 2 * math.pi / frequency
        if wavelength < original / self.high_freq_factor:
            return frequency
        if wavelength > original / self.low_freq_factor:
            return frequency / self.factor
        smooth = (original / wavelength - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return (1 - smooth) * frequency / self.factor + smooth * frequency

    def _yarn(self, plain: list[float], dim: int) -> list[float]:
        def dimension_of(rotations: float) -> float:
            original = self.original_max_position or 1
            return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(self.theta))

        low, high = dimension_of(self.beta_fast), dimension_of(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        if low == high:
            high += 0.001
        result = []
        for pair, frequency in enumerate(plain):
            scaled = min(max((pair - low) / (high - low), 0.0), 1.0)
            result.append(frequency / self.factor * scaled + frequency * (1 - scaled))
        return result


def rope_config(
    config: Mapping[str, Any],
    layer_type: str | None = None,
    /,
    *,
    default_theta: float = 10000.0,
    default_partial: float = 1.0,
) -> RopeConfig:
    """Reads the rotary parameters of a config.json.

    Args:
        config: The text model's configuration (``Checkpoint.text_config``).
        layer_type: "full_attention" or "sliding_attention" for models with one rope for each; a config with just one
            rope gives it for both.
        default_theta: Base where the config has none.
        default_partial: Rotated share of a head where the config has none.

    Raises:
        UnsupportedFormat: An unknown kind of scaling.
        LoadError: A value is missing or is not a number.
    """
    entries, theta = _entries(config, layer_type)
    kind = str(entries.get("rope_type") or entries.get("type") or "default").lower()
    kind = _ALIASES.get(kind, kind)
    if kind == "yarn" and "short_factor" in entries:
        kind = "longrope"
    if kind == "mrope":  # one position per token in text: all sections rotate by the same angle
        kind = "default"
    if kind not in ROPE_TYPES:
        hint = f"Known kinds: {', '.join(ROPE_TYPES)}."
        raise UnsupportedFormat(f"[rope] unknown kind of rope scaling {kind!r}.", hint=hint)

    max_position = _integer(config, "max_position_embeddings")
    original: int | None = None
    if kind in ("llama3", "yarn", "longrope"):
        key = "original_max_position_embeddings"
        original = _integer(config, key) or _integer(entries, key) or max_position
        if original is None or original < 2:
            raise LoadError(f"[rope] {kind} needs {key} above 1, not {original}.", hint=_HINT)
    factor = _number(entries, "factor")
    if factor is None:
        if kind in ("linear", "dynamic", "llama3"):
            raise LoadError(f"[rope] {kind} scaling has no factor.", hint=_HINT)
        factor = max_position / original if max_position and original else 1.0
    attention = _number(entries, "attention_factor")
    mscale, mscale_all_dim = _number(entries, "mscale"), _number(entries, "mscale_all_dim")
    if factor > 0 and attention is None:
        attention = _attention_factor(kind, factor, original or 2, mscale, mscale_all_dim)
    partials = [_number(entries, "partial_rotary_factor"), _number(config, "partial_rotary_factor")]
    partials += [_number(config, "rotary_pct"), default_partial]
    result = RopeConfig(
        theta=default_theta if theta is None else theta,
        type=kind,
        factor=factor,
        max_position=max_position,
        original_max_position=original,
        low_freq_factor=_number(entries, "low_freq_factor") or 1.0,
        high_freq_factor=_number(entries, "high_freq_factor") or 4.0,
        beta_fast=_number(entries, "beta_fast") or 32.0,
        beta_slow=_number(entries, "beta_slow") or 1.0,
        truncate=bool(entries.get("truncate", True)),
        mscale=mscale,
        mscale_all_dim=mscale_all_dim,
        attention_factor=1.0 if attention is None else attention,
        short_factor=_numbers(entries, "short_factor"),
        long_factor=_numbers(entries, "long_factor"),
        partial_rotary_factor=next(value for value in partials if value is not None),
    )
    _check(result)
    return result


def _check(rope: RopeConfig) -> None:
    """Refuses values that would divide by zero or take the logarithm of nothing."""
    fact = ""
    if not 1 < rope.theta <= 1e15:
        fact = f"theta is {rope.theta} but must be above 1 and at most 1e15"
    elif not 0 < rope.factor <= 1e6:
        fact = f"factor is {rope.factor} but must be above 0 and at most 1e6"
    elif not 0 < rope.partial_rotary_factor <= 1:
        fact = f"partial_rotary_factor is {rope.partial_rotary_factor} but must be above 0 and at most 1"
    elif rope.type == "llama3" and not 0 < rope.low_freq_factor < rope.high_freq_factor:
        fact = f"high_freq_factor {rope.high_freq_factor} must be above low_freq_factor {rope.low_freq_factor}"
    elif rope.type == "yarn" and not 0 < rope.beta_slow <= rope.beta_fast:
        fact = f"beta_fast {rope.beta_fast} must not be below beta_slow {rope.beta_slow}"
    elif rope.type == "longrope" and not (rope.short_factor and rope.long_factor):
        fact = "longrope needs the lists short_factor and long_factor"
    if fact:
        raise LoadError(f"[rope] {fact}.", hint=_HINT)


def _entries(config: Mapping[str, Any], layer_type: str | None) -> tuple[Mapping[str, Any], float | None]:
    """Finds the dictionary of scaling values and the base that hold for this kind of layer."""
    parameters = config.get("rope_parameters")
    entries: Any
    if isinstance(parameters, Mapping) and _nested(parameters):
        if layer_type is None:
            layer_type = "full_attention" if "full_attention" in parameters else next(iter(parameters))
        entries = parameters.get(layer_type)
        if entries is None:
            known = ", ".join(parameters)
            raise LoadError(f"[rope] rope_parameters has no {layer_type!r}, only {known}.", hint=_HINT)
    else:
        entries = parameters or config.get("rope_scaling") or {}
        if not isinstance(entries, Mapping):
            raise LoadError(f"[rope] rope_scaling is {entries!r} instead of an object.", hint=_HINT)
        local = _number(config, "rope_local_base_freq")
        if layer_type == "sliding_attention" and local is not None:
            return {}, local
    thetas = _number(entries, "rope_theta"), _number(config, "rope_theta"), _number(config, "rotary_emb_base")
    return entries, next((theta for theta in thetas if theta is not None), None)


def _nested(parameters: Mapping[str, Any]) -> bool:
    """Whether the dictionary has one entry for each kind of attention layer."""
    return bool(parameters) and all(value is None or isinstance(value, Mapping) for value in parameters.values())


def _attention_factor(
    kind: str, factor: float, original: int, mscale: float | None, mscale_all_dim: float | None
) -> float:
    if kind == "yarn" and factor > 1:
        log = 0.1 * math.log(factor)
        if mscale and mscale_all_dim:
            return (mscale * log + 1) / (mscale_all_dim * log + 1)
        return log + 1
    if kind == "longrope" and factor > 1:
        return math.sqrt(1 + math.log(factor) / math.log(original))
    return 1.0


def _number(source: Mapping[str, Any], key: str) -> float | None:
    """A float, or None where the key is missing or null."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise LoadError(f"[rope] {key} is {value!r} instead of a number.", hint=_HINT)
    return float(value)


def _integer(source: Mapping[str, Any], key: str) -> int | None:
    """A positive integer, or None where the key is missing or null."""
    value = _number(source, key)
    if value is None:
        return None
    if value <= 0 or value != int(value):
        raise LoadError(f"[rope] {key} is {value!r} instead of a positive integer.", hint=_HINT)
    return int(value)


def _numbers(source: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A tuple of positive floats, empty where the key is missing or null."""
    value = source.get(key)
    if value is None:
        return ()
    numbers = [_number({key: item}, key) for item in value] if isinstance(value, list) else [None]
    if not all(number is not None and number > 0 for number in numbers):
        raise LoadError(f"[rope] {key} is not a list of positive numbers.", hint=_HINT)
    return tuple(number for number in numbers if number is not None)
