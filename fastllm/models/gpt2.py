"""GPT-2: learned positions, LayerNorm, a plain GELU feed-forward, biases everywhere. Radford et al. 2019.

Its products are stored as [in, out] ("Conv1D"), queries, keys and values in one.
"""

from __future__ import annotations

from fastllm import nn, ops
from fastllm._ops_array import A
from fastllm.errors import LoadError, UnsupportedFormat
from fastllm.nn import Config, Step

__all__ = ["GPT2LMHeadModel"]


class GPT2Attention(nn.Module):
    """Causal self-attention with as many key heads as query heads."""

    def __init__(self, config: Config, layer: int) -> None:
        self.layer, self.hidden = layer, config.integer("n_embd", "hidden_size")
        self.heads = config.integer("n_head", "num_attention_heads")
        if self.hidden % self.heads:
            hint = "Are n_embd and n_head right?"
            raise LoadError(f"[gpt2] {self.hidden} features do not divide into {self.heads} heads.", hint=hint)
        self.head_dim = self.hidden // self.heads
        self.scale = self.head_dim**-0.5 if config.flag("scale_attn_weights", default=True) else 1.0
        if config.flag("scale_attn_by_inverse_layer_idx", default=False):
            self.scale /= layer + 1
        self.c_attn = nn.Conv1D(self.hidden, 3 * self.hidden)
        self.c_proj = nn.Conv1D(self.hidden, self.hidden)

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        q, k, v = (
            part.reshape(-1, self.heads, self.head_dim)
            for part in ops.split(self.c_attn(x), (self.hidden, self.hidden, self.hidden))
        )
        q, k, v = ops.tap(q, "attn.q"), ops.tap(k, "attn.k"), ops.tap(v, "attn.v")
        mixed = ops.attention(q, k, v, step, layer=self.layer, scale=self.scale)
        return self.c_proj(mixed.reshape(-1, self.hidden))


class GPT2MLP(nn.Module):
    """A hidden layer of four times the width."""

    def __init__(self, config: Config) -> None:
        hidden = config.integer("n_embd", "hidden_size")
        inner = config.integer("n_inner", default=4 * hidden)
        self.activation = config.activation("activation_function", default="gelu_new")
        self.c_fc = nn.Conv1D(hidden, inner)
        self.c_proj = nn.Conv1D(inner, hidden)

    def forward(self, x: A) -> A:
        """[T, hidden] -> [T, hidden]."""
        inner = ops.activation(self.activation, ops.tap(self.c_fc(x), "mlp.pre"))
        return self.c_proj(ops.tap(inner, "mlp.post"))


class GPT2Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: Config, layer: int) -> None:
        hidden, eps = config.integer("n_embd", "hidden_size"), config.real("layer_norm_epsilon", default=1e-5)
        self.ln_1 = nn.LayerNorm(hidden, eps=eps)
        self.attn = GPT2Attention(config, layer)
        self.ln_2 = nn.LayerNorm(hidden, eps=eps)
        self.mlp = GPT2MLP(config)

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        normed = ops.tap(self.ln_1(ops.tap(x, "resid_pre")), "ln1")
        x = ops.tap(x + ops.tap(self.attn(normed, step), "attn_out"), "resid_mid")
        normed = ops.tap(self.ln_2(x), "ln2")
        return ops.tap(x + ops.tap(self.mlp(normed), "mlp_out"), "resid_post")


class GPT2Decoder(nn.Module):
    """Token and position tables, blocks, last norm."""

    def __init__(self, config: Config) -> None:
        hidden = config.integer("n_embd", "hidden_size")
        self.wte = nn.Embedding(config.integer("vocab_size"), hidden)
        self.wpe = nn.Embedding(config.integer("n_positions", "max_position_embeddings", default=1024), hidden)
        self.h = nn.ModuleList(
            GPT2Block(config, layer) for layer in range(config.integer("n_layer", "num_hidden_layers"))
        )
        self.ln_f = nn.LayerNorm(hidden, eps=config.real("layer_norm_epsilon", default=1e-5))

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, hidden]."""
        x = ops.tap(self.wte(ids), "embed") + ops.tap(self.wpe(step.positions), "pos_embed")
        for block in self.h:
            x = block(x, step)
        return ops.tap(self.ln_f(x), "ln_final")


@nn.register("GPT2LMHeadModel", "gpt2")
class GPT2LMHeadModel(nn.Model):
    """The decoder and the product with the token table. OpenAI's files leave out the first word of the names."""

    base_prefix = "transformer"
    ignored_tensors = (r"\.attn\.(bias|masked_bias)$",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.flag("add_cross_attention", default=False):
            raise UnsupportedFormat("[gpt2] this checkpoint attends to an encoder, which it does not hold.")
        self.transformer = GPT2Decoder(config)
        self.lm_head = nn.Linear(config.integer("n_embd", "hidden_size"), config.integer("vocab_size"))
        if config.flag("tie_word_embeddings", default=True):
            self.tie(self.transformer.wte, self.lm_head)

    @property
    def context_length(self) -> int:
        """Rows of the table of positions."""
        return self.transformer.wpe.rows

    @property
    def position_limit(self) -> int | None:
        """The same: there is nothing behind its end."""
        return self.context_length

    def forward(self, ids: A, step: Step) -> A:
        """[T] -> [T, vocab]."""
        return self.lm_head(self.transformer(ids, step))

    def unembed(self, x: A) -> A:
        """[T, hidden] -> [T, vocab]."""
        return self.lm_head(self.transformer.ln_f(x))
