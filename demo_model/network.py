"""The network of the demo model in plain PyTorch, and its Hugging Face form (Qwen3ForCausalLM).

Parameters of all layers are stacked [layers, out, in], so that the optimizer treats each kind of matrix as one batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 512
    context: int = 1024
    rope_theta: float = 10000.0
    eps: float = 1e-6


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight.to(x.dtype)


class Network(nn.Module):
    """Decoder with grouped-query attention, normed queries and keys, SwiGLU and tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        s = self.shape = shape
        q_out, kv_out = s.heads * s.head_dim, s.kv_heads * s.head_dim

        def matrix(rows: int, columns: int, *, scale: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(s.layers, rows, columns) * (scale * columns**-0.5))

        self.embed = nn.Parameter(torch.randn(s.vocab, s.hidden) * 0.02)
        self.wq, self.wk, self.wv = matrix(q_out, s.hidden), matrix(kv_out, s.hidden), matrix(kv_out, s.hidden)
        self.wo = matrix(s.hidden, q_out, scale=0.3)
        self.wgate, self.wup = matrix(s.intermediate, s.hidden), matrix(s.intermediate, s.hidden)
        self.wdown = matrix(s.hidden, s.intermediate, scale=0.3)
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(s.layers, s.hidden)) for _ in range(2))
        self.qnorm, self.knorm = (nn.Parameter(torch.ones(s.layers, s.head_dim)) for _ in range(2))
        self.norm = nn.Parameter(torch.ones(s.hidden))
        frequency = s.rope_theta ** (-torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        angle = torch.outer(torch.arange(s.context).float(), frequency)  # [context, head_dim / 2]
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1), persistent=False)
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1), persistent=False)

    def _rotate(self, x: Tensor) -> Tensor:  # x [batch, heads, tokens, head_dim]
        tokens = x.shape[2]
        cos, sin = self.cos[:tokens].to(x.dtype), self.sin[:tokens].to(x.dtype)  # type: ignore[index]
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def forward(self, ids: Tensor, attention: Attention) -> Tensor:
        """Logits [batch, tokens, vocab] of ids [batch, tokens].

        Args:
            ids: token ids.
            attention: of q [batch, heads, tokens, head_dim] and k, v [batch, kv_heads, tokens, head_dim].
        """
        s = self.shape
        batch, tokens = ids.shape
        x = functional.embedding(ids, self.embed)
        if torch.is_autocast_enabled(ids.device.type):
            x = x.to(torch.bfloat16)
        layers = zip(
            *(p.unbind(0) for p in (self.wq, self.wk, self.wv, self.wo, self.wgate, self.wup, self.wdown)),
            *(p.unbind(0) for p in (self.norm1, self.norm2, self.qnorm, self.knorm)),
            strict=True,
        )
        for wq, wk, wv, wo, wgate, wup, wdown, norm1, norm2, qnorm, knorm in layers:
            h = _norm(x, norm1, s.eps)
            q, k, v = (
                functional.linear(h, w).view(batch, tokens, -1, s.head_dim).transpose(1, 2) for w in (wq, wk, wv)
            )
            q, k = self._rotate(_norm(q, qnorm, s.eps)), self._rotate(_norm(k, knorm, s.eps))
            mixed = attention(q, k, v.contiguous()).transpose(1, 2).reshape(batch, tokens, -1)
            x = x + functional.linear(mixed, wo)
            h = _norm(x, norm2, s.eps)
            x = x + functional.linear(functional.silu(functional.linear(h, wgate)) * functional.linear(h, wup), wdown)
        return functional.linear(_norm(x, self.norm, s.eps), self.embed)


_NAMES = {
    "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj",
    "wgate": "mlp.gate_proj", "wup": "mlp.up_proj", "wdown": "mlp.down_proj", "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm", "qnorm": "self_attn.q_norm", "knorm": "self_attn.k_norm",
}  # fmt: skip


def hugging_face_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters under the names of Qwen3ForCausalLM, in bfloat16."""
    out = {"model.embed_tokens.weight": state["embed"], "model.norm.weight": state["norm"]}
    for ours, theirs in _NAMES.items():
        for layer, weight in enumerate(state[ours].unbind(0)):
            out[f"model.layers.{layer}.{theirs}.weight"] = weight
    return {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in sorted(out.items())}


def save_model(state: dict[str, Tensor], shape: Shape, folder: Path) -> None:
    """Writes model.safetensors, config.json and generation_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(hugging_face_state(state), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    generation = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 0, "max_new_tokens": 256}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
