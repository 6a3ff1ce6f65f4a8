"""The GPU against transformers and against the CPU: every architecture, the sampler, the demo model, many streams.

Skipped, with the reason, where no GPU can be used. `make test-gpu` builds for the GPU that is there and runs this.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from parity.cases import BY_ID, Case, each
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits, greedy, quantized


def _why_not() -> str:
    try:
        from fastllm import _core
    except ImportError as error:
        return f"fastllm._core: {error}"
    found = [(available, why) for name, available, why in _core.list_devices() if name.startswith("cuda")]
    return "" if any(available for available, _ in found) else f"no GPU: {'; '.join(why for _, why in found)}"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not())

_SIZES = {
    "vocab_size": 1009,
    "hidden_size": 512,
    "intermediate_size": 1088,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
# Heads of 64 and 128 in 16 bits run on kernels of their own: the shapes of the real models, made small.
FAST = [
    Case("gpu-llama-64", "Llama", {**_SIZES, "head_dim": 64}, length=700),
    Case("gpu-qwen2-128", "Qwen2", {**_SIZES, "hidden_size": 1024, "tie_word_embeddings": True}, length=300),
    Case("gpu-qwen3-128", "Qwen3", {**_SIZES, "head_dim": 128}, length=300),
    Case(
        "gpu-gemma2-128",
        "Gemma2",
        {
            **_SIZES,
            "head_dim": 128,
            "sliding_window": 100,
            "query_pre_attn_scalar": 100,
            "tie_word_embeddings": True,
        },
        length=300,
    ),
]
HALF = [*(BY_ID[name] for name in ("llama-gqa", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2")), *FAST]


def _gpu(program: Any, **options: Any) -> Compiled:
    return Compiled(program, deterministic=False, **options)


@pytest.mark.parametrize("case", [*each(), *(pytest.param(case, id=case.id) for case in FAST)])
def test_float32(case: Case, build_case: Callable[..., Any]) -> None:
    """The logits of transformers at once, in chunks, token by token and in a crowd; the same greedy tokens."""
    built = build_case(case)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    program = compiled(built.folder, device="cuda").program
    for chunk in (512, 7, 1):
        with _gpu(program, prefill_chunk=chunk) as engine:
            assert distance(engine.logits(ids)[0], expected) < 1e-4, f"in chunks of {chunk}"
    with _gpu(program, prefill_chunk=16) as engine:
        others = [case.ids(length, seed=length) for length in (5, 31, 18, 40)]
        assert distance(engine.among_others(ids, others)[0], expected) < 1e-4, "among others"
        prompt = case.ids(11, seed=3)
        tokens, _, margins = greedy(built.reference, prompt, 32)
        if min(margins) > 2e-4:
            assert engine.greedy(prompt, 32) == tokens


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in HALF])
def test_half(case: Case, dtype: str, build_case: Callable[..., Any]) -> None:
    """As near to the float32 logits of the same rounded weights as transformers itself comes in this dtype."""
    import torch

    built = build_case(case, dtype)
    ids = case.ids()
    expected = full_logits(built.reference, ids)
    theirs = distance(full_logits(copy.deepcopy(built.reference).to(getattr(torch, dtype)), ids), expected)
    program = compiled(built.folder, device="cuda").program
    for chunk in (512, 5, 1):
        with _gpu(program, prefill_chunk=chunk) as engine:
            ours = distance(engine.logits(ids)[0], expected)
        assert ours < 2 * theirs + 1e-3, f"in chunks of {chunk}: {ours} where transformers has {theirs}"


@pytest.mark.parametrize(
    "quant", ["fp8", "fp8_dynamic", "int8", "int8_g64", "int4", "int4_g32", "int4_asym_g64", "int4_row"]
)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in FAST])
def test_codes(case: Case, quant: str, build_case: Callable[..., Any]) -> None:
    """As near to transformers with what the codes stand for, in float32, as transformers is in bfloat16."""
    import torch

    from fastllm import _core

    built = build_case(case, "bfloat16")
    reference = quantized(built.reference, quant, dtype="bfloat16")
    ids = case.ids()
    expected = full_logits(reference, ids)
    theirs = distance(full_logits(reference.to(torch.bfloat16), ids), expected)
    program = compiled(built.folder, device="cuda", quant=quant).program
    assert program.quantized_products > 0
    if _core.Device("cuda").info["isa"] == "sm_90":
        assert program.rounded_products == 0
    for chunk in (512, 40, 5, 1):
        with _gpu(program, prefill_chunk=chunk) as engine:
            ours = distance(engine.logits(ids)[0], expected)
        assert ours < 2 * theirs + 1e-3, f"in chunks of {chunk}: {ours} where transformers has {theirs}"


def test_a_seed_means_the_same_on_every_device() -> None:
    """The draw is a function of (seed, position): float32 models differ only where rounding decides."""
    import fastllm

    ids = {}
    for device in ("cpu", "cuda"):
        model = fastllm.load("demo", device=device, dtype="float32", progress=False)
        ids[device] = [
            model.blocking.generate(
                "Tell me a story.", temperature=0.9, top_p=0.95, top_k=60, seed=seed, max_new_tokens=60
            ).token_ids
            for seed in range(12)
        ]
        model.close()
    assert sum(a == b for a, b in zip(ids["cpu"], ids["cuda"], strict=True)) >= 11


@pytest.mark.parametrize("quant", [None, "fp8", "fp8_dynamic", "int8"])
def test_the_demo_model_is_as_good_as_on_the_cpu(quant: str | None) -> None:
    import demo_package  # noqa: F401  (makes demo_model importable)

    import fastllm
    from demo_model import evaluate

    model = fastllm.load("demo", device="cuda", quant=quant, progress=False)

    def generate(prompts: list[str], max_new_tokens: int) -> list[str]:
        encoded = [model.tokenize(prompt) for prompt in prompts]
        return [done.text for done in model.blocking.batch(encoded, temperature=0, max_new_tokens=max_new_tokens)]

    for result in evaluate.evaluate(generate, count=100):
        target = evaluate.TARGETS.get(result.skill, 93.0)
        assert result.percent >= target, (result.skill, result.percent, result.misses[:5])
    model.close()


def test_many_streams_come_and_go() -> None:
    """Streams that are read to the end get what they would get alone; cancelled ones leave nothing behind."""
    import fastllm

    model = fastllm.load("demo", device="cuda", dtype="float32", progress=False)
    prompts = [f"What is {i} + {i % 7}?" for i in range(64)]
    alone = [model.blocking.generate(prompt, temperature=0, max_new_tokens=16).text for prompt in prompts[:8]]
    texts: dict[int, str] = {}

    async def read(index: int) -> None:
        async with model.stream(prompts[index], temperature=0, max_new_tokens=16) as stream:
            text = ""
            async for token in stream:
                text += token.text
                if index % 3 == 2 and len(text) > 2:
                    return
            texts[index] = stream.text

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for index in range(64):
                group.start_soon(read, index)

    anyio.run(main)
    assert [texts[i] for i in range(8) if i in texts] == [alone[i] for i in range(8) if i in texts]
    stats = model.stats()
    assert (stats.running, stats.queued) == (0, 0)
    assert np.isfinite(stats.step_ms)
    model.close()
