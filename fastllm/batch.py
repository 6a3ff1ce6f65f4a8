"""Many requests at once: results as they complete (`AsCompleted`) and tokens as they come (`BatchStream`).

Both admit lazily from any iterable or async iterable, with a bounded number of requests in flight, and isolate
failures: a bad entry becomes an exception at its place and disturbs no other. Like `TokenStream` they are classes, so
that letting go of one cancels its requests at once.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

from anyio import CancelScope, Event, get_cancelled_exc_class, move_on_after, sleep
from anyio.lowlevel import checkpoint

from fastllm import errors
from fastllm._loops import Loop, LoopGone, current_loop
from fastllm.types import Completion, Prompt, Request, Token

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastllm import _core
    from fastllm.stream import TokenStream

__all__ = ["AsCompleted", "BatchResults", "BatchSource", "BatchStream", "batch_error"]

BatchSource: TypeAlias = Iterable[Prompt | Request] | AsyncIterable[Prompt | Request]
_Opener: TypeAlias = "Callable[[Prompt | Request, int], TokenStream]"
_ItemT = TypeVar("_ItemT")
_AT_ONCE = 32  # entries admitted between two looks at the event loop
_CLOSE_TIMEOUT_S = 5.0
_RETRY_S = 0.05


class _Ready:
    """What has happened, as indices; written by deliveries, read by the group. Refers to neither."""

    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.event: Event | None = None

    def wake(self) -> None:
        if self.event is not None:
            self.event.set()

    def push(self, index: int) -> None:
        self.queue.append(index)
        self.wake()

    def push_if_done(self, index: int, request: _core.Request) -> None:
        if request.finish is not None:
            self.push(index)


class _Feed:
    """Pulls an async source in a task of its own, so that waiting for its next entry delays no result."""

    def __init__(self, source: AsyncIterable[Prompt | Request], ready: _Ready, loop: Loop) -> None:
        self.items: deque[Prompt | Request] = deque()
        self.done = False
        self.error: Exception | None = None
        self._ready = ready
        self._loop = loop
        self._room = _AT_ONCE
        self._resume: Event | None = None
        self._scope = CancelScope()
        self._task = loop.spawn(functools.partial(self._run, source))

    def let(self, room: int) -> None:
        """Allows so many entries to be pulled ahead."""
        self._room = room
        if self._resume is not None and len(self.items) < room:
            self._resume.set()

    def stop(self) -> None:
        """Ends the task. From any thread."""
        try:
            self._loop.post(self._scope.cancel)
        except LoopGone:
            pass

    async def _run(self, source: AsyncIterable[Prompt | Request]) -> None:
        try:
            with self._scope:
                async for item in source:
                    self.items.append(item)
                    self._ready.wake()
                    while len(self.items) >= self._room:
                        self._resume = Event()
                        await self._resume.wait()
        except Exception as error:
            self.error = error
        finally:
            self.done = True
            self._ready.wake()
            close = getattr(source, "aclose", None)
            if close is not None:
                with CancelScope(shield=True), move_on_after(_CLOSE_TIMEOUT_S):
                    await close()


class _Group(Generic[_ItemT]):
    """Admission, waiting and release of a group of requests."""

    def __init__(self, prompts: BatchSource, open_stream: _Opener, *, limit: int, copies: int) -> None:
        self._open = open_stream
        self._limit = limit
        self._copies = copies
        self._ready = _Ready()
        self._active: dict[int, TokenStream] = {}
        self._failed: dict[int, Exception] = {}
        self._backlog: deque[tuple[int, Prompt | Request, int]] = deque()  # index, entry, which copy
        self._next_index = 0
        self._retry_after_s: float | None = None
        self._port_bound = False
        self._entered = self._busy = self._closed = False
        self._feed: _Feed | None = None
        self._async_source: AsyncIterable[Prompt | Request] | None = None
        self._source: Iterator[Prompt | Request] | None = None
        if isinstance(prompts, (str, bytes)):
            raise errors.InvalidRequest(
                f"[batch] prompts is one {type(prompts).__name__}, not several.", hint="Wrap it: batch([prompt])."
            )
        if isinstance(prompts, AsyncIterable):
            self._async_source = prompts
        else:
            self._source = iter(prompts)
            self._admit(_AT_ONCE)

    def __del__(self) -> None:
        if "_source" in self.__dict__:  # made completely
            self.cancel()

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet given back."""
        return len(self._active)

    def cancel(self) -> None:
        """Cancels everything that runs and admits no more. From any thread; never raises or waits."""
        self._closed = True
        for stream in list(self._active.values()):
            stream.cancel()
        if self._feed is not None:
            self._feed.stop()

    # --- admission

    def _admit(self, most: int) -> int:
        """Submits entries while there is room; returns how many."""
        count = 0
        self._retry_after_s = None
        while count < most and len(self._active) < self._limit and not self._closed:
            if not self._backlog and not self._refill():
                break
            index, item, copy = self._backlog[0]
            try:
                stream = self._open(item, copy)
            except errors.QueueFull as error:  # others fill the queue, too: wait for one of ours, or a while
                self._retry_after_s = min(error.retry_after_s or _RETRY_S, _RETRY_S)
                break
            except Exception as error:
                self._failed[index] = error
                self._ready.queue.append(index)
            else:
                self._active[index] = stream
                self._watch(index, stream)
            self._backlog.popleft()
            count += 1
        return count

    def _refill(self) -> bool:
        """Moves the next entry of the source into the backlog, once for each copy."""
        if self._source is not None:
            try:
                item = next(self._source)
            except StopIteration:
                self._source = None
                return False
        elif self._feed is not None and self._feed.items:
            item = self._feed.items.popleft()
        else:
            return False
        for copy in range(self._copies):
            self._backlog.append((self._next_index, item, copy))
            self._next_index += 1
        return True

    def _watch(self, index: int, stream: TokenStream) -> None:
        """Sees to it that the stream's news reach `_ready`."""
        raise NotImplementedError

    def _bind(self, stream: TokenStream) -> None:
        if self._port_bound:
            stream._bind()

    @property
    def _can_admit(self) -> bool:
        waiting = self._backlog or self._source is not None or (self._feed is not None and self._feed.items)
        return bool(waiting) and len(self._active) < self._limit and self._retry_after_s is None

    @property
    def _more_to_come(self) -> bool:
        feed = self._feed
        return bool(
            self._active
            or self._failed
            or self._backlog
            or self._source is not None
            or self._async_source is not None
            or (feed is not None and (feed.items or not feed.done))
        )

    # --- iteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _ItemT:
        if self._busy:
            raise errors.StreamBusy("[batch] another task is already waiting for this batch.")
        self._busy = True
        try:
            self._bind_all()
            if self._ready.queue:
                await checkpoint()
            return await self._next()
        except (StopAsyncIteration, errors.BatchError):
            raise
        except BaseException as error:
            if not self._entered or not isinstance(error, get_cancelled_exc_class()):
                self.cancel()
            raise
        finally:
            self._busy = False

    async def _next(self) -> _ItemT:
        while True:
            while not self._closed and self._admit(_AT_ONCE) == _AT_ONCE:
                await checkpoint()
            self._check_feed()
            while self._ready.queue:
                item = self._take(self._ready.queue.popleft())
                if item is not None:
                    return item
            if self._closed or not self._more_to_come:
                self._finish()
                raise StopAsyncIteration
            if not self._can_admit:  # an end that was just read may have made room
                await self._news()

    def _take(self, index: int) -> _ItemT | None:
        """What a ready index gives, if anything."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Called at the end; may raise `BatchError`."""

    def _before_wait(self) -> None:
        """Called before each wait."""

    async def _news(self) -> None:
        self._before_wait()
        if self._retry_after_s is not None and not self._active:
            await sleep(self._retry_after_s)
            return
        if self._ready.queue:
            return
        event = self._ready.event = Event()
        try:
            await event.wait()
        finally:
            self._ready.event = None

    def _bind_all(self) -> None:
        """At the first read: the group belongs to this loop from now on."""
        if self._port_bound:
            return
        self._port_bound = True
        for index, stream in self._active.items():
            stream._bind()
            self._ready.queue.append(index)  # what came before the binding was reported to nobody
        if self._async_source is not None:
            self._feed = _Feed(self._async_source, self._ready, current_loop())
            self._async_source = None

    def _check_feed(self) -> None:
        if self._feed is not None:
            if self._feed.error is not None:
                raise self._feed.error
            self._feed.let(max(1, min(_AT_ONCE, self._limit - len(self._active))))

    # --- release

    async def aclose(self) -> None:
        """Cancels what runs and waits (at most 5 s, even if cancelled) until its memory is free."""
        running = list(self._active.values())
        self.cancel()
        with CancelScope(shield=True), move_on_after(_CLOSE_TIMEOUT_S):
            for stream in running:
                await stream.aclose()
        self._active.clear()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self.aclose()


class AsCompleted(_Group["tuple[int, Completion | Exception]"], AsyncIterator["tuple[int, Completion | Exception]"]):
    """Results in the order in which they complete, each with the index of its prompt. Made by `Model.as_completed`."""

    def _watch(self, index: int, stream: TokenStream) -> None:
        stream._ask_for_all()
        stream._mailbox.listeners.append(functools.partial(self._ready.push_if_done, index, stream._request))
        self._bind(stream)
        if stream._ended_as() is not None:  # before the listener was there
            self._ready.queue.append(index)

    def _take(self, index: int) -> tuple[int, Completion | Exception] | None:
        failure = self._failed.pop(index, None)
        if failure is not None:
            return index, failure
        stream = self._active.get(index)
        if stream is None or stream._ended_as() is None:
            return None
        del self._active[index]
        return index, stream._outcome()


class BatchStream(_Group["tuple[int, Token]"], AsyncIterator["tuple[int, Token]"]):
    """Tokens of many requests, interleaved as the engine makes them. Made by `Model.stream_batch`.

    Attributes:
        results: For each prompt whose end was read: its completion or its exception, by index.
    """

    def __init__(
        self,
        prompts: BatchSource,
        open_stream: _Opener,
        *,
        limit: int,
        copies: int,
        on_error: Literal["raise", "return"],
    ) -> None:
        self.results: dict[int, Completion | Exception] = {}
        self._hungry: set[int] = set()  # read since the last wait: they may need another step to be asked for
        self._on_error = on_error
        super().__init__(prompts, open_stream, limit=limit, copies=copies)

    def _watch(self, index: int, stream: TokenStream) -> None:
        self._hungry.add(index)
        stream._mailbox.listeners.append(functools.partial(self._ready.push, index))
        self._bind(stream)
        self._ready.queue.append(index)

    def _take(self, index: int) -> tuple[int, Token] | None:
        failure = self._failed.pop(index, None)
        if failure is not None:
            self.results[index] = failure
            return None
        stream = self._active.get(index)
        if stream is None or not stream._is_ready():
            return None
        try:
            token = stream._pop()
        except errors.FastLLMError as error:
            self.results[index] = error
            del self._active[index]
            return None
        if token is None:
            self.results[index] = stream._outcome()
            del self._active[index]
            return None
        self._hungry.add(index)
        if stream._is_ready():
            self._ready.queue.append(index)  # behind the others: their turn first
        return index, token

    def _before_wait(self) -> None:
        # Streams without look-ahead go in step: none is asked for another token while one is still awaited.
        awaited = any(_in_step(stream) and index not in self._hungry for index, stream in self._active.items())
        for index in tuple(self._hungry):
            stream = self._active.get(index)
            if stream is not None:
                if awaited and _in_step(stream):
                    continue
                stream._ask()
            self._hungry.discard(index)

    def _finish(self) -> None:
        if self._on_error == "raise" and not self._closed:
            error = batch_error([self.results[index] for index in sorted(self.results)])
            if error is not None:
                self._closed = True
                raise error


def _in_step(stream: TokenStream) -> bool:
    return stream._ticket.lookahead == 0


class BatchResults(list[_ItemT]):
    """A list of completions, and of exceptions where they were asked for, that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)


def batch_error(results: list[Completion | Exception]) -> errors.BatchError | None:
    """The error that tells of all failures in a batch's results, or None."""
    failures = [result for result in results if isinstance(result, Exception)]
    if not failures:
        return None
    where = [str(index) for index, result in enumerate(results) if isinstance(result, Exception)]
    shown = ", ".join(where[:8]) + (", …" if len(where) > 8 else "")
    return errors.BatchError(
        f"[batch] {len(failures)} of {len(results)} requests failed (index {shown}).",
        failures,
        results=results,
        hint='`.results` holds the others\' completions; on_error="return" gives exceptions in place.',
    )
