"""Phi-3 and Phi-4 mini: Llama with fused tensors, partial rotation, longrope. Abdin et al. 2404.14219, 2503.01743."""

from __future__ import annotations

from fastllm import nn, ops
from fastllm._ops_array import A
from fastllm.models.llama import attention_sizes, head_dim
from fastllm.nn import Config, RotaryEmbedding, Step

__all__ = ["Phi3ForCausalLM"]


class Phi3MLP(nn.Module):
    """SwiGLU with gate and up in one tensor, the gate first."""

    def __init__(self, config: Config) -> None:
        hidden, self.inner = config.integer("hidden_size"), config.integer("intermediate_size")
        self.activation = config.activation("hidden_act", default="silu")
        self.gate_up_proj = nn.Linear(hidden, 2 * self.inner)
        self.down_proj = nn.Linear(self.inner, hidden)

    def forward(self, x: A) -> A:
        """[T, hidden] -> [T, hidden]."""
        gate, up = ops.split(self.gate_up_proj(x), (self.inner, self.inner))
        gate, up = ops.tap(gate, "mlp.pre"), ops.tap(up, "mlp.up")
        return self.down_proj(ops.tap(ops.gated(gate, up, activation=self.activation), "mlp.post"))


class Phi3Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: Config, layer: int, rotary: RotaryEmbedding) -> None:
        hidden, eps = config.integer("hidden_size"), config.real("rms_norm_eps", default=1e-5)
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.self_attn = nn.Attention(
            **attention_sizes(config),
            layer=layer,
            rotary=rotary,
            window=int(config.bound("sliding_window", missing=0)),
            fused=True,
        )
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.mlp = Phi3MLP(config)

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        normed = ops.tap(self.input_layernorm(ops.tap(x, "resid_pre")), "ln1")
        x = ops.tap(x + ops.tap(self.self_attn(normed, step), "attn_out"), "resid_mid")
        normed = ops.tap(self.post_attention_layernorm(x), "ln2")
        return ops.tap(x + ops.tap(self.mlp(normed), "mlp_out"), "resid_post")


class Phi3Decoder(nn.Module):
    """Embedding, blocks, last norm."""

    def __init__(self, config: Config) -> None:
        hidden = config.integer("hidden_size")
        self.embed_tokens = nn.Embedding(config.integer("vocab_size"), hidden)
        self.rotary_emb = RotaryEmbedding(head_dim(config), config.rope())
        self.layers = nn.ModuleList(
            Phi3Block(config, layer, self.rotary_emb) for layer in range(config.integer("num_hidden_layers"))
        )
        self.norm = nn.RMSNorm(hidden, eps=config.real("rms_norm_eps", default=1e-5))

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, hidden]."""
        x = ops.tap(self.embed_tokens(ids), "embed")
        for layer in self.layers:
            x = layer(x, step)
        return ops.tap(self.norm(x), "ln_final")


@nn.register("Phi3ForCausalLM", "phi3")
class Phi3ForCausalLM(nn.Model):
    """The decoder and the product with the output table."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = Phi3Decoder(config)
        self.lm_head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"))
        if config.flag("tie_word_embeddings", default=False):
            self.tie(self.model.embed_tokens, self.lm_head)

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, vocab]."""
        return self.lm_head(self.model(ids, step))

    def unembed(self, x: A) -> A:
        """[T, hidden] -> [T, vocab]."""
        return self.lm_head(self.model.norm(x))
