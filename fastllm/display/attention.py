"""Where heads look: a token × token map, thumbnails of all heads, lines between tokens, and the strongest in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.display.escape import bdi, esc, visible
from fastllm.display.heat import heat_key_html, heat_map, heat_uri, reduce_plane
from fastllm.display.html import image, number, scroll, svg, table
from fastllm.display.numbers import percent
from fastllm.display.style import wrap
from fastllm.errors import ShapeError

__all__ = ["attention_grid_html", "attention_html", "attention_lines_html", "strongest_html"]

_Pattern = npt.NDArray[Any]
_MOST_LINES = 64
_MOST_LABELS = 64


def _check(pattern: _Pattern, labels: Sequence[str], ndim: int) -> None:
    if pattern.ndim != ndim or pattern.shape[-1] != pattern.shape[-2] or pattern.shape[-1] != len(labels):
        wanted = "[tokens, tokens]" if ndim == 2 else "[heads, tokens, tokens]"
        raise ShapeError(
            f"[display] an attention pattern has the shape {wanted} with a label a token, but got "
            f"{list(pattern.shape)} and {len(labels)} labels.",
            actual=pattern.shape,
        )


def attention_html(pattern: _Pattern, labels: Sequence[str], *, layer: int, head: int, style: bool = True) -> str:
    """One head: rows are the tokens that look, columns those that are looked at.

    Args:
        pattern: [tokens, tokens], each row sums to 1.
        labels: Texts of the tokens.
        layer: Its layer.
        head: Its place there.
        style: Whether to bring the stylesheet along.

    Raises:
        ShapeError: The pattern and the labels do not fit together.
    """
    _check(pattern, labels, 2)
    count = len(labels)
    small, step, _ = reduce_plane(pattern, 128)
    heat = heat_map(small, scale="sequential", range_=(0.0, 1.0), side=128, least_px=1)
    cell = max(3, min(16, 420 // max(1, count))) * step
    shown = small.shape[0] * cell
    named = count <= _MOST_LABELS and cell >= 7
    left = 92 if named else 24
    texts = []
    if named:
        for i, label in enumerate(labels):
            word = esc(visible(label, 11))
            at, font = f"{left + i * cell + cell * 0.75:.0f}", f'style="font-size:{min(11, cell)}px"'
            texts.append(f'<text x="{left - 4}" y="{at}" text-anchor="end" {font}>{word}</text>')
            texts.append(f'<text transform="translate({at} {left - 4}) rotate(-90)" {font}>{word}</text>')
    picture = (
        f'<image href="{heat_uri(heat)}" x="{left}" y="{left}" width="{shown}" height="{shown}"'
        ' style="image-rendering:pixelated"/>'
    )
    size = left + shown + 4
    said = f"attention of layer {layer}, head {head}: {count} × {count} tokens; rows look at columns"
    return wrap(
        f"<figure>{scroll('attention map', svg(size, size, said, picture + ''.join(texts), 'max-width:none'))}"
        f"<figcaption>{esc(said)}</figcaption>{heat_key_html(heat)}</figure>"
        f"{strongest_html(pattern, labels)}",
        label=said,
        style=style,
    )


def strongest_html(pattern: _Pattern, labels: Sequence[str], *, top: int = 3, most: int = 200) -> str:
    """The text twin: what each token looks at most."""
    rows = []
    for query in range(min(most, len(labels))):
        order = np.argsort(-pattern[query], kind="stable")[:top]
        looks = ", ".join(
            f"{esc(visible(labels[key], 16))} {percent(float(pattern[query, key]))}"
            for key in order
            if pattern[query, key] > 0
        )
        name = f'<th scope="row">{bdi(visible(labels[query], 20))}</th>'
        rows.append(f"<tr>{number(query)}{name}<td><bdi>{looks}</bdi></td></tr>")
    cut = f"<p>The first {most} of {len(labels)} tokens.</p>" if len(labels) > most else ""
    words = table(rows, head=("#", "token", "looks most at"))
    return f"<details><summary>Strongest, in words</summary>{words}{cut}</details>"


def attention_grid_html(patterns: _Pattern, labels: Sequence[str], *, layer: int, style: bool = True) -> str:
    """All heads of a layer as thumbnails, each with what makes heads differ, in numbers.

    Args:
        patterns: [heads, tokens, tokens].
        labels: Texts of the tokens.
        layer: The layer.
        style: Whether to bring the stylesheet along.

    Raises:
        ShapeError: The patterns and the labels do not fit together.
    """
    _check(patterns, labels, 3)
    figures = []
    count = len(labels)
    for head, pattern in enumerate(patterns):
        small, _, _ = reduce_plane(pattern, 64)
        heat = heat_map(small, scale="sequential", range_=(0.0, 1.0), side=64, least_px=1)
        first = float(pattern[:, 0].mean()) if count else 0.0
        itself = float(np.diagonal(pattern).mean()) if count else 0.0
        before = float(np.diagonal(pattern, -1).mean()) if count > 1 else 0.0
        words = f"itself {percent(itself, 0)}, before {percent(before, 0)}, first {percent(first, 0)}"
        figures.append(
            f"<figure>{image(heat_uri(heat), f'head {head}: {words}', 112, 112)}"
            f"<figcaption>head {head}<br>{esc(words)}</figcaption></figure>"
        )
    return wrap(
        f"<p>Layer {layer}, {len(patterns)} heads; mean weight on the token itself, the one before, the first.</p>"
        f'<div class="flm1-row">{"".join(figures)}</div>',
        label=f"attention heads of layer {layer}",
        style=style,
    )


def attention_lines_html(
    pattern: _Pattern, labels: Sequence[str], *, layer: int, head: int, least: float = 0.08, style: bool = True
) -> str:
    """One head as lines from the tokens that look (left) to those looked at (right); up to 64 tokens.

    Args:
        pattern: [tokens, tokens].
        labels: Texts of the tokens.
        layer: Its layer.
        head: Its place there.
        least: Weights below are left out.
        style: Whether to bring the stylesheet along.

    Raises:
        ShapeError: The pattern and the labels do not fit together.
    """
    _check(pattern, labels, 2)
    count = min(_MOST_LINES, len(labels))
    step, left, right = 18, 130, 330
    parts = []
    for query in range(count):
        y = query * step + 12
        word = esc(visible(labels[query], 16))
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{word}</text>')
        parts.append(f'<text x="{right + 6}" y="{y + 4}">{word}</text>')
        for key in range(count):
            weight = float(pattern[query, key])
            if weight >= least:
                look = f'stroke-width="{0.5 + 3 * weight:.1f}" opacity="{0.15 + 0.85 * weight:.2f}"'
                parts.append(f'<path class="a" d="M{left} {y}L{right} {key * step + 12}" {look}/>')
    cut = f"<p>The first {count} of {len(labels)} tokens.</p>" if count < len(labels) else ""
    said = f"lines of layer {layer}, head {head}: weights from {percent(least, 0)}"
    return wrap(
        f"<figure>{svg(460, count * step + 6, said, ''.join(parts))}"
        f"<figcaption>{esc(said)}</figcaption></figure>{cut}{strongest_html(pattern, labels)}",
        label=said,
        style=style,
    )
