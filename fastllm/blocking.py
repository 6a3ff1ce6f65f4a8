"""The verbs of `Model` for plain scripts and synchronous notebook cells: they wait instead of being awaited.

Waiting happens on a native condition without the GIL, in slices of 50 ms, so that Ctrl-C works; an interrupt cancels
the request first. No event loop is needed and none is started, so this works inside a running one, too, though it
blocks it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from fastllm import errors
from fastllm._loops import loop_in_this_thread
from fastllm.batch import BatchResults, batch_error
from fastllm.stream import RequestHandle, StreamText, Ticket
from fastllm.types import Completion, Message, Prompt, Request, Scores, Token, TopToken

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from fastllm.capture import Capture
    from fastllm.config import GenerationConfig, GenerationFields
    from fastllm.model import Model
    from fastllm.steer import Steering, SteerLike

__all__ = ["BlockingModel", "BlockingStream"]

_SLICE_S = 0.05  # signals are looked at in between
_CLOSE_TIMEOUT_S = 5.0
_warned = False


def _warn_if_on_a_loop() -> None:
    """Says once that a loop stands still, unless this is IPython, whose cells are meant to."""
    global _warned
    if _warned or not loop_in_this_thread():
        return
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return
    _warned = True
    warnings.warn(
        "model.blocking waits in a thread whose event loop is running: nothing else on that loop goes on meanwhile. "
        "Use the async methods of the model.",
        errors.LoopBlocked,
        stacklevel=4,
    )


class BlockingStream(RequestHandle):
    """A running request, read by ``for``. Made by `BlockingModel.stream`.

    It is submitted when made, has one consumer and is read once. Dropping it, leaving its ``with`` block, or an
    interrupt while it waits cancels the request.
    """

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket)
        self._busy = False

    def __del__(self) -> None:
        if "_busy" in self.__dict__:  # made completely
            self._request.cancel()

    def __iter__(self) -> Self:
        if self._exhausted and not self._cut:
            raise errors.StreamConsumed(
                f"[{self.request_id}] the stream was read to its end after {self._generated} tokens.",
                hint="stream.tokens and stream.completion keep the result; a new stream generates anew.",
            )
        return self

    def __next__(self) -> Token:
        if self._busy:
            raise errors.StreamBusy(f"[{self.request_id}] another thread is already waiting for this stream.")
        self._busy = True
        try:
            self._ask()
            while not self._is_ready():
                if self._request.wait(_SLICE_S) and self._cut:
                    self._ahead.extend(self._request.take())  # or wait() would return at once from now on
            token = self._pop()
        except errors.FastLLMError:
            raise
        except BaseException:  # an interrupt
            self.cancel()
            raise
        finally:
            self._busy = False
        if token is None:
            raise StopIteration
        return token

    def texts(self) -> Iterator[str]:
        """Reads on as non-empty pieces of text, instead of tokens."""
        return (token.text for token in self if token.text)

    @property
    def text(self) -> StreamText[Iterator[str]]:
        """The text read so far. Calling it, ``stream.text()``, is the same as `texts`."""
        return StreamText(self._joined() if self._completion is None else self._completion.text, self.texts)

    def result(self) -> Completion:
        """Reads to the end.

        Raises:
            EngineError: The engine failed or was closed meanwhile.
        """
        if self.completion is None:
            self._ask_for_all()
            self._wait_for_end(None)
        outcome = self._outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def fork(
        self, *, at: int, token: int | str | Token | TopToken | None = None, **overrides: Unpack[GenerationFields]
    ) -> BlockingStream:
        """Another answer that begins like this one and then goes its own way; see `TokenStream.fork`."""
        model = self._ticket.model
        prompt, config, options = model._fork(self._ticket, self._tokens, at, token, overrides)
        return model.blocking._open(prompt, config, **options)

    def close(self) -> None:
        """Cancels the request if it runs, and waits (at most 5 s) until its memory is free."""
        if self._ended_as() is None:
            self.cancel()
            self._wait_for_end(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for_end(self, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while self._ended_as() is None and (deadline is None or time.monotonic() < deadline):
                if self._request.wait(_SLICE_S) and self._ended_as() is None:
                    self._ahead.extend(self._request.take())  # or wait() would return at once from now on
        except BaseException:
            self.cancel()
            raise


class BlockingModel:
    """The blocking face of a model: `Model.blocking`. Arguments and errors are those of `Model`'s methods."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __repr__(self) -> str:
        return f"<BlockingModel of {self._model!r}>"

    def stream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        /,
        *,
        adapter: str | None = None,
        priority: int = 0,
        request_id: str | None = None,
        capture: Sequence[str] | None = None,
        steer: SteerLike | None = None,
        max_capture_bytes: int | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> BlockingStream:
        """Starts a request and gives its tokens as they come: ``for token in model.blocking.stream("...")``."""
        merged = self._model._merge(config, overrides, single=True)
        return self._open(
            prompt,
            merged,
            adapter=adapter,
            priority=priority,
            request_id=request_id,
            capture=capture,
            steer=steer,
            max_capture_bytes=max_capture_bytes,
        )

    def generate(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        /,
        *,
        adapter: str | None = None,
        priority: int = 0,
        request_id: str | None = None,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> Completion:
        """Runs a request to its end."""
        stream = self.stream(
            prompt, config, adapter=adapter, priority=priority, request_id=request_id, steer=steer, **overrides
        )
        return stream.result()

    def stream_chat(
        self,
        messages: str | Sequence[Message | Mapping[str, Any]],
        config: GenerationConfig | None = None,
        /,
        *,
        tools: Sequence[Any] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        priority: int = 0,
        request_id: str | None = None,
        capture: Sequence[str] | None = None,
        steer: SteerLike | None = None,
        max_capture_bytes: int | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> BlockingStream:
        """Starts the answer to a conversation."""
        merged = self._model._merge(config, overrides, single=True)
        ids = self._model.render(messages, tools=tools, template_kwargs=template_kwargs).token_ids
        return self._open(
            ids,
            merged,
            adapter=adapter,
            priority=priority,
            request_id=request_id,
            chat=True,
            capture=capture,
            steer=steer,
            max_capture_bytes=max_capture_bytes,
        )

    def chat(
        self,
        messages: str | Sequence[Message | Mapping[str, Any]],
        config: GenerationConfig | None = None,
        /,
        *,
        tools: Sequence[Any] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        priority: int = 0,
        request_id: str | None = None,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> Completion:
        """Answers a conversation."""
        stream = self.stream_chat(
            messages,
            config,
            tools=tools,
            template_kwargs=template_kwargs,
            adapter=adapter,
            priority=priority,
            request_id=request_id,
            steer=steer,
            **overrides,
        )
        return stream.result()

    @overload
    def batch(
        self,
        prompts: Iterable[Prompt | Request],
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["raise"] = "raise",
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> list[Completion]: ...

    @overload
    def batch(
        self,
        prompts: Iterable[Prompt | Request],
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["return"],
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> list[Completion | Exception]: ...

    def batch(
        self,
        prompts: Iterable[Prompt | Request],
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["raise", "return"] = "raise",
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> list[Any]:
        """Runs many requests and gives their completions in the order of the prompts; see `Model.batch`.

        The prompts are read lazily from any iterable. An async iterable needs the async method.
        """
        if on_error not in ("raise", "return"):
            raise errors.InvalidRequest(f'[batch] on_error is {on_error!r} but must be "raise" or "return".')
        if isinstance(prompts, (str, bytes, AsyncIterable)):
            raise errors.InvalidRequest(
                f"[batch] prompts is {type(prompts).__name__}, not an iterable of prompts.",
                hint="Wrap one prompt in a list; give async iterables to `await model.batch(...)`.",
            )
        _warn_if_on_a_loop()
        merged = self._model._merge(config, overrides)
        steering = None if steer is None else self._model.steer(steer)
        results: BatchResults[Completion | Exception] = BatchResults()
        running: deque[BlockingStream | Exception] = deque()
        try:
            for item in prompts:
                request = item if isinstance(item, Request) else Request(item)
                for copy in range(merged.n):
                    running.append(self._admit(request, merged, running, results, adapter, priority, steering, copy))
            while running:
                results.append(_result_of(running.popleft()))
        except BaseException:
            for entry in running:
                if isinstance(entry, BlockingStream):
                    entry.cancel()
            raise
        if on_error == "raise" and (error := batch_error(results)) is not None:
            raise error
        return results

    def _admit(
        self,
        request: Request,
        config: GenerationConfig,
        running: deque[BlockingStream | Exception],
        results: list[Completion | Exception],
        adapter: str | None,
        priority: int,
        steering: Steering | None,
        copy: int,
    ) -> BlockingStream | Exception:
        """Submits one entry of a batch, after the oldest ones have ended if there are too many."""
        while len(running) >= self._model.engine_config.max_queue:
            results.append(_result_of(running.popleft()))
        while True:
            try:
                stream = self._open(
                    request.prompt,
                    config if request.config is None else config.merged(request.config),
                    adapter=request.adapter if request.adapter is not None else adapter,
                    priority=priority if request.priority is None else request.priority,
                    request_id=request.request_id,
                    copy=copy,
                    steer=steering,
                )
                stream._ask_for_all()
                return stream
            except errors.QueueFull as error:  # others fill the queue, too
                if running:
                    results.append(_result_of(running.popleft()))
                else:
                    time.sleep(min(error.retry_after_s or _SLICE_S, _SLICE_S))
            except Exception as error:
                return error

    def score(self, prompt: Prompt, continuation: str | Sequence[int], /, *, steer: SteerLike | None = None) -> Scores:
        """How probable a continuation is; see `Model.score`."""
        ids, start = self._model._score_ids(prompt, continuation)
        stream = self._open(ids, self._model._scoring(), prompt_only=True, steer=steer)
        stream.result()
        return self._model._scores(stream, start)

    def logits(self, prompt: Prompt, /, *, steer: SteerLike | None = None) -> npt.NDArray[np.float32]:
        """The raw logits behind every token of a prompt, float32 [tokens, vocab]; see `Model.logits`."""
        stream = self._open(prompt, self._model._looking(), prompt_only=True, keep_logits=True, steer=steer)
        stream.result()
        return stream._request.logits()

    def capture(
        self,
        prompt: Prompt,
        /,
        *names: str,
        config: GenerationConfig | None = None,
        steer: SteerLike | None = None,
        max_capture_bytes: int | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> Capture:
        """What the running engine computes inside the model; see `Model.capture`."""
        merged, options = self._model._capture_options(names, config, overrides)
        stream = self._open(prompt, merged, steer=steer, max_capture_bytes=max_capture_bytes, **options)
        stream.result()
        return self._model._captured(stream)

    def warmup(self, *, progress: bool | Callable[[int, int], None] | None = None) -> int:
        """Records the decode steps of every number of requests; see `Model.warmup`."""
        from fastllm._warmup import warm_up

        return warm_up(self._model, progress=progress)

    def _open(self, prompt: Prompt, config: GenerationConfig, **options: Any) -> BlockingStream:
        _warn_if_on_a_loop()
        return BlockingStream(self._model._submit(prompt, config, **options))


def _result_of(entry: BlockingStream | Exception) -> Completion | Exception:
    if isinstance(entry, Exception):
        return entry
    entry._wait_for_end(None)
    return entry._outcome()
