"""The table can tell: a config with one feature changed gives other logits, far beyond the tolerance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity.cases import BY_ID
from parity.reference import distance

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("llama-linear", {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}),
    ("llama-dynamic", {"max_position_embeddings": 128}),
    ("llama-llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}),
    ("llama-yarn", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}}),
    ("llama-head-dim", {"rms_norm_eps": 1e-6}),
    ("llama-head-dim", {"hidden_act": "silu"}),
    ("mistral-window", {"sliding_window": None}),
    ("mistral-window", {"sliding_window": 8}),
    ("qwen2-windows", {"max_window_layers": 2, "layer_types": None}),
    ("qwen2-windows", {"use_sliding_window": False}),
    ("qwen3-biases-windows", {"sliding_window": 7}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma2", {"query_pre_attn_scalar": 10}),
    ("gemma2", {"sliding_window": 10}),
    ("gemma2", {"hidden_activation": "silu"}),
    ("gemma3", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
    ("gemma3", {"query_pre_attn_scalar": 10}),
    (
        "phi3-partial-window",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 1}},
    ),
    ("gpt2-odd", {"scale_attn_by_inverse_layer_idx": False}),
    ("gpt2-odd", {"activation_function": "relu"}),
    ("gpt2-odd", {"layer_norm_epsilon": 1e-6}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=str)
def test_a_changed_feature_shows(
    name: str, change: dict[str, Any], build_case: Callable[..., Any], tmp_path: Path
) -> None:
    from fastllm.formats.checkpoint import open_checkpoint
    from fastllm.loading import load_module

    built = build_case(BY_ID[name])
    folder = Path(shutil.copytree(built.folder, tmp_path / "changed"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    changed, _ = load_module(open_checkpoint(folder))
    ids = BY_ID[name].ids()
    assert distance(changed(ids).numpy(), built.module(ids).numpy()) > 3e-4


@pytest.mark.parametrize("name", ["llama-yarn", "llama-llama3", "gemma3-linear", "phi3-longrope", "qwen2-windows"])
def test_old_keys_give_the_same(name: str, build_case: Callable[..., Any], tmp_path: Path) -> None:
    """The keys that transformers 4 wrote: torch_dtype, rope_theta and rope_scaling at the top."""
    import numpy as np

    from fastllm.formats.checkpoint import open_checkpoint
    from fastllm.loading import load_module

    built = build_case(BY_ID[name])
    folder = Path(shutil.copytree(built.folder, tmp_path / "old"))
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None) if name == "qwen2-windows" else None
    (folder / "config.json").write_text(json.dumps(config))
    old, _ = load_module(open_checkpoint(folder))
    ids = BY_ID[name].ids()
    assert np.array_equal(old(ids).numpy(), built.module(ids).numpy())
