"""What is captured from the running engine, against transformers: hidden states and attentions of every layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.cases import BY_ID
from parity.reference import distance
from tinymodel import opened

TOLERANCE = 1e-4  # of the spread, as for logits; the eager forward agrees ten times better
CASES = ["llama-gqa", "llama-mha-biases", "qwen3", "gemma2", "gemma3", "mistral-window", "phi3", "gpt2"]


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_and_attentions(name: str, build_case: Callable[..., Any]) -> None:
    """Of a prompt and of 8 tokens that follow it, one by one from the cache."""
    import torch

    built = build_case(BY_ID[name])
    prompt = BY_ID[name].ids(30, seed=4)
    with opened(built.folder) as model:
        names = ("embed", "pos_embed", "*.attn.pattern", "*.resid_*", "ln_final", "logits")
        present = {node.name for node in model.nodes()}
        cap = model.blocking.capture(prompt, *(n for n in names if "*" in n or n in present), max_new_tokens=8)
        ids = list(cap.token_ids)
        with torch.no_grad():
            out = copy.deepcopy(built.reference)(
                torch.tensor([ids]), use_cache=False, output_hidden_states=True, output_attentions=True
            )
        hidden = [state[0].float().numpy() for state in out.hidden_states]
        layers = cap.layers
        assert (len(hidden), len(out.attentions), cap.positions) == (layers + 1, layers, 37)
        for layer in range(layers):
            assert distance(cap[f"blocks.{layer}.resid_pre"].numpy(), hidden[layer]) < TOLERANCE, layer
            expected = out.attentions[layer][0].float().numpy()
            assert distance(cap.attention(layer).numpy(), expected) < TOLERANCE, layer
            if layer:
                before, here = cap[f"blocks.{layer - 1}.resid_post"].numpy(), cap[f"blocks.{layer}.resid_pre"].numpy()
                assert np.array_equal(before, here)
        assert distance(cap["ln_final"].numpy(), hidden[-1]) < TOLERANCE, "transformers' last state is normed"
        assert distance(cap["logits"].numpy(), out.logits[0].float().numpy()) < TOLERANCE
