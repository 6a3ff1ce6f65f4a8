"""Exercises of notebook 12, Measure honestly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.teach._check import NotYet, exercise, sealed
from fastllm.teach._demo import as_number, function


@exercise(
    "12.1",
    kind='a function faster(a, b) that gives "a", "b" or "unclear"',
    hints=(
        "median_with_interval from section 2 gives (median, low, high) for each.",
        "They do not overlap if the one's high is below the other's low. Smaller times are faster.",
    ),
)
def _(answer: Any) -> str:
    faster = function(answer, 'check("12.1", faster)')
    dice = np.random.default_rng(121)

    def times(middle: float, spread: float, count: int = 30) -> npt.NDArray[np.float64]:
        return np.asarray(middle + spread * dice.standard_normal(count))

    base = times(10, 0.3)
    cases = [
        (times(10, 0.3), times(12, 0.3), "a", "10 ms against 12 ms, both ± 0.3"),
        (times(20, 0.5), times(15, 0.5), "b", "20 ms against 15 ms, both ± 0.5"),
        (base, base + 0.001, "unclear", "two bags that differ by a microsecond"),
        (times(10, 4.0, 8), times(10.2, 4.0, 8), "unclear", "8 runs each, ± 4 ms, nearly the same middle"),
        (np.append(times(10, 0.2), 900.0), times(11, 0.2), "a", "10 against 11 ms, where a had one hiccup of 900 ms"),
    ]
    for a, b, truth, words in cases:
        found = faster(a.copy(), b.copy())
        if not isinstance(found, str) or found not in ("a", "b", "unclear"):
            raise NotYet(f'It should give "a", "b" or "unclear", and gave {type(found).__name__}.')
        if found != truth:
            raise NotYet(f"For {words} it says {found!r}; it should be {truth!r}.")
    return 'The most valuable answer of the three is "unclear".'


@exercise(
    "12.2",
    kind="a function best_speed(bandwidth, weight_bytes, kv_bytes, context, batch)",
    hints=(
        "How many bytes does one step read? How many steps a second is that?",
        "A step makes `batch` tokens.",
    ),
)
def _(answer: Any) -> str:
    best = function(answer, 'check("12.2", best_speed)')
    dice = np.random.default_rng(122)
    for _ in range(6):
        bandwidth, weights = dice.uniform(1e10, 4e12), dice.uniform(1e7, 2e11)
        kv, context, batch = (
            float(dice.integers(1000, 400_000)),
            int(dice.integers(0, 9000)),
            int(dice.integers(1, 300)),
        )
        step_s = weights / bandwidth + batch * (context * kv / bandwidth)
        truth, found = batch / step_s, as_number(best(bandwidth, weights, kv, context, batch))
        if abs(found - truth) > 1e-6 * truth:
            raise NotYet(
                f"With {bandwidth:.3g} B/s, {weights:.3g} B of weights, {kv:.0f} B a token, context {context} "
                f"and batch {batch} it should be {truth:.4g} tokens/s, and is {found:.4g}."
            )
    return "Read it from both ends: with few requests the weights are the bill, with many long ones the KV cache is."


@exercise(
    "12.3",
    kind='letters, such as "ab"',
    hints=(
        "A sentence that somebody else could check says what ran, how often, and how sure it is.",
        "The best of many runs tells of luck; three runs tell of nothing. Two sentences are left.",
    ),
)
def _(answer: Any) -> str:
    if not isinstance(answer, str):
        raise NotYet('Letters in quotes, please, such as "ab".')
    letters = "".join(sorted({letter for letter in answer.lower() if letter.isalpha()}))
    if sealed("12.3", letters) == "17eb6e380ad93bd4":
        return "They say what ran, on what, how often, and how sure they are. One can repeat them and disagree."
    if len(letters) == 5:
        raise NotYet("All five? At least one of them does not even say what it was compared with.")
    raise NotYet(f"{letters!r} is not it. Ask of each: what exactly would I have to do to repeat this?")
