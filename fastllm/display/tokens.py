"""Generated tokens as text: shading, a legend, what stood to choose, and the table twin.

A token is a label around a radio button that nobody sees: pointing at it or reaching it with Tab and the arrow keys
shows its alternatives, without a script. What is shown is in attributes, so that a viewer that drops the stylesheet
shows the plain answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from fastllm.display.escape import bdi, clip, esc
from fastllm.display.html import alert, progress, scroll, table
from fastllm.display.numbers import duration, percent, rate
from fastllm.display.rows import Rows, rows_of
from fastllm.display.style import wrap
from fastllm.display.writer import (
    ENTROPY_STEP,
    Row,
    Shade,
    SpecialName,
    TokenWriter,
    as_row,
    entropy_of,
    gaps_of,
    level_of,
    table_row_of,
    tip_of,
)
from fastllm.errors import InvalidRequest
from fastllm.types import Completion, Token

if TYPE_CHECKING:
    from fastllm.stream import Ending, RequestHandle

__all__ = [
    "Shade",
    "check_shade",
    "chunk_html",
    "chunk_parts",
    "completion_html",
    "entropy_bits",
    "handle_html",
    "legend_html",
    "level",
    "rank_of",
    "static_html",
    "table_html",
    "tip_text",
    "usage_line",
    "waiting_html",
]  # fmt: skip

_MAX_BYTES = 100_000  # of a static display
_TABLE_BYTES = 45_000
_LEAST_ROW_BYTES = 150
_RUN_BYTES = 60  # around a run that begins where the last token with a tip ends


def check_shade(shade: str) -> Shade:
    """The shade, if there is such a one.

    Raises:
        InvalidRequest: There is not.
    """
    if shade not in get_args(Shade):
        raise InvalidRequest(f"[display] shade is {shade!r}.", hint=f"It is one of {', '.join(get_args(Shade))}.")
    return shade  # type: ignore[return-value]


def rank_of(token: Token) -> int | None:
    """Its place among the alternatives, 1 for the most probable; 0 when behind them all, None without them."""
    if not token.top:
        return None
    return next((place for place, other in enumerate(token.top, 1) if other.id == token.id), 0)


def entropy_bits(token: Token) -> float | None:
    """Bits of surprise to be expected here, at least: what is not among the alternatives counts as one more of them."""
    return entropy_of(as_row(token)[5]) if token.top else None


def level(token: Token, shade: Shade, *, cached: int = 0, prompt_tokens: int = 0) -> int:
    """How strong its background is: 0 (none) to 9.

    Args:
        token: The token.
        shade: What is told.
        cached: Prompt tokens that came from the prefix cache.
        prompt_tokens: Length of the prompt; echoed tokens count from minus this.
    """
    return level_of(as_row(token), shade, cached=cached, prompt_tokens=prompt_tokens)


def tip_text(token: Token, since_s: float | None = None) -> str:
    """What pointing at a token tells, a line each: facts, then the alternatives with bars. Plain text.

    Args:
        token: The token.
        since_s: Seconds since the token before it.
    """
    return tip_of(as_row(token), since_s)


def chunk_parts(
    tokens: Sequence[Token] | Sequence[Row],
    *,
    before: Token | None = None,
    shade: Shade = "probability",
    group: str = "flm1",
    tips: bool = True,
    special_name: SpecialName | None = None,
    cached: int = 0,
    prompt_tokens: int = 0,
) -> list[str]:
    """The HTML of tokens one by one; ``before`` is the token before the first, the others as `TokenWriter`."""
    writer = TokenWriter(
        shade=shade, group=group, tips=tips, special_name=special_name, cached=cached, prompt_tokens=prompt_tokens,
        before_s=None if before is None else before.time_s,
    )  # fmt: skip
    return writer.write(rows_of(tokens))


def chunk_html(parts: Sequence[str], first: int, count: int | None = None) -> str:
    """Tokens as a piece of running text: one group for the keyboard. ``count``: how many, if not one a part."""
    if not parts:
        return ""
    name = f"tokens {first + 1} to {first + (len(parts) if count is None else count)}"
    return f'<span role="radiogroup" aria-label="{name}">{"".join(parts)}</span>'


def legend_html(shade: Shade) -> str:
    """What the shades mean, in numbers."""
    if shade == "off":
        return ""
    if shade == "probability":
        title, words = (
            "model's probability, not truth",
            ["≥ 90 %", *(f"{90 - 10 * i}–{100 - 10 * i} %" for i in range(1, 9)), "< 10 %"],
        )
    elif shade == "entropy":
        title = "bits of entropy, at least"
        words = [f"{i * ENTROPY_STEP:.1f}" for i in range(9)] + [f"≥ {9 * ENTROPY_STEP:.1f}"]
    elif shade == "rank":
        title = "rank among the alternatives"
        items = [(0, "1"), (3, "2"), (5, "3"), (7, "4 or more"), (9, "not among them")]
        return _legend(title, items)
    else:
        return _legend("from the prefix cache", [(0, "computed"), (5, "cached")])
    return _legend(title, list(enumerate(words)))


def _legend(title: str, items: Sequence[tuple[int, str]]) -> str:
    marks = " ".join(f'<i class="s{step}">{esc(words)}</i>' for step, words in items)
    return f'<div class="flm1-leg">{esc(title)}: {marks}</div>'


def usage_line(
    *,
    tokens: int,
    tps: float = 0.0,
    window_tps: float = 0.0,
    ttft_s: float | None = None,
    prompt_tokens: int = 0,
    cached_tokens: int = 0,
    kv_use: float | None = None,
    seed: int | None = None,
    state: str = "",
) -> str:
    """The numbers in one line, such as 142 tok · 58.3 tok/s · TTFT 84 ms · prompt 12 (8 cached) · seed 7 · stop."""
    parts = [f"{tokens} tok"]
    if tps:
        parts.append(rate(tps) + (f" (now {rate(window_tps)})" if window_tps else ""))
    if ttft_s:
        parts.append(f"TTFT {duration(ttft_s)}")
    parts.append(f"prompt {prompt_tokens}" + (f" ({cached_tokens} cached)" if cached_tokens else ""))
    if kv_use is not None:
        parts.append(f"KV {percent(kv_use)}")
    if seed is not None:
        parts.append(f"seed {seed}")
    if state:
        parts.append(state)
    return " · ".join(parts)


def waiting_html(*, ahead: int | None = None, queued: int = 0, done: int = 0, total: int = 0) -> str:
    """What a request does before its first token.

    Args:
        ahead: How many requests go before it in the queue; None: not known.
        queued: Requests in the queue.
        done: Tokens of the prompt that were read.
        total: All tokens of the prompt; 0: it has not begun.
    """
    if total:
        said = f"reading the prompt: {done} of {total} tokens"
        return wrap(f'<p class="flm1-dim">{said}</p>{progress("prompt read", done / total)}', style=False)
    if ahead is None:
        said = "waiting for a place"
    elif ahead == 0:
        said = "waiting for a place: the next to get one"
    else:
        said = f"waiting for a place: {ahead} {'request goes' if ahead == 1 else 'requests go'} before this one"
    more = f", {queued} in the queue" if queued > 1 else ""
    return wrap(f'<p class="flm1-dim">{said}{more}</p>', style=False)


def table_html(tokens: Sequence[Token] | Sequence[Row], *, max_bytes: int = _TABLE_BYTES, open_: bool = False) -> str:
    """The tokens as a table behind a summary; cut at ``max_bytes`` with a sentence that says so."""
    rows, used = [], 0
    entries = rows_of(tokens[: max_bytes // _LEAST_ROW_BYTES + 1])
    for entry, gap in zip(entries, gaps_of(entries), strict=True):
        row = table_row_of(entry, gap)
        used += len(row.encode())
        if used > max_bytes:
            break
        rows.append(row)
    cut = "" if len(rows) == len(tokens) else f"<p>The table ends after {len(rows)} of {len(tokens)} tokens.</p>"
    head = ("#", "token", "id", "bytes", "p", "rank", "alternatives", "ms")
    twin = scroll("token table", table(rows, head=head))
    return f"<details{' open' if open_ else ''}><summary>Tokens as a table</summary>{twin}{cut}</details>"


def static_html(
    tokens: Sequence[Token] | Sequence[Row],
    *,
    usage: str,
    facts: Sequence[tuple[str, object]] = (),
    shade: Shade = "probability",
    error: str = "",
    text: str | None = None,
    special_name: SpecialName | None = None,
    cached: int = 0,
    prompt_tokens: int = 0,
    group: str = "flm1-static",
    parts: Sequence[str] | None = None,
    max_bytes: int = _MAX_BYTES,
) -> str:
    """An answer that is over, at most ``max_bytes`` long: text, legend, numbers, facts, table.

    Args:
        tokens: All tokens, as such or as the engine's rows.
        usage: The line of numbers.
        facts: Rows of names and values for the collapsed table of settings.
        shade: What the backgrounds tell.
        error: Why it failed, if it did.
        text: The text, where there are no tokens.
        special_name: Names control tokens.
        cached: As in `level`.
        prompt_tokens: As in `level`.
        group: As in `TokenWriter`.
        parts: The HTML of the first tokens with tips, if a writer with the same arguments has made it already.
        max_bytes: Most bytes; less is told of the later tokens then, with a sentence that says so.
    """
    entries = rows_of(tokens)
    if shade in ("probability", "entropy", "rank") and all(row[4] is None for row in reversed(entries)):
        shade = "off"
    twin = table_html(entries, max_bytes=int(max_bytes * 0.4)) if entries else ""
    rows = "".join(f"<tr><th>{esc(name)}</th><td>{bdi(clip(str(value), 400))}</td></tr>" for name, value in facts)
    settings = f'<details><summary>Settings</summary><table class="flm1-t">{rows}</table></details>' if rows else ""
    alarm = alert(error) if error else ""
    rest = f'{legend_html(shade)}<p class="flm1-use">{esc(usage)}</p>{settings}{twin}'
    room = max_bytes - len(rest.encode()) - len(alarm.encode()) - 10_500  # for the stylesheet
    known = parts or ()
    writer = TokenWriter(
        shade=shade, group=group, special_name=special_name, cached=cached, prompt_tokens=prompt_tokens,
        before_s=entries[len(known) - 1][7] if known else None,
    )  # fmt: skip
    body, notes, pointed = _fit(entries, known, writer, room)
    if text is not None and not tokens:
        shown = esc(clip(text, room))
        notes = [] if len(text) <= room else [f"The text ends after {room} of {len(text)} characters."]
        body = shown
    hint = '<p class="flm1-hint">Point at a token, or Tab into the text and use the arrow keys.</p>' if pointed else ""
    tips = " flm1-tips" if pointed else ""
    said = "".join(f'<p class="flm1-dim">{note}</p>' for note in notes)
    answer = (
        f'<div class="flm1-text{tips}" dir="auto" style="white-space:pre-wrap;position:relative">{body}{hint}</div>'
    )
    return wrap(f"{answer}{said}{alarm}{rest}", label="generated text")


def _fit(rows: Rows, known: Sequence[str], writer: TokenWriter, room: int) -> tuple[str, list[str], int]:
    """As many tokens with tips as fit, then such without, then none: HTML, sentences, how many have tips."""
    notes: list[str] = []
    shown = total = 0
    for html, count in writer.runs(rows, 0, len(rows)):
        if total + len(html.encode()) > room:
            notes.append(f"The text ends after {shown} of {len(rows)} tokens: more would make this copy too long.")
            break
        total += len(html.encode())
        shown += count
    pointed: list[str] = []
    for place in range(shown):
        row = rows[place]
        part = known[place] if place < len(known) else writer.write([row])[0]
        total += len(part.encode()) - len(row[1].encode("utf-8", "replace"))  # its text is counted already
        if total > room - _RUN_BYTES:
            break
        pointed.append(part)
    if len(pointed) < shown:
        notes.append(f"Alternatives are shown for the first {len(pointed)} of {len(rows)} tokens.")
    rest = "".join(html for html, _ in writer.runs(rows, len(pointed), shown))
    return chunk_html(pointed, 0) + rest, notes, len(pointed)


def completion_usage(completion: Completion | Ending) -> str:
    """The line of numbers of a request that has ended."""
    end = completion.finish_reason + ("" if completion.stop is None else f" ({completion.stop!r})")
    return usage_line(
        tokens=completion.usage.completion_tokens,
        tps=completion.timing.decode_tps,
        ttft_s=completion.timing.ttft_s,
        prompt_tokens=completion.usage.prompt_tokens,
        cached_tokens=completion.usage.cached_tokens,
        seed=completion.seed,
        state=end,
    )


def completion_facts(completion: Completion | Ending) -> list[tuple[str, object]]:
    """Names and values of everything else about a request that has ended."""
    timing = completion.timing
    spent = (("queue", timing.queue_s), ("prefill", timing.prefill_s), ("decode", timing.decode_s))
    facts: list[tuple[str, object]] = [
        ("model", completion.model or "unknown"),
        (
            "finish",
            completion.finish_reason if completion.stop is None else f"{completion.finish_reason}: {completion.stop!r}",
        ),
        ("seed", completion.seed),
        ("time", ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent)),
        ("speed", f"prefill {rate(timing.prefill_tps)}, decode {rate(timing.decode_tps)}"),
        ("engine steps", timing.steps),
    ]
    if completion.adapter is not None:
        facts.append(("adapter", completion.adapter))
    if timing.preemptions:
        facts.append(("preemptions", timing.preemptions))
    return [*facts, ("request", completion.request_id)]


def completion_html(completion: Completion, *, shade: Shade = "probability", max_bytes: int = _MAX_BYTES) -> str:
    """A finished request.

    Args:
        completion: The result.
        shade: What the backgrounds tell; without log-probabilities, nothing.
        max_bytes: Most bytes of it.
    """
    return static_html(
        completion.tokens,
        usage=completion_usage(completion),
        facts=completion_facts(completion),
        shade=check_shade(shade),
        text=completion.text,
        cached=completion.usage.cached_tokens,
        prompt_tokens=completion.usage.prompt_tokens,
        group=f"flm1-{zlib.crc32((completion.request_id + completion.text).encode('utf-8', 'replace')):08x}",
        max_bytes=max_bytes,
    )


def handle_html(handle: RequestHandle) -> str:
    """What was read of a stream so far."""
    if handle.completion is not None:
        return completion_html(handle.completion)
    usage = handle.usage
    line = usage_line(
        tokens=usage.completion_tokens, prompt_tokens=usage.prompt_tokens, seed=handle.seed, state=handle.state
    )
    return static_html(handle.tokens, usage=line, facts=[("request", handle.request_id)])
