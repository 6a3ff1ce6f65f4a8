"""An engine at work: speed, places, the key/value pool, its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastllm.display.chart import line, stacked
from fastllm.display.escape import bdi, esc
from fastllm.display.html import alert, number, row, table
from fastllm.display.numbers import binary_size, count, duration, percent, rate
from fastllm.display.style import wrap
from fastllm.types import EngineStats

__all__ = ["MonitorRow", "monitor_html", "monitor_text"]

_MOST_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRow:
    """A live request.

    Attributes:
        name: Its name.
        state: queued, prefill, running, parked, done.
        progress: Prompt tokens read, and their number.
        unread: Tokens that wait for their reader.
    """

    name: str
    state: str
    progress: tuple[int, int]
    unread: int


def monitor_text(stats: EngineStats) -> str:
    """One line."""
    return repr(stats)


def monitor_html(
    stats: EngineStats,
    *,
    rows: Sequence[MonitorRow] = (),
    speeds: Sequence[float] = (),
    name: str = "",
    kv_dtype: str = "",
    style: bool = True,
) -> str:
    """A snapshot, with the speeds of the time before it.

    Args:
        stats: The engine's counters.
        rows: Its live requests.
        speeds: Tokens per second, oldest first.
        name: The model's.
        kv_dtype: Element type of its keys and values.
        style: Whether to bring the stylesheet along.
    """
    used = stats.kv_blocks_total - stats.kv_blocks_free
    empty = stats.kv_blocks_free - stats.kv_blocks_cached
    block = stats.kv_bytes / stats.kv_blocks_total if stats.kv_blocks_total else 0.0
    pool = stacked(
        [
            ("in use", float(used), f"{used} blocks, {binary_size(used * block)}"),
            (
                "prefix cache",
                float(stats.kv_blocks_cached),
                f"{stats.kv_blocks_cached} blocks, {binary_size(stats.kv_blocks_cached * block)}",
            ),
            ("empty", float(empty), f"{empty} blocks, {binary_size(empty * block)}"),
        ],
        label=f"key/value pool of {stats.kv_blocks_total} blocks of {stats.block_tokens} tokens",
        width=320,
    )
    prompts = stats.prompt_tokens
    facts = [
        ("speed", rate(stats.decode_tps)), ("a step", f"{stats.step_ms:.2f} ms"), ("running", str(stats.running)),
        ("of these reading prompts", str(stats.prefilling)), ("queued", str(stats.queued)),
        ("parked", str(stats.parked)), ("finished", str(stats.finished)), ("cancelled", str(stats.cancelled)),
        ("preemptions", str(stats.preemptions)), ("tokens made", count(stats.generated_tokens)),
        ("prompt tokens", f"{count(prompts)}, {percent(stats.cached_tokens / prompts) if prompts else '0 %'} cached"),
        ("weights", binary_size(stats.weight_bytes)), ("up", duration(stats.uptime_s)),
    ]  # fmt: skip
    live = "".join(
        row(
            bdi(request.name),
            f"<td>{esc(request.state)}</td>",
            number(f"{request.progress[0]} / {request.progress[1]}"),
            number(request.unread),
        )
        for request in rows[:_MOST_ROWS]
    )
    more = f"<p>and {len(rows) - _MOST_ROWS} more</p>" if len(rows) > _MOST_ROWS else ""
    requests = '<p class="flm1-dim">No requests.</p>'
    if live:
        requests = table([live], caption="Requests", head=("name", "state", "prompt read", "unread")) + more
    dead = alert(f"The engine is dead: {stats.dead}") if stats.dead else ""
    curve = line(speeds, label="tokens per second", unit=" tok/s")
    speed = f"<figure>{curve}<figcaption>{esc(rate(stats.decode_tps))}</figcaption></figure>"
    kept = f", {esc(kv_dtype)}" if kv_dtype else ""
    engine = table((row(esc(key), number(value)) for key, value in facts), caption=f"Engine {esc(name)}")
    return wrap(
        f'{dead}<div class="flm1-row"><div>{engine}</div>'
        f"<div>{speed}<p>Key/value pool{kept}</p>{pool}</div><div>{requests}</div></div>",
        label="engine monitor",
        style=style,
    )
