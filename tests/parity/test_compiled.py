"""Every architecture, recorded, compiled and run by the real engine, against transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import each
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits, greedy

TOLERANCE = 1e-4
GREEDY = 32


@pytest.mark.parametrize("case", each())
def test_logits(case: Any, build_case: Callable[..., Any]) -> None:
    """The same logits at once, in chunks, token by token, and in a crowd; the same bits, too."""
    built = build_case(case)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    program = compiled(built.folder).program
    with Compiled(program) as engine:
        whole = engine.logits(ids)[0]
    assert distance(whole, expected) < TOLERANCE, "at once"
    with Compiled(program, prefill_chunk=7) as engine:
        chunked = engine.logits(ids)[0]
        others = [case.ids(length, seed=length) for length in (5, 31, 18, 40)]
        crowded, continued = engine.among_others(ids, others)
    assert distance(chunked, expected) < TOLERANCE, "in chunks"
    assert distance(crowded, expected) < TOLERANCE, "among others"
    with Compiled(program, prefill_chunk=1) as engine:
        single = engine.logits(ids)[0]
        alone = [engine.greedy(other, 24) for other in others]
    assert distance(single, expected) < TOLERANCE, "token by token"
    assert continued == alone
    assert np.array_equal(chunked, whole)
    assert np.array_equal(crowded, whole)
    assert np.array_equal(single, whole)


@pytest.mark.parametrize("case", each())
def test_greedy(case: Any, build_case: Callable[..., Any]) -> None:
    """The same 32 tokens with the same probabilities: the decode path, one token at a time from the cache."""
    built = build_case(case)
    prompt = case.ids(11, seed=3)
    expected, logprobs, margins = greedy(built.reference, prompt, GREEDY)
    assert min(margins) > 2e-4, "the seed gives a tie: choose another"
    with Compiled(compiled(built.folder).program) as engine:
        tokens, found = engine.greedy_logprobs(prompt, GREEDY)
    assert tokens == expected
    assert np.allclose(found, logprobs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("case", each())
def test_same_as_eager(case: Any, build_case: Callable[..., Any]) -> None:
    """One file, two ways to run: nearer to each other than to anyone else."""
    built = build_case(case)
    ids = case.ids(21, seed=9)
    with Compiled(compiled(built.folder).program) as engine:
        assert distance(engine.logits(ids)[0], built.module(ids).numpy()) < 1e-5
