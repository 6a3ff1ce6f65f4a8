"""Event loops: the only module that knows asyncio and trio by name.

Everything else asks for a `Loop` and posts to it. Posting is thread-safe, never waits, and raises `LoopGone` when the
loop has ended. (anyio's own `from_thread.run_sync` waits for its result: one blocked loop would stall the engine's
events for all others.)
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from anyio.lowlevel import RunVar, current_token

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["Loop", "LoopGone", "current_loop", "loop_in_this_thread", "worker_limiter"]


class LoopGone(Exception):  # noqa: N818 - a fact, as in the rest of the tree
    """The event loop has ended; nobody is left to wake."""


class LoopEvent(Protocol):
    """An event of one loop: used once, set and awaited on the loop."""

    def set(self) -> Any:
        """Lets the waiting task go on."""

    def wait(self) -> Awaitable[Any]:
        """Waits for it."""


class Loop:
    """An event loop, posted to from any thread.

    What is done for every token goes to asyncio or trio directly: anyio's own layer costs as much as the work itself.

    Attributes:
        native: The asyncio loop or the trio token.
        new_event: Makes an event of this loop.
    """

    __slots__ = ("_current", "_is_trio", "_pause", "native", "new_event")

    def __init__(self, native: Any) -> None:
        self.native = native
        self._is_trio = hasattr(native, "run_sync_soon")
        self.new_event: Callable[[], LoopEvent]
        if self._is_trio:
            trio = sys.modules["trio"]
            self._current = trio.lowlevel.current_trio_token
            self._pause = trio.lowlevel.checkpoint
            self.new_event = trio.Event
        else:
            asyncio = sys.modules["asyncio"]
            self._current = asyncio.get_running_loop
            self._pause = asyncio.sleep
            self.new_event = asyncio.Event

    @property
    def is_current(self) -> bool:
        """Whether the calling task runs on this loop."""
        try:
            return self._current() is self.native
        except RuntimeError:
            return False

    def checkpoint(self) -> Awaitable[None]:
        """Lets other tasks run and cancellation arrive."""
        awaitable: Awaitable[None] = self._pause() if self._is_trio else self._pause(0)
        return awaitable

    def post(self, callback: Callable[[], object]) -> None:
        """Has the loop call a function soon. From any thread; never waits.

        Raises:
            LoopGone: The loop has ended.
        """
        try:
            if self._is_trio:
                self.native.run_sync_soon(callback, idempotent=True)
            else:
                self.native.call_soon_threadsafe(callback)
        except RuntimeError as error:  # asyncio: "Event loop is closed"; trio.RunFinishedError is one, too
            raise LoopGone from error

    @property
    def gone(self) -> bool:
        """Whether the loop has ended."""
        if not self._is_trio:
            return bool(self.native.is_closed())
        try:
            self.native.run_sync_soon(_nothing, idempotent=True)
        except RuntimeError:
            return True
        return False

    def spawn(self, task: Callable[[], Awaitable[None]]) -> object:
        """Starts a background task on this loop, from the loop itself. The task must handle its own exceptions.

        Returns:
            Something to keep for as long as the task should live.
        """
        if self._is_trio:
            import trio

            return trio.lowlevel.spawn_system_task(task)
        return self.native.create_task(task())


def _nothing() -> None:
    pass


def current_loop() -> Loop:
    """The loop that runs the calling task.

    Raises:
        RuntimeError: No loop runs in this thread.
    """
    return Loop(current_token().native_token)


def loop_in_this_thread() -> bool:
    """Whether an event loop is running in the calling thread."""
    try:
        current_token()
    except RuntimeError:  # anyio.NoEventLoopError
        return False
    return True


_limiter: RunVar[CapacityLimiter] = RunVar("fastllm_worker_limiter")


def worker_limiter() -> CapacityLimiter:
    """The limit on worker threads that loading and closing may hold: two a loop, none of the application's 40."""
    limiter = _limiter.get(None)
    if limiter is None:
        from anyio import CapacityLimiter

        limiter = CapacityLimiter(2)
        _limiter.set(limiter)
    return limiter
