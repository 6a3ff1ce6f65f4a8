"""Gemma 3, its text model: Gemma 2 with normed heads instead of capped scores, and two ropes. Kamath et al. 2503.19786.

Five layers behind a window, with the rope they were trained with, alternate with one that sees everything through a
slower, stretchable rope.
"""

from __future__ import annotations

from fastllm import nn, ops
from fastllm._ops_array import A
from fastllm.errors import UnsupportedFormat
from fastllm.models.gemma2 import Gemma2Block, gemma_norm
from fastllm.nn import Config, RotaryEmbedding, Step

__all__ = ["Gemma3ForCausalLM"]


class Gemma3Decoder(nn.Module):
    """Scaled embedding, blocks, last norm."""

    def __init__(self, config: Config) -> None:
        hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
        head_dim = config.integer("head_dim", default=256)
        self.embed_tokens = nn.Embedding(config.integer("vocab_size"), hidden, scale=hidden**0.5)
        # Old configs name the local base at the top level; without it, it is 10000 whatever the global one is.
        ropes = Config({"rope_local_base_freq": 10000.0, **config})
        self.rotary_emb = RotaryEmbedding(head_dim, ropes.rope("full_attention", default_theta=1e6))
        self.rotary_emb_local = RotaryEmbedding(head_dim, ropes.rope("sliding_attention", default_theta=1e4))
        period = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
        kinds = config.layer_types(layers) or [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(layers)
        ]
        self.layers = nn.ModuleList(
            Gemma2Block(config, self.attention(config, layer, kinds[layer])) for layer in range(layers)
        )
        self.norm = gemma_norm(config)

    def attention(self, config: Config, layer: int, kind: str) -> nn.Attention:
        """Local layers have a window and a rope of their own."""
        heads, local = config.integer("num_attention_heads"), kind == "sliding_attention"
        return nn.Attention(
            config.integer("hidden_size"),
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", default=heads),
            head_dim=config.integer("head_dim", default=256),
            layer=layer,
            rotary=self.rotary_emb_local if local else self.rotary_emb,
            bias=config.flag("attention_bias", default=False),
            qk_norm_eps=config.real("rms_norm_eps", default=1e-6),
            qk_norm_offset=1.0,
            window=int(config.bound("sliding_window", missing=4096)) if local else 0,
            scale=config.positive("query_pre_attn_scalar", default=256.0) ** -0.5,
        )

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, hidden]."""
        x = ops.tap(self.embed_tokens(ids), "embed")
        for layer in self.layers:
            x = layer(x, step)
        return ops.tap(self.norm(x), "ln_final")


@nn.register("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "gemma3_text", "gemma3")
class Gemma3ForCausalLM(nn.Model):
    """The decoder and logits from the embedding table. Of checkpoints that also see, it reads the language model."""

    renames = (
        (r"^language_model\.", ""),
        (r"^model\.language_model\.", "model."),
    )
    ignored_tensors = (
        *nn.Model.ignored_tensors,
        r"^(model\.)?vision_tower\.",
        r"^(model\.)?multi_modal_projector\.",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.flag("use_bidirectional_attention", default=False):
            fact = "use_bidirectional_attention is true: this Gemma 3 embeds text, it does not write"
            raise UnsupportedFormat(f"[load] {fact}.")
        self.model = Gemma3Decoder(config)
        self.lm_head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"))
        if config.flag("tie_word_embeddings", default=True):
            self.tie(self.model.embed_tokens, self.lm_head)
        self.cap = config.bound("final_logit_softcapping", missing=0.0)

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, vocab]."""
        return self._logits(self.model(ids, step))

    def unembed(self, x: A) -> A:
        """[T, hidden] -> [T, vocab]."""
        return self._logits(self.model.norm(x))

    def _logits(self, x: A) -> A:
        logits = self.lm_head(x)
        return ops.softcap(logits, self.cap) if self.cap else logits
