"""The tokens of an answer as the engine gave them, and neighbours of one shade as one piece of text.

A token that goes by too fast to be pointed at needs no row of its own: the engine's records give runs of text, and a
row is made when somebody looks at it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

from fastllm.display.writer import Row, Shade, as_row, level_of
from fastllm.types import Token

__all__ = ["Rows", "Run", "rows_of", "runs_of"]

Run: TypeAlias = "tuple[int, str, int]"
"""step of the shade, text, tokens. A control token without text is a run of its own: -1 - id, "", 1."""

MOST_OF_A_RUN = 32  # tokens: where a text must be cut, it is cut between runs


def runs_of(rows: Iterable[Row], shade: Shade, *, cached: int = 0, prompt_tokens: int = 0) -> list[Run]:
    """Neighbours of one shade, put together; arguments as `fastllm.display.tokens.level`."""
    found: list[Run] = []
    texts: list[str] = []
    here = 0
    for row in rows:
        step = level_of(row, shade, cached=cached, prompt_tokens=prompt_tokens)
        chip = row[6] and not row[1]
        if texts and (chip or step != here or len(texts) == MOST_OF_A_RUN):
            found.append((here, "".join(texts), len(texts)))
            texts = []
        if chip:
            found.append((-1 - row[0], "", 1))
        else:
            here = step
            texts.append(row[1])
    if texts:
        found.append((here, "".join(texts), len(texts)))
    return found


class Rows(Sequence[Row]):
    """The rows of an answer, in the batches in which they came. Only ever grows; the last one may be replaced."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._batches: list[Any] = []  # lists of rows, or records of the engine
        self._starts: list[int] = []
        self._count = 0
        self.add(list(rows))

    def add(self, batch: Sequence[Row]) -> None:
        """Appends what came."""
        if len(batch):
            self._starts.append(self._count)
            self._batches.append(batch)
            self._count += len(batch)

    def replace_last(self, row: Row) -> None:
        """Another row instead of the last: its end let go of text that was withheld."""
        if self._batches:
            self._batches[-1] = [*self._batches[-1][:-1], row]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            return [row for batch, first, end in self._parts(start, stop) for row in batch[first:end]]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(f"[display] row {index} of {self._count}.")
        place = bisect_right(self._starts, index) - 1
        row: Row = self._batches[place][index - self._starts[place]]
        return row

    def __iter__(self) -> Iterator[Row]:
        for batch in list(self._batches):
            yield from batch[:]

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Any, int, int]]:
        """Batches from row ``start`` on, with the first and the end in each."""
        place = max(0, bisect_right(self._starts, start) - 1)
        while start < stop and place < len(self._batches):
            batch, offset = self._batches[place], self._starts[place]
            yield batch, start - offset, min(stop - offset, len(batch))
            start = offset + len(batch)
            place += 1

    def text(self, start: int = 0) -> str:
        """The text from a row on."""
        return "".join(
            "".join([row[1] for row in batch[first:end]]) if isinstance(batch, list) else batch.text(first, end)
            for batch, first, end in self._parts(start, self._count)
        )

    def runs(
        self, start: int, stop: int, *, shade: Shade = "off", cached: int = 0, prompt_tokens: int = 0
    ) -> list[Run]:
        """Rows ``start`` to ``stop`` as runs; other arguments as `fastllm.display.tokens.level`."""
        found: list[Run] = []
        for batch, first, end in self._parts(start, min(stop, self._count)):
            if isinstance(batch, list) or shade not in ("off", "probability"):
                found += runs_of(batch[first:end], shade, cached=cached, prompt_tokens=prompt_tokens)
            else:
                found += batch.runs(first, end, shaded=shade == "probability")
        return found


def rows_of(tokens: Sequence[Token] | Sequence[Row]) -> Rows:
    """Tokens, or rows, as `Rows`."""
    if isinstance(tokens, Rows):
        return tokens
    return Rows(token if isinstance(token, tuple) else as_row(token) for token in tokens)
