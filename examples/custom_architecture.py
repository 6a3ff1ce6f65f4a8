"""An architecture of your own: written here, loaded and streamed like a built-in one.

The network is a small GPT with a parallel residual (attention and feed-forward read one norm and are added at once, as
in GPT-J) and a plain, ungated feed-forward. The script writes a random checkpoint for it, registers the class, loads
the checkpoint, streams tokens, and checks that the compiled model gives what the same class gives when called by hand.

    python examples/custom_architecture.py
"""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import fastllm
from fastllm import nn

CONFIG: dict[str, Any] = {
    "architectures": ["ParallelForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


# --- the architecture -------------------------------------------------------------------------------------------------


class ParallelBlock(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x))."""

    def __init__(self, config: nn.Config, layer: int, rotary: nn.RotaryEmbedding) -> None:
        hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        self.norm = nn.LayerNorm(hidden)
        self.attention = nn.Attention(
            hidden,
            heads=heads,
            kv_heads=config.integer("num_key_value_heads"),
            head_dim=hidden // heads,
            layer=layer,
            rotary=rotary,
        )
        self.mlp = nn.MLP(hidden, 4 * hidden, activation="gelu")

    def forward(self, x: Any, step: nn.Step) -> Any:
        """[tokens, hidden] -> [tokens, hidden]."""
        normed = self.norm(x)
        return x + self.attention(normed, step) + self.mlp(normed)


@fastllm.register("ParallelForCausalLM")
class ParallelForCausalLM(nn.Model):
    """Embedding, blocks, a last norm, and logits from the embedding table."""

    base_prefix = ""

    def __init__(self, config: nn.Config) -> None:
        super().__init__(config)
        hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
        self.embedding = nn.Embedding(vocab, hidden)
        self.rotary = nn.RotaryEmbedding(hidden // config.integer("num_attention_heads"))
        self.blocks = nn.ModuleList(
            ParallelBlock(config, layer, self.rotary) for layer in range(config.integer("num_hidden_layers"))
        )
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, vocab)
        self.tie(self.embedding, self.output)

    def forward(self, ids: Any, step: nn.Step) -> Any:
        """[tokens] -> [tokens, vocab]."""
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, step)
        return self.output(self.norm(x))


# --- a random checkpoint for it ---------------------------------------------------------------------------------------


def write_checkpoint(folder: Path) -> None:
    """config.json, model.safetensors and tokenizer.json (one token for each byte)."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    rng = np.random.default_rng(0)
    header: dict[str, Any] = {}
    body = b""
    for name, parameter in ParallelForCausalLM(nn.Config(CONFIG)).named_parameters():
        around = 1.0 if "norm.weight" in name else 0.0
        values = (around + rng.normal(size=parameter.shape) * 0.15).astype(np.float32)
        place = [len(body), len(body) + values.nbytes]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": place}
        body += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


# --- load, stream, compare --------------------------------------------------------------------------------------------


async def main() -> None:
    """Writes, loads, streams and checks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        async with await fastllm.load_async(folder) as model:
            print(model.info)
            prompt = "An architecture of your own"
            async for token in model.stream(prompt, seed=1, max_new_tokens=24):
                print(f"{token.id:3d}", end=" ", flush=True)
            print("  (random weights: the bytes mean nothing)")

            compiled = await model.logits(prompt)  # [tokens, vocab], from the graph that the engine runs
            by_hand = model.module(model.tokenize(prompt)).numpy()  # the same class, op by op
        difference = float(np.abs(compiled - by_hand).max() / np.ptp(by_hand))
        print(f"largest difference between compiled and eager logits: {difference:.1e} of their spread")
        if difference > 1e-4:
            raise SystemExit("they differ")


if __name__ == "__main__":
    asyncio.run(main())
