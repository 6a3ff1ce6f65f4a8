"""One distribution before and after the sampling settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.display.chart import bars
from fastllm.display.escape import bdi, esc, visible
from fastllm.display.html import number, row, table
from fastllm.display.numbers import percent
from fastllm.display.style import wrap

__all__ = ["sampling_html", "softmax"]


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities of logits [vocab], in float64; -inf gives 0."""
    wide = np.asarray(logits, np.float64)
    top = wide.max()
    grown: npt.NDArray[np.float64] = np.exp(wide - top)
    shares: npt.NDArray[np.float64] = grown / grown.sum()
    return shares


def sampling_html(
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    names: Mapping[int, str],
    *,
    settings: Sequence[tuple[str, object]] = (),
    draws: Mapping[int, int] | None = None,
    top: int = 16,
    style: bool = True,
) -> str:
    """The most probable tokens: pale bars before the settings, full ones after.

    Args:
        before: Probabilities [vocab] of the model.
        after: Probabilities [vocab] that are drawn from; 0 where a setting dropped a token.
        names: Texts of the tokens that are shown.
        settings: Names and values.
        draws: How often each token came, of some draws.
        top: Bars.
        style: Whether to bring the stylesheet along.
    """
    order = [int(index) for index in np.argsort(-before, kind="stable")[:top]]
    drawn = draws or {}
    total = sum(drawn.values())
    marks = ["dropped" if after[i] == 0 else (f"drawn {drawn.get(i, 0)} of {total}" if total else "") for i in order]
    rows = [(names.get(i, f"id {i}"), float(after[i]), float(before[i])) for i in order]
    kept = int((after > 0).sum())
    entropy = [-math.fsum(p * math.log2(p) for p in dist[dist > 0].tolist()) for dist in (before, after)]
    said = ", ".join(f"{name} {value}" for name, value in settings)
    body = [
        row(
            bdi(visible(names.get(i, f"id {i}"), 20)),
            number(percent(float(before[i]))),
            number(percent(float(after[i]))),
            number(drawn.get(i, 0)) if total else "",
        )
        for i in order
    ]
    twin = table(body, head=("token", "model", "after", *(["drawn"] if total else [])))
    held = [percent(float(dist[order].sum())) for dist in (before, after)]
    line = (
        f"{kept} of {len(after)} tokens are left · entropy {entropy[0]:.2f} → {entropy[1]:.2f} bits"
        f" · the {len(order)} shown hold {held[0]} before, {held[1]} after"
    )
    return wrap(
        f'<p class="flm1-dim">Pale: the model at temperature 1. Full: after the settings.</p>'
        f'{bars(rows, label="probabilities", marks=marks)}<p class="flm1-use" role="status">{esc(line)}</p>'
        f'<p class="flm1-dim">{esc(said)}</p><details><summary>As a table</summary>{twin}</details>',
        label="sampling",
        style=style,
    )
