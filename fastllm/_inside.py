"""What of a model can be looked at: the named values of its forward, and the program that keeps them in being."""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from fastllm import _core
from fastllm.errors import CaptureTooLarge, InvalidRequest, UnknownNode
from fastllm.steer import Edit, Steering, SteerLike

if TYPE_CHECKING:
    from fastllm.steer import NativeEdit

__all__ = ["Inside", "Node"]

LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside the model that can be captured.

    Attributes:
        name: Such as "blocks.0.attn.q".
        shape: Its sizes; "tokens" stands for the positions of a sequence.
        editable: Whether `Model.steer` can change it.
    """

    name: str
    shape: tuple[int | str, ...]
    editable: bool

    @property
    def pattern(self) -> bool:
        """Whether it is the weights of an attention, [heads, tokens, tokens]."""
        return not self.editable

    @property
    def row(self) -> tuple[int, ...]:
        """Sizes of one token's part."""
        return tuple(size for size in self.shape if isinstance(size, int))

    def nbytes(self, positions: int) -> int:
        """Bytes that a sequence of so many positions keeps of it; of a pattern without what no token can see."""
        rows = positions * (positions + 1) // 2 if self.pattern else positions
        return 4 * math.prod(self.row) * rows


class Inside:
    """The nodes of one model. The program for them is compiled when it is first needed; weights are shared with it."""

    def __init__(self, module: Any, program: _core.Program) -> None:
        self._module = module
        self._plain = program
        self._lock = threading.Lock()
        self._graph: _core.Graph | None = None
        self._nodes: tuple[Node, ...] = ()
        self._index: dict[str, int] = {}
        self._program: _core.Program | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of the forward, the logits last.

        Raises:
            InvalidRequest: The model was made without its Python modules.
        """
        if self._graph is None:
            with self._lock:
                self._record()
        return self._nodes

    def _record(self) -> _core.Graph:
        if self._graph is not None:
            return self._graph
        if self._module is None:
            raise InvalidRequest("[inside] this model has no Python modules to be recorded.", hint="Use fastllm.load.")
        from fastllm.nn.model import record

        graph = record(self._module).graph
        found = [
            Node(name, (shape[1], "tokens", "tokens") if pattern else tuple(shape), not pattern)
            for name, shape, pattern in graph.taps
        ]
        self._nodes = (*found, Node(LOGITS, ("tokens", self._plain.vocab_size), editable=True))
        self._index = {node.name: index for index, node in enumerate(self._nodes)}
        self._graph = graph
        return graph

    @property
    def layers(self) -> int:
        """Number of blocks that have nodes."""
        return len({node.name.split(".")[1] for node in self.nodes if node.name.startswith("blocks.")})

    def program(self) -> _core.Program:
        """The program that probes run on."""
        with self._lock:
            graph = self._record()
            if self._program is None:
                kept = self._plain.kv_layers
                self._program = _core.Program(
                    graph,
                    self._plain.device,
                    context_length=self._plain.context_length,
                    kv_dtype=kept[0]["dtype"] if kept else "auto",
                    probes=True,
                    share=self._plain,
                )
            return self._program

    def select(self, names: Iterable[str]) -> list[int]:
        """Indices of the nodes that names and globs mean, ascending.

        Raises:
            UnknownNode: A name or glob means none.
        """
        nodes = self.nodes
        chosen: set[int] = set()
        for name in [names] if isinstance(names, str) else names:
            plain = self._plain_name(name)
            if any(mark in plain for mark in "*?["):
                found = [index for index, node in enumerate(nodes) if fnmatchcase(node.name, plain)]
            else:
                found = [self._index[plain]] if plain in self._index else []
            if not found:
                raise self._unknown(name, plain)
            chosen.update(found)
        return sorted(chosen)

    def _plain_name(self, name: object) -> str:
        if not isinstance(name, str):
            raise InvalidRequest(f"[inside] {name!r} is no name of a node.", hint='Names are text: "blocks.0.attn.z".')
        plain = name.replace("hook_", "")
        if back := re.match(r"blocks\.-(\d+)\.", plain):
            plain = f"blocks.{self.layers - int(back[1])}.{plain[back.end() :]}"
        return plain

    def _unknown(self, name: str, plain: str) -> UnknownNode:
        known = [node.name for node in self._nodes]
        close = difflib.get_close_matches(plain, known, 5, 0.6)
        hint = f"Like it are {', '.join(close)}." if close else "model.nodes() lists the names."
        return UnknownNode(f"[inside] the model has no node {name!r}.", hint=hint, name=name, matches=close)

    # --- steering

    def steering(self, steer: SteerLike) -> Steering:
        """Edits by node name, checked as far as they can be without a prompt.

        Raises:
            UnknownNode: A name means no node.
            InvalidRequest: An edit does not fit its node, or the node cannot be edited.
        """
        if isinstance(steer, Steering):
            if steer._owner is not self:
                raise InvalidRequest("[steer] this Steering was made by another model.")
            return steer
        if not isinstance(steer, Mapping):
            raise InvalidRequest(
                f"[steer] {type(steer).__name__} is no mapping of edits.",
                hint='Write {"blocks.3.attn.z": fastllm.Ablate(head=2)}.',
            )
        edits: dict[str, tuple[Edit, ...]] = {}
        for name, given in steer.items():
            some: tuple[Any, ...] = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            for index in self.select([name]):
                node = self.nodes[index]
                if node.pattern:
                    raise InvalidRequest(
                        f"[steer] {node.name!r} can be captured but not edited.",
                        hint="Edit the heads' results (attn.z), or queries and keys (attn.rot_q, attn.rot_k).",
                    )
                for edit in some:
                    if not isinstance(edit, Edit):
                        raise InvalidRequest(
                            f"[steer] {edit!r} for {name!r} is no edit.", hint="Use Ablate, Scale, Add or Replace."
                        )
                    edit.native(index, node.name, node.row, _LONG_PROMPT)
                edits[node.name] = edits.get(node.name, ()) + some
        return Steering(self, edits)

    def probe(
        self, reads: Sequence[int], steering: Steering | None, *, prompt_tokens: int, max_bytes: int
    ) -> _core.Probe:
        """What one request looks at and changes.

        Raises:
            CaptureTooLarge: The prompt alone takes more than ``max_bytes``.
        """
        needed = sum(self.nodes[index].nbytes(prompt_tokens) for index in reads)
        if needed > max_bytes:
            raise CaptureTooLarge(
                f"[capture] {len(reads)} nodes of a prompt of {prompt_tokens} tokens take {needed} bytes, but "
                f"max_capture_bytes is {max_bytes}.",
                hint="Capture fewer names, or raise max_capture_bytes.",
                needed_bytes=needed,
                max_bytes=max_bytes,
            )
        edits: list[NativeEdit] = []
        if steering is not None:
            for name, some in steering.edits.items():
                index = self._index[name]
                for edit in some:
                    edits += edit.native(index, name, self.nodes[index].row, prompt_tokens)
        return _core.Probe(
            self.program(),
            reads=list(reads),
            edits=edits,
            max_bytes=max_bytes,
            group=_STEERED + steering.group if steering is not None and edits else 0,
        )


_LONG_PROMPT = 2**30  # no position from its end is before its beginning
_STEERED = 2**62  # groups of steered requests, far from the numbers of adapters
