"""Half-precision checkpoints, against transformers in float32 on the same rounded weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import BY_ID
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits

# Activations and, here, keys and values are float32: only the order of sums differs from the reference.
TOLERANCE = 2e-5
SOME = ["llama-gqa", "llama-mha-biases", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2"]


def _scale_as_loaded(reference: Any, dtype: str) -> Any:
    """Gemma scales its embedding by a number rounded to the dtype it runs in: round the reference's too."""
    import torch

    reference = copy.deepcopy(reference)
    for module in reference.modules():
        if hasattr(module, "embed_scale"):
            module.embed_scale = module.embed_scale.to(getattr(torch, dtype)).float()
    return reference


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", SOME)
def test_half_weights(name: str, dtype: str, build_case: Callable[..., Any]) -> None:
    case = BY_ID[name]
    built = build_case(case, dtype)
    ids = case.ids()
    expected = full_logits(_scale_as_loaded(built.reference, dtype), ids)
    loaded = compiled(built.folder, kv_dtype="float32")
    assert loaded.info.dtype == dtype
    with Compiled(loaded.program, prefill_chunk=16) as engine:
        assert distance(engine.logits(ids)[0], expected) < TOLERANCE
    step = loaded.module.new_step(kv_dtype="float32")
    assert distance(loaded.module(ids, step).numpy(), expected) < TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_cache(dtype: str, build_case: Callable[..., Any]) -> None:
    """By default keys and values are kept in the weights' dtype, which rounds them once, and no more than that."""
    case = BY_ID["llama-gqa"]
    built = build_case(case, dtype)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    loaded = compiled(built.folder)
    with Compiled(loaded.program) as engine:
        found = distance(engine.logits(ids)[0], expected)
    assert TOLERANCE < found < {"bfloat16": 2e-2, "float16": 2e-3}[dtype]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_converted_at_load(dtype: str, build_case: Callable[..., Any]) -> None:
    """A float32 checkpoint loaded in half precision is the half-precision checkpoint; loaded back, it is wide again."""
    case = BY_ID["gemma2"]
    wide, half = build_case(case), build_case(case, dtype)
    ids = case.ids(20)
    outputs = []
    for folder, options in ((wide.folder, {"dtype": dtype}), (half.folder, {})):
        with Compiled(compiled(folder, **options).program) as engine:
            outputs.append(engine.logits(ids)[0])
    assert np.array_equal(*outputs)
    with Compiled(compiled(half.folder, dtype="float32").program) as engine:
        assert distance(engine.logits(ids)[0], full_logits(half.reference, ids)) < TOLERANCE
