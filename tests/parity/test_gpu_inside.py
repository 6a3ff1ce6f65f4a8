"""Captures on a GPU: gate and up lie in one gated product there, and are read from its memory."""

from __future__ import annotations

import pytest
from parity.reference import distance
from parity.test_gpu import pytestmark  # noqa: F401  (skips where there is no GPU)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.03), ("float16", 0.005)])
def test_gate_and_up(dtype: str, tolerance: float) -> None:
    """As the CPU has them in float32, for a prompt and tokens after it; other requests' tokens stay what they were."""
    import fastllm

    names = ("blocks.*.mlp.*", "blocks.*.resid_post", "logits")
    models = [fastllm.load("demo", device=device, dtype=kind, progress=False) for device, kind in _both(dtype)]
    cpu, gpu = models
    before = gpu.blocking.generate("What is 17 + 25?", temperature=0, max_new_tokens=12).token_ids
    prompt = gpu.tokenize("Tell me a story about a fox.")
    want = cpu.blocking.capture(prompt, *names, max_new_tokens=0)
    got = gpu.blocking.capture(prompt, *names, max_new_tokens=0)
    kinds = [node.name for node in gpu.nodes("blocks.*.mlp.*")]
    assert {name.rsplit(".", 1)[1] for name in kinds} >= {"pre", "up", "post"}
    for name in (*kinds, "logits"):
        assert distance(got[name].numpy(), want[name].numpy()) < tolerance, name
    assert gpu.blocking.generate("What is 17 + 25?", temperature=0, max_new_tokens=12).token_ids == before
    for model in models:
        model.close()


def _both(dtype: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("cpu", "float32"), ("cuda", dtype)
