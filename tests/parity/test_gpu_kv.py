"""A float8 cache on the GPU: models against transformers with a rounded cache, in every dtype of activations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import BY_ID, Case
from parity.engine import Compiled, compiled
from parity.reference import distance
from parity.rounded_cache import rounded_logits
from parity.test_gpu import FAST, pytestmark  # noqa: F401  (skips where there is no GPU)
from parity.test_kv_fp8 import TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id) for case in (*FAST, BY_ID["llama-gqa"], BY_ID["phi3"])]
)
def test_half(case: Case, dtype: str, build_case: Callable[..., Any]) -> None:
    """As near to float32 with a rounded cache as transformers comes in this dtype: at once, in chunks, by tokens."""
    import torch

    built = build_case(case, dtype)
    ids = case.ids()
    expected = rounded_logits(built.reference, ids)
    half = copy.deepcopy(built.reference).to(getattr(torch, dtype))
    theirs = distance(rounded_logits(half, ids), expected)
    program = compiled(built.folder, device="cuda", kv_dtype="fp8").program
    for chunk in (512, 5, 1):
        with Compiled(program, deterministic=False, prefill_chunk=chunk) as engine:
            ours = distance(engine.logits(ids)[0], expected)
        assert ours < 2 * theirs + 1e-3, f"in chunks of {chunk}: {ours} where transformers has {theirs}"
    with Compiled(program, deterministic=False, prefill_chunk=64) as engine:
        others = [case.ids(length, seed=length) for length in (5, 31, 18, 40)]
        logits, _ = engine.among_others(ids, others)
        assert distance(logits, expected) < 2 * theirs + 1e-3, "among others"


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "llama-wide", "gpt2"])
def test_float32(name: str, build_case: Callable[..., Any]) -> None:
    built = build_case(BY_ID[name])
    ids = BY_ID[name].ids()
    expected = rounded_logits(built.reference, ids)
    program = compiled(built.folder, device="cuda", kv_dtype="fp8").program
    for chunk in (512, 7, 1):
        with Compiled(program, deterministic=False, prefill_chunk=chunk) as engine:
            assert distance(engine.logits(ids)[0], expected) < TOLERANCE, f"in chunks of {chunk}"


def test_greedy_decode_in_recorded_steps(build_case: Callable[..., Any]) -> None:
    """Sixteen prompts together: tokens of replayed graphs, against transformers' logits of the text that came out."""
    import torch

    case = FAST[0]
    built = build_case(case, "bfloat16")
    program = compiled(built.folder, device="cuda", kv_dtype="fp8").program
    prompts = [case.ids(20 + 9 * i, seed=i) for i in range(16)]
    with Compiled(program, deterministic=False) as engine:
        found = engine.greedy_many(prompts, 24)
    half = copy.deepcopy(built.reference).to(torch.bfloat16)
    for prompt, (tokens, logprobs) in zip(prompts, found, strict=True):
        text, rows = prompt + tokens, slice(len(prompt) - 1, -1)
        logits = rounded_logits(built.reference, text)[rows].astype(np.float64)
        error = 2 * np.abs(rounded_logits(half, text)[rows] - logits).max()  # what bfloat16 does to a logit, and room
        chosen = logits[np.arange(len(tokens)), tokens]
        assert (logits.max(axis=1) - chosen).max() < 2 * error  # one too high, another too low
        top = logits.max(axis=1)
        expected = chosen - top - np.log(np.exp(logits - top[:, None]).sum(axis=1))
        assert np.abs(expected - logprobs).max() < 2 * error


def test_attention_is_captured(build_case: Callable[..., Any]) -> None:
    """Probes read keys as codes: the pattern on the GPU is the CPU's."""
    import fastllm

    patterns = []
    for device in ("cpu", "cuda"):
        engine = fastllm.EngineConfig(kv_dtype="fp8")
        model = fastllm.load("demo", device=device, dtype="float32", engine=engine, progress=False)
        capture = model.blocking.capture("Tell me a story about a fox.", "blocks.1.attn.pattern", max_new_tokens=0)
        patterns.append(capture.attention(1).numpy())
        model.close()
    assert np.abs(patterns[0] - patterns[1]).max() < 1e-3
