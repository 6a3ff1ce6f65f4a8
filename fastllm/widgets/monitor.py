"""The engine, watched: twice a second a snapshot, with a line of the speeds before it."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from fastllm.display.monitor import MonitorRow, monitor_html, monitor_text
from fastllm.display.style import style_tag
from fastllm.widgets._view import View, html_widget, stock

if TYPE_CHECKING:
    from fastllm.model import Model

__all__ = ["MonitorView"]


class MonitorView(View):
    """A model's engine at work, until `stop` or until the model is closed. It does not keep the model alive."""

    def __init__(self, model: Model, /, *, every_s: float = 0.5, for_s: float | None = None) -> None:
        """Begins to watch.

        Args:
            model: What to watch.
            every_s: Seconds between two snapshots.
            for_s: Seconds until it stops by itself; None: it does not.
        """
        super().__init__()
        self._model = weakref.ref(model)
        self._name, self._kv_dtype = model.info.name, model.info.kv_dtype
        self._every_s, self._for_s = max(0.1, every_s), for_s
        self._next = 0.0
        self._until: float | None = None
        self._speeds: deque[float] = deque(maxlen=120)
        self._stats = model.stats()
        self._requests: list[MonitorRow] = []
        self._stopped = False
        self._out: Any = None
        self._start()

    def stop(self, *_: object) -> None:
        """Ends the watching; what was seen last stays. From any thread or callback."""
        self._stopped = True

    def _look(self, now: float) -> bool:
        if self._until is None and self._for_s is not None:
            self._until = now + self._for_s
        model = self._model()
        over = self._stopped or model is None or model.closed or (self._until is not None and now >= self._until)
        if (over or now >= self._next) and model is not None:
            self._next = now + self._every_s
            self._stats = model.stats()
            self._speeds.append(self._stats.decode_tps)
            self._requests = _rows(model)
            if self._out is not None:
                self._out.value = self._html(style=False)
        if over and self._out is not None:
            self._button.disabled = True
        return not over

    def _html(self, *, style: bool) -> str:
        return monitor_html(
            self._stats,
            rows=self._requests,
            speeds=list(self._speeds),
            name=self._name,
            kv_dtype=self._kv_dtype,
            style=style,
        )

    def _build(self) -> Any:
        self._out = html_widget(self._html(style=False), "flm1-blk")
        self._button = stock().Button(description="Stop watching", tooltip="Ends the display; the engine goes on.")
        self._button.on_click(self.stop)
        return stock().VBox([html_widget(style_tag(), "flm1-blk"), self._out, self._button])

    def _static(self) -> tuple[str, str]:
        return monitor_text(self._stats), self._html(style=True)


def _rows(model: Model) -> list[MonitorRow]:
    found = []
    for request in model.delivery.requests():
        state = request.state
        if state != "done":
            if state == "queued" and (ahead := request.ahead):
                state = f"queued, {ahead} before it"
            found.append(
                MonitorRow(name=f"req-{request.id}", state=state, progress=request.progress, unread=request.unread)
            )
    return found
