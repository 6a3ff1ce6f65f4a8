"""`Model`: a loaded model and the verbs on it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import numpy as np
import numpy.typing as npt
from anyio import CancelScope, get_cancelled_exc_class, to_thread

from fastllm import _core, _prompts
from fastllm._delivery import Delivery
from fastllm._fork import TokenLike, fork_arguments
from fastllm._inside import Inside, Node
from fastllm._loops import worker_limiter
from fastllm.batch import AsCompleted, BatchResults, BatchSource, BatchStream, batch_error
from fastllm.capture import DEFAULT_CAPTURE_BYTES, Capture
from fastllm.config import EngineConfig, GenerationConfig, GenerationFields
from fastllm.errors import InvalidConfig, InvalidRequest
from fastllm.steer import Steering, SteerLike
from fastllm.stream import RequestHandle, Ticket, TokenStream
from fastllm.types import (
    Completion,
    EngineStats,
    Message,
    ModelInfo,
    Prompt,
    RenderedPrompt,
    Request,
    Scores,
    Token,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from fastllm._delivery import Mailbox
    from fastllm.blocking import BlockingModel
    from fastllm.display.memory import MemoryReport
    from fastllm.tokenizer import Tokenizer

__all__ = ["Model"]

_EXIT_TIMEOUT_S = 2.0


class _Core:
    """The parts of a model that must be shut down in order; finalisers hold it, and not the model."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.delivery = Delivery(engine)
        self.pid = os.getpid()
        self.exiting = False
        _running.add(self)

    def shut_down(self, *, drain: bool = False, timeout_s: float | None = _EXIT_TIMEOUT_S) -> None:
        """Ends the step thread, then the delivery thread. In a forked child, where neither exists, does nothing."""
        _running.discard(self)
        if os.getpid() != self.pid:
            return
        self.engine.close(drain=drain, timeout_s=-1.0 if timeout_s is None else timeout_s)
        self.delivery.stop(_EXIT_TIMEOUT_S)

    def let_go(self) -> None:
        """The model was collected: the same, but nothing waits, for this may run on an event loop."""
        if os.getpid() == self.pid:
            self.delivery.retire(lambda: _running.discard(self))


_running: set[_Core] = set()  # what has threads still, even if its model is gone


@atexit.register
def _shut_down_all() -> None:
    """Before the interpreter goes: a thread that needs it later would be killed in the middle of native code."""
    for parts in list(_running):
        parts.exiting = True  # daemon threads that still read see an end, not an error that Python would print
        parts.shut_down()


class Model:
    """A loaded model. Every method may be called from any thread, and from any number of event loops at once.

    Get one from `load` or `load_async`. It is a context manager of both kinds; leaving it closes the engine.

    Attributes:
        info: What was loaded.
        tokenizer: Its vocabulary.
        generation_config: Defaults of every request, from the checkpoint's ``generation_config.json``.
        engine_config: How it runs.
        module: The network as Python modules, for running it eagerly; None if there is none.
        config: The checkpoint's ``config.json``.
    """

    def __init__(
        self,
        program: _core.Program,
        tokenizer: Tokenizer,
        *,
        info: ModelInfo,
        engine_config: EngineConfig | None = None,
        generation_config: GenerationConfig | None = None,
        eos_token_ids: Sequence[int] = (),
        module: Any = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        engine_config = engine_config or EngineConfig()
        self.info = info
        self.tokenizer = tokenizer
        self.engine_config = engine_config
        self.generation_config = generation_config or GenerationConfig()
        self.module = module
        self.config = dict(config or {})
        self._eos = tuple(dict.fromkeys(eos_token_ids or tokenizer.eos_ids))
        self._program = program
        self._inside = Inside(module, program)
        self._vocab = _vocab(tokenizer, program.vocab_size)
        self._engine = _core.Engine(
            program,
            self._vocab,
            max_running=engine_config.max_running,
            kv_memory_bytes=0 if engine_config.kv_memory == "auto" else engine_config.kv_memory,
            block_tokens=engine_config.block_tokens,
            max_batch_tokens=engine_config.max_batch_tokens,
            prefill_chunk=engine_config.prefill_chunk,
            max_queue=engine_config.max_queue,
            deterministic=engine_config.deterministic,
            prefix_cache=engine_config.prefix_cache,
            cuda_graphs=engine_config.cuda_graphs is not False,
        )
        self._parts = _Core(self._engine)
        self._finalizer = weakref.finalize(self, self._parts.let_go)
        self._finalizer.atexit = False  # see _shut_down_all

    # --- one request

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
    ) -> TokenStream:
        """Starts a request and gives its tokens as they come.

        Not a coroutine: ``async for token in model.stream("...")`` and ``async with model.stream("...") as s`` both
        work, and the request runs from this call on.

        Args:
            prompt: Text, token ids, or messages (which go through the chat template).
            config: Laid over the model's defaults.
            adapter: Name of a loaded adapter.
            priority: Higher runs first.
            request_id: A name for results and logs; made up if None.
            capture: Names and globs of nodes (see `nodes`) to be kept in `TokenStream.capture` while it runs. Such a
                request takes nothing from the prefix cache, and its steps are slower; other requests are not.
            steer: Edits of nodes by name, see `fastllm.steer`; for this request alone.
            max_capture_bytes: Most memory of the capture, in bytes; None: 256 MiB.
            **overrides: Fields of `GenerationConfig`, laid over both.

        Raises:
            InvalidConfig: A field is unknown, out of range, or contradicts another.
            InvalidRequest: The prompt is empty or no prompt; `ContextTooLong` if it does not fit; `UnknownNode` for a
                name that is none; `CaptureTooLarge`.
            EngineError: `QueueFull`, `EngineClosed`, `EngineDead` or `ForkedProcess`.
        """
        merged = self._merge(config, overrides, single=True)
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

    async def generate(
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
        """Runs a request to its end. Cancelling the call cancels the request.

        Args and errors are those of `stream`.
        """
        merged = self._merge(config, overrides, single=True)
        stream = self._open(prompt, merged, adapter=adapter, priority=priority, request_id=request_id, steer=steer)
        return await stream.result()

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
    ) -> TokenStream:
        """Starts the answer to a conversation.

        Args:
            messages: The conversation, or one user message as text.
            config: Laid over the model's defaults.
            tools: Functions the model may call: JSON schemas, or callables with type hints and a docstring. They are
                shown to the model by its template; its calls come as text.
            template_kwargs: Extra variables for the template.
            adapter: Name of a loaded adapter.
            priority: Higher runs first.
            request_id: A name for results and logs.
            capture: As in `stream`.
            steer: As in `stream`.
            max_capture_bytes: As in `stream`.
            **overrides: Fields of `GenerationConfig`.

        Raises:
            TemplateError: The model has no chat template, or it refuses the conversation.
            InvalidRequest: As in `stream`.
            EngineError: As in `stream`.
        """
        merged = self._merge(config, overrides, single=True)
        ids = self.render(messages, tools=tools, template_kwargs=template_kwargs).token_ids
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

    async def chat(
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
        """Answers a conversation; `Completion.message` is the answer as a message.

        Args and errors are those of `stream_chat`.
        """
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
        return await stream.result()

    # --- many requests

    def as_completed(
        self,
        prompts: BatchSource,
        config: GenerationConfig | None = None,
        /,
        *,
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> AsCompleted:
        """Runs many requests and gives ``(index, completion or exception)`` in the order in which they end.

        Args:
            prompts: Prompts or `Request` objects, from any iterable or async iterable; read lazily, with at most
                ``EngineConfig.max_queue`` requests in flight. With ``n`` above 1, prompt i has the indices
                i * n ... i * n + n - 1.
            config: For every request.
            adapter: For every request that names none.
            priority: For every request that has none.
            steer: Edits for every request, as in `stream`.
            **overrides: Fields of `GenerationConfig`.
        """
        merged = self._merge(config, overrides)
        return AsCompleted(
            prompts, self._opener(merged, adapter, priority, steer), limit=self.engine_config.max_queue, copies=merged.n
        )

    def stream_batch(
        self,
        prompts: BatchSource,
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["raise", "return"] = "raise",
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> BatchStream:
        """Runs many requests and gives ``(index, token)`` as the engine makes them.

        Args:
            prompts: As in `as_completed`.
            config: For every request.
            on_error: "raise": after the last token raise `BatchError` if a request failed; "return": leave the
                exceptions in `BatchStream.results`.
            adapter: For every request that names none.
            priority: For every request that has none.
            steer: Edits for every request, as in `stream`.
            **overrides: Fields of `GenerationConfig`.
        """
        merged = self._merge(config, overrides)
        opener = self._opener(merged, adapter, priority, steer)
        return BatchStream(
            prompts, opener, limit=self.engine_config.max_queue, copies=merged.n, on_error=_check_on_error(on_error)
        )

    @overload
    async def batch(
        self,
        prompts: BatchSource,
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
    async def batch(
        self,
        prompts: BatchSource,
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["return"],
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> list[Completion | Exception]: ...

    async def batch(
        self,
        prompts: BatchSource,
        config: GenerationConfig | None = None,
        /,
        *,
        on_error: Literal["raise", "return"] = "raise",
        adapter: str | None = None,
        priority: int = 0,
        steer: SteerLike | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> list[Any]:
        """Runs many requests and gives their completions in the order of the prompts.

        One failing request disturbs no other. Cancelling the call cancels all.

        Args:
            prompts: As in `as_completed`; with ``n`` above 1 there are n completions for each prompt, side by side.
            config: For every request.
            on_error: "raise": wait for all, then raise `BatchError`, whose ``results`` hold what succeeded;
                "return": leave exceptions in their places.
            adapter: For every request that names none.
            priority: For every request that has none.
            steer: Edits for every request, as in `stream`.
            **overrides: Fields of `GenerationConfig`.

        Raises:
            BatchError: A request failed.
        """
        _check_on_error(on_error)
        found: dict[int, Completion | Exception] = {}
        group = self.as_completed(prompts, config, adapter=adapter, priority=priority, steer=steer, **overrides)
        async with group as completed:
            async for index, result in completed:
                found[index] = result
        results = BatchResults(found[index] for index in sorted(found))
        if on_error == "raise" and (error := batch_error(results)) is not None:
            raise error
        return results

    # --- looking at the model's mind

    async def score(
        self, prompt: Prompt, continuation: str | Sequence[int], /, *, steer: SteerLike | None = None
    ) -> Scores:
        """How probable a continuation is.

        Args:
            prompt: What stands before it.
            continuation: Text or token ids; text is tokenized together with a text prompt, as it would be in one.
            steer: As in `stream`; positions count in prompt and continuation together.

        Raises:
            InvalidRequest: One of them is empty, or both together do not fit into the context.
        """
        ids, start = self._score_ids(prompt, continuation)
        stream = self._open(ids, self._scoring(), prompt_only=True, steer=steer)
        await stream.result()
        return self._scores(stream, start)

    async def logits(self, prompt: Prompt, /, *, steer: SteerLike | None = None) -> npt.NDArray[np.float32]:
        """The raw logits behind every token of a prompt.

        Args:
            prompt: Text, token ids or messages.
            steer: As in `stream`.

        Returns:
            float32 [tokens, vocab]; row i are the scores for token i + 1.
        """
        stream = self._open(prompt, self._looking(), prompt_only=True, keep_logits=True, steer=steer)
        await stream.result()
        return stream._request.logits()

    async def capture(
        self,
        prompt: Prompt,
        /,
        *names: str,
        config: GenerationConfig | None = None,
        steer: SteerLike | None = None,
        max_capture_bytes: int | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> Capture:
        """What the running engine computes inside the model, for every token of a prompt and of what follows it.

            cap = await model.capture("The cat sat on the", "blocks.*.attn.pattern", "logits")
            cap.attention(layer=3, head=1)

        Args:
            prompt: Text, token ids or messages.
            *names: Names and globs of nodes; `nodes` lists them. None: all of them.
            config: Laid over the model's defaults.
            steer: As in `stream`; what is captured is what the edits leave.
            max_capture_bytes: Most memory, in bytes; None: 256 MiB.
            **overrides: Fields of `GenerationConfig`. Without ``max_new_tokens`` nothing is generated; with it, the
                positions of what is generated are captured, too.

        Raises:
            UnknownNode: A name means no node; it has names that are close.
            CaptureTooLarge: It takes more than ``max_capture_bytes``.
            InvalidRequest: As in `stream`.
            EngineError: As in `stream`.
        """
        merged, options = self._capture_options(names, config, overrides)
        await to_thread.run_sync(self._inside.program, limiter=worker_limiter())  # the first time it is compiled
        stream = self._open(prompt, merged, steer=steer, max_capture_bytes=max_capture_bytes, **options)
        await stream.result()
        return self._captured(stream)

    def nodes(self, pattern: str = "*", /) -> tuple[Node, ...]:
        """The values inside the model that `capture` and `steer` can name, in the order of the forward.

        Args:
            pattern: A name or glob, such as "blocks.0.*".

        Raises:
            UnknownNode: It means none.
        """
        return tuple(self._inside.nodes[index] for index in self._inside.select([pattern]))

    def steer(self, edits: SteerLike, /) -> Steering:
        """Edits checked once, for many requests (``steer=``), which then share cached prefixes.

            quiet = model.steer({"blocks.3.attn.z": fastllm.Ablate(head=2)})
            await model.generate("...", steer=quiet)

        Args:
            edits: `Ablate`, `Scale`, `Add` or `Replace`, one or several for a name or glob.

        Raises:
            UnknownNode: A name means no node.
            InvalidRequest: An edit does not fit its node.
        """
        return self._inside.steering(edits)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any text.
            special: Whether to add what the model expects around it (usually a begin token).
        """
        return self.tokenizer.encode(text, add_special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens included; broken characters become U+FFFD."""
        return self.tokenizer.decode(ids)

    def render(
        self,
        messages: str | Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Exactly what a conversation becomes: the text that the chat template makes, and its tokens.

        Args:
            messages: The conversation, or one user message as text.
            tools: As in `stream_chat`.
            add_generation_prompt: Whether the text ends where the model's answer begins.
            template_kwargs: Extra variables for the template.

        Raises:
            TemplateError: The model has no chat template, or it refuses the conversation.
        """
        return _prompts.render(
            self.tokenizer,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            template_kwargs=template_kwargs,
        )

    def stats(self) -> EngineStats:
        """A snapshot of the engine; takes no time, from any thread."""
        return EngineStats(**self._engine.stats())

    def memory(self) -> MemoryReport:
        """Where the memory goes: weights, key/value pool, what of it is in use, the biggest weights."""
        from fastllm import _shown

        report: MemoryReport = _shown.memory(self)
        return report

    def monitor(self, *, every_s: float = 0.5, for_s: float | None = None) -> Any:
        """Shows the engine at work in a notebook: speed, key/value pool, queue, requests.

        Args:
            every_s: Seconds between two looks.
            for_s: Seconds until it stops by itself; None: when its button is pressed or the model is closed.

        Returns:
            The view, already on the page.
        """
        from fastllm import _shown

        return _shown.show(self, every_s=every_s, for_s=for_s)

    async def warmup(self, *, progress: bool | Callable[[int, int], None] | None = None) -> int:
        """Records the decode steps of every number of requests now, instead of as they come. Worth it on a GPU only.

        For sequences of up to 256 tokens; longer ones record theirs as they come. ``EngineConfig(cuda_graphs=True)``
        does this while loading.

        Args:
            progress: True or False for a bar on standard error, a function called with (sizes done, sizes in all) in a
                worker thread, or None: a bar if standard error is a terminal and this takes a while.

        Returns:
            How many sizes ran; 0 where nothing is recorded.
        """
        from fastllm._warmup import warm_up

        stop = threading.Event()
        try:
            return await to_thread.run_sync(
                lambda: warm_up(self, progress=progress, stopped=stop.is_set),
                abandon_on_cancel=True,
                limiter=worker_limiter(),
            )
        except get_cancelled_exc_class():
            stop.set()
            raise

    # --- lifetime

    @property
    def blocking(self) -> BlockingModel:
        """The same verbs for plain scripts: they wait instead of being awaited."""
        from fastllm.blocking import BlockingModel

        return BlockingModel(self)

    @property
    def closed(self) -> bool:
        """Whether the engine was closed."""
        return self._engine.closed

    @property
    def exiting(self) -> bool:
        """Whether the engine was closed because the process ends."""
        return self._parts.exiting

    @property
    def delivery(self) -> Delivery:
        """Carries the engine's news to event loops."""
        return self._parts.delivery

    def close(self, *, drain: bool = False, timeout_s: float | None = None) -> None:
        """Ends the engine and frees its memory. Idempotent; later requests raise `EngineClosed`.

        Args:
            drain: Let running and queued requests finish first; otherwise they are cancelled.
            timeout_s: Most time for the draining, in seconds; None: as long as it takes.
        """
        self._parts.shut_down(drain=drain, timeout_s=timeout_s)
        self._finalizer.detach()

    async def aclose(self, *, drain: bool = False, timeout_s: float | None = None) -> None:
        """`close` without blocking the event loop. If cancelled while draining, it cancels what still runs."""
        try:
            await to_thread.run_sync(
                lambda: self.close(drain=drain, timeout_s=timeout_s), abandon_on_cancel=True, limiter=worker_limiter()
            )
        except get_cancelled_exc_class():
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: self.close(), limiter=worker_limiter())
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A fastllm.Model cannot be pickled or copied: its threads and memory belong to this process. "
            "Load it in each process, and use multiprocessing's 'spawn'."
        )

    def __repr__(self) -> str:
        return f"<Model {repr(self.info)[len('<ModelInfo ') : -1]}{' · closed' if self.closed else ''}>"

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)

    # --- inside

    def _merge(
        self, config: GenerationConfig | None, overrides: GenerationFields, *, single: bool = False
    ) -> GenerationConfig:
        """All layers of a request's configuration; ``single``: for a verb that gives one completion."""
        if config is not None and not isinstance(config, GenerationConfig):
            raise InvalidConfig(
                f"[config] the second argument is {type(config).__name__}, not GenerationConfig.",
                hint="Give fields by name: model.stream(prompt, max_new_tokens=64).",
            )
        merged = self.generation_config.merged(config, **overrides)
        if single and merged.n > 1:
            raise InvalidConfig(
                f"[n] n is {merged.n}, but this call gives one completion.",
                hint=f"batch([prompt], n={merged.n}) gives a list of {merged.n}.",
                fields=("n",),
            )
        return merged

    def _opener(
        self, config: GenerationConfig, adapter: str | None, priority: int, steer: SteerLike | None
    ) -> Callable[[Prompt | Request, int], TokenStream]:
        """Opens an entry of a batch; the j-th copy samples with seed + j."""
        steering = None if steer is None else self.steer(steer)  # once for all: they share cached prefixes

        def open_stream(item: Prompt | Request, copy: int) -> TokenStream:
            request = item if isinstance(item, Request) else Request(item)
            own = config if request.config is None else config.merged(request.config)
            return self._open(
                request.prompt,
                own,
                adapter=request.adapter if request.adapter is not None else adapter,
                priority=priority if request.priority is None else request.priority,
                request_id=request.request_id,
                copy=copy,
                steer=steering,
            )

        return open_stream

    def _open(self, prompt: Prompt, config: GenerationConfig, **options: Any) -> TokenStream:
        """Submits a request that will be read on an event loop."""
        return TokenStream(*self._submit_with_mailbox(prompt, config, **options))

    def _submit_with_mailbox(self, prompt: Prompt, config: GenerationConfig, **options: Any) -> tuple[Ticket, Mailbox]:
        mailbox = self.delivery.open()
        try:
            ticket = self._submit(prompt, config, channel=self.delivery.channel, tag=mailbox.tag, **options)
        except BaseException:
            self.delivery.close(mailbox)
            raise
        mailbox.request = ticket.request
        return ticket, mailbox

    def _submit(
        self,
        prompt: Prompt,
        config: GenerationConfig,
        *,
        channel: int = 0,
        tag: int = 0,
        adapter: str | None = None,
        priority: int = 0,
        request_id: str | None = None,
        chat: bool = False,
        copy: int = 0,
        prompt_only: bool = False,
        keep_logits: bool = False,
        capture: Sequence[str] | None = None,
        steer: SteerLike | None = None,
        max_capture_bytes: int | None = None,
        kept: tuple[Token, ...] = (),
    ) -> Ticket:
        """Submits a request. With ``prompt_only`` nothing is generated, so the prompt may fill the context."""
        _prompts.check_adapter(adapter)
        ids = _prompts.encode_prompt(self.tokenizer, prompt)
        all_ids = ids + tuple(token.id for token in kept)
        steering = None if steer is None else self._inside.steering(steer)
        reads = [] if capture is None else self._inside.select(capture)
        probe = None
        most = DEFAULT_CAPTURE_BYTES if max_capture_bytes is None else max_capture_bytes
        if reads or steering is not None:
            probe = self._inside.probe(reads, steering, prompt_tokens=len(ids), max_bytes=most)
        seed = _prompts.fresh_seed() if config.seed is None else (config.seed + copy) % 2**64
        params = _prompts.native_params(
            config,
            len(ids),
            seed=seed,
            context_length=self.info.context_length + prompt_only,
            eos_token_ids=self._eos,
            tokenizer=self.tokenizer,
        )
        if prompt_only:
            params["max_new_tokens"] = 0
        lookahead = self.engine_config.lookahead if config.lookahead == "engine" else config.lookahead
        request = self._engine.submit(
            all_ids,
            params,
            channel=channel,
            tag=tag,
            priority=priority,
            lookahead=-1 if lookahead is None else lookahead,
            keep_logits=keep_logits,
            continued=len(kept),
            probe=probe,
        )
        seen = None
        if probe is not None and reads:
            seen = Capture(self, self._inside, probe, reads, prompt_tokens=len(ids), max_bytes=most)
        return Ticket(
            model=self,
            request=request,
            prompt_ids=ids,
            config=config,
            seed=seed,
            request_id=request_id or f"req-{request.id}",
            adapter=adapter,
            chat=chat or _prompts.is_messages(prompt),
            echo=self._echo(ids, config) if config.echo else (),
            lookahead=lookahead,
            capture=seen,
            options={"adapter": adapter, "priority": priority, "steer": steering},
            kept=kept,
        )

    def _capture_options(
        self, names: Sequence[str], config: GenerationConfig | None, overrides: GenerationFields
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Settings of `capture`, and whether it looks at the prompt alone."""
        fields: GenerationFields = {"lookahead": None, **overrides}
        asked = {"max_new_tokens", "max_tokens", "max_length"} & overrides.keys()
        prompt_only = config is None and not asked
        if overrides.get("max_new_tokens") == 0:
            prompt_only = fields.pop("max_new_tokens") == 0
        return self._merge(config, fields, single=True), {"capture": names or ("*",), "prompt_only": prompt_only}

    @staticmethod
    def _captured(stream: RequestHandle) -> Capture:
        if stream.capture is None:
            raise InvalidRequest("[capture] nothing was captured.")
        return stream.capture

    @staticmethod
    def _fork(
        ticket: Ticket, tokens: Sequence[Token], at: int, token: TokenLike | None, overrides: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], GenerationConfig, dict[str, Any]]:
        return fork_arguments(ticket, tokens, at, token, overrides)

    def _detokenizer(self, config: GenerationConfig) -> _core.Detokenizer:
        return _core.Detokenizer(
            self._vocab,
            stop=list(config.stop),
            include_stop=config.include_stop,
            skip_special=config.skip_special_tokens,
        )

    def _echo(self, ids: Sequence[int], config: GenerationConfig) -> tuple[Token, ...]:
        """The prompt as tokens, with the indices -P ... -1."""
        decoder = _core.Detokenizer(self._vocab, skip_special=config.skip_special_tokens)
        special = self.tokenizer.special_ids
        tokens = []
        for index, token_id in enumerate(ids):
            text, data, _ = decoder.push(token_id)
            if index == len(ids) - 1:
                tail_text, tail_bytes = decoder.finish()
                text, data = text + tail_text, data + tail_bytes
            tokens.append(Token(token_id, text, data, index - len(ids), special=token_id in special))
        return tuple(tokens)

    @staticmethod
    def _scoring() -> GenerationConfig:
        return GenerationConfig(prompt_logprobs=0, lookahead=None)

    @staticmethod
    def _looking() -> GenerationConfig:
        return GenerationConfig(lookahead=None)

    def _score_ids(self, prompt: Prompt, continuation: str | Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Both together, and where the continuation begins."""
        before = _prompts.encode_prompt(self.tokenizer, prompt)
        if isinstance(continuation, str):
            if isinstance(prompt, str):
                both = tuple(self.tokenizer.encode(prompt + continuation))
                if both[: len(before)] == before and len(both) > len(before):
                    return both, len(before)
            after = tuple(self.tokenizer.encode(continuation, add_special=False))
        else:
            after = tuple(int(item) for item in continuation)
        if not after:
            raise InvalidRequest("[score] the continuation has no tokens.", hint="Give the text to be scored.")
        return before + after, len(before)

    def _scores(self, handle: RequestHandle, start: int) -> Scores:
        entries = [entry for entry in handle._request.prompt_logprobs()[start:] if entry is not None]
        ids = handle.prompt_token_ids[start:]
        texts = tuple(self.tokenizer.token_bytes(token_id).decode("utf-8", "replace") for token_id in ids)
        logprobs = tuple(float(entry[1]) for entry in entries)
        return Scores(ids, texts, logprobs, tuple(int(entry[2]) for entry in entries), start)


def _vocab(tokenizer: Tokenizer, size: int) -> _core.Vocab:
    """The native table of token bytes; ids that only the embedding has are empty."""
    data, special = tokenizer.token_table()
    missing = max(0, size - len(data))
    return _core.Vocab(
        data + [b""] * missing, special + [False] * missing, strip_leading_space=tokenizer.strip_leading_space
    )


def _check_on_error(on_error: str) -> Any:
    if on_error not in ("raise", "return"):
        raise InvalidRequest(f'[batch] on_error is {on_error!r} but must be "raise" or "return".')
    return on_error


os.register_at_fork(after_in_child=_core.after_fork_in_child)
