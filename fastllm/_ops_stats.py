"""Figures about a tensor, and the line that shows them.

``Tensor f16 [32, 4096] cpu 256 KiB · x∈[-3.91 ▁▂▅█▅▂▁ 4.02] μ=-0.001 σ=0.71 · 0.2 % zero``
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["TensorStats", "one_line", "tensor_stats"]

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 7
_SAMPLE = 1 << 16  # elements read for a one-line repr: a few hundred microseconds
_RUN = 128  # elements next to each other in a sample
_FEW = 6  # so many numbers are shown themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStats:
    """What the values of a tensor are like. The figures are of the finite values; NaN where there are none.

    Attributes:
        count: Elements looked at.
        sampled: Whether there are more that were not.
        min: Least value.
        max: Greatest value.
        mean: Mean.
        std: Standard deviation.
        absmax: Greatest magnitude.
        zeros: How many are exactly zero.
        nan: How many are not a number.
        inf: How many are infinite, of either sign.
        histogram: Counts in equal bins from min to max.
    """

    count: int
    sampled: bool
    min: float
    max: float
    mean: float
    std: float
    absmax: float
    zeros: int
    nan: int
    inf: int
    histogram: tuple[int, ...]


def tensor_stats(tensor: Tensor, *, sample: int | None = None, bins: int = _BINS) -> TensorStats:
    """Figures of all elements, or of about ``sample`` elements at even distances."""
    values, sampled = _values(tensor, sample)
    finite_mask = np.isfinite(values)
    finite = values if finite_mask.all() else values[finite_mask]
    nan = int(np.isnan(values).sum())
    inf = int(values.size - finite.size) - nan
    if not finite.size:
        none = float("nan")
        return TensorStats(
            count=values.size, sampled=sampled, min=none, max=none, mean=none, std=none, absmax=none, zeros=0, nan=nan,
            inf=inf, histogram=(0,) * bins,
        )  # fmt: skip
    low, high = float(finite.min()), float(finite.max())
    histogram = (finite.size, *(0,) * (bins - 1))
    if high > low:
        scale = bins / (high - low) if np.isfinite(high - low) else 0.0
        places = np.minimum(((finite - low) * scale).astype(np.int64), bins - 1)
        histogram = tuple(int(count) for count in np.bincount(places, minlength=bins))
    return TensorStats(
        count=values.size,
        sampled=sampled,
        min=low,
        max=high,
        mean=float(finite.mean()),
        std=float(finite.std()),
        absmax=max(abs(low), abs(high)),
        zeros=int((finite == 0).sum()),
        nan=nan,
        inf=inf,
        histogram=histogram,
    )


def _values(tensor: Tensor, sample: int | None) -> tuple[npt.NDArray[np.float64], bool]:
    """The elements as float64: all of them, or runs at even distances, so that only those are read."""
    size = tensor.size
    if sample is None or size <= sample:
        return tensor.numpy().astype(np.float64).reshape(-1), False
    if tensor.dtype.numpy is not None and tensor.device == "cpu":
        array = tensor.numpy()
        if tensor.contiguous:
            starts = np.linspace(0, size - _RUN, sample // _RUN).astype(np.int64)
            picked = array.reshape(-1)[starts[:, None] + np.arange(_RUN)]
        else:  # the same step along every axis
            step = math.ceil((size / sample) ** (1 / tensor.ndim))
            picked = array[(slice(None, None, step),) * tensor.ndim]
        return picked.astype(np.float64).reshape(-1), True
    if tensor.contiguous:
        flat, run = tensor.reshape(-1), max(1, sample // 32)  # each run is a conversion by the engine
        starts = np.linspace(0, size - run, 32).astype(np.int64)
        return np.concatenate([flat[int(at) : int(at) + run].numpy() for at in starts]).astype(np.float64), True
    if tensor.ndim == 1:
        return tensor[:sample].numpy().astype(np.float64), True
    picks = np.linspace(0, tensor.shape[0] - 1, min(tensor.shape[0], 16)).astype(np.int64)
    return np.concatenate([_values(tensor[int(row)], max(_RUN, sample // 16))[0] for row in picks]), True


def one_line(tensor: Tensor) -> str:
    """The repr of a tensor: type, shape, place, size, then the values or what they are like."""
    head = f"Tensor {tensor.dtype.short} {list(tensor.shape)} {tensor.device} {_bytes(tensor.nbytes)}"
    if tensor.name:
        head += f" {tensor.name}"
    if not tensor.size:
        return f"{head} · empty"
    if tensor.size <= _FEW:
        return f"{head} · {_few(tensor.tolist())}"
    stats = tensor_stats(tensor, sample=_SAMPLE)
    parts = []
    if stats.min == stats.min:
        if stats.min == stats.max:
            parts.append(f"all {_short(stats.min)}" if stats.nan + stats.inf == 0 else f"else {_short(stats.min)}")
        else:
            line = f"x∈[{_short(stats.min)} {_sparkline(stats.histogram)} {_short(stats.max)}]"
            parts.append(f"{line} μ={_short(stats.mean)} σ={_short(stats.std)}")
        if 0 < stats.zeros < stats.count - stats.nan - stats.inf:
            share = 100 * stats.zeros / stats.count
            parts.append(f"{share:.1f} % zero" if share >= 0.05 else "<0.1 % zero")
    about = "≥" if stats.sampled else ""
    if stats.nan:
        parts.append(f"NaN!×{about}{stats.nan}")
    if stats.inf:
        parts.append(f"Inf!×{about}{stats.inf}")
    if stats.sampled:
        parts.append("sampled")
    return f"{head} · {' · '.join(parts)}"


def _sparkline(counts: tuple[int, ...]) -> str:
    top = max(counts)
    return "".join(_BARS[round(count / top * (len(_BARS) - 1))] if count else " " for count in counts)


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    return f"{value:.3g}"


def _few(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_few(item) for item in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            break
    return f"{size:.0f} {unit}" if size >= 100 or size == int(size) else f"{size:.1f} {unit}"
