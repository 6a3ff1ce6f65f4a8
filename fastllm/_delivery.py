"""From the engine's step thread to event loops: one daemon thread a model, one wake a loop and step.

The step thread never touches Python: it appends tokens to native outboxes and signals a condition variable. The
delivery thread waits on that without the GIL, groups the news by event loop and posts one `drain` to each loop that
has some. Tokens stay native until their reader takes them, on its own loop.

There are no locks here: deque and dict operations are atomic, and the order of "clear the flag, then empty the queue"
against "fill the queue, then look at the flag" loses no wake-up. So nothing on a loop ever waits for this thread.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastllm._loops import Loop, LoopGone, current_loop

if TYPE_CHECKING:
    from fastllm import _core

__all__ = ["Delivery", "Mailbox", "Port"]

_IDLE_S = 5.0  # how often an idle delivery thread looks around
_WATCH_S = 0.5  # the same while a loop owes a drain: it may have ended


class Mailbox:
    """Where the news of one request goes. Owned by its reader; the delivery table knows it by its tag.

    Attributes:
        tag: Number under which the engine reports the request.
        request: The native request, once submitted.
        port: The loop it is read on, once a reader has awaited it there.
        listeners: Called on that loop when the request has news. They must not refer to an object whose collection
            should cancel the request: the table keeps them alive.
    """

    __slots__ = ("listeners", "port", "request", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.request: _core.Request | None = None
        self.port: Port | None = None
        self.listeners: list[Callable[[], None]] = []


class Port:
    """One event loop as the delivery thread sees it.

    Attributes:
        loop: The loop.
        posted: Whether a drain was posted and has not begun.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._news: deque[Mailbox] = deque()
        self.posted = False
        self._posted_at = 0.0

    def add(self, mailbox: Mailbox) -> bool:
        """Queues news. Delivery thread only. True if the loop must be woken."""
        self._news.append(mailbox)
        if self.posted:
            return False
        self.posted = True
        self._posted_at = time.monotonic()
        return True

    def wake(self) -> None:
        """Posts the drain; raises `LoopGone`."""
        self.loop.post(self.drain)

    def drain(self) -> None:
        """Runs on the loop: tells every reader with news."""
        self.posted = False
        while True:
            try:
                mailbox = self._news.popleft()
            except IndexError:
                return
            # A request that comes twice is told twice: its second news may have come after the first was told.
            for listener in tuple(mailbox.listeners):
                listener()

    def overdue(self, now: float) -> bool:
        """Whether a posted drain has not run for a while."""
        return self.posted and now - self._posted_at > _WATCH_S


class Delivery:
    """The table of mailboxes of one engine, and the thread that serves it."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine = engine
        self._channel = engine.open_channel()
        self._tags = itertools.count(1)
        self._mailboxes: dict[int, Mailbox] = {}
        self._ports: weakref.WeakValueDictionary[int, Port] = weakref.WeakValueDictionary()
        self._stopping = False
        self._retired: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="fastllm-delivery", daemon=True)
        self._thread.start()

    @property
    def channel(self) -> int:
        """The engine's channel for requests that are read on event loops."""
        return self._channel

    @property
    def open_count(self) -> int:
        """Mailboxes in the table."""
        return len(self._mailboxes)

    def requests(self) -> list[_core.Request]:
        """The native requests in the table, oldest first."""
        return [box.request for box in list(self._mailboxes.values()) if box.request is not None]

    def open(self) -> Mailbox:
        """A mailbox with a fresh tag, in the table."""
        mailbox = Mailbox(next(self._tags))
        self._mailboxes[mailbox.tag] = mailbox
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """Takes a mailbox out of the table. From any thread, any number of times."""
        self._mailboxes.pop(mailbox.tag, None)

    def port(self) -> Port:
        """The calling task's loop. It lives as long as a mailbox refers to it.

        Raises:
            RuntimeError: No event loop runs in this thread.
        """
        loop = current_loop()
        key = id(loop.native)  # unique while the port lives, because the port holds the loop
        port = self._ports.get(key)
        if port is None:
            port = self._ports[key] = Port(loop)
        return port

    def stop(self, timeout_s: float | None = None) -> None:
        """Delivers what is left and ends the thread. Call it after the engine was closed."""
        self._stopping = True
        self._engine.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def retire(self, then: Callable[[], None]) -> None:
        """Has the thread close the engine, call a function, and end. Waits for nothing."""
        self._retired = then
        self._stopping = True
        self._engine.wake()

    # --- the thread

    def _run(self) -> None:
        engine = self._engine
        while True:
            stopping = self._stopping  # read before draining, so that a last round follows it
            watched = any(port.posted for port in self._live_ports())
            if self._retired is not None:
                engine.close(drain=False)
            elif not stopping:
                engine.wait_events(_WATCH_S if watched else _IDLE_S)
            self._deliver(engine.drain(self._channel))
            if watched:
                self._look_for_ended_loops()
            if stopping:
                if self._retired is not None:
                    self._retired()
                return

    def _deliver(self, tags: list[int]) -> None:
        to_wake: list[Port] = []
        for tag in tags:
            mailbox = self._mailboxes.get(tag)
            port = None if mailbox is None else mailbox.port
            if mailbox is not None and port is not None and port.add(mailbox):
                to_wake.append(port)
        for port in to_wake:
            try:
                port.wake()
            except LoopGone:
                self._abandon(port)

    def _look_for_ended_loops(self) -> None:
        now = time.monotonic()
        for port in self._live_ports():
            if port.overdue(now) and port.loop.gone:
                self._abandon(port)

    def _live_ports(self) -> list[Port]:
        return [port for reference in self._ports.valuerefs() if (port := reference()) is not None]

    def _abandon(self, port: Port) -> None:
        """A loop has ended: nobody will read its requests any more."""
        for mailbox in list(self._mailboxes.values()):
            if mailbox.port is port:
                if mailbox.request is not None:
                    mailbox.request.cancel()
                self.close(mailbox)
