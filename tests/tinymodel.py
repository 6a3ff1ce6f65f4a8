"""Tiny seeded models behind the whole SDK: real weights, real engine, a tokenizer of one byte a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nullmodel import TableTokenizer
from unit.tiny_checkpoints import weights_for, write_checkpoint

from fastllm import EngineConfig, GenerationConfig, ModelInfo
from fastllm.formats.checkpoint import open_checkpoint
from fastllm.loading import load_program
from fastllm.model import Model

_BASE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_BASE, "architectures": ["LlamaForCausalLM"]},
    "qwen3": {**_BASE, "architectures": ["Qwen3ForCausalLM"], "head_dim": 10},
    "gemma2": {
        **_BASE,
        "architectures": ["Gemma2ForCausalLM"],
        "head_dim": 8,
        "sliding_window": 9,
        "query_pre_attn_scalar": 13,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "phi3": {**_BASE, "architectures": ["Phi3ForCausalLM"]},
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 61,
        "n_embd": 24,
        "n_head": 4,
        "n_layer": 3,
        "n_positions": 256,
    },
}


def tiny_model(folder: Path, kind: str = "llama", *, config: Mapping[str, Any] | None = None, **engine: Any) -> Model:
    """A model of three layers with random weights; close it.

    Args:
        folder: Where its checkpoint is written.
        kind: One of `CONFIGS`.
        config: Changes to its config.
        **engine: Fields of `EngineConfig`.
    """
    values = {**CONFIGS[kind], **(config or {})}
    path = write_checkpoint(folder / kind, values, weights_for(values, seed=3))
    return opened(path, **engine)


def opened(path: Path, **engine: Any) -> Model:
    """The model of a checkpoint folder without a tokenizer: token i is the character 33 + i."""
    config = EngineConfig(**engine)
    loaded = load_program(open_checkpoint(path), threads=1, kv_dtype=config.kv_dtype)
    facts = loaded.info
    info = ModelInfo(
        name=path.name,
        path=str(path),
        architecture=facts.architecture,
        parameters=facts.parameters,
        dtype=facts.dtype,
        quant=None,
        context_length=facts.context_length,
        vocab_size=facts.vocab_size,
        device=facts.device,
        weight_bytes=facts.weight_bytes,
        kv_bytes_per_token=loaded.program.kv_bytes_per_token,
        layers=facts.layers,
        chat=False,
        kv_dtype=loaded.program.kv_layers[0]["dtype"],
    )
    tokenizer: Any = TableTokenizer([chr(33 + index).encode() for index in range(facts.vocab_size)])
    return Model(
        loaded.program,
        tokenizer,
        info=info,
        engine_config=config,
        generation_config=GenerationConfig(temperature=0.0, ignore_eos=True),
        module=loaded.module,
        config=loaded.config,
    )
