"""Exercises of notebook 03, The sampling lab."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_array, as_number, demo, function

F64 = npt.NDArray[np.float64]


def _cases(seed: int) -> list[F64]:
    random = np.random.default_rng(seed)
    shapes = [random.dirichlet(np.full(size, sharpness)) for size in (3, 12, 60) for sharpness in (0.1, 1.0, 5.0)]
    return [np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7]), np.array([0.01, 0.94, 0.05]), *shapes]


def _compare(found: F64, truth: F64, where: str) -> None:
    kept, wanted = int((found > 0).sum()), int((truth > 0).sum())
    if kept != wanted:
        raise NotYet(f"{where} {wanted} tokens should be kept, and you keep {kept}.")
    if abs(found.sum() - 1) > 1e-9:
        raise NotYet(f"{where} the sum is {found.sum():.4f}. Make it 1 again.")
    if np.abs(found - truth).max() > 1e-9:
        raise NotYet(f"{where} the number of kept tokens is right, but not which, or not with what probability.")


@exercise(
    "3.1",
    kind="a function top_p(probabilities, p)",
    hints=(
        "np.argsort(probabilities)[::-1] is the order from best to worst; np.cumsum of it is the running sum.",
        "A token is kept if the sum *before* it is below p.",
    ),
)
def _(answer: Any) -> str:
    top_p = function(answer, 'check("3.1", top_p)')
    for probabilities in _cases(31):
        for p in (0.3, 0.65, 0.9, 1.0):
            truth, total = np.zeros_like(probabilities), 0.0
            for index in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
                if total >= p:
                    break
                truth[index] = probabilities[index]
                total += probabilities[index]
            truth /= truth.sum()
            given = probabilities.copy()
            found = as_array(top_p(given, p), probabilities.shape)
            if not np.array_equal(given, probabilities):
                raise NotYet("It changed the array it was given. Work on a copy.")
            _compare(found, truth, f"With {_words(probabilities)} and p = {p}")
    return "Holtzman and others, 2019: the nucleus. It grows where the model is unsure and shrinks where it is sure."


@exercise(
    "3.2",
    kind="a function min_p(probabilities, share)",
    hints=("The bound is share * probabilities.max().", "np.where(probabilities >= bound, probabilities, 0)"),
)
def _(answer: Any) -> str:
    min_p = function(answer, 'check("3.2", min_p)')
    for probabilities in _cases(32):
        for share in (0.0, 0.05, 0.4, 1.0):
            truth = np.array([q if q >= share * max(probabilities) else 0.0 for q in probabilities])
            truth /= truth.sum()
            given = probabilities.copy()
            found = as_array(min_p(given, share), probabilities.shape)
            if not np.array_equal(given, probabilities):
                raise NotYet("It changed the array it was given. Work on a copy.")
            _compare(found, truth, f"With {_words(probabilities)} and a share of {share}")
    return "One line, and it looks at the shape of the distribution, not at a count."


@exercise(
    "3.3",
    kind='a dict such as {"temperature": 1.0, "top_p": 0.8}',
    hints=(
        "In the poem the best token has over 90 %. In the garden, about fourteen have 7 % each.",
        "top-k cannot do it. Either of the two others can.",
        "Which share of 0.94 is larger than 0.03? Which sum is reached by 0.94 alone?",
    ),
)
def _(answer: Any) -> str:
    if not isinstance(answer, dict) or not answer:
        raise NotYet(f"This wants a dict of settings, and got {type(answer).__name__}.")
    known = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    if strange := sorted(set(map(str, answer)) - set(known)):
        raise NotYet(f"{', '.join(strange)} is none of the four knobs {', '.join(known)}.")
    settings = {name: as_number(answer.get(name, value)) for name, value in known.items()}
    if settings["temperature"] < 1:
        raise NotYet("The temperature must be at least 1: cooling is no cutting.")
    counts = {place: _survivors(place, settings) for place in ("A poem about the", "In the garden there was a")}
    poem, garden = counts.values()
    if poem != 1:
        raise NotYet(f"The poem can still go on in {poem} ways; it should be one.")
    if garden < 12:
        raise NotYet(f"The garden has only {garden} ways left; twelve or more are good ones.")
    if garden > 20:
        raise NotYet(f"The garden has {garden} ways; most of them are from the tail.")
    return f"One way for the poem, {garden} for the garden: the knob follows the shape. That is what a good knob does."


def _survivors(place: str, settings: dict[str, float]) -> int:
    """Tokens with a chance after temperature, top-k, top-p and min-p."""
    scores = demo().blocking.logits(place)[-1].astype(np.float64) / settings["temperature"]
    powers = np.sort(np.exp(scores - scores.max()))[::-1]
    probabilities = powers / powers.sum()
    if settings["top_k"]:
        probabilities = probabilities[: int(settings["top_k"])]
        probabilities = probabilities / probabilities.sum()
    before = np.cumsum(probabilities) - probabilities
    probabilities = probabilities[before < settings["top_p"]]
    return int((probabilities >= settings["min_p"] * probabilities[0]).sum())


def _words(probabilities: F64) -> str:
    return str(probabilities.tolist()) if len(probabilities) == 3 else f"{len(probabilities)} random probabilities"
