"""Steps run for their own sake: a device that records decode steps has them all before the first request comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.blocking import BlockingStream
    from fastllm.model import Model

__all__ = ["WarmupProgress", "warm_up"]

WarmupProgress = Callable[[int, int], None]

# A device records a step of n requests when it sees the second one, and steps whose longest sequence has up to 256
# tokens are alike. So requests end one after the other, three steps apart; 64 sizes fit below 256 tokens.
_APART = 3
_SIZES = 64
_TOGETHER = 24  # steps until the last request has been submitted, generously
_BAR_AFTER_S = 0.7
_BAR_EVERY_S = 0.1


def warm_up(
    model: Model, *, progress: bool | WarmupProgress | None = None, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Runs decode steps of every number of requests, from `max_running` down to 1.

    Args:
        model: Whose engine is to run them; other requests may run, but then not every number is met.
        progress: True or False for a bar on standard error, a function of (sizes done, sizes in all), or None: a bar if
            standard error is a terminal and this takes a while.
        stopped: Asked between tokens; true ends it early.

    Returns:
        The sizes that ran: 0 where steps are not recorded, on CPUs and with ``cuda_graphs=False``.
    """
    config = model.engine_config
    if not model.info.device.startswith("cuda") or config.cuda_graphs is False:
        return 0
    most = min(config.max_running, config.max_batch_tokens, config.max_queue)
    show = _Bar() if progress is True or (progress is None and _is_terminal()) else None
    tell = show.update if show is not None else progress if callable(progress) else None
    if show is not None and progress is True:
        show.after_s = 0.0
    done = 0
    try:
        for low in range(most - (most - 1) % _SIZES, 0, -_SIZES):
            done = _run_sizes(model, low, min(low + _SIZES - 1, most), done, most, tell, stopped)
            if stopped():
                break
    finally:
        if show is not None:
            show.close()
    return done


def _run_sizes(
    model: Model,
    low: int,
    high: int,
    done: int,
    most: int,
    tell: WarmupProgress | None,
    stopped: Callable[[], bool],
) -> int:
    """Steps of `high` down to `low` requests; gives the sizes done so far, these included."""
    longest = _TOGETHER + _APART * (high - low + 1)
    with ExitStack() as stack:

        def start(tokens: int) -> BlockingStream:
            return stack.enter_context(
                model.blocking.stream([1], temperature=0, max_new_tokens=tokens, ignore_eos=True, lookahead=None)
            )

        for _ in range(low - 1):
            start(longest)
        ending = [start(longest - _APART * i) for i in range(high - low + 1)]
        while ending:
            for _ in ending.pop():
                if stopped():
                    return done
            done += 1
            if tell is not None:
                tell(done, most)
    return done


def _is_terminal() -> bool:
    stream: Any = sys.stderr
    return stream is not None and bool(stream.isatty())


class _Bar:
    """One line on standard error that is written over."""

    def __init__(self) -> None:
        self.after_s = _BAR_AFTER_S
        self._stream: Any = sys.stderr
        self._began = time.monotonic()
        self._drawn = 0.0
        self._width = 0

    def update(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._began < self.after_s or now - self._drawn < _BAR_EVERY_S:
            return
        self._drawn = now
        filled = round(done / total * 24)
        line = f"warming up  {'█' * filled}{'░' * (24 - filled)} {done}/{total} sizes  {now - self._began:.1f} s"
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def close(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
