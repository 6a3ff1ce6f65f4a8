"""A stream, read from the display's thread instead of by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastllm.errors import FastLLMError, StreamBusy
from fastllm.types import Token

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["StreamSource", "is_fresh"]


def is_fresh(handle: RequestHandle) -> bool:
    """Whether nobody has begun to read it."""
    mailbox: Any = getattr(handle, "_mailbox", None)
    bound = mailbox is not None and mailbox.port is not None
    return not (bound or handle._tokens or getattr(handle, "_busy", False) or handle.completion is not None)


class StreamSource:
    """The one consumer of a stream from now on.

    Attributes:
        handle: The stream.
        tokens: What was read of it.
        error: Why it failed, once it did.
        ended: Whether its end was read.
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
        self.tokens = handle._tokens
        self.error: Exception | None = None
        self.ended = handle.completion is not None or handle._exhausted
        if not self.ended:
            handle._busy = True  # type: ignore[attr-defined]

    def read(self) -> list[Token]:
        """Takes what there is; sets `ended` and `error`. Does not wait."""
        fresh: list[Token] = []
        handle = self.handle
        try:
            while not self.ended:
                handle._ask()
                if not handle._is_ready():
                    break
                token = handle._pop()
                if token is None:
                    self._end()
                else:
                    fresh.append(token)
        except FastLLMError as error:
            self.error = error
            self._end()
        return fresh

    def _end(self) -> None:
        self.ended = True
        handle = self.handle
        handle._busy = False  # type: ignore[attr-defined]
        if handle._cut:
            handle._release()
