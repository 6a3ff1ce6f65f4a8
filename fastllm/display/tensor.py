"""A tensor on a page: what it is, what its values are like, how they look, a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm._ops_stats import TensorStats, tensor_stats
from fastllm.display.chart import histogram
from fastllm.display.escape import bdi, clip, esc, visible
from fastllm.display.heat import heat_key_html, heat_map, heat_uri, reduce_plane
from fastllm.display.html import image, number, row, scroll, table
from fastllm.display.numbers import binary_size, count, percent, short
from fastllm.display.style import wrap

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = [
    "Plane", "channels_html", "facts_html", "heat_html", "histogram_html", "plane_of", "quantiles", "stats_html",
    "tensor_html", "values_html",
]  # fmt: skip

_SAMPLE = 1 << 18  # elements behind the figures of a static display
_BINS = 40
_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Two axes of a tensor, as numbers.

    Attributes:
        values: float [rows, columns]: all of them, or every so many-th row.
        row_step: Rows from one of these to the next in the tensor.
        shape: Rows and columns in the tensor.
        words: Which plane this is, such as "[3, :, :]".
    """

    values: _Array
    row_step: int
    shape: tuple[int, int]
    words: str


def plane_of(
    tensor: Tensor, *, axes: tuple[int, int] | None = None, at: Mapping[int, int] | None = None, most: int = 1 << 20
) -> Plane:
    """Two axes of a tensor, the others at an index each.

    Args:
        tensor: Any number of axes.
        axes: Rows and columns; the last two by default.
        at: Index along each other axis; 0 by default.
        most: Most elements to read; whole rows are left out beyond, evenly.
    """
    ndim = tensor.ndim
    if ndim < 2:
        flat = tensor.reshape(1, -1)
        values = flat[:, :most].numpy()
        return Plane(values=np.asarray(values), row_step=1, shape=(1, tensor.size), words="[:]")
    row_axis, column_axis = axes or (ndim - 2, ndim - 1)
    key = tuple(slice(None) if i in (row_axis, column_axis) else (at or {}).get(i, 0) for i in range(ndim))
    view = tensor[key]
    if row_axis > column_axis:
        view = view.permute(1, 0)
    rows, columns = view.shape
    words = "[" + ", ".join(":" if isinstance(item, slice) else str(item) for item in key) + "]"
    step = max(1, -(-rows * columns // most))
    if step == 1:
        values = view.numpy()
    else:
        values = np.concatenate([view[row : row + 1].numpy() for row in range(0, rows, step)])
    return Plane(values=np.asarray(values), row_step=step, shape=(rows, columns), words=words)


def quantiles(values: _Array) -> tuple[float, float, float]:
    """1 %, 50 % and 99 % of the finite values; NaN without."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (float("nan"),) * 3
    p1, median, p99 = np.percentile(finite.astype(np.float64), (1, 50, 99))
    return float(p1), float(median), float(p99)


def facts_html(tensor: Tensor, *, owner: str = "") -> str:
    """What the tensor is, as a table."""
    rows: list[tuple[str, object]] = [
        (
            "shape",
            " × ".join(map(str, tensor.shape)) + f" = {count(tensor.size)} elements"
            if tensor.shape
            else "a single number",
        ),
        ("dtype", tensor.dtype),
        ("device", tensor.device),
        ("memory", binary_size(tensor.nbytes)),
        ("layout", "contiguous" if tensor.contiguous else f"strides {list(tensor.strides)}"),
    ]
    if tensor.name:
        rows.insert(0, ("name", tensor.name))
    if owner:
        rows.append(("owner", owner))
    body = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td>{bdi(clip(str(value), 300))}</td></tr>' for name, value in rows
    )
    return f'<table class="flm1-t"><caption>Tensor</caption>{body}</table>'


def stats_html(
    stats: TensorStats, marks: tuple[float, float, float], *, integers: bool, unique: int | None = None
) -> str:
    """What the values are like, as a table; ``marks`` are the quantiles."""
    rows = [
        ("min", short(stats.min)), ("1 %", short(marks[0])), ("median", short(marks[1])), ("99 %", short(marks[2])),
        ("max", short(stats.max)), ("mean μ", short(stats.mean)), ("deviation σ", short(stats.std)),
        ("absmax", short(stats.absmax)), ("zeros", percent(stats.zeros / stats.count) if stats.count else "–"),
        ("NaN", str(stats.nan)), ("infinite", str(stats.inf)),
    ]  # fmt: skip
    if integers and unique is not None:
        rows.append(("distinct", str(unique)))
    body = "".join(
        row(esc(name), number(value, bad=name in ("NaN", "infinite") and value != "0")) for name, value in rows
    )
    said = f"of {stats.count} sampled values" if stats.sampled else f"of all {stats.count} values"
    return f'<table class="flm1-t"><caption>Values <span class="flm1-dim">{said}</span></caption>{body}</table>'


def histogram_html(stats: TensorStats, *, both: bool = True) -> str:
    """The distribution, and once more with logarithmic heights."""
    if stats.min != stats.min:
        return '<p class="flm1-dim">There are no finite values.</p>'
    plain = histogram(stats.histogram, stats.min, stats.max, label="values")
    if not both:
        return plain
    log = histogram(stats.histogram, stats.min, stats.max, log=True, label="values, logarithmic")
    return (
        f"<details open><summary>Histogram</summary>{plain}</details>"
        f"<details><summary>Histogram, logarithmic</summary>{log}</details>"
    )


def heat_html(
    plane: Plane,
    *,
    scale: str = "diverging",
    range_: str | tuple[float, float] = "auto",
    side: int = 128,
    least_px: int = 192,
) -> str:
    """A plane as a heat-map with its key."""
    small, rows, columns = reduce_plane(plane.values, side)
    heat = heat_map(small, scale=scale, range_=range_, side=side, least_px=least_px)
    rows *= plane.row_step
    note = (
        f"each cell the value of greatest magnitude among {rows} × {columns}"
        if rows * columns > 1
        else "a cell a value"
    )
    if plane.row_step > 1:
        note += f", every {plane.row_step}th row read"
    words = f"{plane.words}: {plane.shape[0]} × {plane.shape[1]}, {note}"
    height, width = heat.pixels.shape
    shown = max(width, min(256, width * 2)) if width else 1
    alt = f"heat-map of {words}; colours from {short(heat.low)} to {short(heat.high)}"
    return (
        f"<figure>{image(heat_uri(heat), alt, shown, max(1, height * shown // max(1, width)))}"
        f"<figcaption>{esc(words)}</figcaption>{heat_key_html(heat)}</figure>"
    )


def _cell(value: Any, whole: bool) -> str:
    return str(int(value)) if whole else f"{float(value):.4g}"


def values_html(
    plane: Plane,
    *,
    whole: bool,
    top: int = 0,
    left: int = 0,
    size: int = 10,
    labels: Mapping[int, Sequence[str]] | None = None,
) -> str:
    """A page of values, ``size`` × ``size`` from row ``top`` and column ``left``.

    Args:
        plane: The values.
        whole: Whether they are integers.
        top: First row.
        left: First column.
        size: Rows and columns of the page.
        labels: Names of the rows (0) and columns (1).
    """
    part = plane.values[top : top + size, left : left + size]
    names = labels or {}

    def name(axis: int, index: int) -> str:
        known = names.get(axis, ())
        return visible(known[index], 12) if index < len(known) else str(index * (plane.row_step if axis == 0 else 1))

    head = "".join(f'<th scope="col">{esc(name(1, left + i))}</th>' for i in range(part.shape[1]))
    body = "".join(
        f'<tr><th scope="row">{esc(name(0, top + i))}</th>'
        + "".join(f'<td class="n">{_cell(value, whole)}</td>' for value in line)
        + "</tr>"
        for i, line in enumerate(part)
    )
    return scroll("values", table([f"<tr><td></td>{head}</tr>", body]))


def _corner_html(plane: Plane, whole: bool) -> str:
    """The first and last three rows and columns."""

    def picks(size: int) -> list[int | None]:
        return list(range(size)) if size <= 7 else [0, 1, 2, None, size - 3, size - 2, size - 1]

    rows, columns = picks(plane.values.shape[0]), picks(plane.values.shape[1])
    body = "".join(
        "<tr>"
        + "".join(
            '<td class="n">…</td>'
            if i is None or j is None
            else f'<td class="n">{_cell(plane.values[i, j], whole)}</td>'
            for j in columns
        )
        + "</tr>"
        for i in rows
    )
    return f"<details><summary>Corner values</summary>{scroll('corner values', table([body]))}</details>"


def channels_html(plane: Plane, *, most: int = 12) -> str:
    """Rows by their greatest magnitude: outlier channels stand out from the median row."""
    with np.errstate(invalid="ignore"):
        absmax = np.nanmax(np.abs(np.where(np.isfinite(plane.values), plane.values, np.nan)), axis=1, initial=0.0)
    spread = np.nanstd(np.where(np.isfinite(plane.values), plane.values, np.nan).astype(np.float64), axis=1)
    typical = float(np.median(absmax)) if absmax.size else 0.0
    order = np.argsort(-absmax, kind="stable")[:most]
    top = float(absmax.max(initial=0.0)) or 1.0
    body = "".join(
        row(
            f"row {int(index) * plane.row_step}",
            number(short(float(absmax[index]))),
            number(short(float(spread[index]))),
            number(f"{absmax[index] / typical if typical else 0:.1f} ×"),
            '<td><svg width="160" height="10" aria-hidden="true">'
            f'<rect class="b" width="{160 * float(absmax[index]) / top:.1f}" height="10"/></svg></td>',
        )
        for index in order
    )
    title = f'Rows of greatest magnitude <span class="flm1-dim">median row: absmax {short(typical)}</span>'
    return table([body], caption=title, head=("row", "absmax", "σ", "of the median", ""))


def tensor_html(tensor: Tensor, *, owner: str = "") -> str:
    """A tensor at a glance: facts, figures, histogram, heat-map, corner. At most 40 kB, whatever its size.

    Args:
        tensor: On any device; of a large one a sample is read.
        owner: What it belongs to: a weight, the KV cache, an activation.
    """
    facts = facts_html(tensor, owner=owner)
    line = f'<p class="flm1-m">{esc(repr(tensor))}</p>'
    if not tensor.size:
        return wrap(line + facts, label="tensor")
    stats = tensor_stats(tensor, sample=_SAMPLE, bins=_BINS)
    plane = plane_of(tensor, most=1 << 18)
    whole = not tensor.dtype.floating
    unique = int(np.unique(plane.values).size) if whole else None
    numbers = stats_html(stats, quantiles(plane.values), integers=whole, unique=unique)
    picture = (
        heat_html(plane, scale="sequential" if stats.min >= 0 else "diverging", side=96) if tensor.size > 1 else ""
    )
    look = f"{picture}{histogram_html(stats)}{_corner_html(plane, whole)}"
    body = f'<div class="flm1-row"><div>{facts}{numbers}</div><div>{look}</div></div>'
    return wrap(line + body, label="tensor")
