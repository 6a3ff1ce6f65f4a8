"""Event loops: the only module that knows asyncio and trio by name.

Everything else asks for a `Loop` and posts to it. Posting is thread-safe, never waits, and raises `LoopGone` when the
loop has ended. (anyio's own `from_thread.run_sync` waits for its result: one blocked loop would stall the engine's
events for all others.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import RunVar, current_token

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["Loop", "LoopGone", "current_loop", "loop_in_this_thread", "worker_limiter"]


class LoopGone(Exception):  # noqa: N818 - a fact, as in the rest of the tree
    """The event loop has ended; nobody is left to wake."""


class Loop:
    """An event loop, posted to from any thread.

    Attributes:
        native: The asyncio loop or the trio token.
    """

    __slots__ = ("_is_trio", "native")

    def __init__(self, native: Any) -> None:
        self.native = native
        self._is_trio = hasattr(native, "run_sync_soon")

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
