"""What requests give back: tokens, completions, timings, scores, and snapshots of a model and its engine.

Plain frozen dataclasses. They hold no reference to the engine, so they can be kept, pickled and compared.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from fastllm.config import GenerationConfig

__all__ = [
    "Completion",
    "EngineStats",
    "FinishReason",
    "Message",
    "ModelInfo",
    "Prompt",
    "RenderedPrompt",
    "Request",
    "RequestState",
    "Scores",
    "Timing",
    "Token",
    "TopToken",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "cancelled", "timeout", "error"]
"""Why a request ended: end-of-sequence or stop string, token limit, tool call, `cancel()`, `max_time_s`, failure."""

RequestState: TypeAlias = Literal["queued", "prefill", "running", "parked", "done"]
"""Where a request is. Parked: its reader is `lookahead` tokens behind, so it costs no steps."""


def _bytes(count: int) -> str:
    """1536 -> "1.5 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _count(number: int) -> str:
    """1543714304 -> "1.54 B"."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return str(number)


def _clip(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _escape(value: object) -> str:
    """Text for HTML."""
    import html

    return html.escape(str(value))


def _table(title: str, rows: Sequence[tuple[str, object]]) -> str:
    """A plain two-column HTML table, everything escaped."""
    body = "".join(
        f'<tr><th style="text-align:left">{_escape(name)}</th><td style="text-align:left">{_escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption>{_escape(title)}</caption>{body}</table>"


@dataclass(frozen=True, slots=True)
class TopToken:
    """One alternative at a position.

    Attributes:
        id: Token id.
        text: What the token says on its own; broken characters show as U+FFFD.
        logprob: Natural logarithm of its probability.
    """

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token; ``str(token)`` is its text.

    Attributes:
        id: Token id.
        text: Text that became final with this token. "" while a character is incomplete or a stop string may be
            starting; the withheld text comes with a later token.
        bytes: The exact bytes behind it. Joined over all tokens they are the output, minus the stop string.
        index: Position in the output, from 0; echoed prompt tokens (``echo=True``) count -P ... -1.
        logprob: Natural log-probability, with ``logprobs`` set; of the raw distribution at temperature 1 unless
            ``logprobs_mode="sampled"``.
        top: The most probable tokens at this position, best first (``logprobs`` of them).
        special: Whether it is a control token, such as end-of-sequence.
        time_s: Seconds from submission to this token.
        finish_reason: Set on the last token, if the end was decided by a token.
    """

    id: int
    text: str
    bytes: builtins.bytes
    index: int
    logprob: float | None = None
    top: tuple[TopToken, ...] = ()
    special: bool = False
    time_s: float = 0.0
    finish_reason: FinishReason | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated, the end-of-sequence token included.
        cached_tokens: Prompt tokens whose keys and values were found in the prefix cache.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the seconds of one request went.

    Attributes:
        queue_s: From submission to the first step that worked on it.
        prefill_s: From there to the end of the prompt.
        ttft_s: From submission to the first token.
        decode_s: From the first token to the last.
        total_s: From submission to the end.
        prefill_tps: Prompt tokens computed per second (cached ones not counted); 0 if unknown.
        decode_tps: Tokens per second after the first; 0 if there is no second token.
        steps: Engine steps it took part in.
        preemptions: Times it lost its memory to others and was recomputed.
    """

    queue_s: float = 0.0
    prefill_s: float = 0.0
    ttft_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0
    prefill_tps: float = 0.0
    decode_tps: float = 0.0
    steps: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: "system", "user", "assistant", "tool" or whatever the model's template knows.
        content: The text.
        name: Author or tool name, if the template uses one.
        tool_calls: Calls an assistant message makes, in the form that templates read.
        tool_call_id: The call that a tool message answers.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The message as templates and JSON take it; absent parts are left out."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            out["name"] = self.name
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out


Prompt: TypeAlias = str | Sequence[int] | Sequence[Message | Mapping[str, Any]]
"""Text, token ids, or messages (which go through the model's chat template)."""


@dataclass(frozen=True)
class Request:
    """One entry of a batch that brings its own settings.

    Attributes:
        prompt: Text, token ids or messages.
        config: Laid over the batch's own configuration.
        adapter: Name of a loaded adapter.
        priority: Higher runs first; None takes the batch's.
        request_id: Name in the results; made up if None.
    """

    prompt: Prompt
    config: GenerationConfig | None = None
    adapter: str | None = None
    priority: int | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Completion:
    """The result of a request; ``str(completion)`` is its text.

    Attributes:
        text: The output, equal to the joined texts of `tokens`.
        tokens: Every token in order (with ``echo=True`` those of the prompt first).
        finish_reason: Why it ended.
        stop: What matched: the stop string, the stop token's id, or None.
        usage: Token counts.
        timing: Where the seconds went.
        seed: The seed that was used; the same seed gives the same tokens.
        adapter: The adapter's name, or None.
        model: The model's name.
        request_id: The request's name.
        message: The answer as a message (chat calls only).
        tool_calls: Calls parsed from the answer.
        parsed: The answer as an object, with a constraint that makes one.
        prompt_token_ids: The prompt as the model saw it.
        prompt_logprobs: For each prompt token its log-probability given those before it (None for the first), with
            ``prompt_logprobs`` set.
        prompt_top: For each prompt token the most probable tokens at its place, with ``prompt_logprobs`` above 0.
    """

    text: str
    tokens: tuple[Token, ...] = field(repr=False)
    finish_reason: FinishReason
    stop: str | int | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    timing: Timing = field(default_factory=Timing)
    seed: int = 0
    adapter: str | None = None
    model: str = ""
    request_id: str = ""
    message: Message | None = None
    tool_calls: tuple[Any, ...] = ()
    parsed: Any = None
    prompt_token_ids: tuple[int, ...] = field(default=(), repr=False)
    prompt_logprobs: tuple[float | None, ...] | None = None
    prompt_top: tuple[tuple[TopToken, ...], ...] | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of the generated tokens; echoed prompt tokens are not among them."""
        return tuple(token.id for token in self.tokens if token.index >= 0)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        end = self.finish_reason if self.stop is None else f"{self.finish_reason}:{self.stop!r}"
        speed = f", {self.timing.decode_tps:.1f} tok/s" if self.timing.decode_tps else ""
        return (
            f"<Completion {_clip(self.text)} · {end} · {self.usage.prompt_tokens} prompt"
            f" ({self.usage.cached_tokens} cached) + {self.usage.completion_tokens} tokens"
            f"{speed} · ttft {self.timing.ttft_s * 1000:.0f} ms · seed {self.seed}>"
        )

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)


@dataclass(frozen=True)
class Scores:
    """How probable a continuation is after a prompt, token by token.

    Attributes:
        token_ids: The continuation's tokens.
        texts: Their texts.
        logprobs: Natural log-probability of each given all before it.
        ranks: Rank of each among all tokens at its place; 1 is the most probable.
        prompt_tokens: Tokens in front of the continuation.
    """

    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    prompt_tokens: int

    @property
    def total(self) -> float:
        """Log-probability of the whole continuation."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        """Log-probability per token; 0 for an empty continuation."""
        return self.total / len(self.logprobs) if self.logprobs else 0.0

    @property
    def perplexity(self) -> float:
        """exp(-mean)."""
        return math.exp(-self.mean)

    @property
    def is_greedy(self) -> bool:
        """Whether greedy decoding would have written exactly this."""
        return all(rank == 1 for rank in self.ranks)

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        return (
            f"<Scores {_clip(''.join(self.texts))} · {len(self)} tokens · total {self.total:.4g}"
            f" · mean {self.mean:.4g} · perplexity {self.perplexity:.4g}>"
        )


@dataclass(frozen=True)
class RenderedPrompt:
    """Exactly what a conversation becomes; ``str(rendered)`` is the text.

    Attributes:
        text: The template's output.
        token_ids: Its tokens.
    """

    text: str
    token_ids: tuple[int, ...]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<RenderedPrompt {len(self.token_ids)} tokens {_clip(self.text, 200)}>"


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of the engine.

    Attributes:
        running: Requests that take part in steps.
        queued: Requests that wait for a place.
        parked: Requests whose reader is `lookahead` tokens behind.
        prefilling: Running requests that still read their prompt.
        kv_blocks_total: Blocks of the key/value pool.
        kv_blocks_free: Blocks that nobody uses, those of the prefix cache included.
        kv_blocks_cached: Free blocks that still hold reusable prefixes.
        block_tokens: Tokens in a block.
        kv_bytes: Size of the pool.
        weight_bytes: Size of the weights.
        steps: Engine steps so far.
        prompt_tokens: Prompt tokens of all requests so far.
        generated_tokens: Tokens generated so far.
        cached_tokens: Prompt tokens that came from the prefix cache.
        preemptions: Times a request lost its memory to others.
        cancelled: Requests that were cancelled.
        finished: Requests that ended for any reason.
        decode_tps: Tokens per second over the last second.
        step_ms: Mean duration of the last 64 steps, in milliseconds.
        uptime_s: Seconds since the engine started.
        dead: What killed the engine, or None.
        forked: Whether this process is a fork of the engine's.
    """

    running: int
    queued: int
    parked: int
    prefilling: int
    kv_blocks_total: int
    kv_blocks_free: int
    kv_blocks_cached: int
    block_tokens: int
    kv_bytes: int
    weight_bytes: int
    steps: int
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int
    preemptions: int
    cancelled: int
    finished: int
    decode_tps: float
    step_ms: float
    uptime_s: float
    dead: str | None
    forked: bool

    @property
    def kv_use(self) -> float:
        """Share of the key/value pool in use, 0 to 1."""
        return 1.0 - self.kv_blocks_free / self.kv_blocks_total if self.kv_blocks_total else 0.0

    def __repr__(self) -> str:
        dead = f" · dead: {self.dead}" if self.dead else ""
        return (
            f"<EngineStats {self.running} running, {self.queued} queued, {self.parked} parked"
            f" · KV {self.kv_blocks_total - self.kv_blocks_free}/{self.kv_blocks_total} blocks"
            f" · {self.decode_tps:.1f} tok/s · {self.finished} finished{dead}>"
        )


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded.

    Attributes:
        name: Short name, used in completions.
        path: Directory of the checkpoint, or "".
        architecture: Its name in the checkpoint, such as "Qwen3ForCausalLM".
        parameters: Number of weights.
        dtype: Element type of most weights.
        quant: Weight format, or None.
        context_length: Most tokens of prompt and completion together.
        vocab_size: Number of token ids.
        device: Where it runs.
        weight_bytes: Size of the weights there.
        kv_bytes_per_token: Key/value memory that one token of context costs.
        layers: Number of transformer layers, 0 if unknown.
        chat: Whether it has a chat template.
        kv_dtype: Element type of keys and values, "" if unknown.
    """

    name: str
    path: str
    architecture: str
    parameters: int
    dtype: str
    quant: str | None
    context_length: int
    vocab_size: int
    device: str
    weight_bytes: int
    kv_bytes_per_token: int
    layers: int
    chat: bool
    kv_dtype: str = ""

    def _rows(self) -> list[tuple[str, object]]:
        kept = f" ({self.kv_dtype})" if self.kv_dtype else ""
        return [
            ("architecture", self.architecture),
            ("parameters", f"{_count(self.parameters)} ({self.parameters})"),
            ("dtype", self.dtype if self.quant is None else f"{self.dtype}, {self.quant}"),
            ("weights", _bytes(self.weight_bytes)),
            ("layers", self.layers),
            ("vocabulary", self.vocab_size),
            ("context", f"{self.context_length} tokens, {_bytes(self.kv_bytes_per_token)} of KV a token{kept}"),
            ("chat template", "yes" if self.chat else "no"),
            ("device", self.device),
            ("path", self.path),
        ]

    def __repr__(self) -> str:
        return (
            f"<ModelInfo {self.name} · {self.architecture} · {_count(self.parameters)} parameters"
            f" · {self.dtype if self.quant is None else self.quant} · {_bytes(self.weight_bytes)}"
            f" · context {self.context_length} · {self.device}>"
        )

    def _repr_html_(self) -> str:
        return _table(self.name, self._rows())
