"""Matrices as pictures: a heat-map of palette pixels with marks where a colour would lie, and its key in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.display.color import hex_color, table
from fastllm.display.escape import data_uri, esc
from fastllm.display.numbers import short
from fastllm.display.png import palette_png
from fastllm.errors import InvalidRequest

__all__ = ["Heat", "heat_key_html", "heat_map", "heat_uri", "reduce_plane"]

_LEVELS = 64  # colours: the eye tells no more apart, and the file is a quarter smaller
_NAN, _UP, _DOWN, _HIGH, _LOW = range(_LEVELS, _LEVELS + 5)
_MARKS = (
    (_NAN, ("#...#", ".#.#.", "..#..", ".#.#.", "#...#")),
    (_UP, ("..#..", "..#..", ".###.", ".###.", "#####")),
    (_DOWN, ("#####", ".###.", ".###.", "..#..", "..#..")),
    (_HIGH, ("..#..", "..#..", "#####", "..#..", "..#..")),
    (_LOW, (".....", ".....", "#####", ".....", ".....")),
)
_MOST_MARKS = 4000
_Plane = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A heat-map, as pixels.

    Attributes:
        pixels: uint8 [height, width], indices into `palette`.
        palette: uint8 [n, 3].
        scale: "diverging", "sequential" or "log".
        low: Value of the first colour.
        high: Value of the last.
        cell: Pixels a side of a cell.
        nan: Cells that are not a number.
        inf: Infinite cells, of either sign.
        clipped: Finite cells outside the range.
    """

    pixels: npt.NDArray[np.uint8]
    palette: npt.NDArray[np.uint8]
    scale: str
    low: float
    high: float
    cell: int
    nan: int
    inf: int
    clipped: int


def reduce_plane(plane: _Plane, side: int) -> tuple[_Plane, int, int]:
    """A matrix of at most ``side`` rows and columns.

    Each cell is the value of greatest magnitude in a block, so that outliers stay seen; a NaN or Inf wins over all.

    Returns:
        The matrix, and the rows and columns of a block.
    """
    rows, columns = max(1, math.ceil(plane.shape[0] / side)), max(1, math.ceil(plane.shape[1] / side))
    if rows == columns == 1:
        return plane, 1, 1
    height, width = math.ceil(plane.shape[0] / rows), math.ceil(plane.shape[1] / columns)
    high, low = plane, plane
    for axis, step in ((1, columns), (0, rows)):
        if step > 1:
            edges = np.arange(0, plane.shape[axis], step)
            high = np.maximum.reduceat(high, edges, axis=axis)  # NaN goes through both
            low = np.minimum.reduceat(low, edges, axis=axis)
    out = np.where(np.abs(low) > np.abs(high), low, high)
    return out[:height, :width], rows, columns


def value_range(values: _Plane, scale: str, range_: str | tuple[float, float]) -> tuple[float, float]:
    """The values of the first and the last colour.

    Args:
        values: Finite numbers.
        scale: As in `heat_map`.
        range_: "auto" (three deviations around the mean, within the values), "minmax", or a pair.
    """
    if not isinstance(range_, str):
        low, high = float(range_[0]), float(range_[1])
    elif not values.size:
        low, high = 0.0, 1.0
    else:
        low, high = float(values.min()), float(values.max())
        if range_ == "auto":
            mean, spread = float(values.mean(dtype=np.float64)), 3 * float(values.std(dtype=np.float64))
            low, high = max(low, mean - spread), min(high, mean + spread)
    if scale == "diverging":
        high = max(abs(low), abs(high))
        low = -high
    if not high > low:
        high = low + (abs(low) or 1.0)
        low = low - (abs(low) or 1.0) if scale == "diverging" else low
    return low, high


def heat_map(
    plane: _Plane,
    *,
    scale: str = "diverging",
    range_: str | tuple[float, float] = "auto",
    side: int = 128,
    least_px: int = 192,
) -> Heat:
    """A matrix as a heat-map.

    Args:
        plane: [rows, columns] of at most ``side`` each (see `reduce_plane`).
        scale: "diverging" (0 in the middle), "sequential", or "log" (of the magnitude).
        range_: As in `value_range`.
        side: Most cells a side.
        least_px: Small matrices get larger cells, until the longer side has so many pixels.

    Raises:
        InvalidRequest: There is no such scale.
    """
    if scale not in ("diverging", "sequential", "log"):
        raise InvalidRequest(f"[display] scale is {scale!r}.", hint="It is diverging, sequential or log.")
    values = np.asarray(plane, np.float64)[:side, :side]
    nan, up, down = np.isnan(values), np.isposinf(values), np.isneginf(values)
    if scale == "log":
        with np.errstate(divide="ignore"):
            values = np.where(values == 0, np.nan, np.log10(np.abs(values)))
        least = np.nanmin(values[np.isfinite(values)]) if np.isfinite(values).any() else 0.0
        values = np.where(np.isnan(values) & ~nan, least, values)
    finite = np.isfinite(values)
    known = values[finite]
    low, high = value_range(known, scale, range_)
    with np.errstate(invalid="ignore", over="ignore"):
        index = np.clip((np.where(finite, values, 0.0) - low) / (high - low) * (_LEVELS - 1), 0, _LEVELS - 1)
    pixels = np.rint(index).astype(np.uint8)
    slack = (high - low) * 1e-9
    over, under = finite & (values > high + slack), finite & (values < low - slack)
    pixels[nan] = _NAN
    pixels[up], pixels[down] = _UP, _DOWN
    colors = table("diverging" if scale == "diverging" else "sequential")
    picks = np.rint(np.linspace(0, 255, _LEVELS)).astype(int)
    marks = np.array([[40, 40, 40], [200, 0, 120], [0, 110, 90], [255, 255, 255], [255, 255, 255]], np.uint8)
    palette = np.concatenate([colors[picks], marks])
    cell = max(1, least_px // max(pixels.shape, default=1)) if pixels.size else 1
    if cell > 1:
        pixels = np.repeat(np.repeat(pixels, cell, axis=0), cell, axis=1)
        if cell >= 7:
            _draw_marks(pixels, cell, {_NAN: nan, _UP: up, _DOWN: down, _HIGH: over, _LOW: under})
    return Heat(
        pixels=pixels, palette=palette, scale=scale, low=low, high=high, cell=cell, nan=int(nan.sum()),
        inf=int(up.sum() + down.sum()), clipped=int(over.sum() + under.sum()),
    )  # fmt: skip


def _draw_marks(pixels: npt.NDArray[np.uint8], cell: int, where: dict[int, npt.NDArray[np.bool_]]) -> None:
    """Draws a 5 x 5 sign into each cell that a colour would misrepresent: × ▲ ▼ + −."""
    at = (cell - 5) // 2
    for code, rows in _MARKS:
        sign = np.array([[mark == "#" for mark in row] for row in rows])
        ink = _HIGH if code in (_NAN, _UP, _DOWN) else _NAN
        for row, column in np.argwhere(where[code])[:_MOST_MARKS]:
            block = pixels[row * cell + at : row * cell + at + 5, column * cell + at : column * cell + at + 5]
            block[sign] = ink


def heat_uri(heat: Heat) -> str:
    """The picture as an address that holds it."""
    return data_uri(palette_png(heat.pixels, heat.palette))


def heat_key_html(heat: Heat) -> str:
    """What the colours mean: a strip of them with numbers, and how many cells no colour can show."""
    colors = heat.palette[[0, 16, 32, 47, 63]]
    middle = (heat.low + heat.high) / 2
    power = "10^" if heat.scale == "log" else ""
    strip = "".join(
        f'<rect x="{i * 30}" width="30" height="10" fill="{hex_color(color)}"/>' for i, color in enumerate(colors)
    )
    notes = [f"{heat.nan} NaN (×)"] if heat.nan else []
    notes += [f"{heat.inf} infinite (▲ ▼)"] if heat.inf else []
    notes += [f"{heat.clipped} beyond the range (+ −)"] if heat.clipped else []
    words = f"{power}{short(heat.low)} … {power}{short(middle)} … {power}{short(heat.high)}"
    return (
        f'<svg width="150" height="10" role="img" aria-label="colours from {esc(words)}">{strip}</svg>'
        f"<figcaption>{esc(words)}{esc(' · ' + ' · '.join(notes) if notes else '')}</figcaption>"
    )
