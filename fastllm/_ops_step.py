"""Where a forward stands in its sequences: positions and caches, symbolic or real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastllm import _core
from fastllm._ops_array import Array
from fastllm._ops_record import KvLayer, Recorder
from fastllm.errors import ContextTooLong, InvalidRequest

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["EagerStep", "Step", "SymbolicStep"]


class Step:
    """The tokens that one call of a model works on, and what their sequences already hold.

    A model's forward hands it to ``ops.attention`` and ``ops.rope`` and reads ``positions``; it needs no more.
    """

    @property
    def positions(self) -> Array:
        """Position of each token in its sequence, int32 [tokens]."""
        raise NotImplementedError


class SymbolicStep(Step):
    """The step of a graph being recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    @property
    def positions(self) -> Array:
        """The graph's input of that name."""
        return self.recorder.positions()


class EagerStep(Step):
    """One sequence with a cache of its own: the step of a model called in a notebook cell.

    Attributes:
        capacity: Most tokens the sequence can have.
    """

    def __init__(self, device: _core.Device, layers: Mapping[int, KvLayer], *, capacity: int, kv_dtype: str) -> None:
        """Makes an empty sequence.

        Args:
            device: Where the model's weights are.
            layers: What each attention layer keeps, by index; the indices must run from 0 without a gap.
            capacity: Most tokens.
            kv_dtype: Element type of the cache.
        """
        count = max(layers, default=-1) + 1
        if sorted(layers) != list(range(count)):
            raise InvalidRequest(f"[step] attention layers {sorted(layers)} do not run from 0 without a gap.")
        specs = [
            {"kv_heads": kept.kv_heads, "head_dim": kept.head_dim, "v_head_dim": kept.v_head_dim, "dtype": kv_dtype}
            for kept in (layers[index] for index in range(count))
        ]
        self.device = device
        self.capacity = capacity
        self.core = _core.EagerStep(device, specs, capacity)

    def begin(self, token_ids: Sequence[int], *, rope_len: int = 0) -> Tensor:
        """Moves on to these tokens, behind those of earlier calls.

        Args:
            token_ids: At least one id.
            rope_len: Length that a length-dependent rope assumes, if more than the tokens so far: the whole prompt's,
                when it comes in pieces.

        Returns:
            The ids, int32 [tokens].

        Raises:
            ContextTooLong: More than ``capacity`` tokens.
        """
        ids = [int(token) for token in token_ids]
        if not ids:
            raise InvalidRequest("[step] there are no tokens to run.", hint="Give at least one id.")
        if self.length + len(ids) > self.capacity:
            raise ContextTooLong(
                f"[step] {self.length} tokens and {len(ids)} more do not fit into a capacity of {self.capacity}.",
                hint="Make the step with a larger capacity.",
                prompt_tokens=self.length + len(ids),
                limit=self.capacity,
            )
        self.core.begin(ids, rope_len=rope_len)
        from fastllm.tensor import Tensor

        return Tensor._wrap(self.core.token_ids)

    @property
    def length(self) -> int:
        """Tokens in the sequence, those of the step under way included."""
        return self.core.length

    @property
    def positions(self) -> Tensor:
        """Position of each token of the step under way, int32 [tokens]."""
        from fastllm.tensor import Tensor

        return Tensor._wrap(self.core.positions)

    def __repr__(self) -> str:
        return f"EagerStep({self.length} of {self.capacity} tokens)"
