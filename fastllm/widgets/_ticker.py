"""One thread for all live displays: it reads their streams and redraws them, a few times a second.

The engine wants the processor, too. So tokens stay native until a display is due; the thread looks around `LOOKS_PER_S`
times a second for a first token or an end, which do not wait; and a display is due at most `UPDATES_PER_S` times a
second and so seldom that all displays together take `SHARE` of one processor, but not more seldom than every
`MAX_GAP_S`. A thread, so that text appears while a cell blocks the event loop, and so that a callback in any thread
finds the same state. It ends when nothing is live.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["UPDATES_PER_S", "Pace", "Ticking", "add", "live"]

LOOKS_PER_S = 30
UPDATES_PER_S = 12
SHARE = 0.005
MAX_GAP_S = 0.5


class Ticking(Protocol):
    """A display that wants to be looked after."""

    def tick(self, now: float) -> bool:
        """Reads and redraws what is due; False when there will be nothing more. Must not raise."""


_lock = threading.Lock()
_views: list[Ticking] = []
_thread: threading.Thread | None = None
_news = threading.Event()
_when_idle: Callable[[], None] | None = None


def add(view: Ticking, when_idle: Callable[[], None] | None = None) -> None:
    """Looks after a display from now on. From any thread. ``when_idle`` is for work that is best done without any."""
    global _thread, _when_idle
    with _lock:
        _when_idle = when_idle or _when_idle
        _views.append(view)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="fastllm-display", daemon=True)
            _thread.start()
    _news.set()


def live() -> int:
    """Displays that are being looked after."""
    return len(_views)


class Pace:
    """When a display may be drawn again."""

    def __init__(self, per_s: float = UPDATES_PER_S) -> None:
        self._gap_s = 1.0 / per_s
        self._next = 0.0

    def ready(self, now: float) -> bool:
        """Whether it may be drawn."""
        return now >= self._next

    def spend(self, now: float, messages: int, cost_s: float = 0.0) -> None:
        """It was drawn, with so many messages and so much processor time."""
        gap_s = max(self._gap_s * max(1, messages), min(MAX_GAP_S, cost_s * live() / SHARE))
        self._next = max(self._next, now - self._gap_s) + gap_s


def _run() -> None:
    global _thread
    while True:
        for view in list(_views):
            if not view.tick(time.monotonic()):
                with _lock:
                    _views.remove(view)
        if not _views and _when_idle is not None:
            _when_idle()
        with _lock:
            if not _views:
                _thread = None
                return
        _news.wait(1.0 / LOOKS_PER_S)
        _news.clear()
