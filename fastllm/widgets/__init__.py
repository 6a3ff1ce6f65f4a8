"""Live displays: stock ipywidgets around the pure renderers of `fastllm.display`. Imported when first used.

No script of ours runs in the page; buttons call plain functions that may be called from any thread; updates are few
and small; and what is over is replaced by a static copy that needs no kernel.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle
    from fastllm.widgets._view import freeze_all
    from fastllm.widgets.batch import BatchView
    from fastllm.widgets.chat import ChatPanel
    from fastllm.widgets.exchange import ExchangeView
    from fastllm.widgets.inside import AttentionView, LensView
    from fastllm.widgets.monitor import MonitorView
    from fastllm.widgets.sampling import SamplingLab
    from fastllm.widgets.stream import TokenStreamView
    from fastllm.widgets.tensor import TensorView

__all__ = [
    "AttentionView", "BatchView", "ChatPanel", "ExchangeView", "LensView", "MonitorView", "SamplingLab",
    "TensorView", "TokenStreamView", "display_stream", "freeze_all", "show",
]  # fmt: skip

_HOMES = {
    "AttentionView": "inside",
    "BatchView": "batch",
    "ChatPanel": "chat",
    "ExchangeView": "exchange",
    "LensView": "inside",
    "MonitorView": "monitor",
    "SamplingLab": "sampling",
    "TensorView": "tensor",
    "TokenStreamView": "stream",
    "freeze_all": "_view",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastllm.widgets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastllm.widgets.{_HOMES[name]}"), name)


def show(thing: Any, /, **options: Any) -> Any:
    """Shows one of fastllm's objects live.

    Args:
        thing: A stream (it is read by its view), several streams or a `BatchStream`, a `Tensor`, a `Chat`, a `Model`
            (its monitor), a `Capture` (its attention), a `LogitLens`, or anything that a notebook can display.
        **options: Of the view that fits: ``shade`` of a stream, ``labels`` of a batch. With ``exchange=True`` the
            tokens of a stream can be exchanged for others, and the answer goes on from there.

    Returns:
        The view, already on the page; ``await`` that of a stream or batch for the result. Of a blocking stream it
        comes back at the end.
    """
    from fastllm.batch import BatchStream
    from fastllm.blocking import BlockingStream
    from fastllm.capture import Capture, LogitLens
    from fastllm.chat import Conversation
    from fastllm.model import Model
    from fastllm.stream import RequestHandle
    from fastllm.tensor import Tensor
    from fastllm.widgets._view import View, page

    view: View
    if isinstance(thing, RequestHandle):
        if options.pop("exchange", False):
            from fastllm.widgets.exchange import ExchangeView

            view = ExchangeView(thing, **options)
        else:
            from fastllm.widgets.stream import TokenStreamView

            view = TokenStreamView(thing, **options)
    elif isinstance(thing, BatchStream) or (
        isinstance(thing, list | tuple) and thing and all(isinstance(item, RequestHandle) for item in thing)
    ):
        from fastllm.widgets.batch import BatchView

        view = BatchView(thing, **options)
    elif isinstance(thing, Tensor):
        from fastllm.widgets.tensor import TensorView

        view = TensorView(thing, **options)
    elif isinstance(thing, Conversation):
        from fastllm.widgets.chat import ChatPanel

        view = ChatPanel(thing, **options)
    elif isinstance(thing, Model):
        from fastllm.widgets.monitor import MonitorView

        view = MonitorView(thing, **options)
    elif isinstance(thing, Capture):
        from fastllm.widgets.inside import AttentionView

        view = AttentionView(thing.attention, thing.labels, layers=thing.layers, **options)
    elif isinstance(thing, LogitLens):
        from fastllm.widgets.inside import LensView

        view = LensView(thing, **options)
    else:
        return page().display(thing, **options)
    view.show()
    if isinstance(thing, BlockingStream):
        view.wait(thing.cancel)
    return view


def display_stream(handle: RequestHandle) -> None:
    """Displays a stream: live and read by its view if it is fresh and this is a notebook, else as it stands."""
    from fastllm.widgets._source import is_fresh
    from fastllm.widgets._view import in_notebook, page

    if in_notebook() and importlib.util.find_spec("ipywidgets") is not None and is_fresh(handle):
        show(handle)
        return
    bundle = {"text/plain": repr(handle)}
    if in_notebook():
        bundle["text/html"] = handle._repr_html_()
    page().display(bundle, raw=True)
