"""Several requests side by side: a row each, while they run and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastllm.display.escape import bdi, clip, esc
from fastllm.display.html import alert, progress, scroll, table
from fastllm.display.numbers import duration, rate
from fastllm.display.style import wrap
from fastllm.types import Completion

__all__ = ["BatchRow", "batch_html", "batch_text", "results_html", "row_of"]

_MAX_BYTES = 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """What is known of one request.

    Attributes:
        label: Its prompt, or a name.
        state: "queued", "running", ... or how it ended.
        text: Its text so far.
        tokens: Tokens so far.
        limit: Most tokens it may make, or None.
        tps: Tokens per second.
        ttft_s: Seconds to its first token, or None.
        error: Why it failed, or "".
        done: Whether it has ended.
    """

    label: str
    state: str
    text: str
    tokens: int
    limit: int | None = None
    tps: float = 0.0
    ttft_s: float | None = None
    error: str = ""
    done: bool = False


def row_of(result: Completion | Exception, label: str = "") -> BatchRow:
    """The row of a result."""
    if isinstance(result, Exception):
        text = f"{type(result).__name__}: {result}"
        return BatchRow(label=label, state="failed", text="", tokens=0, error=text, done=True)
    end = result.finish_reason if result.stop is None else f"{result.finish_reason} ({result.stop!r})"
    return BatchRow(
        label=label,
        state=end,
        text=result.text,
        tokens=result.usage.completion_tokens,
        tps=result.timing.decode_tps,
        ttft_s=result.timing.ttft_s,
        done=True,
    )


def _row_html(index: int, row: BatchRow, room: int) -> str:
    name = f"<td>{bdi(clip(row.label, 60))}</td>" if row.label else "<td></td>"
    if row.error:
        body = alert(clip(row.error, 600))
    else:
        first = clip(row.text.replace("\n", " "), 72)
        rest = clip(row.text, max(80, room))
        cut = f"<p>Cut after {max(80, room) - 1} of {len(row.text)} characters.</p>" if rest != row.text else ""
        body = (
            f'<details><summary dir="auto">{esc(first) or "(no text yet)"}</summary>'
            f'<div class="flm1-text" dir="auto" style="white-space:pre-wrap">{esc(rest)}</div>{cut}</details>'
        )
    bar, bad = "", ' class="flm1-bad"' if row.error else ""
    if not row.done and row.limit:
        bar = progress(f"request {index}", row.tokens / row.limit, "width:6em")
    return (
        f'<tr><th scope="row">{index}</th>{name}<td>{body}</td><td class="n">{row.tokens}{bar}</td>'
        f'<td class="n">{rate(row.tps) if row.tps else ""}</td>'
        f'<td class="n">{duration(row.ttft_s) if row.ttft_s else ""}</td>'
        f"<td{bad}>{esc(row.state)}</td></tr>"
    )


def batch_html(rows: Sequence[BatchRow], *, style: bool = True, max_bytes: int = _MAX_BYTES) -> str:
    """The rows as a table; long texts are cut, and rows left out, with a sentence that says so."""
    room = max_bytes // max(1, len(rows)) - 500
    parts: list[str] = []
    used = 0
    for index, row in enumerate(rows):
        part = _row_html(index, row, room)
        used += len(part.encode())
        if used > max_bytes:
            break
        parts.append(part)
    cut = "" if len(parts) == len(rows) else f"<p>{len(parts)} of {len(rows)} requests are shown.</p>"
    head = ("#", "prompt", "text", "tokens", "speed", "first token", "state")
    done, failed = sum(row.done for row in rows), sum(bool(row.error) for row in rows)
    total = sum(row.tokens for row in rows)
    line = f"{done} of {len(rows)} done" + (f" · {failed} failed" if failed else "") + f" · {total} tok"
    return wrap(
        f'{scroll("requests", table(parts, head=head))}<p class="flm1-use" role="status">{esc(line)}</p>{cut}',
        label="batch",
        style=style,
    )


def batch_text(rows: Sequence[BatchRow]) -> str:
    """A line a request."""
    return "\n".join(
        f"[{index}] {row.state}, {row.tokens} tok: {row.error or clip(row.text, 100)!r}"
        for index, row in enumerate(rows)
    )


def results_html(results: Sequence[Completion | Exception]) -> str:
    """The results of a batch."""
    return batch_html([row_of(result) for result in results])
