"""Every architecture, op by op on Tensors, against transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import each
from parity.reference import distance, full_logits

TOLERANCE = 1e-4


@pytest.mark.parametrize("case", each())
def test_whole_text(case: Any, build_case: Callable[..., Any]) -> None:
    built = build_case(case)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    assert distance(built.module(ids).numpy(), expected) < TOLERANCE


@pytest.mark.parametrize("case", each())
def test_in_pieces(case: Any, build_case: Callable[..., Any]) -> None:
    """Chunks and single tokens through the cache give what the whole text gives at once."""
    built = build_case(case)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    step = built.module.new_step(capacity=len(ids))
    pieces, start = [], 0
    for size in (13, 1, 1, 17, 1, len(ids) // 4, len(ids)):
        piece = ids[start : start + size]
        start += len(piece)
        tokens = step.begin(piece, rope_len=len(ids))
        pieces.append(built.module.forward(tokens, step).numpy())
    assert step.length == len(ids)
    assert distance(np.concatenate(pieces), expected) < TOLERANCE
