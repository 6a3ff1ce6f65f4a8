"""Self-attention with shared key heads, as the llama family has it."""

from __future__ import annotations

from fastllm import ops
from fastllm._ops_array import A
from fastllm._ops_step import Step
from fastllm.errors import LoadError
from fastllm.nn.layers import Linear, RMSNorm
from fastllm.nn.module import Module
from fastllm.nn.rotary import RotaryEmbedding

__all__ = ["Attention"]


class Attention(Module):
    """Causal self-attention. Vaswani et al. 1706.03762; grouped queries: Ainslie et al. 2305.13245.

    Tensors: q_proj, k_proj, v_proj, o_proj, and with ``qk_norm_eps`` q_norm and k_norm (one weight for all heads).
    """

    def __init__(
        self,
        hidden: int,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        layer: int,
        rotary: RotaryEmbedding | None = None,
        bias: bool = False,
        output_bias: bool | None = None,
        qk_norm_eps: float | None = None,
        qk_norm_offset: float = 0.0,
        window: int = 0,
        softcap: float = 0.0,
        scale: float | None = None,
        fused: bool = False,
    ) -> None:
        """Declares the weights.

        Args:
            hidden: Features of a token.
            heads: Query heads.
            kv_heads: Key and value heads; ``heads`` is a multiple.
            head_dim: Channels of a head.
            layer: Index of the layer, from 0: which cache is its own.
            rotary: Rotates queries and keys; None for models with other positions.
            bias: Whether q, k and v have a bias.
            output_bias: Whether o has one; as ``bias`` if None.
            qk_norm_eps: If given, each head of queries and keys is normed (RMSNorm) before it is rotated.
            qk_norm_offset: Added to the weights of those norms.
            window: If positive, how many tokens a token sees, itself included.
            softcap: If positive, bound of the scores.
            scale: Multiplies the scores; 1 / sqrt(head_dim) if None.
            fused: Whether the checkpoint has one qkv_proj instead of three.

        Raises:
            LoadError: ``heads`` is no multiple of ``kv_heads``.
        """
        if heads % kv_heads:
            hint = "Are num_attention_heads and num_key_value_heads right?"
            raise LoadError(f"[attention] {heads} query heads cannot share {kv_heads} key heads evenly.", hint=hint)
        self.heads, self.kv_heads, self.head_dim, self.layer = heads, kv_heads, head_dim, layer
        self.window, self.softcap, self.scale = window, softcap, scale
        queries, keys = heads * head_dim, kv_heads * head_dim
        if fused:
            self.qkv_proj = Linear(hidden, queries + 2 * keys, bias=bias)
        else:
            self.q_proj = Linear(hidden, queries, bias=bias)
            self.k_proj = Linear(hidden, keys, bias=bias)
            self.v_proj = Linear(hidden, keys, bias=bias)
        self.o_proj = Linear(queries, hidden, bias=bias if output_bias is None else output_bias)
        self.fused, self.qk_norm = fused, qk_norm_eps is not None
        if qk_norm_eps is not None:
            self.q_norm = RMSNorm(head_dim, eps=qk_norm_eps, weight_offset=qk_norm_offset)
            self.k_norm = RMSNorm(head_dim, eps=qk_norm_eps, weight_offset=qk_norm_offset)
        # Not a submodule: one rotary embedding serves all layers and has no tensors in checkpoints.
        self._rotary = (rotary,)

    def forward(self, x: A, step: Step) -> A:
        """[T, hidden] -> [T, hidden]."""
        q, k, v = self.queries_keys_values(x)
        q = q.reshape(-1, self.heads, self.head_dim)
        k = k.reshape(-1, self.kv_heads, self.head_dim)
        v = v.reshape(-1, self.kv_heads, self.head_dim)
        q, k, v = ops.tap(q, "attn.q"), ops.tap(k, "attn.k"), ops.tap(v, "attn.v")
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        rotary = self._rotary[0]
        if rotary is not None:
            q, k = rotary.forward(q, step, name="q_rope"), rotary.forward(k, step, name="k_rope")
        mixed = ops.attention(
            q, k, v, step, layer=self.layer, scale=self.scale, window=self.window, softcap=self.softcap
        )
        return self.o_proj(mixed.reshape(-1, self.heads * self.head_dim))

    def queries_keys_values(self, x: A) -> tuple[A, A, A]:
        """[T, hidden] -> [T, heads * head_dim] and twice [T, kv_heads * head_dim]."""
        if not self.fused:
            return self.q_proj(x), self.k_proj(x), self.v_proj(x)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        q, k, v = ops.split(self.qkv_proj(x), (queries, keys, keys))
        return q, k, v

    def extra_repr(self) -> str:
        """Heads, and what is not plain about them."""
        parts = [f"{self.heads} heads on {self.kv_heads} of {self.head_dim}"]
        if self.window:
            parts.append(f"window {self.window}")
        if self.softcap:
            parts.append(f"softcap {self.softcap:g}")
        if self.scale is not None:
            parts.append(f"scale {self.scale:.4g}")
        return ", ".join(parts)
