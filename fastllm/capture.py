"""`Capture`: what a request computed inside the model, by name; and the logit lens on it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm.errors import InvalidRequest, UnknownNode
from fastllm.tensor import Tensor

if TYPE_CHECKING:
    from fastllm import _core
    from fastllm._inside import Inside, Node
    from fastllm.model import Model
    from fastllm.stream import RequestHandle
    from fastllm.types import Completion

__all__ = ["DEFAULT_CAPTURE_BYTES", "Capture", "LogitLens"]

DEFAULT_CAPTURE_BYTES = 256 * 2**20


class Capture(Mapping[str, Tensor]):
    """Values inside the model, of every position of one request, by node name.

    It grows while the request runs and may be read at any time, from any thread: a read is a float32 copy on the CPU of
    the positions computed so far. A prompt of P tokens and G generated ones make P + G - 1 positions in the end: the
    last token made is never run.

        cap = await model.capture("The cat sat", "blocks.*.attn.pattern", "blocks.*.resid_post")
        cap["blocks.3.resid_post"]         # [positions, hidden]
        cap.attention(3, head=1)           # [positions, positions]

    Attributes:
        names: The names captured, in the order of the forward.
        prompt_tokens: Tokens of the prompt.
        max_bytes: Most bytes it may take.
        layers: Blocks of the model.
    """

    def __init__(
        self,
        model: Model,
        inside: Inside,
        probe: _core.Probe,
        reads: Sequence[int],
        *,
        prompt_tokens: int,
        max_bytes: int,
    ) -> None:
        self._model = model
        self._probe = probe
        self._nodes: dict[str, tuple[int, Node]] = {
            inside.nodes[index].name: (at, inside.nodes[index]) for at, index in enumerate(reads)
        }
        self._inside = inside
        self._read: dict[str, Tensor] = {}
        self.names = tuple(self._nodes)
        self.prompt_tokens = prompt_tokens
        self.max_bytes = max_bytes
        self.layers = inside.layers
        self._handle: weakref.ref[RequestHandle] | None = None  # a capture keeps no request running
        self._completion: Completion | None = None

    def _follow(self, handle: RequestHandle) -> None:
        self._handle = weakref.ref(handle)

    def _ended(self, completion: Completion) -> None:
        self._completion = completion

    # --- a mapping

    def __getitem__(self, name: str) -> Tensor:
        """The value so far: [positions, ...], of a pattern [heads, positions, positions] with zeros for the unseen.

        Raises:
            UnknownNode: The name was not captured.
        """
        found = self._nodes.get(name)
        if found is None:
            index = self._inside.select([name])
            name = self._inside.nodes[index[0]].name
            found = self._nodes.get(name) if len(index) == 1 else None
            if found is None:
                raise UnknownNode(
                    f"[capture] {name!r} was not captured.",
                    hint=f"Captured are {_some(self.names)}.",
                    name=name,
                    matches=self.names[:5],
                )
        at, node = found
        known = self._read.get(name)
        if known is None or known.shape[1 if node.pattern else 0] != self.positions:
            known = self._read[name] = Tensor.from_numpy(self._probe.read(at, node.row), name=name)
        return known

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    # --- facts

    @property
    def completion(self) -> Completion | None:
        """The request's result, once it has ended and was read."""
        handle = None if self._handle is None else self._handle()
        return self._completion if handle is None else handle.completion

    @property
    def positions(self) -> int:
        """How many positions are complete."""
        return self._probe.positions

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The token at each position."""
        return tuple(self._probe.token_ids)

    @property
    def labels(self) -> tuple[str, ...]:
        """The text of the token at each position; broken characters are U+FFFD."""
        token_bytes = self._model.tokenizer.token_bytes
        return tuple(token_bytes(token_id).decode("utf-8", "replace") for token_id in self.token_ids)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._probe.nbytes

    def __repr__(self) -> str:
        return (
            f"<Capture {len(self.names)} nodes · {self.positions} positions · {self.nbytes / 1e6:.1f} MB · "
            f"{_some(self.names)}>"
        )

    # --- views

    def attention(self, layer: int, head: int | None = None) -> Tensor:
        """Where a layer's tokens look.

        Args:
            layer: Index of the block; negative ones count from the last.
            head: A head, or None for all.

        Returns:
            [positions, positions], row = the token that looks; with all heads [heads, positions, positions].

        Raises:
            UnknownNode: The layer's pattern was not captured.
            InvalidRequest: There is no such head.
        """
        pattern = self[f"blocks.{layer}.attn.pattern"]
        if head is None:
            return pattern
        if not -pattern.shape[0] <= head < pattern.shape[0]:
            raise InvalidRequest(f"[capture] head {head} of layer {layer}, which has {pattern.shape[0]} heads.")
        return pattern[head]

    def logit_lens(
        self,
        *,
        top: int = 5,
        layers: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        target: Sequence[int] | int | None = None,
    ) -> LogitLens:
        """What the model would say if it stopped after each layer (nostalgebraist 2020, "interpreting GPT").

        Each layer's residual stream goes through the last norm and the output table. Needs "blocks.*.resid_post" of the
        layers asked for. It computes layers x positions rows of logits in the calling thread.

        Args:
            top: How many tokens to name.
            layers: Blocks; by default all that were captured.
            positions: Positions; by default all. Negative ones count from the last.
            target: Tokens whose rank is followed, one or one a position; by default what the last layer puts first.

        Raises:
            InvalidRequest: No layer was captured, an index does not exist, or the architecture has no ``unembed``.
        """
        captured = [layer for layer in range(self.layers) if f"blocks.{layer}.resid_post" in self._nodes]
        chosen = captured if layers is None else [layer + self.layers if layer < 0 else layer for layer in layers]
        missing = [layer for layer in chosen if layer not in captured]
        if missing or not chosen:
            raise InvalidRequest(
                f"[logit_lens] layers {missing or 'all'} were not captured; there are {captured or 'none'}.",
                hint='Capture "blocks.*.resid_post".',
            )
        count = self.positions
        ids = self.token_ids[:count]
        where = list(range(count)) if positions is None else [p + count if p < 0 else p for p in positions]
        if not where or not all(0 <= p < count for p in where):
            raise InvalidRequest(f"[logit_lens] positions {where}, but {count} are there.")
        vocab = self._model.info.vocab_size
        if not 1 <= top <= vocab:
            raise InvalidRequest(f"[logit_lens] top is {top}; 1 to {vocab}.")
        rows = {layer: self[f"blocks.{layer}.resid_post"].numpy()[:count][where] for layer in chosen}
        unembed = self._model.module.unembed
        best = np.empty((len(chosen), len(where), top), np.int32)
        logprobs = np.empty(best.shape, np.float32)
        entropy = np.empty(best.shape[:2], np.float32)
        target_rank, target_logprob = np.empty(entropy.shape, np.int32), np.empty(entropy.shape, np.float32)
        wanted: npt.NDArray[np.int32] | None = None
        if target is not None:
            wanted = np.broadcast_to(np.asarray(target, np.int32), (len(where),)).copy()
            if wanted.min() < 0 or wanted.max() >= vocab:
                raise InvalidRequest(f"[logit_lens] target {target!r} lies outside the vocabulary of {vocab} tokens.")
        for at in sorted(range(len(chosen)), key=lambda index: -chosen[index]):  # the last layer names the target
            scores = _log_softmax(unembed(Tensor(rows[chosen[at]])).numpy())
            some = np.argpartition(-scores, top - 1, axis=1)[:, :top]
            order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1, kind="stable")
            best[at] = np.take_along_axis(some, order, 1)
            logprobs[at] = np.take_along_axis(scores, best[at].astype(np.int64), 1)
            entropy[at] = -(np.exp(scores) * scores).sum(1)
            if wanted is None:
                wanted = best[at, :, 0].copy()
            target_logprob[at] = scores[np.arange(len(where)), wanted]
            target_rank[at] = (scores > target_logprob[at][:, None]).sum(1)
        token_bytes = self._model.tokenizer.token_bytes
        text = {int(token): token_bytes(int(token)).decode("utf-8", "replace") for token in np.unique(best)}
        labels = self.labels
        return LogitLens(
            names=tuple(f"blocks.{layer}.resid_post" for layer in chosen),
            layers=tuple(chosen),
            positions=tuple(where),
            token_ids=tuple(ids[p] for p in where),
            labels=tuple(labels[p] for p in where),
            ids=best,
            logprobs=logprobs,
            texts=tuple(tuple(tuple(text[int(token)] for token in row) for row in layer) for layer in best),
            target_ids=wanted if wanted is not None else np.empty(0, np.int32),
            target_rank=target_rank,
            target_logprob=target_logprob,
            entropy=entropy,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitLens:
    """The model's guess after each layer. L layers, P positions, k tokens named.

    Attributes:
        names: L names of nodes.
        layers: L indices of blocks.
        positions: P positions.
        token_ids: The P tokens there.
        labels: Their texts.
        ids: [L, P, k] int32, the most probable next tokens, best first.
        logprobs: [L, P, k] float32.
        texts: The tokens' texts, nested as ``ids``.
        target_ids: [P] int32, the tokens that are followed through the layers.
        target_rank: [L, P] int32, 0 is first.
        target_logprob: [L, P] float32.
        entropy: [L, P] float32, in nats.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    texts: tuple[tuple[tuple[str, ...], ...], ...]
    target_ids: npt.NDArray[np.int32]
    target_rank: npt.NDArray[np.int32]
    target_logprob: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        """A table of the best token, the last layers above."""
        shown = list(range(len(self.positions)))[-8:]
        width = max([6, *(len(repr(self.texts[at][p][0])) for at in range(len(self.layers)) for p in shown)])
        lines = [" " * 10 + " ".join(f"{self.labels[p]!r:>{width}.{width}}" for p in shown)]
        lines += [
            f"block {self.layers[at]:<3} " + " ".join(f"{self.texts[at][p][0]!r:>{width}.{width}}" for p in shown)
            for at in reversed(range(len(self.layers)))
        ]
        return "\n".join(lines)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    result: npt.NDArray[np.float32] = (wide - np.log(np.exp(wide).sum(1, keepdims=True))).astype(np.float32)
    return result


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:4]))
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown or "nothing"
