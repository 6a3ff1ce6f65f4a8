"""Tiny seeded checkpoints of any registered architecture, written without torch or safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int32": "I32", "uint16": "BF16"}

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 19,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def weights_for(config: Mapping[str, Any], *, seed: int = 0, scale: float = 0.5) -> dict[str, npt.NDArray[Any]]:
    """Random float32 tensors for every parameter of the config's architecture, shaped as files hold them."""
    from fastllm import nn

    rng = np.random.default_rng(seed)
    model = nn.architecture_class(config["architectures"][0])(nn.Config(config))
    result = {}
    for name, parameter in model.named_parameters():
        shape = parameter.shape[::-1] if parameter.transposed else parameter.shape
        result[name] = (scale * rng.normal(size=shape)).astype(np.float32)
    return result


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of float32 numbers rounded to bfloat16 (to nearest, ties to even), as uint16."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_checkpoint(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Path:
    """config.json and model.safetensors; uint16 arrays are written as bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    header: dict[str, Any] = {}
    start = 0
    for name, array in tensors.items():
        entry = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape)}
        header[name] = {**entry, "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
    return folder
