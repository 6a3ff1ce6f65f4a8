"""A stream, read from the display's thread instead of by the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastllm.display.rows import Rows, rows_of
from fastllm.errors import FastLLMError, StreamBusy
from fastllm.types import Token

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["StreamSource", "is_fresh"]

_WINDOW_S = 1.0


def is_fresh(handle: RequestHandle) -> bool:
    """Whether nobody has begun to read it."""
    mailbox: Any = getattr(handle, "_mailbox", None)
    bound = mailbox is not None and mailbox.port is not None
    return not (bound or handle._tokens or getattr(handle, "_busy", False) or handle.completion is not None)


class StreamSource:
    """The one consumer of a stream from now on.

    Tokens stay in the engine until `read`, and stay the engine's rows after that: `Token` objects are made when
    somebody asks for them.

    Attributes:
        handle: The stream.
        rows: What was read of it.
        made: How many of these are output; the others are the prompt.
        first_s: When its first token came, in seconds since it was submitted; None before.
        last_s: When the newest did.
        error: Why it failed, once it did.
        ended: Whether its end was read.
        tail: Whether the end let go of text that was withheld, and so made the last row longer.
    """

    def __init__(self, handle: RequestHandle) -> None:
        """Takes the reading over.

        Raises:
            StreamBusy: Somebody is waiting for its next token.
        """
        if getattr(handle, "_busy", False):
            raise StreamBusy(
                f"[{handle.request_id}] another task is already waiting for this stream.",
                hint="Show a stream instead of reading it, or make a second one.",
            )
        self.handle = handle
        self.rows = Rows()
        self.made = 0
        self.first_s: float | None = None
        self.last_s = 0.0
        self._timed = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=64)  # how many there were, and when
        self._text = ""
        self._joined = 0
        self.tail = False
        self.error: Exception | None = None
        self.ended = handle.completion is not None or handle._exhausted
        self._note(rows_of(handle._tokens)[:])
        self._in_step = handle._ticket.lookahead == 0
        if not self.ended:
            handle._busy = True  # type: ignore[attr-defined]
            if not self._in_step:
                handle._ask_for_all()

    @property
    def tokens(self) -> list[Token]:
        """What was read, as tokens."""
        return self.handle._tokens

    @property
    def text(self) -> str:
        """What was read, as text."""
        self._text += self.rows.text(self._joined)
        self._joined = len(self.rows)
        return self._text

    @property
    def urgent(self) -> bool:
        """Whether something came that is not to wait: the first token, or the end."""
        if self.ended:
            return False
        handle = self.handle
        if self._in_step:
            handle._ask()
            return handle._is_ready()
        return handle._ended_as() is not None or (not self.made and handle._is_ready())

    @property
    def speeds(self) -> tuple[float, float]:
        """Output tokens per second: of all, and of the newest second (0 before there were two)."""
        if self.first_s is None or self.last_s <= self.first_s:
            return 0.0, 0.0
        spent = self.last_s - self.first_s
        whole = (self._timed - 1) / spent
        if spent <= 2 * _WINDOW_S:
            return whole, 0.0
        time_s, before = next(mark for mark in reversed(self._marks) if mark[0] <= self.last_s - _WINDOW_S)
        return whole, (self._timed - before) / (self.last_s - time_s)

    def read(self) -> int:
        """Takes what there is; sets `ended` and `error`. Does not wait. Returns how many tokens came."""
        if self.ended:
            return 0
        handle = self.handle
        if self._in_step:
            handle._ask()
        begun = rows_of(list(handle._echo))  # the prompt, or what a fork keeps
        fresh = handle._read_ready()
        if not handle._echo:
            self._note(begun[:])
        self._note(fresh)
        if len(fresh):
            self._timed += len(fresh)
            self.last_s = fresh[-1][7]
            if self.first_s is None:
                self.first_s = fresh[0][7]
                self._marks.append((self.first_s, 1))
            if self.last_s > self._marks[-1][0] + _WINDOW_S / 16:
                self._marks.append((self.last_s, self._timed))
        if handle._exhausted:
            self._end()
        return len(fresh)

    def _note(self, rows: Sequence[Any]) -> None:
        self.rows.add(rows)
        if len(rows):
            self.made += len(rows) if rows[0][3] >= 0 else sum(row[3] >= 0 for row in rows)

    def _end(self) -> None:
        self.ended = True
        handle = self.handle
        handle._busy = False  # type: ignore[attr-defined]
        if handle._cut:
            handle._release()
            return
        try:
            handle._raise_failure()
        except FastLLMError as error:
            self.error = error
        end = handle._ended_as()
        if end is not None and end["tail_text"] and self.made:  # withheld until the end
            self.tail = True
            id_, text, data, *rest = self.rows[-1]
            self.rows.replace_last((id_, text + end["tail_text"], data + end["tail_bytes"], *rest))
            if self._joined == len(self.rows):
                self._text += end["tail_text"]
