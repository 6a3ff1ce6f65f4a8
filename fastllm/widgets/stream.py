"""A stream as it comes: shaded tokens, their alternatives, the numbers, and Stop.

What is finished is sealed: every 14 kB become a part of their own that is sent once, and only the short rest is sent
again with each update. So the bytes grow with the tokens and not with their square.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from fastllm.display.escape import esc
from fastllm.display.html import alert
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
from fastllm.display.writer import Row, TokenWriter
from fastllm.types import Completion, Token
from fastllm.widgets._buttons import stop_button
from fastllm.widgets._source import StreamSource
from fastllm.widgets._ticker import Pace
from fastllm.widgets._view import View, alarm, html_widget, in_notebook, stock

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["CHUNK", "StreamPane", "TokenStreamView"]

CHUNK = 512  # tokens of a chunk, at most
_CHUNK_BYTES = 14_000  # of a chunk: some 32 tokens that can be pointed at
_FAST_TPS = 100.0  # nobody points at a token that goes by so fast
_POINTED = 128  # these can be pointed at however fast they come: it is about what a static copy has room for
_STATIC_BYTES = 60_000  # more than this of a static copy is not text that can be pointed at
_GROUP = 32  # chunks in a box: a box names all its children whenever one is added
_BAR_S = 0.25  # between two looks at what happens before the first token
_STATUS_S = 1.0  # a screen reader would be told more often otherwise


class StreamPane:
    """The text part: sealed chunks and the rest, in widgets. No reading, no numbers.

    Attributes:
        widget: A box.
        writer: What makes tokens into HTML.
        drawn: Tokens that the page has.
    """

    def __init__(self, writer: TokenWriter, *, tips: bool = True) -> None:
        widgets = stock()
        self.writer = writer
        self.drawn = 0
        self._shared: dict[str, Any] = {}  # one layout and style for all pieces: fewer objects, fewer messages
        self._tail = self._piece("")
        self._shared = {"layout": self._tail.layout, "style": self._tail.style}
        self._hint = self._piece(
            '<span class="flm1-hint">Point at a token, or Tab into the text and use the arrow keys.</span>'
            if tips
            else ""
        )
        classes = ("flm1-text", "flm1-blkbox", *(["flm1-tips"] if tips else []))
        self._text = widgets.Box([self._tail, self._hint], _dom_classes=classes)
        self.widget = widgets.Box([self._text], _dom_classes=("flm1", "flm1-blkbox"))
        self._boxes: list[Any] = []
        self._sealed = 0  # tokens in chunks

    def _piece(self, value: str) -> Any:
        return stock().HTML(value=value, _dom_classes=("flm1-in",), **self._shared)

    def draw(self, rows: Sequence[Row], *, live: bool, fast: bool = False) -> int:
        """Brings the page up to these tokens.

        Args:
            rows: All of them, from the first.
            live: Whether a caret shows that more will come.
            fast: Whether they come too fast to be pointed at.

        Returns:
            Messages sent, about.
        """
        messages = 0
        parts = self.writer.parts
        if not fast or len(parts) < _POINTED:
            self.writer.write(rows[len(parts) : _POINTED if fast else None])
        self.writer.write(rows[len(parts) :], plain=True)
        end = len(rows) - 1  # the last may change: its end can let go of text
        size = sum(map(len, parts[self._sealed :]))
        if end - self._sealed >= CHUNK or (size >= (4 if fast else 1) * _CHUNK_BYTES and end > self._sealed):
            sealed = self._piece(chunk_html(parts[self._sealed : end], self._sealed))
            box = self._boxes[-1] if self._boxes and len(self._boxes[-1].children) < _GROUP else None
            if box is None:
                box = stock().Box([sealed], layout=self._tail.layout, _dom_classes=("flm1-in",))
                self._boxes.append(box)
                self._text.children = (*self._boxes, self._tail, self._hint)
                messages += 3
            else:
                box.children = (*box.children, sealed)
                messages += 2
            self._sealed = end
        caret = '<span class="flm1-caret" aria-hidden="true"></span>' if live else ""
        rest = chunk_html(parts[self._sealed :], self._sealed) + caret
        if rest != self._tail.value:
            self._tail.value = rest
            messages += 1
        self.drawn = len(rows)
        return messages


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
        self._cancel_on_close = cancel_on_close
        self._source = StreamSource(stream)
        self._model = stream._ticket.model
        self._pace = Pace()
        self._status_at = self._bar_at = 0.0
        self._drawn_at = time.monotonic()
        self._pane: StreamPane | None = None
        self._status: Any = None
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
            if over and source.tail:
                pane.writer.rewrite_last(source.rows[-1])
            fresh, spent_s = len(source.rows) - pane.drawn, now - self._drawn_at
            self._drawn_at = now
            messages += pane.draw(source.rows, live=not over, fast=fresh > _FAST_TPS * spent_s)
        if over or now - self._status_at >= _STATUS_S:
            self._status_at = now
            status = self._status_html(over=over)
            if status != self._status.value:
                self._status.value = status
                messages += 1
        if (over or not source.made or self._waiting.value) and now - self._bar_at >= (0.0 if source.made else _BAR_S):
            self._bar_at = now
            bar = "" if over or source.made else self._waiting_html()
            if bar != self._waiting.value:
                self._waiting.value = bar
                messages += 1
        if over:
            self._stop.disabled, self._stop.description = True, "Stopped" if self.stream.cancelled else "Done"
        return messages

    def _writer(self, group: str | None = None) -> TokenWriter:
        usage = self.stream.usage
        return TokenWriter(
            shade=self._shade,
            group=group or f"flm1-{uuid.uuid4().hex[:12]}",
            tips=self._tips,
            special_name=self._special_name,
            cached=usage.cached_tokens,
            prompt_tokens=usage.prompt_tokens,
        )

    def _build(self) -> Any:
        widgets = stock()
        self._pane = StreamPane(self._writer(), tips=self._tips)
        self._status = html_widget(self._status_html(over=self._source.ended), "flm1-blk")
        self._waiting = html_widget("" if self._source.rows else self._waiting_html(), "flm1-blk")
        self._status_at = time.monotonic()
        self._stop = stop_button(
            self.cancel,
            tooltip="Cancels the request. If nothing happens while a cell runs, interrupt the kernel (I, I).",
            layout=widgets.Layout(width="7em"),
        )
        style = html_widget(style_tag() + wrap(legend_html(self._shade), style=False), "flm1-blk")
        if self._source.rows:
            self._pane.draw(self._source.rows, live=not self._source.ended)
        head = widgets.HBox([style, self._stop], layout=widgets.Layout(justify_content="space-between"))
        self._caption = html_widget("", "flm1-blk")
        # Stop stands still while the text grows.
        return widgets.VBox([head, self._caption, self._waiting, self._pane.widget, self._status])

    def _blocks(self, caption: str) -> None:
        if caption and self._widget is not None:
            self._caption.value = wrap(f'<p class="flm1-dim">{esc(caption)}</p>', style=False)

    def _special_name(self, token_id: int) -> str:
        return self._model.tokenizer.decode([token_id])

    def _alarm(self) -> str:
        error = self._source.error or self.error
        return "" if error is None else alarm(error)

    def _usage(self) -> str:
        completion = self.stream.completion
        if completion is not None:
            return completion_usage(completion)
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
        return wrap(f"{trouble}{line}{table}", style=False)

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

        info, completion = self._model.info, self.stream.completion
        facts = completion_facts(completion) if completion is not None else []
        return [
            *facts,
            ("weights", info.dtype if info.quant is None else info.quant),
            ("device", info.device),
            ("settings", self._settings()),
            ("fastllm", _core.__version__),
        ]

    def _static(self) -> tuple[str, str]:
        rows, usage = self._source.rows, self._usage()
        writer = self._pane.writer if self._pane is not None and self._shade != "cached" else None
        if writer is None:  # not drawn yet; or what came from the cache is known only now
            writer = self._writer()
        parts = [] if not self._tips else writer.parts[: writer.tipped]
        if self._tips and len(parts) < len(rows) and sum(map(len, parts)) < _STATIC_BYTES:
            more = self._writer(writer.group)
            more.write(rows[len(parts) : len(parts) + CHUNK])
            parts += more.parts
        html = static_html(
            rows,
            usage=usage if self._source.ended else f"{usage} · not ended when this copy was made",
            facts=self._facts(),
            shade=self._shade,
            error=self._alarm(),
            special_name=self._special_name,
            cached=self.stream.usage.cached_tokens,
            prompt_tokens=self.stream.usage.prompt_tokens,
            parts=parts,
        )
        text = self._source.text
        trouble = f"\n{self._alarm()}" if self._alarm() else ""
        return f"{text}\n[{usage}]{trouble}", html


class _Printer:
    """Where there is no page: the text goes to standard output as it comes, the numbers behind it."""

    def __init__(self) -> None:
        self._printed = 0
        self._closed = False
        tty = sys.stdout.isatty()
        self._quiet, self._plain = ("\x1b[2m", "\x1b[0m") if tty else ("", "")

    def print_to(self, rows: Sequence[Row], usage: str | None, trouble: str) -> None:
        if self._closed:
            return
        out = sys.stdout
        out.write("".join(row[1] for row in rows[self._printed :]))
        self._printed = len(rows)
        if usage is not None:
            self._closed = True
            out.write(f"\n{self._quiet}{usage}{self._plain}\n" + (f"{trouble}\n" if trouble else ""))
        out.flush()
