"""Weight formats on the CPU against transformers that computes with the same rounded weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from parity.cases import BY_ID
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits, quantized


@pytest.mark.parametrize("quant", ["fp8_dynamic", "fp8", "int4"])
@pytest.mark.parametrize("name", ["llama-gqa", "qwen2", "phi3"])
def test_products_with_codes(name: str, quant: str, build_case: Callable[..., Any]) -> None:
    """The logits of transformers with the same codes, at once and in chunks.

    Where inputs become codes, a difference in the last bit may choose another: there, a quarter of what codes change.
    """
    case = BY_ID[name]
    built = build_case(case)
    ids = case.ids()
    plain = full_logits(built.reference, ids)
    expected = full_logits(quantized(built.reference, quant), ids)
    change = distance(plain, expected)
    with pytest.warns(UserWarning, match=f"cpu has no kernel for {quant} weights"):
        program = compiled(built.folder, device="cpu", quant=quant).program
    assert program.rounded_products == program.quantized_products > 0
    for chunk in (512, 7):
        with Compiled(program, prefill_chunk=chunk) as engine:
            ours = distance(engine.logits(ids)[0], expected)
        assert ours < (change / 4 if quant == "fp8_dynamic" else 1e-4), f"in chunks of {chunk}: {ours}, codes {change}"
