"""`TokenStream`: a request that is read token by token on an event loop.

A class, not an async generator: leaving the loop early must free the engine's slot at once, and a generator's
``finally`` runs only when the event loop gets round to finalising it. Here the last reference going away, or `cancel`
from anywhere, sets a native flag; nothing asynchronous is needed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from anyio import CancelScope, move_on_after

from fastllm import errors
from fastllm.types import Completion, FinishReason, Message, RequestState, Timing, Token, TopToken, Usage

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from fastllm import _core
    from fastllm._delivery import Mailbox
    from fastllm._loops import Loop
    from fastllm.capture import Capture
    from fastllm.config import GenerationConfig, GenerationFields
    from fastllm.model import Model

__all__ = ["RequestHandle", "StreamText", "Ticket", "TokenStream"]

_CLOSE_TIMEOUT_S = 5.0
_TO_THE_END = 2**31 - 1
_NOT_LAST: tuple[None, tuple[str, bytes]] = (None, ("", b""))
_IteratorT = TypeVar("_IteratorT")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the SDK knows of a submitted request beside the native one.

    Attributes:
        model: Kept alive while the request is.
        request: The native request.
        prompt_ids: The prompt as the engine got it.
        config: All layers merged.
        seed: The seed in use.
        request_id: Its name.
        adapter: Name of its adapter.
        chat: Whether the answer is a message.
        echo: The prompt as tokens, if it is to be given first.
        lookahead: Tokens it may run ahead of its reader; None: to its end.
        capture: What it captures, if anything.
        options: The other arguments it was made with, for its forks.
        kept: For a fork: the output that it begins with. It is part of ``prompt_ids`` of the engine's request alone.
    """

    model: Model
    request: _core.Request
    prompt_ids: tuple[int, ...]
    config: GenerationConfig
    seed: int
    request_id: str
    adapter: str | None = None
    chat: bool = False
    echo: tuple[Token, ...] = ()
    lookahead: int | None = None
    capture: Capture | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of a request that has ended without looking at its tokens; attributes as in `Completion`."""

    finish_reason: FinishReason
    stop: str | int | None
    usage: Usage
    timing: Timing
    seed: int
    adapter: str | None
    model: str
    request_id: str

    @classmethod
    def of(cls, completion: Completion) -> Ending:
        """That of a completion."""
        return cls(**{name: getattr(completion, name) for name in cls.__slots__})


class StreamText(str, Generic[_IteratorT]):
    """A stream's text so far: a `str` that, when called, gives an iterator over the text still to come.

    So ``stream.text`` is the text and ``async for piece in stream.text()`` reads on; `RequestHandle.texts` is the
    plain name of the latter.
    """

    _texts: Callable[[], _IteratorT]

    def __new__(cls, text: str, texts: Callable[[], _IteratorT]) -> Self:
        """Makes the string; ``texts`` makes the iterator."""
        self = super().__new__(cls, text)
        self._texts = texts
        return self

    def __call__(self) -> _IteratorT:
        """The iterator over the text still to come."""
        return self._texts()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class RequestHandle:
    """What streams of every kind share: the tokens read so far, the state, the result, and `cancel`.

    All of this may be used from any thread.
    """

    _ticket: Ticket
    _request: _core.Request

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._request = ticket.request
        self._ahead: deque[tuple[Any, ...]] = deque()  # taken from the engine, not yet read
        self._echo = deque((*ticket.echo, *ticket.kept))
        self._made: list[Token] = []  # the tokens read, but for those in _rows
        self._rows: deque[Sequence[tuple[Any, ...]]] = deque()  # batches of rows: tokens when somebody asks for them
        self._last: tuple[FinishReason | None, tuple[str, bytes]] = (
            None,
            ("", b""),
        )  # what the end adds to the last row
        self._making = threading.Lock()
        self._pieces: list[str] = []
        self._generated = len(ticket.kept)  # tokens of the answer that the engine made and that were read, or kept
        self._wanted = 0  # what the engine was told we want, if it looks
        self._stride = _stride(ticket)  # tell it after so many tokens only
        self._cut = False  # cancelled by us: what was not read is dropped
        self._exhausted = False
        self._end: dict[str, Any] | None = None
        self._completion: Completion | None = None
        if ticket.capture is not None:
            ticket.capture._follow(self)

    # --- looking

    @property
    def request_id(self) -> str:
        """The request's name, in results and logs."""
        return self._ticket.request_id

    @property
    def state(self) -> RequestState:
        """Where the request is: "queued", "prefill", "running", "parked" or "done"."""
        return cast("RequestState", self._request.state)

    @property
    def progress(self) -> tuple[int, int]:
        """Prompt tokens computed, and their number."""
        return self._request.progress

    @property
    def queue_position(self) -> int | None:
        """While it is queued: how many requests go before it; None otherwise, and until the engine has looked at it."""
        ahead: int | None = self._request.ahead
        return ahead

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens read so far."""
        return tuple(self._tokens)

    @property
    def usage(self) -> Usage:
        """Token counts; while the request runs, of what was read so far."""
        if (end := self._ended_as()) is not None:
            return Usage(**end["usage"])
        return Usage(len(self._ticket.prompt_ids), self._generated)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the request ended; None until its end was read."""
        ending = self._ending
        return None if ending is None else ending.finish_reason

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before its end was read."""
        return self._cut or self.finish_reason == "cancelled"

    @property
    def completion(self) -> Completion | None:
        """The result, once the end was read (or the request was cancelled); None before."""
        if self._completion is None and (self._exhausted or self._cut) and (end := self._ended_as()) is not None:
            self._completion = self._complete(end)
        return self._completion

    @property
    def capture(self) -> Capture | None:
        """What the request captures (``capture=`` when it was made); it grows while the request runs."""
        return self._ticket.capture

    @property
    def config(self) -> GenerationConfig:
        """The settings in force, all layers merged."""
        return self._ticket.config

    @property
    def seed(self) -> int:
        """The seed in use."""
        return self._ticket.seed

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """The prompt as the engine got it."""
        return self._ticket.prompt_ids

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)

    def _ipython_display_(self) -> None:
        """In a notebook, a stream that nobody reads yet is read by its display; another shows what was read."""
        from fastllm import _shown

        _shown.display_stream(self)

    def __repr__(self) -> str:
        text = self._joined()
        shown = repr(text if len(text) <= 60 else text[:59] + "…")
        return f"<{type(self).__name__} {self.request_id} {self.state} {shown} · {self._generated} tokens>"

    # --- stopping

    def cancel(self) -> None:
        """Stops the request and ends its stream. From any thread, signal handler or callback; never raises or waits.

        The engine frees its place at the next step boundary. Tokens that were not read yet are dropped; what was
        read stays in `text`, `tokens` and `completion`.
        """
        if self._completion is None and not self._exhausted:
            self._cut = True
        self._request.cancel()

    def _release(self) -> None:
        """The request needs no more deliveries."""

    # --- reading, by the one consumer

    def _make_tokens(self) -> None:
        """Makes tokens of the rows that were read."""
        if self._rows or self._making.locked():
            with self._making:
                while self._rows:
                    batch = self._rows.popleft()
                    self._made += [_token(row, *_NOT_LAST) for row in batch[:-1]]
                    self._made.append(_token(batch[-1], *(_NOT_LAST if self._rows else self._last)))

    @property
    def _tokens(self) -> list[Token]:
        self._make_tokens()
        return self._made

    def _joined(self) -> str:
        """The text that was read."""
        pieces = self._pieces
        with self._making:
            if (count := len(pieces)) > 1:
                pieces[:count] = ["".join(pieces[:count])]  # what is appended meanwhile stays behind it
            return pieces[0] if pieces else ""

    def _ended_as(self) -> dict[str, Any] | None:
        if self._end is None:
            self._end = self._request.finish
        return self._end

    def _is_ready(self) -> bool:
        """Whether the next read need not wait: a token is there, or the end."""
        if self._cut:
            return self._ended_as() is not None  # within a step: then how it ended can be told
        return bool(self._echo or self._ahead or self._request.unread or self._ended_as() is not None)

    def _ask(self) -> None:
        """Lets the engine run on: the reader wants one token more."""
        if self._generated >= self._wanted and not self._echo:
            self._request.want(self._generated + 1)
            self._wanted = self._generated + self._stride

    def _ask_for_all(self) -> None:
        """Lets the engine run to the end: the reader wants everything."""
        self._request.want(_TO_THE_END)
        self._wanted = _TO_THE_END

    def _pop(self) -> Token | None:
        """The next token, or None at the end. Call it when `_is_ready`.

        Raises:
            FastLLMError: The request failed.
        """
        if self._cut:
            self._exhausted = True
            return None
        if self._echo:
            return self._keep(self._echo.popleft())
        ahead = self._ahead
        if not ahead:
            ahead.extend(self._request.take())
        if not ahead:
            self._exhausted = True
            self._release()
            self._raise_failure()
            return None
        raw = ahead.popleft()
        reason, tail = None, ("", b"")
        if not ahead and (end := self._ended_as()) is not None:
            ahead.extend(self._request.take())  # what came between the last look and the end
            if not ahead:
                reason, tail = end["reason"], (end["tail_text"], end["tail_bytes"])
        self._generated += 1
        return self._keep(_token(raw, None if reason == "error" else reason, tail))

    def _read_ready(self) -> Sequence[tuple[Any, ...]]:
        """Reads all that is there as rows of the engine; they become tokens when somebody asks for those.

        For a display, which looks now and then and shares the processor with the engine. Sets `_exhausted` at the end;
        whether that is a failure is for the caller to ask.
        """
        if self._cut:
            self._exhausted = self._ended_as() is not None
            return []
        while self._echo:
            self._keep(self._echo.popleft())
        end = self._ended_as()  # before the last look, so that nothing comes after that
        records = self._request.take_records()
        rows = cast("Sequence[tuple[Any, ...]]", records)
        text = records.text()
        if self._ahead:
            text = "".join([row[1] for row in self._ahead]) + text
            rows = [*self._ahead, *records]
            self._ahead.clear()
        with self._making:
            self._generated += len(rows)
            if len(rows):
                self._rows.append(rows)
            if end is not None and self._rows:
                reason = end["reason"]
                self._last = (None if reason == "error" else reason, (end["tail_text"], end["tail_bytes"]))
            if end is not None and self._generated and not self._exhausted:
                text += end["tail_text"]
            if text:
                self._pieces.append(text)
        if end is not None:
            self._exhausted = True
            self._release()
        return rows

    def _keep(self, token: Token) -> Token:
        self._made.append(token)
        if token.text:
            self._pieces.append(token.text)
        return token

    def _read_all(self) -> None:
        """Reads what is there to the end, even after `cancel`."""
        cut, self._cut = self._cut, False
        try:
            while self._pop() is not None:
                pass
        finally:
            self._cut = cut

    def _outcome(self) -> Completion | Exception:
        """The completion or the failure, of a request that has ended."""
        try:
            self._read_all()
            self._raise_failure()
        except errors.FastLLMError as error:
            return error
        finally:
            self._release()
        return cast("Completion", self.completion)  # it has ended and was read

    def _raise_failure(self) -> None:
        end = self._ended_as()
        if end is None:
            return
        if end["reason"] == "error":
            facts = dict(end["error"])
            if facts["code"] == errors.CaptureTooLarge.code and self._ticket.capture is not None:
                facts["max_bytes"] = self._ticket.capture.max_bytes
            raise errors.from_code(facts.pop("code"), facts.pop("message"), facts.pop("hint"), **facts)
        model = self._ticket.model
        if end["reason"] == "cancelled" and not self._cut and model.closed and not model.exiting:
            raise errors.EngineClosed(
                f"[{self.request_id}] the model was closed after {self._generated} tokens of this request.",
                hint="close(drain=True) lets running requests finish.",
            )

    @property
    def _ending(self) -> Ending | None:
        """How it ended, once the end was read. Unlike `completion` it needs no token to be made."""
        if self._completion is None and (self._exhausted or self._cut) and (end := self._ended_as()) is not None:
            return self._end_of(end)
        return None if self._completion is None else Ending.of(self._completion)

    def _end_of(self, end: dict[str, Any]) -> Ending:
        ticket = self._ticket
        reason: FinishReason = end["reason"]
        if self._cut and (self._ahead or self._request.unread):
            reason = "cancelled"  # it had gone on, or ended, but its reader stopped before
        return Ending(
            finish_reason=reason,
            stop=end["stop"] if reason == "stop" else None,
            usage=Usage(**end["usage"]),
            timing=_timing(end, len(ticket.kept)),
            seed=ticket.seed,
            adapter=ticket.adapter,
            model=ticket.model.info.name,
            request_id=ticket.request_id,
        )

    def _complete(self, end: dict[str, Any]) -> Completion:
        ticket = self._ticket
        ending = self._end_of(end)
        tokens = list(self._tokens)
        dropped = self._cut and (self._ahead or self._request.unread)
        if not dropped and end["tail_text"] and tokens and tokens[-1].finish_reason is None:
            # The end let go of withheld text after the last token was read.
            last = tokens[-1]
            tokens[-1] = replace(last, text=last.text + end["tail_text"], bytes=last.bytes + end["tail_bytes"])
        text = "".join(token.text for token in tokens)
        logprobs, top = _prompt_logprobs(ticket)
        completion = Completion(
            text=text,
            tokens=tuple(tokens),
            finish_reason=ending.finish_reason,
            stop=ending.stop,
            usage=ending.usage,
            timing=ending.timing,
            seed=ending.seed,
            adapter=ending.adapter,
            model=ending.model,
            request_id=ending.request_id,
            message=Message("assistant", text) if ticket.chat else None,
            prompt_token_ids=ticket.prompt_ids,
            prompt_logprobs=logprobs,
            prompt_top=top,
        )
        if ticket.capture is not None:
            ticket.capture._ended(completion)
        return completion


def _stride(ticket: Ticket) -> int:
    """After how many tokens to tell the engine that its reader goes on: never more than it may run ahead."""
    if ticket.lookahead is None:
        return _TO_THE_END
    return max(1, ticket.lookahead // 16)


def _token(raw: tuple[Any, ...], reason: FinishReason | None, tail: tuple[str, bytes]) -> Token:
    id_, text, data, index, logprob, top, special, time_s = raw
    alternatives = tuple(TopToken(*entry) for entry in top) if top else ()
    return Token(id_, text + tail[0], data + tail[1], index, logprob, alternatives, special, time_s, reason)


def _timing(end: dict[str, Any], kept: int) -> Timing:
    timing: dict[str, Any] = dict(end["timing"])
    usage = end["usage"]
    computed = usage["prompt_tokens"] + kept - usage["cached_tokens"]
    later = usage["completion_tokens"] - kept - 1
    prefill_s, decode_s = timing["prefill_s"], timing["decode_s"]
    timing["prefill_tps"] = computed / prefill_s if prefill_s > 0 else 0.0
    timing["decode_tps"] = later / decode_s if later > 0 and decode_s > 0 else 0.0
    return Timing(**timing)


def _prompt_logprobs(
    ticket: Ticket,
) -> tuple[tuple[float | None, ...] | None, tuple[tuple[TopToken, ...], ...] | None]:
    if ticket.config.prompt_logprobs is None:
        return None, None
    entries = ticket.request.prompt_logprobs()
    logprobs = tuple(None if entry is None else float(entry[1]) for entry in entries)
    if not ticket.config.prompt_logprobs:
        return logprobs, None
    return logprobs, tuple(() if entry is None else tuple(TopToken(*top) for top in entry[3]) for entry in entries)


class TokenStream(RequestHandle):
    """A running request, read by ``async for``. Made by `Model.stream` and `Model.stream_chat`.

    The request is submitted when the stream is made, so streams in a list run together. A stream has one consumer,
    is read once, and belongs to the event loop of its first read.

    ``async for token in stream`` alone: leaving early and dropping the stream, or cancelling the pending read, cancels
    the request. Inside ``async with stream``: a cancelled read (say by ``anyio.move_on_after``) leaves the request
    running, so reading can go on; leaving the block cancels what still runs and waits for its memory to be free.
    """

    def __init__(self, ticket: Ticket, mailbox: Mailbox) -> None:
        super().__init__(ticket)
        self._delivery = ticket.model.delivery
        self._mailbox = mailbox
        self._entered = False
        self._busy = False

    def __del__(self) -> None:
        if "_mailbox" in self.__dict__:  # made completely
            self._request.cancel()
            self._delivery.close(self._mailbox)

    # --- reading

    def __aiter__(self) -> Self:
        if self._exhausted and not self._cut:
            raise errors.StreamConsumed(
                f"[{self.request_id}] the stream was read to its end after {self._generated} tokens.",
                hint="stream.tokens and stream.completion keep the result; a new stream generates anew.",
            )
        return self

    async def __anext__(self) -> Token:
        loop = self._begin_read()
        try:
            self._ask()
            if self._is_ready():
                await loop.checkpoint()
            while not self._is_ready():
                await self._news(loop)
            token = self._pop()
        except errors.FastLLMError:
            raise
        except BaseException:
            if not self._entered:
                self.cancel()
            raise
        finally:
            self._busy = False
        if token is None:
            raise StopAsyncIteration
        return token

    def texts(self) -> AsyncIterator[str]:
        """Reads on as non-empty pieces of text, instead of tokens."""
        return _Texts(self)

    @property
    def text(self) -> StreamText[AsyncIterator[str]]:
        """The text read so far. Calling it, ``stream.text()``, is the same as `texts`."""
        return StreamText(self._joined() if self._completion is None else self._completion.text, self.texts)

    async def result(self) -> Completion:
        """Reads to the end.

        Cancelling the wait cancels the request, unless inside ``async with``.

        Returns:
            The completion; after `cancel` from elsewhere the partial one, with finish reason "cancelled".

        Raises:
            EngineError: The engine failed or was closed meanwhile.
        """
        if self.completion is None:
            loop = self._begin_read()
            try:
                self._ask_for_all()
                await loop.checkpoint()
                await self._until_ended()
            except errors.FastLLMError:
                raise
            except BaseException:
                if not self._entered:
                    self.cancel()
                raise
            finally:
                self._busy = False
        outcome = self._outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        """Cancels the request if it runs, and waits (at most 5 s, even if cancelled) until its memory is free."""
        if self._ended_as() is None:
            self.cancel()
            with CancelScope(shield=True), move_on_after(_CLOSE_TIMEOUT_S):
                await self._until_ended()
        elif not self._exhausted:
            self.cancel()
        self._release()

    async def __aenter__(self) -> Self:
        self._bind()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self.aclose()

    def fork(
        self, *, at: int, token: int | str | Token | TopToken | None = None, **overrides: Unpack[GenerationFields]
    ) -> TokenStream:
        """Another answer that begins like this one and then goes its own way; this one is not touched.

        The fork is an answer of its own: `tokens`, `text`, the completion and iteration begin with what it keeps. The
        engine takes the keys of the common beginning from its prefix cache, block by block, so little is computed twice
        (`Usage.cached_tokens` says how much was shared).

            other = stream.fork(at=3, token=" not")

        Args:
            at: Tokens 0 ... at - 1 are kept; at most as many as were read.
            token: What stands at ``at`` instead: an id, a text that is one token, or one of ``stream.tokens[i].top``.
                None: it is sampled anew, which makes a difference with another seed or other settings.
            **overrides: Fields of `GenerationConfig`, laid over this request's. The seed stays, unless given.

        Raises:
            InvalidRequest: ``at`` was not read yet, or ``token`` is no single token.
        """
        model = self._ticket.model
        prompt, config, options = model._fork(self._ticket, self._tokens, at, token, overrides)
        return model._open(prompt, config, **options)

    # --- waiting

    def _bind(self) -> Loop:
        port = self._mailbox.port
        if port is None:
            port = self._mailbox.port = self._delivery.port()
        elif not port.loop.is_current:
            raise errors.WrongLoop(
                f"[{self.request_id}] the stream is being read on another event loop.",
                hint="A stream belongs to the loop of its first read; cancel() alone works from anywhere.",
            )
        return port.loop

    def _begin_read(self) -> Loop:
        if self._busy:
            raise errors.StreamBusy(
                f"[{self.request_id}] another task is already waiting for this stream.",
                hint="A stream has one consumer: let it hand the tokens on, or make a second stream.",
            )
        loop = self._bind()
        self._busy = True
        return loop

    async def _news(self, loop: Loop) -> None:
        """Waits for the next delivery. Check for it before, without awaiting in between."""
        event = loop.new_event()
        wake = event.set
        self._mailbox.listeners.append(wake)
        try:
            await event.wait()
        finally:
            self._mailbox.listeners.remove(wake)

    async def _until_ended(self) -> None:
        if self._ended_as() is not None:
            return
        mailbox, request, event = self._mailbox, self._request, self._bind().new_event()

        def look() -> None:
            if request.finish is not None:
                event.set()

        mailbox.listeners.append(look)
        try:
            look()
            await event.wait()
        finally:
            mailbox.listeners.remove(look)

    def _release(self) -> None:
        self._delivery.close(self._mailbox)


class _Texts(AsyncIterator[str]):
    """The printable pieces of a stream."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            token = await self._stream.__anext__()
            if token.text:
                return token.text
