"""A conversation as a panel: say something, stop, ask again, reword, look at other answers, fork."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from fastllm.display.chat import conversation_html, message_html
from fastllm.display.escape import clip
from fastllm.display.html import alert
from fastllm.display.style import style_tag, wrap
from fastllm.display.tokens import Shade, check_shade
from fastllm.display.writer import TokenWriter
from fastllm.errors import FastLLMError
from fastllm.widgets import _ticker
from fastllm.widgets._source import StreamSource
from fastllm.widgets._ticker import Pace
from fastllm.widgets._view import View, alarm, html_widget, stock
from fastllm.widgets.stream import StreamPane

if TYPE_CHECKING:
    from fastllm.chat import Conversation

__all__ = ["ChatPanel"]

_NEW = -1


class _Run:
    """One answer while it comes; looked after by the ticker."""

    def __init__(self, panel: ChatPanel, stream: Any) -> None:
        self.panel, self.stream = panel, stream
        self.source = StreamSource(stream)
        self.pace = Pace()

    def tick(self, now: float) -> bool:
        """Part of `_ticker.Ticking`."""
        try:
            if not (self.source.urgent or self.pace.ready(now)):
                return True
            start = time.thread_time()
            self.source.read()
            over = self.source.ended
            messages = self.panel._draw_answer(self, over=over)
            self.pace.spend(now, messages, time.thread_time() - start)
        except Exception as error:
            self.panel._fail(error)
            over = True
        return not over


class ChatPanel(View):
    """A chat to talk in.

    Attributes:
        chat: The conversation; what is said in the panel is said in it.
        forks: Panels that were forked off, newest last. They share its place on the page: one is shown at a time.
    """

    runs = False

    def __init__(self, chat: Conversation[Any], /, *, shade: Shade = "off", **overrides: Any) -> None:
        """Makes the panel.

        Args:
            chat: `Chat` or `BlockingChat`.
            shade: What the background behind a token tells, while an answer comes.
            **overrides: Fields of `GenerationConfig` for every answer from here.
        """
        super().__init__()
        self.chat = chat
        self.forks: list[ChatPanel] = []
        self._shade = check_shade(shade)
        self._overrides = dict(overrides)
        if shade not in ("off", "cached"):
            self._overrides.setdefault("logprobs", 5)
        self._run: _Run | None = None
        self._history: Any = None
        self._root = self
        self._all: list[tuple[str, ChatPanel]] = [("conversation 1", self)]  # of the root: all forks, and theirs

    # --- what the buttons do; each from any thread

    def send(self, text: str, *, edit: int | None = None) -> None:
        """Says something, or rewords the message at a position of ``chat.messages``."""
        if edit is None:
            self._ask(lambda: self.chat.send(text, **self._overrides))
        else:
            self._ask(lambda: self.chat.edit(edit, text, **self._overrides))

    def regenerate(self) -> None:
        """Asks for another answer beside the last."""
        self._ask(lambda: self.chat.regenerate(**self._overrides))

    def stop(self) -> None:
        """Cancels the answer that is coming; what there is of it stays."""
        run = self._run
        if run is not None:
            run.stream.cancel()

    def other(self) -> None:
        """Goes to the next alternative of the last message."""
        if not len(self.chat):
            return
        nodes = self.chat.branches(-1)
        here = self.chat.path[-1].index
        place = next(i for i, node in enumerate(nodes) if node.index == here)
        self.chat.switch(nodes[(place + 1) % len(nodes)])
        self._refresh()

    def fork(self, *, at: int | None = None) -> ChatPanel:
        """A conversation that goes on by itself from any turn of this one, and is shown in its place.

        Args:
            at: Messages 0 ... at - 1 are kept; all of them by default.

        Returns:
            Its panel. The buttons above the conversation, or `go_to`, lead back and forth.
        """
        root = self._root
        panel = ChatPanel(self.chat.fork(at=at), shade=self._shade, **self._overrides)
        panel._root = root
        self.forks.append(panel)
        mine = next(i for i, (_, other) in enumerate(root._all) if other is self)
        kept = len(panel.chat)
        root._all.append((f"fork {len(root._all) + 1}, of {mine + 1} after {kept} messages", panel))
        self.go_to(len(root._all) - 1)
        return panel

    def go_to(self, index: int) -> None:
        """Shows the conversation, 0, or one of its forks in the order in which they were made."""
        root = self._root
        if root._widget is None:
            return
        with root._lock:
            root._slot.children = (root._all[index][1]._body,)
            root._quiet = True
            try:
                root._tabs.options = [(words, i) for i, (words, _) in enumerate(root._all)]
                root._tabs.value = index
            finally:
                root._quiet = False
            root._tabs.layout.display = "" if len(root._all) > 1 else "none"

    @property
    def answering(self) -> bool:
        """Whether an answer is coming."""
        return self._run is not None

    def _ask(self, start: Any) -> None:
        with self._lock:
            if self._history is not None:
                self._error.value = ""
            try:
                stream = start()
            except (FastLLMError, TypeError) as error:
                self._fail(error)
                return
            self._run = run = _Run(self, stream)
            if self._history is not None:
                model = self.chat.model
                tips = "logprobs" in self._overrides
                writer = TokenWriter(
                    shade=self._shade,
                    group=f"flm1-{uuid.uuid4().hex[:12]}",
                    tips=tips,
                    special_name=lambda token_id: model.tokenizer.decode([token_id]),
                )
                self._pane = StreamPane(writer, tips=tips)
                self._answer.children = (self._pane.widget,)
                self._refresh(without_last=True)
        _ticker.add(run)

    def _draw_answer(self, run: _Run, *, over: bool) -> int:
        with self._lock:
            if self._run is not run:
                return 0
            messages = 0
            if self._history is not None:
                messages = self._pane.draw(run.source.rows, live=not over)
            if over:
                self._run = None
                if run.source.error is not None:
                    self._fail(run.source.error)
                if self._history is not None:
                    self._answer.children = ()
                    self._refresh()
            return messages

    def _fail(self, error: Exception) -> None:
        self.error = error
        if self._history is not None:
            self._error.value = wrap(alert(alarm(error)), style=False)

    # --- View

    def _alternatives(self) -> dict[int, tuple[int, int]]:
        found = {}
        for place, node in enumerate(self.chat.path):
            nodes = self.chat.branches(place)
            found[node.index] = (1 + next(i for i, other in enumerate(nodes) if other.index == node.index), len(nodes))
        return found

    def _static(self) -> tuple[str, str]:
        text = "\n".join(f"{message.role}: {message.content}" for message in self.chat.messages)
        forks = "".join(panel._static()[1] for panel in self.forks)
        return text or repr(self.chat), conversation_html(self.chat.path, alternatives=self._alternatives()) + forks

    def _refresh(self, *, without_last: bool = False) -> None:
        """Shows the conversation as it stands; without the answer that the pane shows."""
        if self._history is None:
            return
        self._root._touch()
        path = self.chat.path
        shown = path[:-1] if without_last else path
        html = conversation_html(shown, alternatives=self._alternatives(), style=False)
        self._history.value = html + (message_html("assistant", "", note="answering") if without_last else "")
        busy = self._run is not None
        self._buttons["stop"].disabled = not busy
        last = path[-1].message.role if path else ""
        self._buttons["regenerate"].disabled = busy or last != "assistant"
        self._buttons["other"].disabled = busy or not path or len(self.chat.branches(-1)) < 2
        options = [("a new message", _NEW)]
        for place, node in enumerate(path):
            if node.message.role == "user":
                options.append((f"reword {place}: {clip(node.message.content, 40)}", place))
        self._target.options, self._target.value = options, _NEW
        turns = [
            (f"after message {place}: {clip(node.message.content, 40)}", place + 1)
            for place, node in enumerate(path)
            if node.message.role == "assistant"
        ]
        self._turn.options = [("the beginning", 0), *turns[:-1], ("here", len(path))]
        self._turn.value = len(path)

    @property
    def _body(self) -> Any:
        if self._history is None:
            self._inside = self._build_body()
        return self._inside

    def _build(self) -> Any:
        widgets = stock()
        self._quiet = False
        self._tabs = widgets.ToggleButtons(
            options=[("conversation 1", 0)], style={"button_width": "auto"}, layout=widgets.Layout(display="none")
        )
        self._tabs.observe(self._tab_chosen, names="value")
        self._slot = widgets.VBox([self._body])
        return widgets.VBox([self._tabs, self._slot])

    def _tab_chosen(self, change: Any) -> None:
        if not self._quiet and change["new"] is not None:
            self.go_to(change["new"])

    def _build_body(self) -> Any:
        widgets = stock()
        self._history = html_widget("", "flm1-blk")
        self._error = html_widget("", "flm1-blk")
        self._answer = widgets.VBox([])
        wide = widgets.Layout(width="min(44em, 100%)")
        self._text = widgets.Textarea(description="Say", placeholder="Say something", rows=2, layout=wide)
        self._target = widgets.Dropdown(options=[("a new message", _NEW)], description="as", layout=wide)
        self._buttons = {
            name: widgets.Button(description=words, tooltip=tip, layout=widgets.Layout(width="auto"))
            for name, words, tip in (
                ("send", "Send", "Says it, and cancels an answer that is still coming."),
                ("stop", "Stop", "Cancels the answer; what there is of it stays."),
                ("regenerate", "Regenerate", "Asks for another answer beside the last."),
                ("other", "Other answer", "Goes to the next alternative of the last message."),
                ("fork", "Fork", "A second conversation that goes on by itself, from the turn chosen beside it."),
            )
        }
        self._buttons["send"].on_click(self._send_clicked)
        self._buttons["stop"].on_click(lambda _: self.stop())
        self._buttons["regenerate"].on_click(lambda _: self.regenerate())
        self._buttons["other"].on_click(lambda _: self.other())
        self._buttons["fork"].on_click(lambda _: self.fork(at=self._turn.value))
        self._turn: Any = widgets.Dropdown(
            options=[("here", 0)], description="from", layout=widgets.Layout(width="min(24em, 100%)")
        )
        self._target.observe(self._target_chosen, names="value")
        self._refresh()
        return widgets.VBox(
            [
                html_widget(style_tag(), "flm1-blk"),
                self._history,
                self._answer,
                self._error,
                self._target,
                self._text,
                widgets.HBox([*self._buttons.values(), self._turn], layout=widgets.Layout(flex_flow="row wrap")),
            ]
        )

    def _send_clicked(self, _: object) -> None:
        text, place = self._text.value, self._target.value
        if not text.strip():
            return
        self._text.value = ""
        self.send(text, edit=None if place == _NEW else place)

    def _target_chosen(self, change: Any) -> None:
        if change["new"] != _NEW:
            self._text.value = self.chat.messages[change["new"]].content
