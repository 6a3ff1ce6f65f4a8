"""An answer whose tokens can be exchanged: pick one, pick what is to stand there, and it goes on from there.

Two lists beside each other: the tokens of the answer, and what stood to choose at the one that is picked. Above each is
a number for the arrow keys, which notebooks take from a list but not from a field that is written in. Every exchange is
a fork of the stream, so nothing is lost: the answers before stay in a list.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from fastllm.display.escape import esc, visible
from fastllm.display.html import alert
from fastllm.display.numbers import percent, text_bar
from fastllm.display.style import style_tag, wrap
from fastllm.display.tokens import (
    Shade,
    check_shade,
    completion_facts,
    completion_usage,
    legend_html,
    static_html,
    usage_line,
    waiting_html,
)
from fastllm.display.writer import Row, TokenWriter
from fastllm.errors import FastLLMError
from fastllm.types import Completion
from fastllm.widgets import _ticker
from fastllm.widgets._buttons import stop_button
from fastllm.widgets._source import StreamSource
from fastllm.widgets._ticker import Pace
from fastllm.widgets._view import View, alarm, html_widget, stock
from fastllm.widgets.stream import StreamPane

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["Branch", "ExchangeView"]

_LISTED_S = 1.0  # between two looks of the list of tokens while more come
_AROUND = 60  # characters shown on either side of the picked token


class Branch:
    """One answer. Looked after by the ticker until it ends.

    Attributes:
        stream: Its request.
        words: How it came to be.
        parent: The branch it was forked from, or None.
        at: The place of the exchanged token there.
    """

    def __init__(
        self, view: ExchangeView, stream: RequestHandle, words: str, parent: Branch | None = None, at: int = 0
    ) -> None:
        self.stream, self.words, self.parent, self.at = stream, words, parent, at
        self.source = StreamSource(stream)
        self.pace = Pace()
        self._view = view

    def tick(self, now: float) -> bool:
        """Part of `_ticker.Ticking`."""
        if not (self.source.urgent or self.pace.ready(now)):
            return True
        start = time.thread_time()
        try:
            self.source.read()
            messages = self._view._drawn(self, now)
        except Exception as error:
            self._view._fail(error)
            self.source.ended = True
            messages = 1
        self.pace.spend(now, messages, time.thread_time() - start)
        if self.source.ended:
            self._view._ended(self)
        return not self.source.ended

    @property
    def made(self) -> list[Row]:
        """Its output."""
        return [row for row in self.source.rows if row[3] >= 0]

    def choices(self, at: int) -> Sequence[tuple[int, str, float]]:
        """What stood to choose at a place. Where a token was exchanged, that is what its parent had there."""
        made = self.made
        if at < len(made) and made[at][5]:
            return made[at][5]
        return self.parent.choices(at) if self.parent is not None and at <= self.at else ()

    def usage(self) -> str:
        """Its line of numbers."""
        if (ending := self.stream._ending) is not None:
            return completion_usage(ending)
        source, usage = self.source, self.stream.usage
        return usage_line(
            tokens=source.made,
            tps=source.speeds[0],
            ttft_s=source.first_s,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            seed=self.stream.seed,
            state="failed" if source.error is not None else self.stream.state,
        )


class ExchangeView(View):
    """A stream on the page whose tokens can be exchanged. ``await view`` waits for the first answer and gives it.

    Attributes:
        branches: The answers, the first one first.
    """

    runs = False

    def __init__(self, stream: RequestHandle, /, *, shade: Shade = "probability") -> None:
        """Begins to read the stream.

        Args:
            stream: Running or ended; with ``logprobs=5`` there are alternatives to pick from.
            shade: What the background behind a token tells.

        Raises:
            StreamBusy: Somebody else is reading it.
        """
        super().__init__()
        self._shade: Shade = check_shade(shade) if stream.config.logprobs is not None else "off"
        self._model = stream._ticket.model
        self.branches = [Branch(self, stream, "as it came")]
        self._here = self.branches[0]
        self._pane: StreamPane | None = None
        self._listed = -1  # tokens in the list
        self._listed_at = 0.0
        self._quiet = False  # we change the controls, not the user
        if self._here.source.ended:
            self._ended(self._here)
        else:
            _ticker.add(self._here)

    # --- what the controls do; each from any thread

    def exchange(self, at: int, token: int | str) -> RequestHandle:
        """Goes on from another token, in a branch of its own that is shown from now on.

        Args:
            at: The place of the token in the answer that is shown, from 0.
            token: What is to stand there: an id, or a text that is one token.

        Returns:
            The new stream; the view reads it.

        Raises:
            InvalidRequest: There is no such place or token, or the answer ends with it.
        """
        with self._lock:
            origin = self._here
            made = origin.made
            stream: RequestHandle = origin.stream.fork(at=at, token=token)  # type: ignore[attr-defined]
            new = token if isinstance(token, str) else self._model.tokenizer.decode([token])
            old = made[at][1] if at < len(made) else ""
            words = f"token {at}: “{visible(new, 16)}” instead of “{visible(old, 16)}”"
            branch = Branch(self, stream, words, origin, at)
            self.branches.append(branch)
            self.go_to(len(self.branches) - 1)
        _ticker.add(branch)
        return stream

    def go_to(self, index: int) -> None:
        """Shows another of `branches`."""
        with self._lock:
            self._here = self.branches[index]
            if self._widget is None:
                return
            self._say("")
            self._new_pane()
            self._drawn(self._here, time.monotonic(), whole=True)
            self._touch()
            self._quietly(self._which, [(f"{i + 1}: {one.words}", i) for i, one in enumerate(self.branches)], index)
            self._which.layout.display = "" if len(self.branches) > 1 else "none"

    def cancel(self, *_: object) -> None:
        """Cancels the answer that is shown."""
        self._here.stream.cancel()

    def result(self) -> Completion:
        """Waits in the calling thread for the first answer."""
        first = self.branches[0].stream
        self.wait(first.cancel)
        return self._first()

    def __await__(self) -> Generator[Any, Any, Completion]:
        return self._result().__await__()

    async def _result(self) -> Completion:
        await self._wait(self.branches[0].stream.cancel)
        return self._first()

    def _first(self) -> Completion:
        first = self.branches[0]
        if first.source.error is not None:
            raise first.source.error
        if first.stream.completion is None:
            raise self.error or RuntimeError("[display] the view ended without a result.")
        return first.stream.completion

    # --- drawing

    def _drawn(self, branch: Branch, now: float, *, whole: bool = False) -> int:
        """Brings the page up to a branch; returns messages sent, about."""
        with self._lock:
            pane, source = self._pane, branch.source
            if pane is None or branch is not self._here:
                return 0
            over, messages = source.ended, 1
            messages += pane.draw(source.rows, live=not over)
            state = branch.stream.state
            if source.made or over:
                said = ""
            elif state == "queued":
                said = waiting_html(ahead=branch.stream.queue_position, queued=self._model.stats().queued)
            else:
                done, total = branch.stream.progress
                said = waiting_html(done=done, total=total)
            trouble = "" if source.error is None else alert(alarm(source.error))
            line = f'<div class="flm1-use" role="status" aria-live="polite">{esc(branch.usage())}</div>'
            if over or whole or now - self._listed_at >= _LISTED_S:
                self._listed_at = now
                self._status.value = said + wrap(trouble + line, style=False)
                self._list_tokens(branch, whole=whole)
            self._stop.disabled = over
            return messages

    def _list_tokens(self, branch: Branch, *, whole: bool) -> None:
        made = branch.made
        if len(made) == self._listed and not whole:
            return
        self._listed = len(made)
        options = [
            (f"{row[3]:>4}  {visible(row[1], 24)}" + ("" if row[4] is None else f"   {percent(math.exp(row[4]))}"), i)
            for i, row in enumerate(made)
        ]
        kept = branch.at if whole or self._tokens.value is None else self._tokens.value
        self._quietly(self._tokens, options, kept if kept is not None and kept < len(made) else None)
        self._list_others()

    def _list_others(self) -> None:
        at, made = self._tokens.value, self._here.made
        if at is None or at >= len(made):
            self._quietly(self._others, [], None)
            self._where.value = wrap('<p class="flm1-dim">Pick a token to see what stood to choose.</p>', style=False)
            return
        row = made[at]
        stood = self._here.choices(at)
        options = [(_choice(id_ == row[0], text, math.exp(logprob)), id_) for id_, text, logprob in stood]
        other = next((id_ for id_, _, _ in stood if id_ != row[0]), None)
        self._quietly(self._others, options, other)
        self._number(self._at, at, len(made))
        self._number(self._pick, self._others.index or 0, len(options))
        before = "".join(entry[1] for entry in made[:at])[-_AROUND:]
        after = "".join(entry[1] for entry in made[at + 1 : at + 40])[:_AROUND]
        said = f"<p>… {esc(before)}<mark>{esc(row[1]) or '(no text)'}</mark>{esc(after)} …</p>"
        if not stood:
            said += '<p class="flm1-dim">No alternatives were kept: ask with logprobs=5, or write a token.</p>'
        self._where.value = wrap(said, style=False)

    def _quietly(self, control: Any, options: list[tuple[str, int]], value: int | None) -> None:
        self._quiet = True
        try:
            with control.hold_sync():
                control.options = options
                control.value = value
        finally:
            self._quiet = False

    def _ended(self, branch: Branch) -> None:
        self._touch()
        if branch is self.branches[0] and not self._done.is_set():
            self._done.set()
            while self._when_done:
                self._when_done.pop()()

    def _say(self, html: str) -> None:
        if self._widget is not None:
            self._trouble.value = html

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._say(wrap(alert(alarm(error)), style=False))

    # --- View

    def _writer(self) -> TokenWriter:
        usage = self._here.stream.usage
        return TokenWriter(
            shade=self._shade, group=f"flm1-{uuid.uuid4().hex[:12]}", cached=usage.cached_tokens,
            special_name=lambda id_: self._model.tokenizer.decode([id_]), prompt_tokens=usage.prompt_tokens,
        )  # fmt: skip

    def _new_pane(self) -> None:
        self._pane = StreamPane(self._writer())
        self._place.children = (self._pane.widget,)

    def _build(self) -> Any:
        widgets = stock()
        self._place = widgets.VBox([])
        self._status, self._trouble, self._where = (html_widget("", "flm1-blk") for _ in range(3))
        narrow = widgets.Layout(width="17em")
        self._tokens = widgets.Select(options=[], rows=7, layout=narrow)
        wide = widgets.Layout(width="24em")
        self._others = widgets.Select(options=[], rows=7, layout=wide)
        small = widgets.Layout(width="11em")
        self._at = widgets.BoundedIntText(0, min=0, max=0, description="token", layout=small)
        self._pick = widgets.BoundedIntText(0, min=0, max=0, description="choice", layout=small)
        self._own = widgets.Text(placeholder="or write one, such as ␣not", layout=wide)
        self._which = widgets.Dropdown(options=[("1", 0)], description="answer", layout=widgets.Layout(display="none"))
        self._which.layout.width = "min(44em, 100%)"
        self._stop = stop_button(self.cancel, tooltip="Cancels this answer.", layout=widgets.Layout(width="7em"))
        self._go = widgets.Button(
            description="Exchange, and go on",
            tooltip="A new answer that begins like this one, has the other token, and goes on from there.",
            layout=widgets.Layout(width="17em"),
        )
        for control, name in (
            (self._tokens, "Tokens of the answer"),
            (self._others, "What is to stand there"),
            (self._own, "Another token, in words"),
        ):
            control.tooltip = name
            control.add_class("flm1-list")
        self._go.on_click(self._go_clicked)
        self._tokens.observe(self._token_picked, names="value")
        self._which.observe(self._which_picked, names="value")
        self._at.observe(self._at_changed, names="value")
        self._pick.observe(self._pick_changed, names="value")
        self._others.observe(self._other_picked, names="value")
        self._new_pane()
        head = widgets.HBox(
            [html_widget(style_tag() + wrap(legend_html(self._shade), style=False), "flm1-blk"), self._stop],
            layout=widgets.Layout(justify_content="space-between"),
        )
        lists = widgets.HBox(
            [
                widgets.VBox([_title("Exchange"), self._at, self._tokens]),
                widgets.VBox([_title("for"), self._pick, self._others, self._own]),
            ],
            layout=widgets.Layout(flex_flow="row wrap"),
        )
        box = widgets.VBox([head, self._which, self._place, self._status, self._where, lists, self._go, self._trouble])
        self._drawn(self._here, time.monotonic(), whole=True)
        return box

    def _token_picked(self, _: object) -> None:
        if not self._quiet:
            with self._lock:
                self._list_others()

    def _at_changed(self, change: Any) -> None:
        if not self._quiet and 0 <= change["new"] < len(self._tokens.options):
            self._tokens.value = change["new"]

    def _pick_changed(self, change: Any) -> None:
        if not self._quiet and 0 <= change["new"] < len(self._others.options):
            self._others.index = change["new"]

    def _other_picked(self, _: object) -> None:
        if not self._quiet and self._others.index is not None:
            self._number(self._pick, self._others.index, len(self._others.options))

    def _number(self, control: Any, value: int, count: int) -> None:
        self._quiet = True
        try:
            with control.hold_sync():
                control.max = max(0, count - 1)
                control.value = min(value, control.max)
        finally:
            self._quiet = False

    def _which_picked(self, change: Any) -> None:
        if not self._quiet and change["new"] is not None:
            self.go_to(change["new"])

    def _go_clicked(self, _: object) -> None:
        own = self._own.value.replace("␣", " ")
        at, token = self._tokens.value, own or self._others.value
        if at is None or token is None:
            self._say(wrap('<p class="flm1-dim">Pick a token, and what is to stand there.</p>', style=False))
            return
        try:
            self.exchange(at, token)
        except FastLLMError as error:
            self._fail(error)
            return
        self._own.value = ""

    def _static(self) -> tuple[str, str]:
        branch = self._here
        ending = branch.stream._ending
        facts = completion_facts(ending) if ending is not None else []
        others = [("answer", one.words) for one in self.branches if one is not branch]
        trouble = "" if branch.source.error is None else alarm(branch.source.error)
        html = static_html(
            branch.source.rows, usage=f"{branch.words} · {branch.usage()}" if branch.parent else branch.usage(),
            facts=[*facts, *others], shade=self._shade, error=trouble, parts=None,
            group=f"flm1-{uuid.uuid4().hex[:12]}",
        )  # fmt: skip
        return f"{branch.source.text}\n[{branch.usage()}]", html


def _choice(here: bool, text: str, share: float) -> str:
    return f"{'▸' if here else ' '} {percent(share):>7} {text_bar(share, 8)} {visible(text, 24)}"


def _title(words: str) -> Any:
    return html_widget(wrap(f'<b class="flm1-dim">{words}</b>', style=False), "flm1-blk")
