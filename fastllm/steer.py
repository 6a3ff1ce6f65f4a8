"""Edits of values inside a running model: clear, scale, add to or replace part of a node, for one request.

steer = {"blocks.3.attn.z": Ablate(head=2), "blocks.5.resid_post": Add(direction, scale=4.0, positions=slice(3, None))}
await model.generate("...", steer=steer)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastllm.errors import InvalidRequest, ShapeError

__all__ = ["Ablate", "Add", "Edit", "Replace", "Scale", "SteerLike", "Steering"]

F32 = npt.NDArray[np.float32]
NativeEdit: TypeAlias = "tuple[int, tuple[int, int], tuple[int, int], float, F32]"
Positions: TypeAlias = "int | slice | Sequence[int] | None"
Choice: TypeAlias = "int | slice | Sequence[int] | None"

_END = 2**31 - 1
_NOTHING: F32 = np.empty(0, np.float32)
_groups = itertools.count(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """What is done to part of a node's value; the base of `Ablate`, `Scale`, `Add` and `Replace`.

    Attributes:
        head: Which heads of a node of [tokens, heads, channels]; None for all.
        channels: Which elements of the last axis; None for all.
        positions: At which tokens of the sequence, prompt and output alike: None (all), an index, a slice or indices.
            Negative ones count from the prompt's end.
    """

    head: Choice = None
    channels: Choice = None
    positions: Positions = None

    def _terms(self) -> tuple[float, Any]:
        """(factor, what is added or None)."""
        raise InvalidRequest("[steer] Edit does nothing by itself.", hint="Use Ablate, Scale, Add or Replace.")

    @property
    def relative(self) -> bool:
        """Whether the positions depend on the prompt's length."""
        where = self.positions
        if isinstance(where, slice):
            return any(end is not None and end < 0 for end in (where.start, where.stop))
        if where is None:
            return False
        return any(index < 0 for index in ([where] if isinstance(where, int) else where))

    def native(self, tap: int, name: str, row: Sequence[int], prompt_tokens: int) -> list[NativeEdit]:
        """The edit in the engine's terms.

        Args:
            tap: The node's index.
            name: Its name, for messages.
            row: Shape of one token's part of it: [channels] or [heads, channels].
            prompt_tokens: Length of the prompt.

        Raises:
            ShapeError: The value does not fit the part of the node that is chosen.
            InvalidRequest: An index lies outside the node or the sequence.
        """
        factor, value = self._terms()
        index = self._elements(name, row)
        ranges = self._ranges(prompt_tokens)
        if value is None:
            spans = _runs(index.reshape(-1))
            return [(tap, where, (a, b), factor, _NOTHING) for where in ranges for a, b in spans]
        numbers = np.asarray(value, dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise InvalidRequest(f"[steer] the value for {name!r} holds numbers that are not finite.")
        if numbers.ndim <= index.ndim:
            same = self._broadcast(numbers, index.shape, name).reshape(-1)
            return self._pieces(tap, ranges, index, factor, lambda _where: same)
        count = sum(last - first for first, last in ranges)
        if len(numbers) != count:
            many = "all" if count >= _END // 2 else count
            raise ShapeError(
                f"[steer] the value for {name!r} has shape {list(numbers.shape)}: {len(numbers)} positions, but "
                f"{many} are edited.",
                hint="Give positions as a slice or indices, as many as the value has rows.",
                actual=numbers.shape,
            )
        rows = self._broadcast(numbers, (count, *index.shape), name).reshape(count, -1)
        starts, at = {}, 0
        for first, last in ranges:
            starts[first, last], at = at, at + last - first
        return self._pieces(tap, ranges, index, factor, lambda where: rows[starts[where] :][: where[1] - where[0]])

    def _pieces(self, tap: int, ranges: Any, index: Any, factor: float, numbers_at: Any) -> list[NativeEdit]:
        """One native edit for each run of positions and each run of elements."""
        flat = index.reshape(-1)
        out: list[NativeEdit] = []
        for where in ranges:
            numbers = numbers_at(where)
            at = 0
            for begin, end in _runs(flat):
                part = np.ascontiguousarray(numbers[..., at : at + end - begin])
                out.append((tap, where, (begin, end), factor, part.reshape(-1)))
                at += end - begin
        return out

    @staticmethod
    def _broadcast(numbers: F32, shape: tuple[int, ...], name: str) -> F32:
        try:
            return np.broadcast_to(numbers, shape)
        except ValueError as error:
            raise ShapeError(
                f"[steer] the value for {name!r} has shape {list(numbers.shape)}, but the part it edits {list(shape)}.",
                hint="model.nodes() gives the shapes.",
                expected=shape,
                actual=numbers.shape,
            ) from error

    def _elements(self, name: str, row: Sequence[int]) -> npt.NDArray[np.int64]:
        """Flat indices of the chosen part of a row, in its own shape."""
        index = np.arange(int(np.prod(row)), dtype=np.int64).reshape(tuple(row))
        if self.head is not None:
            if len(row) != 2:
                raise InvalidRequest(
                    f"[steer] {name!r} has shape [tokens, {', '.join(map(str, row))}]: it has no heads, but head is "
                    f"{self.head!r}.",
                    hint="Heads are in attn.q, attn.k, attn.v and attn.z.",
                )
            index = _choose(index, 0, self.head, name, "head")
        if self.channels is not None:
            index = _choose(index, index.ndim - 1, self.channels, name, "channels")
        return index

    def _ranges(self, prompt_tokens: int) -> list[tuple[int, int]]:
        """The positions as ranges [first, last), in the order in which a value's rows belong to them."""
        where = self.positions
        if where is None:
            return [(0, _END)]
        if isinstance(where, slice):
            if where.step not in (None, 1):
                raise InvalidRequest(f"[steer] positions is {where}, but only steps of 1 are possible.")
            first, last = 0 if where.start is None else int(where.start), where.stop
            first = max(0, first + prompt_tokens) if first < 0 else first
            last = _END if last is None else int(last) + (prompt_tokens if last < 0 else 0)
            if last <= first:
                raise InvalidRequest(
                    f"[steer] positions {where} are none at all in a prompt of {prompt_tokens} tokens.",
                    hint="Negative positions count from the prompt's end.",
                )
            return [(first, last)]
        ranges = []
        for item in [where] if isinstance(where, int) else where:
            position = int(item) + (prompt_tokens if item < 0 else 0)
            if not 0 <= position < _END:
                raise InvalidRequest(f"[steer] position {item} lies before a prompt of {prompt_tokens} tokens.")
            ranges.append((position, position + 1))
        if not ranges or len(set(ranges)) < len(ranges):
            raise InvalidRequest(f"[steer] positions {where!r} name none, or one twice.")
        return ranges


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablate(Edit):
    """Sets to zero: ``Ablate(head=2)`` on "blocks.3.attn.z" takes a head's contribution away."""

    def _terms(self) -> tuple[float, Any]:
        return 0.0, None


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Multiplies by ``factor``."""

    factor: float

    def _terms(self) -> tuple[float, Any]:
        if not np.isfinite(self.factor):
            raise InvalidRequest(f"[steer] factor is {self.factor}, which is no finite number.")
        return float(self.factor), None


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Adds ``scale * value``: a direction [channels], or a row for each of the positions.

    Attributes:
        value: Numbers that broadcast to the part of the node that is edited, or to [positions, that part].
        scale: A factor on them.
    """

    value: Any
    scale: float = 1.0

    def _terms(self) -> tuple[float, Any]:
        return 1.0, np.asarray(self.value, dtype=np.float32) * np.float32(self.scale)


@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """Puts ``value`` in its place, shaped as for `Add`: another run's activation, say."""

    value: Any

    def _terms(self) -> tuple[float, Any]:
        return 0.0, self.value


SteerLike: TypeAlias = "Mapping[str, Edit | Sequence[Edit]] | Steering"


class Steering:
    """Edits checked against a model, from `Model.steer`. Requests under one Steering share cached prefixes.

    Attributes:
        edits: By node name.
    """

    def __init__(self, owner: Any, edits: Mapping[str, tuple[Edit, ...]]) -> None:
        self._owner = owner
        self.edits = dict(edits)
        self._relative = any(edit.relative for some in self.edits.values() for edit in some)
        self._group = next(_groups)

    @property
    def group(self) -> int:
        """Number under which the engine keeps its cached prefixes; a new one where edits depend on the prompt."""
        return next(_groups) if self._relative else self._group

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {'; '.join(map(_brief, some))}" for name, some in self.edits.items())
        return f"<Steering {shown or 'nothing'}>"


def _brief(edit: Edit) -> str:
    parts = [
        f"{name} {value}" for name in ("head", "channels", "positions") if (value := getattr(edit, name)) is not None
    ]
    return " ".join([type(edit).__name__, *parts])


def _choose(index: npt.NDArray[np.int64], axis: int, choice: Any, name: str, what: str) -> npt.NDArray[np.int64]:
    size = index.shape[axis]
    choice = int(choice) if isinstance(choice, np.integer) else choice
    chosen = choice if isinstance(choice, (int, slice)) else [int(item) for item in choice]
    key = (slice(None),) * axis + (chosen,)
    try:
        part = index[key]
    except IndexError as error:
        raise InvalidRequest(
            f"[steer] {what} {choice!r} of {name!r}, which has {size}.", hint="model.nodes() gives the shapes."
        ) from error
    if isinstance(chosen, int) and axis == index.ndim - 1:
        part = part[..., None]
    if part.size == 0 or len(np.unique(part)) < part.size:
        raise InvalidRequest(f"[steer] {what} {choice!r} of {name!r} chooses nothing, or something twice.")
    return part


def _runs(flat: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of consecutive indices, as [begin, end)."""
    cuts = np.flatnonzero(np.diff(flat) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(flat, cuts)]
