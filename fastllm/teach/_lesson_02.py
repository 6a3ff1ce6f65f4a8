"""Exercises of notebook 02, One step, slowly."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_array, as_integer, demo, function, wait_for


@exercise(
    "2.1",
    kind="a function softmax_at(scores, temperature)",
    hints=(
        "Divide, subtract the largest, exp, divide by the sum: in this order.",
        "Temperature 0 cannot be divided by. Treat it first: zeros, and a 1 at scores.argmax().",
    ),
)
def _(answer: Any) -> str:
    softmax = function(answer, 'check("2.1", softmax_at)')
    random = np.random.default_rng(21)
    cases = [(random.normal(0, 4, 50), t) for t in (1.0, 0.5, 2.0, 0.05)]
    cases += [(np.array([1000.0, 999.0]), 1.0), (np.array([-5.0, 1e4, 3.0]), 0.7)]
    for scores, temperature in cases:
        wide = np.asarray(scores, np.longdouble) / temperature
        truth = np.exp(wide - wide.max())
        truth /= truth.sum()
        with np.errstate(all="ignore"):
            found = as_array(softmax(scores.copy(), temperature), scores.shape)
        where = f"For {_scores(scores)} at temperature {temperature:g}"
        if abs(found.sum() - 1) > 1e-6:
            raise NotYet(f"{where} the sum is {found.sum():.4f}, not 1.")
        if np.abs(found - truth).max() > 1e-6:
            raise NotYet(
                f"{where} the largest probability is {found.max():.4f}; it should be {float(truth.max()):.4f}."
            )
    for scores in (np.array([0.5, 3.0, 1.0]), np.array([2.0, 2.0, -1.0])):
        with np.errstate(all="ignore"):
            found = as_array(softmax(scores.copy(), 0), scores.shape)
        truth = np.zeros(3)
        truth[int(scores.argmax())] = 1
        if np.abs(found - truth).max() > 1e-9:
            raise NotYet(
                f"At temperature 0, {_scores(scores)} should give {truth.tolist()}; it gives {found.tolist()}."
            )
    return "Low temperatures sharpen, high ones flatten, and 0 is greedy: the limit, treated as a case of its own."


@exercise(
    "2.2",
    kind="a function draw(probabilities, u)",
    hints=(
        "Lay the probabilities side by side on a line from 0 to 1. Where does u fall?",
        "np.cumsum gives the right ends of the pieces; which is the first one beyond u?",
    ),
)
def _(answer: Any) -> str:
    draw = function(answer, 'check("2.2", draw)')
    cases = [
        ([0.5, 0.25, 0.25], [(0.0, 0), (0.49, 0), (0.5, 1), (0.74, 1), (0.75, 2), (0.999, 2)]),
        ([0.0, 1.0], [(0.0, 1), (0.9, 1)]),
        ([0.125, 0.0, 0.875], [(0.124, 0), (0.125, 2), (0.5, 2)]),
    ]
    for probabilities, draws in cases:
        for u, truth in draws:
            found = as_integer(draw(np.array(probabilities), u))
            if found != truth:
                raise NotYet(f"draw({probabilities}, {u}) should be {truth}, and is {found}.")
    random = np.random.default_rng(22)
    weights = random.dirichlet(np.ones(7))
    found_counts = np.zeros(7)
    for u in (np.arange(4000) + 0.5) / 4000:
        found_counts[as_integer(draw(weights, float(u)))] += 1
    if np.abs(found_counts / 4000 - weights).max() > 0.001:
        raise NotYet("The shares do not follow the probabilities: at 4000 even steps of u they are off by over 0.1 %.")
    return "This is the engine's draw, too. Its u comes from a counter-based generator, keyed by seed and position."


@exercise(
    "2.3",
    kind="a function made with `async def greedy(model, ids, count)`",
    hints=(
        "logits[-1] is the row that asks what comes next; argmax is the greedy choice.",
        "ids + [new] makes a longer list without changing the one you were given.",
        "Inside the loop: ids = ids + [new]; found.append(new); if new is in model.tokenizer.eos_ids: break.",
    ),
)
def _(answer: Any) -> str:
    greedy = function(answer, 'check("2.3", greedy)')
    model = demo()
    for prompt, count in (("Why is the sky blue?", 6), ("What is 12 + 30?", 40)):
        ids = model.tokenize(prompt)
        truth = list(model.blocking.generate(ids, temperature=0, max_new_tokens=count).token_ids)
        given = list(ids)
        found = wait_for(greedy, model, given, count)
        if given != ids:
            raise NotYet("It changed the list it was given. Make a new one: ids = ids + [new].")
        if not isinstance(found, (list, tuple)):
            raise NotYet(f"It should give a list of ids, and gave {type(found).__name__}.")
        if list(found) == ids + truth:
            raise NotYet("Only the new ids, please, without those of the prompt.")
        numbers = [as_integer(item) for item in found]
        if len(numbers) > len(truth) and numbers[: len(truth)] == truth:
            raise NotYet(f"For {prompt!r} it goes on after token {truth[-1]}, which ends a text.")
        if len(numbers) < len(truth):
            raise NotYet(
                f"For {prompt!r} there should be {len(truth)} new ids, the end token included; got {len(numbers)}."
            )
        if numbers != truth:
            raise NotYet(f"For {prompt!r} the engine chose {truth[:6]}..., and yours {numbers[:6]}...")
    return "Token for token what the engine makes. (How many times slower was it? Notebook 06 asks that.)"


def _scores(scores: Any) -> str:
    return f"{np.asarray(scores).tolist()}" if len(scores) <= 4 else f"{len(scores)} random scores"
