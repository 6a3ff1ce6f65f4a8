"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values. Yang et al. 2407.10671, 2412.15115."""

from __future__ import annotations

from fastllm import nn
from fastllm.models.llama import LlamaForCausalLM, attention_sizes
from fastllm.nn import Config, RotaryEmbedding

__all__ = ["Qwen2ForCausalLM", "qwen_window"]


@nn.register("Qwen2ForCausalLM", "qwen2")
class Qwen2ForCausalLM(LlamaForCausalLM):
    """Layers from ``max_window_layers`` on may see a sliding window only; released models have that switched off."""

    def attention(self, layer: int, rotary: RotaryEmbedding) -> nn.Attention:
        """Llama's with biases, and a window in the upper layers."""
        return nn.Attention(
            **attention_sizes(self.config),
            layer=layer,
            rotary=rotary,
            bias=True,
            output_bias=False,
            window=qwen_window(self.config, layer),
        )


def qwen_window(config: Config, layer: int) -> int:
    """How many tokens a token of this layer sees, 0 for all."""
    if not config.flag("use_sliding_window", default=False):
        return 0
    kinds = config.layer_types(config.integer("num_hidden_layers"))
    if kinds is not None:
        sliding = kinds[layer] == "sliding_attention"
    else:
        sliding = layer >= config.bound("max_window_layers", missing=28)
    return int(config.bound("sliding_window", missing=4096)) if sliding else 0
