"""``tap``: names for the values inside a model, and ``watch`` for seeing them when the model runs eagerly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

from fastllm._ops_array import A
from fastllm._ops_record import Symbol, tap_name
from fastllm.tensor import Tensor

__all__ = ["tap", "watch"]

_SEEN: ContextVar[dict[str, Tensor] | None] = ContextVar("fastllm_watch", default=None)


def tap(x: A, label: str, *, pattern: bool = False) -> A:
    """Names a value, so that ``capture`` and ``steer`` can find it; gives it back unchanged.

    In a layer the name is "blocks.N." and the label, elsewhere the label alone. Recording costs nothing: a plain
    engine step does not know of names.

    Args:
        x: [T, ...].
        label: Such as "attn.q".
        pattern: The name is for the weights of the attention whose result ``x`` is; these are not computed eagerly.
    """
    if isinstance(x, Symbol):
        x.recorder.tap(x, label, pattern=pattern)
    elif (seen := _SEEN.get()) is not None and not pattern:
        seen[tap_name(label)] = cast(Tensor, x)
    return x


@contextmanager
def watch() -> Iterator[dict[str, Tensor]]:
    """Collects what models called eagerly inside the block compute: a dict of name -> Tensor that fills as they run.

    Write ``with nn.watch() as seen: model.module([1, 5, 7])``, then look at ``seen["blocks.0.attn.q"]``.
    """
    seen: dict[str, Tensor] = {}
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)
