"""Recording: what an op does when it is given values of a graph instead of numbers.

A ``Symbol`` stands for a node's output. Weights enter as named constants, and each node gets the path of the module
that made it ("model.layers.3.self_attn.q_proj"), which is the name under which it can later be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastllm import _core
from fastllm._ops_array import Array
from fastllm._ops_dtype import DType, as_dtype
from fastllm.errors import InvalidRequest, ShapeError

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["KvLayer", "Recorder", "Symbol", "name_scope", "tap_name"]

_SCOPE: ContextVar[str] = ContextVar("fastllm_scope", default="")


@contextmanager
def name_scope(path: str) -> Iterator[None]:
    """Names the nodes recorded inside after the module at ``path``."""
    token = _SCOPE.set(path)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def tap_name(label: str) -> str:
    """The name of a value of the module at work: "blocks.3.attn.q" in the layer of index 3, "embed" outside of one."""
    block = next((part for part in _SCOPE.get().split(".") if part.isdigit()), None)
    return label if block is None else f"blocks.{block}.{label}"


@dataclass(frozen=True, slots=True)
class KvLayer:
    """What one attention layer keeps of each token."""

    kv_heads: int
    head_dim: int
    v_head_dim: int


class Symbol(Array):
    """A value of a graph being recorded: a shape and a dtype, but no numbers.

    Its first axis is symbolic: "tokens" (all tokens of a step) or "rows" (those whose logits are wanted).
    """

    __slots__ = ("recorder", "value")

    def __init__(self, value: _core.Value, recorder: Recorder) -> None:
        self.value = value
        self.recorder = recorder

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes, the first one symbolic."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> DType:
        """Type of the elements."""
        return as_dtype(self.value.dtype)

    def __getitem__(self, key: Any, /) -> Symbol:
        """``x[..., a:b]``: part of the last axis, the only one that can be cut while recording."""
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) == 2 and keys[0] is Ellipsis and isinstance(keys[1], slice) and keys[1].step in (None, 1):
            start, stop, _ = keys[1].indices(int(self.shape[-1]))
            return self.recorder.slice_last(self, start, stop)
        raise InvalidRequest(
            f"[slice] a recorded value of shape {list(self.shape)} cannot be indexed with {key!r}.",
            hint="In a model's forward only x[..., start:stop] is allowed: the number of tokens is not known yet.",
        )

    def __bool__(self) -> bool:
        raise _no_numbers(self, "bool()")

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise _no_numbers(self, "numpy()")

    def numpy(self) -> Any:
        """Refused: there are no numbers yet."""
        raise _no_numbers(self, "numpy()")

    def __repr__(self) -> str:
        return f"Symbol {self.dtype.short} [{', '.join(map(str, self.shape))}] {self.value.name}".rstrip()


def _no_numbers(symbol: Symbol, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"[record] {what} needs numbers, but {symbol!r} is a value of a graph being recorded.",
        hint="A model's forward may use fastllm.ops only; call the module on Tensors to look at numbers.",
    )


class Recorder:
    """Builds the native graph of one forward.

    Attributes:
        graph: The native graph.
        kv_layers: What each attention layer keeps of a token, by layer index.
    """

    def __init__(self) -> None:
        self.graph = _core.Graph()
        self.kv_layers: dict[int, KvLayer] = {}
        self._constants: dict[str, tuple[_core.Tensor, _core.Value]] = {}
        self._by_handle: dict[int, str] = {}
        self._names: set[str] = set()
        self._tapped: set[str] = set()

    def token_ids(self) -> Symbol:
        """The ids of the step's tokens, int32 [tokens]."""
        return Symbol(self.graph.token_ids(), self)

    def positions(self) -> Symbol:
        """The position of each token in its sequence, int32 [tokens]."""
        return Symbol(self.graph.positions(), self)

    def input(self, array: Array) -> _core.Value:
        """The graph value of an operand: a Symbol's own, or a constant for a Tensor."""
        if isinstance(array, Symbol):
            if array.recorder is not self:
                raise InvalidRequest(f"[record] {array!r} belongs to another graph.")
            return array.value
        return self._constant(array)  # type: ignore[arg-type]

    def _constant(self, tensor: Tensor) -> _core.Value:
        handle = tensor._handle
        name = tensor.name or self._by_handle.get(id(handle)) or self._free(_joined("constant"))
        known = self._constants.get(name)
        if known is not None and known[0] is not handle:
            name = self._free(name)
            known = None
        if known is None:
            self._by_handle[id(handle)] = name
            known = self._constants[name] = (handle, self.graph.constant(name, handle))
        return known[1]

    def op(self, kind: str, inputs: Sequence[Array], attrs: dict[str, Any], name: str | None) -> list[Symbol]:
        """Records one op. ``name``: its label below the module's path; None: the op's kind; "": the path alone."""
        path = self._free(_joined(kind if name is None else name) or kind)
        values = self.graph.op(kind, [self.input(array) for array in inputs], attrs, path)
        return [Symbol(value, self) for value in values]

    def reshape(self, x: Symbol, shape: Sequence[int | str]) -> Symbol:
        """Records another grouping of the axes after the first."""
        lead, *rest = shape
        known = 1
        for size in rest:
            known *= int(size)
        inner = 1
        for size in x.shape[1:]:
            inner *= int(size)
        if lead not in (-1, x.shape[0]) or known != inner:
            raise ShapeError(
                f"[reshape] {list(x.shape)} cannot become {list(shape)} while recording.",
                hint=f"The first axis stays as it is (write -1); the others must have {inner} elements together.",
            )
        return Symbol(self.graph.reshape(x.value, [-1, *(int(size) for size in rest)]), self)

    def slice_last(self, x: Symbol, start: int, stop: int) -> Symbol:
        """Records a window of the last axis."""
        return Symbol(self.graph.slice(x.value, start, stop), self)

    def tap(self, x: Symbol, label: str, *, pattern: bool = False) -> None:
        """Gives a value a name for looking inside, in the module at work; a number is added if the name is taken."""
        name = candidate = tap_name(label)
        count = 2
        while candidate in self._tapped:
            candidate, count = f"{name}_{count}", count + 1
        self._tapped.add(candidate)
        self.graph.tap(candidate, x.value, pattern=pattern)

    def _free(self, name: str) -> str:
        """The name, or the name with a number if it is taken."""
        candidate, count = name, 2
        while candidate in self._names or candidate in self._constants:
            candidate, count = f"{name}_{count}", count + 1
        self._names.add(candidate)
        return candidate


def _joined(label: str) -> str:
    path = _SCOPE.get()
    return f"{path}.{label}" if path and label else path or label
