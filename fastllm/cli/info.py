"""`fastllm info PATH`: what a checkpoint is, from its headers alone; `--devices`: where it could run."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from fastllm.errors import FastLLMError
from fastllm.types import _bytes, _count

if TYPE_CHECKING:
    from fastllm.formats.checkpoint import Checkpoint

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "info",
        help="describe a checkpoint or the devices",
        description="Describes a checkpoint from its headers; no weight is read.",
    )
    parser.add_argument("path", nargs="?", metavar="PATH", help="directory, repository name, or demo (default)")
    parser.add_argument("-p", "--path", "--model", dest="path_option", metavar="PATH", help="the same as PATH")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--devices", action="store_true", help="list the devices, and why one cannot be used")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; see `fastllm.cli.main` for exit codes."""
    from fastllm.cli.main import EXIT_OK

    facts: dict[str, Any] = {}
    path = arguments.path or arguments.path_option
    if path is not None or not arguments.devices:
        from fastllm.formats.checkpoint import open_checkpoint

        facts.update(describe(open_checkpoint(path or "demo"), tensors=arguments.tensors))
    if arguments.devices:
        facts["devices"] = devices()
    print(json.dumps(facts, ensure_ascii=False, indent=1) if arguments.json else as_text(facts))
    return EXIT_OK


def describe(checkpoint: Checkpoint, *, tensors: bool = False) -> dict[str, Any]:
    """The facts of a checkpoint as JSON values.

    Args:
        checkpoint: It was opened, so its headers are sound.
        tensors: Whether to list every tensor.
    """
    config = checkpoint.text_config
    sizes: Counter[str] = Counter()
    parameters = 0
    for source in checkpoint.tensors.values():
        sizes[source.dtype] += source.nbytes
        parameters += math.prod(source.shape)
    facts: dict[str, Any] = {
        "path": str(checkpoint.path),
        "architecture": checkpoint.architecture,
        "runs_here": _runs_here(checkpoint.architecture),
        "parameters": parameters,
        "dtypes": dict(sizes.most_common()),
        "tensor_count": len(checkpoint.tensors),
        "weight_bytes": checkpoint.nbytes,
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "hidden_size": config.get("hidden_size", config.get("n_embd")),
        "heads": config.get("num_attention_heads", config.get("n_head")),
        "kv_heads": config.get("num_key_value_heads"),
        "kv_bytes_per_token": _kv_bytes(config),
        "vocab_size": config.get("vocab_size"),
        "context_length": config.get("max_position_embeddings", config.get("n_positions")),
        **_tokenizer_facts(checkpoint),
        "generation_config": checkpoint.generation_config,
    }
    if tensors:
        facts["tensors"] = {
            name: {"dtype": source.dtype, "shape": list(source.shape), "nbytes": source.nbytes}
            for name, source in checkpoint.tensors.items()
        }
    return facts


def _kv_bytes(config: dict[str, Any]) -> dict[str, int] | None:
    """Bytes that a token's keys and values take, by ``EngineConfig.kv_dtype``; None where the config does not tell."""
    names = (("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head"), ("hidden_size", "n_embd"))
    found = [config.get(name, config.get(other)) for name, other in names]
    layers, heads, hidden = (value if isinstance(value, int) and value > 0 else 0 for value in found)
    if not layers or not heads or not hidden:
        return None
    kept, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    if not isinstance(kept, int) or not isinstance(size, int):
        return None
    numbers = 2 * layers * kept * size
    return {"float32": 4 * numbers, "bfloat16": 2 * numbers, "fp8": numbers}


def _runs_here(architecture: str) -> bool:
    from fastllm.nn.registry import architecture_class

    try:
        architecture_class(architecture)
    except FastLLMError:
        return False
    return True


def _tokenizer_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    from fastllm.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(checkpoint.path)
        return {"tokenizer": repr(tokenizer), "chat_template": tokenizer.chat_template is not None}
    except FastLLMError as error:
        return {"tokenizer": f"cannot be read: {error}", "chat_template": False}


def devices() -> list[dict[str, Any]]:
    """Every device that fastllm knows of."""
    from fastllm import _core

    return [
        {"name": name, "available": available, "description": text} for name, available, text in _core.list_devices()
    ]


def as_text(facts: dict[str, Any]) -> str:
    """The facts as aligned lines."""
    lines = []
    for name, value in facts.items():
        if name in ("tensors", "devices") or value is None:
            continue
        if name == "parameters":
            value = f"{_count(value)} ({value})"
        elif name == "dtypes":
            value = ", ".join(f"{dtype} {_bytes(size)}" for dtype, size in value.items())
        elif name == "weight_bytes":
            value = f"{_bytes(value)} ({value})"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={entry}" for key, entry in value.items()) or "none"
        lines.append(f"{name.replace('_', ' '):<18} {value}")
    for name, tensor in facts.get("tensors", {}).items():
        shape = "[" + ", ".join(map(str, tensor["shape"])) + "]"
        lines.append(f"  {name:<60} {tensor['dtype']:<6} {shape:<20} {_bytes(tensor['nbytes'])}")
    for device in facts.get("devices", []):
        lines.append(f"{device['name']:<18} {'yes' if device['available'] else 'no ':<4} {device['description']}")
    return "\n".join(lines)
