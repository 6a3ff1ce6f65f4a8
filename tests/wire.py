"""A page without a browser: comms and displays that are noted and go nowhere."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import comm
import comm.base_comm
import pytest

from fastllm.widgets import _view

__all__ = ["Wire", "opened", "until"]


class Wire:
    """Everything that would go to the page."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str, dict[str, Any]]] = []
        self.displays: list[tuple[str, dict[str, Any], bool]] = []

    @property
    def bytes(self) -> int:
        return sum(len(json.dumps(data)) for _, _, data in self.messages)

    def text(self) -> str:
        """All HTML sent, in order."""
        return "".join(json.dumps(data) for _, _, data in self.messages)

    def final_html(self) -> str:
        """What the last frozen copy says."""
        return next(
            str(bundle["text/html"]) for _, bundle, update in reversed(self.displays) if update and bundle["text/html"]
        )


class _Comm(comm.base_comm.BaseComm):
    wire: Wire

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        self.wire.messages.append((time.monotonic(), msg_type, data or {}))


@contextlib.contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A page, until the end of the block."""
    found = Wire()
    kind = type("NotedComm", (_Comm,), {"wire": found})
    monkeypatch.setattr(comm, "create_comm", kind)
    manager = comm.base_comm.CommManager()
    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    from ipywidgets.widgets import widget

    if hasattr(widget, "comm"):
        monkeypatch.setattr(widget.comm, "create_comm", kind)

    class Page:
        @staticmethod
        def display(bundle: Any, *, raw: bool = False, display_id: str = "", **_: Any) -> None:
            found.displays.append((display_id, bundle, False))

        @staticmethod
        def update_display(bundle: Any, *, raw: bool = False, display_id: str = "") -> None:
            found.displays.append((display_id, bundle, True))

    from fastllm.widgets import stream

    monkeypatch.setattr(_view, "page", lambda: Page)
    for module in (_view, stream):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    yield found
    _view._finished.clear()
    widget.Widget.close_all()
    gc.collect()


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)
