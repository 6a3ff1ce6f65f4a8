"""The logit lens (nostalgebraist 2020): what each layer would say if it were the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.display.escape import esc, visible
from fastllm.display.html import scroll, table
from fastllm.display.numbers import percent
from fastllm.display.style import wrap

__all__ = ["lens_html"]

_MAX_CELLS = 900


def lens_html(
    layers: Sequence[str],
    labels: Sequence[str],
    texts: Sequence[Sequence[Sequence[str]]],
    logprobs: npt.NDArray[Any],
    *,
    target_rank: npt.NDArray[Any] | None = None,
    target_logprob: npt.NDArray[Any] | None = None,
    positions: Sequence[int] | None = None,
    style: bool = True,
) -> str:
    """A table: a row a layer (the last at the top), a column a position.

    Args:
        layers: Names of the L layers, first to last.
        labels: Texts of the tokens at the P positions.
        texts: [L][P][k], what a layer puts first, second, ...
        logprobs: [L, P, k] of these.
        target_rank: [L, P], rank of the token that is followed, 0 for the first.
        target_logprob: [L, P], its log-probability.
        positions: Their numbers.
        style: Whether to bring the stylesheet along.
    """
    count = len(labels)
    first = max(0, count - max(1, _MAX_CELLS // max(1, len(layers))))
    numbers = list(positions) if positions is not None else list(range(count))
    head = "".join(
        f'<th scope="col">{numbers[place]}<br><bdi>{esc(visible(labels[place], 12))}</bdi></th>'
        for place in range(first, count)
    )
    rows = []
    for row in reversed(range(len(layers))):
        cells = []
        for place in range(first, count):
            share = math.exp(min(0.0, float(logprobs[row, place, 0])))
            strength = min(9, int(share * 10))
            rank = ""
            if target_rank is not None:
                rank = f'<br><span class="flm1-m">rank {int(target_rank[row, place]) + 1}</span>'
            others = ", ".join(
                f"{visible(text, 16)} {percent(math.exp(min(0.0, float(value))))}"
                for text, value in zip(texts[row][place], logprobs[row, place], strict=False)
            )
            cells.append(
                f'<td class="s{strength}" title="{esc(others)}"><bdi>{esc(visible(texts[row][place][0], 12))}</bdi>'
                f"<br>{percent(share, 0)}{rank}</td>"
            )
        rows.append(f'<tr><th scope="row">{esc(layers[row])}</th>{"".join(cells)}</tr>')
    cut = f"<p>The last {count - first} of {count} positions.</p>" if first else ""
    rising = ""
    if target_logprob is not None and count:
        mean = np.exp(np.asarray(target_logprob, np.float64)).mean(axis=1)
        said = ", ".join(f"{name} {percent(float(value), 0)}" for name, value in zip(layers, mean, strict=True))
        rising = f'<p class="flm1-dim">Mean probability of the final token: {esc(said)}</p>'
    title = "Logit lens: top token of each layer, its probability"
    title += ", rank of the final token" if target_rank is not None else ""
    return wrap(
        f"{scroll('logit lens', table([f'<tr><td></td>{head}</tr>', *rows], caption=title))}{cut}{rising}"
        '<p class="flm1-dim">Stronger background: more probable.</p>',
        label="logit lens",
        style=style,
    )
