"""The table of tiny seeded checkpoints: one line for each thing an architecture can do, in sizes that divide nothing.

`build` makes the model with transformers, gives every tensor numbers that matter (norm weights and biases too, which a
fresh model leaves at one and zero) and writes it as a checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEQUENCE = 45  # tokens of the long text: beyond every window and every original context of the table


@dataclass(frozen=True)
class Case:
    """One checkpoint: the transformers classes and what the config says besides the defaults."""

    id: str
    family: str
    config: dict[str, Any] = field(default_factory=dict)
    length: int = SEQUENCE

    def ids(self, length: int | None = None, *, seed: int = 7) -> list[int]:
        """Seeded token ids of a text, the last one of the vocabulary among them."""
        import numpy as np

        count, vocab = length or self.length, int(self.config["vocab_size"])
        ids = np.random.default_rng(seed).integers(3, vocab, size=count).tolist()
        ids[count // 2] = vocab - 1
        return [int(token) for token in ids]


_LLAMA = {
    "vocab_size": 97,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
_WIDE = {
    **_LLAMA,
    "vocab_size": 1009,
    "hidden_size": 264,
    "intermediate_size": 700,
    "num_hidden_layers": 2,
    "num_key_value_heads": 3,
    "max_position_embeddings": 512,
}
_QWEN3 = {**_LLAMA, "head_dim": 14}
_GEMMA = {
    **_LLAMA,
    "head_dim": 10,
    "sliding_window": 9,
    "query_pre_attn_scalar": 13,
    "num_hidden_layers": 4,
    "tie_word_embeddings": True,
}
_GPT2 = {"vocab_size": 89, "n_embd": 30, "n_head": 3, "n_layer": 3, "n_positions": 96}
_SHORT, _LONG = [1.0, 1.1, 1.3], [1.5, 3.0, 7.0]


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 5000.0, **values}}


CASES = [
    # llama: heads, biases, tying
    Case("llama-gqa", "Llama", _LLAMA),
    Case("llama-mqa-tied", "Llama", {**_LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    Case("llama-mha-biases", "Llama", {**_LLAMA, "num_key_value_heads": 6, "attention_bias": True, "mlp_bias": True}),
    Case("llama-head-dim", "Llama", {**_LLAMA, "head_dim": 10, "hidden_act": "gelu", "rms_norm_eps": 1e-3}),
    # llama: as wide as the kernels' blocks and a little more, over many tiles of the cache
    Case("llama-wide", "Llama", {**_WIDE, "head_dim": 64}, length=333),
    Case("llama-wide-heads", "Llama", {**_WIDE, "num_attention_heads": 3, "head_dim": 128}, length=150),
    # llama: every rope
    Case("llama-linear", "Llama", {**_LLAMA, **_rope("linear", factor=2.5)}),
    Case("llama-dynamic", "Llama", {**_LLAMA, "max_position_embeddings": 20, **_rope("dynamic", factor=2.5)}),
    Case(
        "llama-llama3",
        "Llama",
        {
            **_LLAMA,
            "head_dim": 16,
            **_rope(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=20,
            ),
        },
    ),
    Case(
        "llama-yarn",
        "Llama",
        {**_LLAMA, "head_dim": 16, **_rope("yarn", factor=4.0, original_max_position_embeddings=20)},
    ),
    Case(
        "llama-yarn-mscale",
        "Llama",
        {
            **_LLAMA,
            "head_dim": 16,
            **_rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=20,
                mscale=0.7,
                mscale_all_dim=1.1,
                beta_fast=16.0,
                beta_slow=2.0,
                truncate=False,
            ),
        },
    ),
    Case(
        "llama-longrope",
        "Llama",
        {
            **_LLAMA,
            **_rope(
                "longrope", factor=4.0, short_factor=_SHORT, long_factor=_LONG, original_max_position_embeddings=20
            ),
        },
    ),
    # mistral and qwen: windows, biases, norms on heads
    Case("mistral-window", "Mistral", {**_LLAMA, "sliding_window": 7}),
    Case("mistral-full", "Mistral", {**_LLAMA, "sliding_window": None, "head_dim": 8}),
    Case("qwen2", "Qwen2", {**_LLAMA, "tie_word_embeddings": True}),
    Case(
        "qwen2-windows", "Qwen2", {**_LLAMA, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    ),
    Case(
        "qwen2-yarn",
        "Qwen2",
        {**_LLAMA, "head_dim": 16, **_rope("yarn", factor=3.0, original_max_position_embeddings=16)},
    ),
    Case("qwen3", "Qwen3", {**_QWEN3, "tie_word_embeddings": True}),
    Case(
        "qwen3-biases-windows",
        "Qwen3",
        {
            **_QWEN3,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    # gemma: norms on both sides, caps, two kinds of layers
    Case("gemma2", "Gemma2", {**_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    Case(
        "gemma2-no-caps",
        "Gemma2",
        {**_GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
    ),
    Case("gemma3", "Gemma3", {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    Case(
        "gemma3-linear",
        "Gemma3",
        {
            **_GEMMA,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 90000.0},
            },
            "final_logit_softcapping": 4.0,
        },
    ),
    # phi3: fused tensors
    Case("phi3", "Phi3", {**_LLAMA, "pad_token_id": 0}),
    Case(
        "phi3-partial-window",
        "Phi3",
        {
            **_LLAMA,
            "pad_token_id": 0,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "sliding_window": 11,
            **_rope("default", partial_rotary_factor=0.5),
        },
    ),
    Case(
        "phi3-longrope",
        "Phi3",
        {
            **_LLAMA,
            "pad_token_id": 0,
            "original_max_position_embeddings": 20,
            **_rope("longrope", short_factor=_SHORT, long_factor=_LONG, original_max_position_embeddings=20),
        },
    ),
    # gpt2: learned positions, [in, out] tensors
    Case("gpt2", "GPT2", _GPT2),
    Case(
        "gpt2-odd",
        "GPT2",
        {
            **_GPT2,
            "n_inner": 47,
            "activation_function": "gelu",
            "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    ),
]
BY_ID = {case.id: case for case in CASES}

_CLASSES = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"), "GPT2": ("GPT2Config", "GPT2LMHeadModel")}


def build(case: Case, folder: Path, *, dtype: str = "float32", seed: int = 0) -> Any:
    """Writes the checkpoint of a case and returns the transformers model that it holds, in float32 and ready to run."""
    import torch
    import transformers

    config_class, model_class = _CLASSES.get(case.family, (f"{case.family}Config", f"{case.family}ForCausalLM"))
    values = copy.deepcopy(case.config)
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, config_class)(**values, **ends, attn_implementation="eager")
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config).eval()
    randomise(model, seed)
    if dtype == "float32":
        model.save_pretrained(folder)
        return model
    # Loaded back: a cast would leave the tables of the rope rounded, which no checkpoint holds.
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    loaded = getattr(transformers, model_class).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return loaded.eval()


def randomise(model: Any, seed: int) -> None:
    """Gives every parameter seeded numbers of a size that lets attention, norms and biases be seen in the logits."""
    import torch

    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                around = 0.0 if name.endswith("bias") else float(parameter.float().mean())
                parameter.copy_(around + 0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                parameter.copy_(0.6 * noise)
            else:
                fan_in = parameter.shape[0] if type(model).__name__.startswith("GPT2") else parameter.shape[1]
                wide = 2.0 if any(part in name for part in ("q_proj", "k_proj", "qkv", "c_attn")) else 1.2
                parameter.copy_(noise * wide / fan_in**0.5)


def each(keep: Callable[[Case], bool] = lambda case: True) -> list[Any]:
    """Cases as parameters of a test."""
    import pytest

    return [pytest.param(case, id=case.id) for case in CASES if keep(case)]
