"""`deterministic=True` on a GPU: a request's bits do not depend on what else is in its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import Case
from parity.engine import Compiled, compiled
from parity.test_gpu import FAST, pytestmark  # noqa: F401  (skips where there is no GPU)


@pytest.mark.parametrize(
    ("dtype", "quant", "kv"),
    [
        ("bfloat16", None, "auto"),
        ("float16", None, "auto"),
        ("float32", None, "auto"),
        ("bfloat16", "int4", "auto"),
        ("bfloat16", "fp8", "auto"),
        ("bfloat16", None, "fp8"),
        ("bfloat16", "fp8_dynamic", "auto"),
    ],
)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in FAST])
def test_deterministic(case: Case, dtype: str, quant: str | None, kv: str, build_case: Callable[..., Any]) -> None:
    """The same bits, whatever else is in the steps: logits alone, in chunks and in a crowd; tokens and their
    probabilities alone, among 16, after a prefix hit and after preemption."""
    built = build_case(case, dtype)
    ids = case.ids()
    program = compiled(built.folder, device="cuda", quant=quant, kv_dtype=kv).program
    with Compiled(program) as engine:
        whole = engine.logits(ids)[0]
        assert np.isfinite(whole).all()
    for chunk in (64, 33, 1):
        with Compiled(program, prefill_chunk=chunk) as engine:
            assert np.array_equal(engine.logits(ids)[0], whole), f"in chunks of {chunk}"
    others = [case.ids(length, seed=length) for length in (5, 31, 18, 150, 77, 2, 64)]
    with Compiled(program, prefill_chunk=96) as engine:
        assert np.array_equal(engine.among_others(ids, others)[0], whole), "in a crowd"

    prompts = [case.ids(100, seed=1), *(case.ids(length, seed=length) for length in range(20, 95, 5))]
    with Compiled(program) as engine:
        alone = [engine.greedy_logprobs(prompt, 40) for prompt in prompts]
        assert engine.greedy_many(prompts, 40) == alone, "among 16"
    with Compiled(program, prefix_cache=True) as engine:
        engine.greedy(prompts[0], 8)
        assert engine.greedy_logprobs(prompts[0], 40) == alone[0], "after a prefix hit"
        assert engine.engine.stats()["cached_tokens"] > 0
    with Compiled(program, kv_memory_bytes=40 * 16 * program.kv_bytes_per_token) as engine:
        assert engine.greedy_many(prompts, 40) == alone, "after preemption"
        assert engine.engine.stats()["preemptions"] > 0
