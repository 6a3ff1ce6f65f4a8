"""Exercises of notebook 05, Where attention looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_array, as_integer, demo, function

_TEXT = "Once upon a time there was a curious little fox named Pip, who lived at the edge of the forest."


@exercise(
    "5.1",
    kind="a function looks_back(pattern, distance)",
    hints=(
        "Row t, column t - distance: that is a diagonal below the main one.",
        "np.diagonal(pattern, offset=-distance, axis1=1, axis2=2) gives it for all heads.",
    ),
)
def _(answer: Any) -> str:
    looks_back = function(answer, 'check("5.1", looks_back)')
    random = np.random.default_rng(51)
    for heads, tokens, distance in ((1, 4, 1), (3, 9, 2), (2, 5, 0), (4, 12, 7)):
        pattern = np.tril(random.uniform(size=(heads, tokens, tokens)) + 1e-3)
        pattern /= pattern.sum(axis=-1, keepdims=True)
        truth = np.array([sum(p[t, t - distance] for t in range(distance, tokens)) for p in pattern])
        found = as_array(looks_back(pattern.copy(), distance), (heads,))
        if np.abs(found - truth / (tokens - distance)).max() < 1e-9:
            continue
        if np.abs(found - truth / tokens).max() < 1e-9:
            raise NotYet(f"At distance {distance} only {tokens - distance} of {tokens} tokens can look so far back.")
        if np.abs(found - truth).max() < 1e-9:
            raise NotYet("That is the sum; the mean is asked for.")
        ahead = [np.mean([p[t, t + distance] for t in range(tokens - distance)]) for p in pattern]
        if np.abs(found - ahead).max() < 1e-9:
            raise NotYet("That is the diagonal above: nobody looks ahead.")
        raise NotYet(f"For {heads} heads, {tokens} tokens and distance {distance} it is off.")
    return "With distance 1 it finds previous-token heads: humble, and nearly every transformer has some."


@exercise(
    "5.2",
    kind="a pair (layer, head)",
    hints=(
        "Capture the patterns of the text, and call looks_back(seen.attention(layer).numpy(), 1) for each layer.",
        "np.unravel_index(table.argmax(), table.shape) gives the place of the largest number.",
    ),
)
def _(answer: Any) -> str:
    if not isinstance(answer, (tuple, list, np.ndarray)) or len(answer) != 2:
        raise NotYet("This wants a pair such as (4, 2): the layer, then the head, both counted from 0.")
    layer, head = (as_integer(number) for number in answer)
    table = _previous()
    if not (0 <= layer < table.shape[0] and 0 <= head < table.shape[1]):
        raise NotYet(f"There are {table.shape[0]} layers and {table.shape[1]} heads, counted from 0.")
    best = tuple(int(place) for place in np.unravel_index(int(table.argmax()), table.shape))
    if (layer, head) != best:
        swapped = " (Head first, then layer?)" if (head, layer) == best else ""
        raise NotYet(f"That head pays {table[layer, head]:.0%} to the token before. Another one pays more.{swapped}")
    return f"{table[best]:.0%} of its attention, in the second layer: later heads can build on knowing the neighbour."


@exercise(
    "5.3",
    kind="a function settled(scores)",
    hints=(
        "best = scores.argmax(axis=-1) is the favourite after each layer.",
        "Go from the last layer down for as long as the favourite is the last one's.",
    ),
)
def _(answer: Any) -> str:
    settled = function(answer, 'check("5.3", settled)')
    for favourites, truth in (
        ([3, 1, 2, 2, 2], 2),
        ([2, 1, 2, 2], 2),
        ([1, 1, 1], 0),
        ([0, 1, 2, 3], 3),
        ([4, 4, 0, 4, 4, 4], 3),
        ([1], 0),
    ):
        random = np.random.default_rng(len(favourites))
        scores = random.normal(size=(len(favourites), 5))
        scores[np.arange(len(favourites)), favourites] = 9
        found = as_integer(settled(scores))
        if found != truth:
            early = " It was the favourite before, but lost its place again." if found < truth else ""
            raise NotYet(
                f"If the best tokens are {favourites}, it is settled from layer {truth} on, not {found}.{early}"
            )
    return "Plotted over a text, this number shows which words are easy and which ones need the whole model."


def _previous() -> npt.NDArray[np.float64]:
    """Mean attention to the token before, [layers, heads]."""
    seen = demo().blocking.capture(_TEXT, "blocks.*.attn.pattern")
    tables = [np.asarray(seen.attention(layer)) for layer in range(seen.layers)]
    return np.array([[np.diagonal(head, offset=-1).mean() for head in table] for table in tables])
