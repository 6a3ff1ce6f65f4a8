"""What a number format costs: original values beside those that came back from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.display.escape import esc
from fastllm.display.heat import heat_key_html, heat_map, heat_uri, reduce_plane
from fastllm.display.html import image, number, row, table
from fastllm.display.numbers import short
from fastllm.errors import ShapeError

__all__ = ["QuantError", "quant_error", "quant_html"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantError:
    """Errors of an approximation.

    Attributes:
        max_abs: Greatest error.
        mean_abs: Mean error.
        relative: Frobenius norm of the errors over that of the original.
        cosine: Of the angle between both, as vectors.
        sqnr_db: Signal to noise, in decibel.
        worst_rows: (row, its relative error), five of them.
        not_finite: Places that were left out because a value there is NaN or infinite.
    """

    max_abs: float
    mean_abs: float
    relative: float
    cosine: float
    sqnr_db: float
    worst_rows: tuple[tuple[int, float], ...]
    not_finite: int = 0


def quant_error(original: npt.NDArray[Any], approximate: npt.NDArray[Any]) -> QuantError:
    """Errors of an approximation, in float64. Places where either is NaN or infinite are left out, and counted.

    Args:
        original: [rows, columns].
        approximate: The same shape.

    Raises:
        ShapeError: The shapes differ.
    """
    if original.shape != approximate.shape:
        raise ShapeError(
            f"[display] the reference has shape {list(original.shape)}, the tensor {list(approximate.shape)}.",
            expected=original.shape,
            actual=approximate.shape,
        )
    truth, came = original.astype(np.float64), approximate.astype(np.float64)
    finite = np.isfinite(truth) & np.isfinite(came)
    count = int(finite.sum())
    truth, came = np.where(finite, truth, 0.0), np.where(finite, came, 0.0)
    wrong = came - truth
    signal, noise = float((truth**2).sum()), float((wrong**2).sum())
    norms = np.sqrt(signal) * float(np.sqrt((came**2).sum()))
    rows = np.sqrt((wrong**2).sum(axis=-1)) / np.maximum(np.sqrt((truth**2).sum(axis=-1)), 1e-30)
    order = np.argsort(-rows, kind="stable")[:5]
    return QuantError(
        max_abs=float(np.abs(wrong).max(initial=0.0)),
        mean_abs=float(np.abs(wrong).sum() / count) if count else 0.0,
        relative=float(np.sqrt(noise / signal)) if signal else 0.0,
        cosine=float((truth * came).sum() / norms) if norms else 1.0,
        sqnr_db=float(10 * np.log10(signal / noise)) if noise and signal else float("inf"),
        worst_rows=tuple((int(row), float(rows[row])) for row in order),
        not_finite=wrong.size - count,
    )


def quant_html(
    original: npt.NDArray[Any],
    approximate: npt.NDArray[Any],
    *,
    bits_per_weight: float,
    format_name: str,
    error_bound: float | None = None,
    side: int = 96,
) -> str:
    """The errors of a format: a table of them, a map of where they lie, the worst rows.

    Args:
        original: [rows, columns].
        approximate: The same, after the format.
        bits_per_weight: With scales.
        format_name: Its name.
        error_bound: The greatest error that it promises, if it promises one.
        side: Most cells a side of the map.
    """
    error = quant_error(original, approximate)
    rows = [
        ("format", f"{format_name}, {bits_per_weight:.3g} bits a weight"), ("greatest error", short(error.max_abs)),
        ("mean error", short(error.mean_abs)), ("relative error (Frobenius)", short(error.relative)),
        ("cosine", f"{error.cosine:.6f}"), ("SQNR", f"{error.sqnr_db:.1f} dB"),
    ]  # fmt: skip
    if error.not_finite:
        rows.append(("left out, not finite", str(error.not_finite)))
    if error_bound is not None:
        held = "held" if error.max_abs <= error_bound else "NOT HELD"
        rows.insert(2, ("promised bound", f"{short(error_bound)}, {held}"))
    errors = table((row(esc(name), number(value)) for name, value in rows), caption="Errors")
    worst = table(
        (row(f"row {index}", number(short(value))) for index, value in error.worst_rows),
        caption="Worst rows, relative error",
    )
    wrong = approximate.astype(np.float64) - original.astype(np.float64)
    small, _, _ = reduce_plane(wrong, side)
    heat = heat_map(small, scale="diverging", range_="minmax", side=side)
    height, width = heat.pixels.shape
    words = f"map of the errors, from {short(heat.low)} to {short(heat.high)}"
    return (
        f'<div class="flm1-row">{errors}{worst}<figure>{image(heat_uri(heat), words, width, height)}'
        f"<figcaption>where the errors lie</figcaption>{heat_key_html(heat)}</figure></div>"
    )
