"""Buttons that are heard while a cell runs.

From ipykernel 7 on, a page sends what widgets do to a thread of its own, a subshell, so that it arrives while a cell
blocks the kernel; but 7.4 hands it back to the thread that used the widget last, which is the blocked one. A button
whose action may run in any thread need not go back. Before 7, the kernel hears of a button when the cell is over. While
a cell awaits, though, its event loop takes the message off the wire and it lies in the kernel's queue, where `clicked`
finds it; it is left there, and is handled once more when its turn comes. A cell that blocks can only be interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from fastllm.widgets._view import common, stock

__all__ = ["clicked", "how_to_interrupt", "stop_button"]


def stop_button(action: Callable[..., None], description: str = "Stop", tooltip: str = "", **options: Any) -> Any:
    """A button for an action that may run in any thread, at once, and more than once."""
    options.setdefault("style", common("button", stock().ButtonStyle))
    options.setdefault("layout", common("layout", stock().Layout))
    button = stock().Button(description=description, icon="stop", tooltip=tooltip, **options)
    button.on_click(action)
    if hasattr(button.comm, "_reply_subshell_for"):
        button.comm._reply_subshell_for = _as_sent
    return button


def _as_sent(_data: object, subshell: Any) -> Any:
    """To the subshell to which the page has sent it."""
    return subshell


def _version() -> int:
    version: tuple[Any, ...] = getattr(sys.modules.get("ipykernel"), "version_info", (7,))
    return int(version[0])


def how_to_interrupt() -> str:
    """What to do about a cell that blocks its kernel, where a button cannot reach it; "" where it can."""
    if _version() >= 7:
        return ""
    return "While this cell runs, its kernel does not hear the button: press I twice to interrupt it, or use await."


def clicked(button: Any) -> bool:
    """Whether a click of the button lies in the queue of a kernel before ipykernel 7. Call it on the kernel's loop."""
    if _version() >= 7 or getattr(button, "comm", None) is None:
        return False
    try:
        kernel = sys.modules["IPython"].get_ipython().kernel
        waiting = [entry[2][0] for entry in tuple(kernel.msg_queue._queue) if entry[2]]
        return any(_is_click(parts, button.comm.comm_id) for parts in waiting if isinstance(parts, list))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False  # another kernel, with another queue: then the click is heard when the cell is over


def _is_click(parts: list[Any], comm_id: str) -> bool:
    frames = [bytes(getattr(part, "bytes", part)) for part in parts]
    _, header, _, _, content = frames[frames.index(b"<IDS|MSG>") + 1 :][:5]
    if json.loads(header)["msg_type"] != "comm_msg":
        return False
    told = json.loads(content)
    return bool(told["comm_id"] == comm_id and told["data"].get("content", {}).get("event") == "click")
