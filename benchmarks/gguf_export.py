"""Writes a checkpoint of `shapes.write_checkpoint` as bfloat16 GGUF, for llama.cpp to run on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import Shape

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(shape: Shape, folder: Path) -> Path:
    """`folder`/model-bf16.gguf from `folder`/model.safetensors. Norms and biases as float32."""
    import gguf

    path = folder / "model-bf16.gguf"
    if path.exists():
        return path
    arch = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}[shape.architecture]
    unfinished = path.with_suffix(".part")
    out = gguf.GGUFWriter(unfinished, arch)
    out.add_block_count(shape.layers)
    out.add_context_length(8192)
    out.add_embedding_length(shape.hidden)
    out.add_feed_forward_length(shape.ffn)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_key_length(shape.head_dim)
    out.add_value_length(shape.head_dim)
    out.add_rope_dimension_count(shape.head_dim)
    out.add_rope_freq_base(shape.rope_theta)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_vocab_size(shape.vocab)
    out.add_tokenizer_model("no_vocab")
    for name, bits in _tensors(folder / "model.safetensors"):
        if arch == "llama" and (".q_proj.weight" in name or ".k_proj.weight" in name):
            bits = _interleave_heads(bits, shape.head_dim)
        if bits.ndim == 1:
            out.add_tensor(_gguf_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            raw = np.ascontiguousarray(bits).view(np.uint8)
            out.add_tensor(_gguf_name(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    unfinished.rename(path)
    return path


def _tensors(path: Path) -> list[tuple[str, np.ndarray[Any, np.dtype[np.uint16]]]]:
    data = np.memmap(path, np.uint8, mode="r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    return [
        (
            name,
            data[8 + size + row["data_offsets"][0] : 8 + size + row["data_offsets"][1]]
            .view(np.uint16)
            .reshape(row["shape"]),
        )
        for name, row in header.items()
    ]


def _gguf_name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER_NAMES[stem]}.{kind}"


def _interleave_heads(bits: np.ndarray[Any, Any], head_dim: int) -> np.ndarray[Any, Any]:
    """Half-split rotary rows (i, i + d/2) to the adjacent pairs (2i, 2i + 1) that GGUF llama files use."""
    rows, cols = bits.shape
    return bits.reshape(rows // head_dim, 2, head_dim // 2, cols).swapaxes(1, 2).reshape(rows, cols)
