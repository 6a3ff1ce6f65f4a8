"""Qwen3 (dense): Llama with a norm on every head of queries and keys. Yang et al. 2505.09388."""

from __future__ import annotations

from fastllm import nn
from fastllm.models.llama import LlamaForCausalLM, attention_sizes
from fastllm.models.qwen2 import qwen_window
from fastllm.nn import Config, RotaryEmbedding

__all__ = ["Qwen3ForCausalLM"]


@nn.register("Qwen3ForCausalLM", "qwen3")
class Qwen3ForCausalLM(LlamaForCausalLM):
    """Heads have 128 channels whatever the hidden size, where the config does not say otherwise."""

    def __init__(self, config: Config) -> None:
        super().__init__(Config({**config, "head_dim": config.integer("head_dim", default=128)}))

    def attention(self, layer: int, rotary: RotaryEmbedding) -> nn.Attention:
        """Llama's with normed queries and keys."""
        return nn.Attention(
            **attention_sizes(self.config),
            layer=layer,
            rotary=rotary,
            bias=self.config.flag("attention_bias", default=False),
            qk_norm_eps=self.config.real("rms_norm_eps", default=1e-6),
            window=qwen_window(self.config, layer),
        )
