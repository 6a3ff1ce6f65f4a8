"""Llama 1 to 3 and the many models of its shape. Touvron et al. 2302.13971, 2307.09288; Llama 3: 2407.21783.

Pre-norm blocks of rotary attention with shared key heads and a SwiGLU feed-forward, all without biases unless the
config says so. Mistral and Qwen reuse the blocks and change the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fastllm import nn, ops
from fastllm._ops_array import A
from fastllm.nn import Config, RotaryEmbedding, Step

__all__ = ["Decoder", "DecoderBlock", "LlamaForCausalLM"]

MakeAttention: TypeAlias = Callable[[int, RotaryEmbedding], nn.Attention]


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: Config, attention: nn.Attention) -> None:
        hidden, eps = config.integer("hidden_size"), config.real("rms_norm_eps", default=1e-6)
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.self_attn = attention
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.mlp = nn.GatedMLP(
            hidden,
            config.integer("intermediate_size"),
            activation=config.activation("hidden_act", default="silu"),
            bias=config.flag("mlp_bias", default=False),
        )

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        normed = ops.tap(self.input_layernorm(ops.tap(x, "resid_pre")), "ln1")
        x = ops.tap(x + ops.tap(self.self_attn(normed, step), "attn_out"), "resid_mid")
        normed = ops.tap(self.post_attention_layernorm(x), "ln2")
        return ops.tap(x + ops.tap(self.mlp(normed), "mlp_out"), "resid_post")


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: the part that checkpoints call "model"."""

    def __init__(self, config: Config, attention: MakeAttention) -> None:
        hidden = config.integer("hidden_size")
        self.embed_tokens = nn.Embedding(config.integer("vocab_size"), hidden)
        self.rotary_emb = RotaryEmbedding(head_dim(config), config.rope())
        self.layers = nn.ModuleList(
            DecoderBlock(config, attention(layer, self.rotary_emb))
            for layer in range(config.integer("num_hidden_layers"))
        )
        self.norm = nn.RMSNorm(hidden, eps=config.real("rms_norm_eps", default=1e-6))

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, hidden]."""
        x = ops.tap(self.embed_tokens(ids), "embed")
        for layer in self.layers:
            x = layer(x, step)
        return ops.tap(self.norm(x), "ln_final")


@nn.register("LlamaForCausalLM", "llama")
class LlamaForCausalLM(nn.Model):
    """A Decoder and the product with the output table."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = Decoder(config, self.attention)
        self.lm_head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"))
        if config.flag("tie_word_embeddings", default=False):
            self.tie(self.model.embed_tokens, self.lm_head)

    def attention(self, layer: int, rotary: RotaryEmbedding) -> nn.Attention:
        """The attention of one layer: what the models of this family differ in."""
        bias = self.config.flag("attention_bias", default=False)
        return nn.Attention(**attention_sizes(self.config), layer=layer, rotary=rotary, bias=bias)

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, vocab]."""
        return self.lm_head(self.model(ids, step))

    def unembed(self, x: A) -> A:
        """[T, hidden] -> [T, vocab]."""
        return self.lm_head(self.model.norm(x))


def head_dim(config: Config, default: int | None = None) -> int:
    """Channels of a head; hidden / heads where the config has no value and the architecture no default."""
    if default is None:
        default = config.integer("hidden_size") // config.integer("num_attention_heads")
    return config.integer("head_dim", default=default)


def attention_sizes(config: Config) -> dict[str, Any]:
    """The sizes every attention needs, under the names of ``nn.Attention``."""
    heads = config.integer("num_attention_heads")
    return {
        "hidden": config.integer("hidden_size"),
        "heads": heads,
        "kv_heads": config.integer("num_key_value_heads", default=heads),
        "head_dim": head_dim(config),
    }
