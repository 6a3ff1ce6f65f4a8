"""Exercises of notebook 06, Why is it fast."""

from __future__ import annotations

import random
from typing import Any

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_integer, as_number, demo, function


@exercise(
    "6.1",
    kind="a function kv_bytes(config)",
    hints=(
        "What is kept: a key and a value, in each layer, for each KV head (not each query head).",
        "2 * layers * kv_heads * head_dim * bytes of a number.",
    ),
)
def _(answer: Any) -> str:
    kv_bytes = function(answer, 'check("6.1", kv_bytes)')
    own = demo()
    if (found := as_integer(kv_bytes(dict(own.config)))) != own.info.kv_bytes_per_token:
        raise NotYet(f"For this model it is {own.info.kv_bytes_per_token}, and yours gives {found}.")
    dice = random.Random(61)
    for _ in range(6):
        heads = dice.choice([2, 4, 8])
        layers, channels, size = dice.randint(2, 80), dice.choice([32, 64, 128]), dice.choice([2, 4])
        config = {
            "num_hidden_layers": layers,
            "num_key_value_heads": heads,
            "num_attention_heads": heads * dice.choice([2, 4]),
            "head_dim": channels,
            "torch_dtype": "float32" if size == 4 else dice.choice(["float16", "bfloat16"]),
        }
        truth = sum(2 * heads * channels * size for _ in range(layers))
        if (found := as_integer(kv_bytes(dict(config)))) != truth:
            raise NotYet(f"For {config} it should be {truth}, and is {found}.")
    return "For a Llama 3 of 8 B (32 layers, 8 KV heads of 128) that makes 128 KiB a token: 1 GiB for 8192 tokens."


@exercise(
    "6.2",
    kind="a function wasted(p, n)",
    hints=(
        "The first call runs p tokens and makes one. The second runs p + 1. The last one?",
        "The sum of p, p + 1, ..., p + n - 1, divided by p + n - 1.",
    ),
)
def _(answer: Any) -> str:
    wasted = function(answer, 'check("6.2", wasted)')
    for prompt, new in ((1, 1), (10, 1), (4, 200), (100, 50), (512, 512)):
        truth = sum(prompt + made for made in range(new)) / (prompt + new - 1)
        found = as_number(wasted(prompt, new))
        if abs(found - truth) > 1e-6 * truth:
            raise NotYet(f"wasted({prompt}, {new}) should be {truth:.3f}, and is {found:.3f}.")
    return (
        "For 200 new tokens it is a factor of 100. You measured less: one wide step costs less than many narrow ones."
    )


@exercise(
    "6.3",
    kind="a function remembered(first, second, block)",
    hints=(
        "First count how many ids the two have in common from the start.",
        "Then go down to a whole number of blocks: // block * block.",
        "If second is wholly inside first, one of its tokens must still be computed: count at most len(second) - 1.",
    ),
)
def _(answer: Any) -> str:
    remembered = function(answer, 'check("6.3", remembered)')
    own = demo()
    block = own.stats().block_tokens
    dice = random.Random()  # other ids each time: the engine remembers the last check, too
    for common, first_rest, second_rest in (
        (40, 9, 13),
        (15, 20, 20),
        (16, 16, 1),
        (48, 0, 0),
        (50, 7, 0),
        (0, 30, 30),
    ):
        start = [dice.randrange(300, 2000) for _ in range(common)]
        first = start + [dice.randrange(300, 1000) for _ in range(first_rest)]
        second = start + [dice.randrange(1000, 2000) for _ in range(second_rest)]
        own.blocking.generate(first, max_new_tokens=1, ignore_eos=True)
        truth = own.blocking.generate(second, max_new_tokens=1, ignore_eos=True).usage.cached_tokens
        found = as_integer(remembered(list(first), list(second), block))
        if found != truth:
            raise NotYet(
                f"Prompts of {len(first)} and {len(second)} tokens with {common} in common and blocks of {block}: the "
                f"engine remembered {truth}, and yours says {found}."
            )
    return "The engine was asked each time, and agrees."
