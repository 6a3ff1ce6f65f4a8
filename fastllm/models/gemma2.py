"""Gemma 2: norms before and after each part, capped scores and logits, every other layer behind a window. 2408.00118.

Norm weights are stored minus 1. The embedding is multiplied by sqrt(hidden), rounded to the checkpoint's dtype.
"""

from __future__ import annotations

from fastllm import nn, ops
from fastllm._ops_array import A
from fastllm.nn import Config, RotaryEmbedding, Step

__all__ = ["Gemma2Block", "Gemma2ForCausalLM", "gemma_norm"]


def gemma_norm(config: Config) -> nn.RMSNorm:
    """An RMSNorm over the hidden features whose checkpoint holds weight - 1."""
    return nn.RMSNorm(config.integer("hidden_size"), eps=config.real("rms_norm_eps", default=1e-6), weight_offset=1.0)


class Gemma2Block(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(feed-forward(norm(x)))."""

    def __init__(self, config: Config, attention: nn.Attention) -> None:
        self.input_layernorm = gemma_norm(config)
        self.self_attn = attention
        self.post_attention_layernorm = gemma_norm(config)
        self.pre_feedforward_layernorm = gemma_norm(config)
        self.mlp = nn.GatedMLP(
            config.integer("hidden_size"),
            config.integer("intermediate_size"),
            activation=config.activation("hidden_activation", "hidden_act", default="gelu_pytorch_tanh"),
        )
        self.post_feedforward_layernorm = gemma_norm(config)

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        normed = ops.tap(self.input_layernorm(ops.tap(x, "resid_pre")), "ln1")
        added = ops.tap(self.post_attention_layernorm(self.self_attn(normed, step)), "attn_out")
        x = ops.tap(x + added, "resid_mid")
        normed = ops.tap(self.pre_feedforward_layernorm(x), "ln2")
        added = ops.tap(self.post_feedforward_layernorm(self.mlp(normed)), "mlp_out")
        return ops.tap(x + added, "resid_post")


class Gemma2Decoder(nn.Module):
    """Scaled embedding, blocks, last norm."""

    def __init__(self, config: Config) -> None:
        hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
        self.embed_tokens = nn.Embedding(config.integer("vocab_size"), hidden, scale=hidden**0.5)
        self.rotary_emb = RotaryEmbedding(config.integer("head_dim", default=256), config.rope())
        kinds = config.layer_types(layers) or ["sliding_attention", "full_attention"] * ((layers + 1) // 2)
        self.layers = nn.ModuleList(
            Gemma2Block(config, self.attention(config, layer, kinds[layer])) for layer in range(layers)
        )
        self.norm = gemma_norm(config)

    def attention(self, config: Config, layer: int, kind: str) -> nn.Attention:
        """Scores are scaled by a constant of the config, not by the size of a head."""
        heads = config.integer("num_attention_heads")
        return nn.Attention(
            config.integer("hidden_size"),
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", default=heads),
            head_dim=config.integer("head_dim", default=256),
            layer=layer,
            rotary=self.rotary_emb,
            bias=config.flag("attention_bias", default=False),
            window=int(config.bound("sliding_window", missing=4096)) if kind == "sliding_attention" else 0,
            softcap=config.bound("attn_logit_softcapping", missing=50.0),
            scale=config.positive("query_pre_attn_scalar", default=256.0) ** -0.5,
        )

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, hidden]."""
        x = ops.tap(self.embed_tokens(ids), "embed")
        for layer in self.layers:
            x = layer(x, step)
        return ops.tap(self.norm(x), "ln_final")


@nn.register("Gemma2ForCausalLM", "gemma2")
class Gemma2ForCausalLM(nn.Model):
    """The decoder and capped logits from the embedding table."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = Gemma2Decoder(config)
        self.lm_head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"))
        if config.flag("tie_word_embeddings", default=True):
            self.tie(self.model.embed_tokens, self.lm_head)
        self.cap = config.bound("final_logit_softcapping", missing=30.0)

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, vocab]."""
        return self._logits(self.model(ids, step))

    def unembed(self, x: A) -> A:
        """[T, hidden] -> [T, vocab]."""
        return self._logits(self.model.norm(x))

    def _logits(self, x: A) -> A:
        logits = self.lm_head(x)
        return ops.softcap(logits, self.cap) if self.cap else logits
