"""Charts as SVG, written by hand: histograms, bars, lines. Numbers stand beside every one of them as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastllm.display.escape import esc, visible
from fastllm.display.html import number, row, svg, table
from fastllm.display.numbers import percent, short

__all__ = ["bars", "histogram", "line", "stacked"]


def histogram(counts: Sequence[int], low: float, high: float, *, log: bool = False, label: str = "") -> str:
    """Counts in equal bins from ``low`` to ``high``; with ``log``, heights grow with the logarithm."""
    width, height, top = 320, 96, max(counts, default=0)
    heights = [math.log1p(count) if log else float(count) for count in counts]
    most = max(heights, default=0.0) or 1.0
    step = width / max(1, len(counts))
    body = "".join(
        f'<rect class="b" x="{i * step:.1f}" y="{height - max(1.0, value / most * (height - 4)):.1f}"'
        f' width="{max(0.5, step - 0.8):.1f}" height="{max(1.0, value / most * (height - 4)):.1f}"/>'
        for i, value in enumerate(heights)
        if value
    )
    words = f"{label or 'histogram'}: {len(counts)} bins from {short(low)} to {short(high)}, fullest {top}"
    body = (
        f'{body}<path class="l" d="M0 {height + 0.5}H{width}"/>'
        f'<text x="0" y="{height + 13}">{esc(short(low))}</text>'
        f'<text x="{width}" y="{height + 13}" text-anchor="end">{esc(short(high))}</text>'
        f'<text class="d" x="{width}" y="10" text-anchor="end">{"log, " if log else ""}max {top}</text>'
    )
    return svg(width, height + 16, words, body)


def bars(
    rows: Sequence[tuple[str, float, float | None]], *, label: str, most: float | None = None, marks: Sequence[str] = ()
) -> str:
    """Horizontal bars: (name, value, value before or None); the value before is drawn pale behind.

    Args:
        rows: What to draw; values are shares, written as percentages.
        label: What it is.
        most: The value of a full bar; that of the longest by default.
        marks: A word behind each bar.
    """
    most = most or max((max(value, before or 0.0) for _, value, before in rows), default=0.0) or 1.0
    left, wide, step = 130, 260, 18
    parts = []
    for i, (name, value, before) in enumerate(rows):
        y = i * step
        if before is not None:
            parts.append(f'<rect class="b2" x="{left}" y="{y + 2}" width="{before / most * wide:.1f}" height="14"/>')
        parts.append(f'<rect class="b" x="{left}" y="{y + 4}" width="{value / most * wide:.1f}" height="10"/>')
        mark = f" {marks[i]}" if i < len(marks) and marks[i] else ""
        end = left + max(value, before or 0.0) / most * wide + 5
        parts.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{esc(visible(name, 16))}</text>'
            f'<text x="{end:.1f}" y="{y + 13}">{esc(percent(value))}{esc(mark)}</text>'
        )
    words = f"{label}: " + ", ".join(f"{visible(name, 16)} {percent(value)}" for name, value, _ in rows[:12])
    height = max(step, step * len(rows))
    return svg(500, height, words, "".join(parts))


def line(values: Sequence[float], *, label: str, unit: str = "", width: int = 220, height: int = 44) -> str:
    """A small line of values over time, the last at the right."""
    top = max(values, default=0.0) or 1.0
    points = " ".join(
        f"{i * width / max(1, len(values) - 1):.1f},{height - 2 - value / top * (height - 6):.1f}"
        for i, value in enumerate(values)
    )
    last = values[-1] if values else 0.0
    words = f"{label}: now {short(last)}{unit}, at most {short(max(values, default=0.0))}{unit}"
    drawn = f'<polyline class="a" stroke-width="1.5" points="{points}"/>'
    return svg(width, height, words, f'<path class="l" d="M0 {height - 1.5}H{width}"/>{drawn}')


_STACK = ("#4a8fd6", "#d08a2c", "#5a9e6f", "#8a939c", "#a06cc0", "#b8475e")


def stacked(parts: Sequence[tuple[str, float, str]], *, label: str, width: int = 480) -> str:
    """One bar of parts side by side: (name, size, size in words), with a list of them below."""
    total = math.fsum(size for _, size, _ in parts) or 1.0
    x, drawn, listed = 0.0, [], []
    for i, (name, size, words) in enumerate(parts):
        wide = size / total * width
        color = _STACK[i % len(_STACK)]
        drawn.append(f'<rect x="{x:.1f}" width="{wide:.1f}" height="18" fill="{color}"/>')
        square = f'<rect width="10" height="10" fill="{color}"/>'
        mark = f'<svg class="i" width="10" height="10" aria-hidden="true">{square}</svg>'
        listed.append(row(f"{mark} {esc(name)}", number(words), number(percent(size / total))))
        x += wide
    said = ", ".join(f"{name} {words}" for name, _, words in parts)
    return svg(width, 18, f"{label}: {said}", "".join(drawn)) + table(listed)
