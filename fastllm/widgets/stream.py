"""A stream as it comes: shaded tokens, their alternatives, the numbers, and Stop.

What is finished is sealed: every 14 kB become a part of their own that is sent once, and only the short rest is sent
again with each update. So the bytes grow with the tokens and not with their square. Tokens that come faster than
anybody could point at them are written as plain runs, and get their alternatives in the copy that stays.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from fastllm.display.escape import esc
from fastllm.display.html import alert
from fastllm.display.rows import Rows
from fastllm.display.style import style_tag, wrap
from fastllm.display.tokens import (
    Shade,
    check_shade,
    chunk_html,
    completion_facts,
    completion_usage,
    legend_html,
    static_html,
    table_html,
    usage_line,
    waiting_html,
)
from fastllm.display.writer import TokenWriter
from fastllm.types import Completion, Token
from fastllm.widgets._buttons import stop_button
from fastllm.widgets._source import StreamSource
from fastllm.widgets._ticker import Pace, live
from fastllm.widgets._view import View, alarm, box_widget, html_widget, in_notebook

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["StreamPane", "TokenStreamView"]

_CHUNK_BYTES = 14_000  # of a chunk: some 32 tokens that can be pointed at
_FAST_CHUNK_BYTES = 28_000  # of one whose tokens cannot: to send it again costs less than another widget
_POINTED_PER_S = 400.0  # tokens of all displays that can be pointed at while they come; those of faster ones at the end
_GROUP = 32  # chunks in a box: a box names all its children whenever one is added
_HINT = '<span class="flm1-hint">Point at a token, or Tab into the text and use the arrow keys.</span>'
_CARET = '<span class="flm1-caret" aria-hidden="true"></span>'
_BAR_S = 0.25  # between two looks at what happens before the first token
_STATUS_S = 1.0  # a screen reader would be told more often otherwise


class StreamPane:
    """The text part: sealed chunks and the rest, in widgets. No reading, no numbers.

    Attributes:
        widget: A box.
        drawn: Tokens that the page has.
        tipped: The HTML of the first tokens, as far as all of them can be pointed at.
    """

    def __init__(self, writer: TokenWriter, *, tips: bool = True) -> None:
        self.drawn = 0
        self.tipped: list[str] = []
        self._writer = writer
        self._tips = tips
        self._hint = _HINT if tips else ""
        self._tail = html_widget(self._hint, "flm1-in")
        self.widget = box_widget([self._tail], "flm1", "flm1-text", "flm1-blkbox", *(["flm1-tips"] if tips else []))
        self._boxes: list[Any] = []
        self._pieces: list[str] = []  # of the rest: tokens, or runs of them
        self._size = 0  # characters in these
        self._sealed = 0  # tokens in chunks
        self._written = 0  # tokens in chunks and pieces

    def draw(self, rows: Rows, *, live: bool, fast: bool = False) -> int:
        """Brings the page up to these tokens.

        Args:
            rows: All of them, from the first.
            live: Whether a caret shows that more will come.
            fast: Whether they come too fast to be pointed at.

        Returns:
            Messages sent, about.
        """
        last = "" if not live or not rows else self._writer.one(rows[-1], tip=not fast)  # it may yet change
        self._write(rows, len(rows) - (1 if live and rows else 0), fast=fast)
        messages = 0
        if self._size >= (_FAST_CHUNK_BYTES if fast else _CHUNK_BYTES):
            messages += self._seal()
        caret = _CARET if live else ""
        count = len(rows) - self._sealed
        rest = chunk_html([*self._pieces, last] if last else self._pieces, self._sealed, count)
        if (value := rest + caret + self._hint) != self._tail.value:
            self._tail.value = value
            messages += 1
        self.drawn = len(rows)
        return messages

    def _write(self, rows: Rows, end: int, *, fast: bool) -> None:
        start = self._written
        if end <= start:
            return
        if self._tips and not fast:
            fresh = self._writer.write(rows[start:end])
            if len(self.tipped) == start:
                self.tipped += fresh
        else:
            fresh = [html for html, _ in self._writer.runs(rows, start, end)]
        self._pieces += fresh
        self._size += sum(map(len, fresh))
        self._written = end

    def _seal(self) -> int:
        """What is written gets a widget of its own, which is sent once."""
        sealed = html_widget(chunk_html(self._pieces, self._sealed, self._written - self._sealed), "flm1-in")
        self._pieces, self._size, self._sealed = [], 0, self._written
        box = self._boxes[-1] if self._boxes and len(self._boxes[-1].children) < _GROUP else None
        if box is not None:
            box.children = (*box.children, sealed)
            return 2
        self._boxes.append(box_widget([sealed], "flm1-in"))
        self.widget.children = (*self._boxes, self._tail)
        return 3


class TokenStreamView(View):
    """A running request on the page. ``await view`` waits for the end and gives the completion.

    Attributes:
        stream: The request; the view reads it, so nobody else can.
    """

    def __init__(
        self,
        stream: RequestHandle,
        /,
        *,
        shade: Shade = "probability",
        tips: bool = True,
        cancel_on_close: bool = False,
    ) -> None:
        """Begins to read the stream.

        Args:
            stream: From `Model.stream`, `Model.stream_chat`, `Chat.send` or their blocking twins.
            shade: What the background behind a token tells; without log-probabilities (``logprobs=5``), nothing.
            tips: Whether tokens show their alternatives.
            cancel_on_close: Whether `close` cancels the request.

        Raises:
            StreamBusy: Somebody else is reading it.
        """
        super().__init__()
        check_shade(shade)
        self.stream = stream
        config = stream.config
        self._shade: Shade = shade if config.logprobs is not None or shade == "cached" else "off"
        self._tips = tips
        self._group = f"flm1-{uuid.uuid4().hex[:12]}"
        self._cancel_on_close = cancel_on_close
        self._source = StreamSource(stream)
        self._model = stream._ticket.model
        self._pace = Pace()
        self._status_at = 0.0
        self._drawn_at = time.monotonic()
        self._pane: StreamPane | None = None
        self._status: Any = None
        self._caption = ""  # how to interrupt the cell, if it blocks its kernel
        self._printer = None if in_notebook() else _Printer()
        self._closed = False
        self._start()

    # --- reading

    @property
    def tokens(self) -> tuple[Token, ...]:
        """What was read so far."""
        return tuple(self._source.tokens)

    @property
    def completion(self) -> Completion | None:
        """The result, once it has ended."""
        return self.stream.completion

    def __await__(self) -> Generator[Any, Any, Completion]:
        return self._result().__await__()

    async def _result(self) -> Completion:
        await self._wait(self.stream.cancel)
        return self.result()

    def result(self) -> Completion:
        """Waits in the calling thread for the completion. An interrupt cancels the request.

        Raises:
            EngineError: The request failed.
        """
        self.wait(self.stream.cancel)
        if self._source.error is not None:
            raise self._source.error
        completion = self.stream.completion
        if completion is None:  # the view itself broke
            raise self.error or RuntimeError("[display] the view ended without a result.")
        return completion

    def cancel(self, *_: object) -> None:
        """Cancels the request. From any thread or callback."""
        self.stream.cancel()

    def close(self) -> None:
        """Takes the display away; with ``cancel_on_close`` the request, too. Otherwise it runs on unseen."""
        self._closed = True
        if self._cancel_on_close:
            self.stream.cancel()
        if self._widget is not None:
            self._widget.close()

    # --- View

    def _ipython_display_(self) -> None:
        if self._printer is None:  # else the text goes to standard output by itself
            super()._ipython_display_()

    def _look(self, now: float) -> bool:
        source = self._source
        if not (source.urgent or self._pace.ready(now)):
            return True
        start = time.thread_time()
        source.read()
        over = source.ended
        if self._printer is not None:
            self._printer.print_to(source.rows, self._usage() if over else None, self._alarm())
        messages = 0
        if self._widget is not None and not self._closed:
            messages = self._redraw(now, over=over)
        self._pace.spend(now, messages, time.thread_time() - start)
        return not over

    def _redraw(self, now: float, *, over: bool) -> int:
        pane, source = self._pane, self._source
        if pane is None:
            return 0
        messages = 0
        if over or len(source.rows) != pane.drawn:
            fresh, spent_s = len(source.rows) - pane.drawn, now - self._drawn_at
            self._drawn_at = now
            messages += pane.draw(source.rows, live=not over, fast=fresh * live() > _POINTED_PER_S * spent_s)
        if over or now - self._status_at >= (_STATUS_S if source.made else _BAR_S):
            self._status_at = now
            status = self._status_html(over=over)
            if status != self._status.value:
                self._status.value = status
                messages += 1
        if over:
            self._stop.disabled, self._stop.description = True, "Stopped" if self.stream.cancelled else "Done"
        return messages

    def _writer(self) -> TokenWriter:
        usage = self.stream.usage
        return TokenWriter(
            shade=self._shade,
            group=self._group,
            tips=self._tips,
            special_name=self._special_name,
            cached=usage.cached_tokens,
            prompt_tokens=usage.prompt_tokens,
        )

    def _build(self) -> Any:
        self._pane = StreamPane(self._writer(), tips=self._tips)
        self._status = html_widget(self._status_html(over=self._source.ended), "flm1-blk")
        self._status_at = time.monotonic()
        self._stop = stop_button(
            self.cancel,
            tooltip="Cancels the request. If nothing happens while a cell runs, interrupt the kernel (I, I).",
        )
        style = html_widget(style_tag() + wrap(legend_html(self._shade), style=False), "flm1-blk")
        if self._source.rows:
            self._pane.draw(self._source.rows, live=not self._source.ended)
        # Stop stands still while the text grows.
        return box_widget([style, self._stop, self._pane.widget, self._status], "flm1-view")

    def _blocks(self, caption: str) -> None:
        self._caption, self._status_at = caption, 0.0

    def _special_name(self, token_id: int) -> str:
        return self._model.tokenizer.decode([token_id])

    def _alarm(self) -> str:
        error = self._source.error or self.error
        return "" if error is None else alarm(error)

    def _usage(self) -> str:
        if (ending := self.stream._ending) is not None:
            return completion_usage(ending)
        source, usage = self._source, self.stream.usage
        whole, recent = source.speeds
        return usage_line(
            tokens=source.made,
            tps=whole,
            window_tps=recent,
            ttft_s=source.first_s,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            kv_use=self._model.stats().kv_use,
            seed=self.stream.seed,
            state="failed" if self._source.error is not None else self.stream.state,
        )

    def _status_html(self, *, over: bool) -> str:
        trouble = alert(self._alarm()) if self._alarm() else ""
        about = f'class="flm1-use" role="status" aria-live="polite" title="{esc(self._settings())}"'
        line = f"<div {about}>{esc(self._usage())}</div>"
        table = table_html(self._source.rows, max_bytes=20_000) if over and not self._places else ""
        waiting = "" if over or self._source.made else self._waiting_html()
        caption = f'<p class="flm1-dim">{esc(self._caption)}</p>' if self._caption and not over else ""
        return wrap(f"{waiting}{trouble}{line}{table}{caption}", style=False)

    def _waiting_html(self) -> str:
        """What happens before the first token: its place in the queue, or how much of the prompt is read."""
        state = self.stream.state
        if state == "queued":
            return waiting_html(ahead=self.stream.queue_position, queued=self._model.stats().queued)
        if state == "prefill":
            done, total = self.stream.progress
            return waiting_html(done=done, total=total)
        return ""

    def _settings(self) -> str:
        config = self.stream.config
        shown = ", ".join(f"{name}={getattr(config, name)!r}" for name in sorted(config.given))
        return f"{self._model.info.name}: {shown}" if shown else self._model.info.name

    def _facts(self) -> list[tuple[str, object]]:
        from fastllm import _core

        info, ending = self._model.info, self.stream._ending
        facts = completion_facts(ending) if ending is not None else []
        return [
            *facts,
            ("weights", info.dtype if info.quant is None else info.quant),
            ("device", info.device),
            ("settings", self._settings()),
            ("fastllm", _core.__version__),
        ]

    def _words(self) -> str:
        trouble = f"\n{self._alarm()}" if self._alarm() else ""
        return f"{self._source.text}\n[{self._usage()}]{trouble}"

    def _static(self) -> tuple[str, str]:
        rows, usage = self._source.rows, self._usage()
        # What came from the cache is known only now.
        known = self._pane.tipped if self._pane is not None and self._shade != "cached" else []
        html = static_html(
            rows,
            usage=usage if self._source.ended else f"{usage} · not ended when this copy was made",
            facts=self._facts(),
            shade=self._shade,
            error=self._alarm(),
            special_name=self._special_name,
            cached=self.stream.usage.cached_tokens,
            prompt_tokens=self.stream.usage.prompt_tokens,
            parts=known,
            group=self._group,
        )
        return self._words(), html


class _Printer:
    """Where there is no page: the text goes to standard output as it comes, the numbers behind it."""

    def __init__(self) -> None:
        self._printed = 0
        self._closed = False
        tty = sys.stdout.isatty()
        self._quiet, self._plain = ("\x1b[2m", "\x1b[0m") if tty else ("", "")

    def print_to(self, rows: Rows, usage: str | None, trouble: str) -> None:
        if self._closed:
            return
        out = sys.stdout
        out.write(rows.text(self._printed))
        self._printed = len(rows)
        if usage is not None:
            self._closed = True
            out.write(f"\n{self._quiet}{usage}{self._plain}\n" + (f"{trouble}\n" if trouble else ""))
        out.flush()
