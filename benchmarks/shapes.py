"""Model shapes to measure, and checkpoints with random weights at those shapes.

Speed does not depend on the values of the weights, so none are downloaded: each checkpoint is written on the spot, in
bfloat16, as a Hugging Face directory that fastllm, transformers and (through `gguf_export`) llama.cpp all read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """One architecture at one size. `params` counts every weight once."""

    name: str
    architecture: str
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10000.0

    def config(self) -> dict[str, Any]:
        """`config.json` as transformers writes it."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.ffn,
            "vocab_size": self.vocab,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 16384,
            "rms_norm_eps": 1e-6,
            "rope_theta": self.rope_theta,
            "hidden_act": "silu",
            "attention_bias": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 256,
            "eos_token_id": 257,
        }

    def weights(self) -> Iterator[tuple[str, tuple[int, ...], float]]:
        """(name, shape, standard deviation; 0 means a norm of ones) of every tensor."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocab, self.hidden), 0.5
        for i in range(self.layers):
            p = f"model.layers.{i}."
            yield p + "input_layernorm.weight", (self.hidden,), 0.0
            yield p + "post_attention_layernorm.weight", (self.hidden,), 0.0
            for n, rows in (("q", q), ("k", kv), ("v", kv)):
                yield p + f"self_attn.{n}_proj.weight", (rows, self.hidden), 1 / math.sqrt(self.hidden)
                if self.qkv_bias:
                    yield p + f"self_attn.{n}_proj.bias", (rows,), 0.1
            if self.qk_norm:
                yield p + "self_attn.q_norm.weight", (self.head_dim,), 0.0
                yield p + "self_attn.k_norm.weight", (self.head_dim,), 0.0
            yield p + "self_attn.o_proj.weight", (self.hidden, q), 1 / math.sqrt(q)
            yield p + "mlp.gate_proj.weight", (self.ffn, self.hidden), 1 / math.sqrt(self.hidden)
            yield p + "mlp.up_proj.weight", (self.ffn, self.hidden), 1 / math.sqrt(self.hidden)
            yield p + "mlp.down_proj.weight", (self.hidden, self.ffn), 1 / math.sqrt(self.ffn)
        yield "model.norm.weight", (self.hidden,), 0.0
        if not self.tied:
            yield "lm_head.weight", (self.vocab, self.hidden), 1 / math.sqrt(self.hidden)

    @property
    def step_bytes(self) -> int:
        """Bytes of bfloat16 weights that one decode step must read (the input embedding is a row look-up)."""
        total = sum(math.prod(shape) for _, shape, _ in self.weights())
        return 2 * (total if self.tied else total - self.vocab * self.hidden)


SHAPES: dict[str, Shape] = {
    s.name: s
    for s in (
        Shape("tiny", "LlamaForCausalLM", "llama", 256, 4, 8, 4, 32, 688, 4096, True),
        Shape(
            "qwen2.5-0.5b",
            "Qwen2ForCausalLM",
            "qwen2",
            896,
            24,
            14,
            2,
            64,
            4864,
            151936,
            True,
            qkv_bias=True,
            rope_theta=1e6,
        ),
        Shape("llama3.2-1b", "LlamaForCausalLM", "llama", 2048, 16, 32, 8, 64, 8192, 128256, True, rope_theta=5e5),
        Shape("llama3.1-8b", "LlamaForCausalLM", "llama", 4096, 32, 32, 8, 128, 14336, 128256, False, rope_theta=5e5),
        Shape(
            "qwen3-0.6b",
            "Qwen3ForCausalLM",
            "qwen3",
            1024,
            28,
            16,
            8,
            128,
            3072,
            151936,
            True,
            qk_norm=True,
            rope_theta=1e6,
        ),
    )
}


def bfloat16_bits(values: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Rounds float32 to bfloat16, to nearest even; finite input."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_checkpoint(shape: Shape, folder: Path, *, seed: int = 0) -> Path:
    """Writes config.json, model.safetensors and a byte-level tokenizer.json; does nothing if they are there already."""
    done = folder / "config.json"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    offset = 0
    for name, dims, _ in shape.weights():
        nbytes = 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    # One block of noise, begun elsewhere for each piece: drawing billions of numbers would take minutes.
    noise = rng.standard_normal((1 << 24) + (1 << 22), np.float32)
    scaled: dict[float, np.ndarray[Any, np.dtype[np.uint16]]] = {}
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, dims, std in shape.weights():
            if std == 0.0:
                file.write(bfloat16_bits(np.ones(dims, np.float32)).tobytes())
                continue
            if std not in scaled:
                scaled[std] = bfloat16_bits(noise * np.float32(std))
            left = math.prod(dims)
            while left > 0:
                at, count = int(rng.integers(1 << 24)), min(left, 1 << 22)
                file.write(scaled[std][at : at + count].tobytes())
                left -= count
    (folder / "tokenizer.json").write_text(json.dumps(_byte_tokenizer()))
    done.write_text(json.dumps(shape.config(), indent=1))
    return folder


def _byte_tokenizer() -> dict[str, Any]:
    """A byte-level BPE with no merges: 256 bytes, <s>, </s>."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    letters |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in letters)}
    special = [
        {
            "id": 256 + i,
            "content": t,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, t in enumerate(("<s>", "</s>"))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)}, "merges": []},
    }
