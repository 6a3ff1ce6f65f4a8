"""One thread for all live displays: it reads their streams and redraws them, a few times a second.

Displays cost the engine nothing per token: tokens stay native until a look, fifty times a second, takes them all at
once, and what was taken is drawn at most `UPDATES_PER_S` times a second. A thread, so that text appears while a cell
blocks the event loop, and so that a callback in any thread finds the same state. It ends when nothing is live.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

__all__ = ["LOOK_S", "UPDATES_PER_S", "Ticking", "add", "live"]

LOOK_S = 0.02
UPDATES_PER_S = 12


class Ticking(Protocol):
    """A display that wants to be looked after."""

    def tick(self, now: float) -> bool:
        """Reads and redraws what is due; False when there will be nothing more. Must not raise."""


_lock = threading.Lock()
_views: list[Ticking] = []
_thread: threading.Thread | None = None
_news = threading.Event()


def add(view: Ticking) -> None:
    """Looks after a display from now on. From any thread."""
    global _thread
    with _lock:
        _views.append(view)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="fastllm-display", daemon=True)
            _thread.start()
    _news.set()


def live() -> int:
    """Displays that are being looked after."""
    return len(_views)


def _run() -> None:
    global _thread
    while True:
        for view in list(_views):
            if not view.tick(time.monotonic()):
                with _lock:
                    _views.remove(view)
        with _lock:
            if not _views:
                _thread = None
                return
        _news.wait(LOOK_S)
        _news.clear()
