"""The way up from the objects of the SDK to their displays, taken only when one is asked for.

A completion knows nothing of HTML, and importing fastllm imports no display; the method that a notebook calls comes
through here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["display_stream", "html", "memory", "show", "treescope_adapter"]


def html(thing: object) -> str:
    """The static HTML of one of fastllm's objects."""
    from fastllm.display import html_of

    return html_of(thing)


def show(thing: Any, /, **options: Any) -> Any:
    """Shows one of fastllm's objects live: a stream, a batch, a tensor, a chat, a model.

    ``await fastllm.show(model.stream("..."))`` in a notebook shows the answer as it comes and gives the completion.

    Args:
        thing: What to show.
        **options: Of the view: ``shade="probability"`` and so on.

    Returns:
        The view, already on the page.
    """
    from fastllm.widgets import show as show_live

    return show_live(thing, **options)


def display_stream(handle: Any) -> None:
    """What a notebook does with a stream that a cell ends with: see `RequestHandle._ipython_display_`."""
    from fastllm.widgets import display_stream as display_live

    display_live(handle)


def memory(model: Any) -> Any:
    """Where a model's memory goes."""
    from fastllm.display import memory_of

    return memory_of(model)


def treescope_adapter() -> Any:
    """What treescope asks a tensor for."""
    from fastllm.display import treescope_adapter as adapter

    return adapter()
