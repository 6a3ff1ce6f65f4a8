"""A float8 cache: attention against torch's rounding of the keys, models against transformers with a rounded cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import BY_ID, Case, each
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits
from parity.rounded_cache import rounded, rounded_logits, rounding_cache

# Keys and values that differ from the reference's in their last bits round to another code now and then, a sixteenth
# away: of the cases below one comes as far as 5e-4, half stay below 1e-6. The rounding itself moves logits by 1e-2 and
# more.
TOLERANCE = 2e-3


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
def test_attention(size: float, window: int) -> None:
    """Float32 attention over torch's round trip of the same keys and values, subnormal and saturated ones too."""
    import torch

    from fastllm import ops
    from fastllm._ops_dispatch import device_named
    from fastllm._ops_record import KvLayer
    from fastllm._ops_step import EagerStep
    from fastllm.tensor import Tensor

    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(70, heads, 40, generator=generator) for heads in (6, 2, 2))
    q, k, v = q / size, k * size, v * size
    if size > 100:
        assert float(k.abs().max()) > 448
    step = EagerStep(device_named("cpu"), {0: KvLayer(2, 40, 40)}, capacity=70, kv_dtype="float8_e4m3")
    pieces = []
    for start, stop in ((0, 33), (33, 34), (34, 70)):
        step.begin([0] * (stop - start))
        part = [Tensor(x[start:stop].numpy()) for x in (q, k, v)]
        pieces.append(ops.attention(*part, step, layer=0, scale=0.3, window=window).numpy())
    keys, values = (rounded(x).repeat_interleave(3, dim=1).double() for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) * 0.3
    at = torch.arange(70)
    hidden = at[None, :] > at[:, None]
    if window:
        hidden |= at[None, :] <= at[:, None] - window
    expected = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values).numpy()
    assert np.allclose(np.concatenate(pieces), expected, atol=2e-5 * size, rtol=1e-5)


@pytest.mark.parametrize("case", each(lambda case: case.family != "GPT2" or case.id == "gpt2"))
def test_logits(case: Case, build_case: Callable[..., Any]) -> None:
    """At once, in chunks, token by token and in a crowd: the same bits, near transformers with such a cache, and far
    from it without one."""
    built = build_case(case)
    ids = case.ids()
    expected = rounded_logits(built.reference, ids)
    loaded = compiled(built.folder, kv_dtype="fp8")
    assert {layer["dtype"] for layer in loaded.program.kv_layers} == {"float8_e4m3"}
    with Compiled(loaded.program) as engine:
        whole = engine.logits(ids)[0]
    assert distance(whole, expected) < TOLERANCE
    for chunk in (16, 1):
        with Compiled(loaded.program, prefill_chunk=chunk) as engine:
            assert np.array_equal(engine.logits(ids)[0], whole), f"in chunks of {chunk}"
    with Compiled(loaded.program, prefill_chunk=16) as engine:
        others = [case.ids(length, seed=length) for length in (5, 31, 18, 40)]
        assert np.array_equal(engine.among_others(ids, others)[0], whole), "among others"
    assert distance(whole, full_logits(built.reference, ids)) > 10 * distance(whole, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_weights(dtype: str, build_case: Callable[..., Any]) -> None:
    built = build_case(BY_ID["llama-gqa"], dtype)
    ids = BY_ID["llama-gqa"].ids()
    with Compiled(compiled(built.folder, kv_dtype="fp8_e4m3").program) as engine:
        assert distance(engine.logits(ids)[0], rounded_logits(built.reference, ids)) < TOLERANCE


def test_prefix_reuse_and_preemption_keep_the_bits(build_case: Callable[..., Any]) -> None:
    """Blocks are bytes: tokens after a prefix hit and after losing them all are those of a request alone."""
    case = BY_ID["llama-wide"]
    program = compiled(build_case(case).folder, kv_dtype="fp8").program
    prompts = [case.ids(100, seed=1), *(case.ids(length, seed=length) for length in range(20, 60, 5))]
    with Compiled(program) as engine:
        alone = [engine.greedy_logprobs(prompt, 40) for prompt in prompts]
    with Compiled(program, prefix_cache=True) as engine:
        engine.greedy(prompts[0], 8)
        assert engine.greedy_logprobs(prompts[0], 40) == alone[0]
        assert engine.engine.stats()["cached_tokens"] > 0
    with Compiled(program, kv_memory_bytes=24 * 16 * program.kv_bytes_per_token) as engine:
        assert engine.greedy_many(prompts, 40) == alone
        assert engine.engine.stats()["preemptions"] > 0


def test_twice_the_blocks(build_case: Callable[..., Any]) -> None:
    folder = build_case(BY_ID["llama-gqa"], "bfloat16").folder
    found = {}
    for name in ("auto", "fp8", "float32"):
        program = compiled(folder, kv_dtype=name).program
        with Compiled(program, kv_memory_bytes=1 << 20) as engine:
            stats = engine.engine.stats()
            assert stats["kv_bytes"] <= 1 << 20
            found[name] = (program.kv_bytes_per_token, stats["kv_blocks_total"])
    assert found["auto"][0] == 2 * found["fp8"][0]
    assert found["float32"][0] == 4 * found["fp8"][0]
    assert found["fp8"][1] in (2 * found["auto"][1], 2 * found["auto"][1] + 1)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "mistral-window"])
def test_attention_is_captured(name: str, build_case: Callable[..., Any]) -> None:
    """Probes read the cache's keys as the numbers that the codes stand for."""
    import torch
    from tinymodel import opened

    built = build_case(BY_ID[name])
    with opened(built.folder, kv_dtype="fp8") as model:
        cap = model.blocking.capture(BY_ID[name].ids(30, seed=4), "*.attn.pattern", max_new_tokens=8)
        with torch.no_grad():
            out = built.reference(
                torch.tensor([list(cap.token_ids)]), past_key_values=rounding_cache(), output_attentions=True
            )
        assert "float8_e4m3" in repr(model.memory())
        assert "float8_e4m3" in model.memory()._repr_html_()
        for layer in range(cap.layers):
            found, expected = cap.attention(layer).numpy(), out.attentions[layer][0].float().numpy()
            assert distance(found, expected) < TOLERANCE, layer
