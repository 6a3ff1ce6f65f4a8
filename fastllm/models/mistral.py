"""Mistral: Llama with attention over a sliding window. Jiang et al. 2310.06825."""

from __future__ import annotations

from fastllm import nn
from fastllm.models.llama import LlamaForCausalLM, attention_sizes
from fastllm.nn import RotaryEmbedding

__all__ = ["MistralForCausalLM"]


@nn.register("MistralForCausalLM", "mistral")
class MistralForCausalLM(LlamaForCausalLM):
    """Every layer sees the last ``sliding_window`` tokens; later releases say null and see everything."""

    def attention(self, layer: int, rotary: RotaryEmbedding) -> nn.Attention:
        """Llama's, behind a window."""
        window = int(self.config.bound("sliding_window", missing=4096))
        return nn.Attention(**attention_sizes(self.config), layer=layer, rotary=rotary, window=window)
