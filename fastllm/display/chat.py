"""A conversation: who said what, how answers ended, and where it branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastllm.display.escape import clip, esc
from fastllm.display.style import wrap

if TYPE_CHECKING:
    from fastllm.chat import ChatNode

__all__ = ["conversation_html", "message_html"]

_MAX_BYTES = 90_000
_KINDS = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}


def message_html(
    role: str, content: str, *, note: str = "", branches: str = "", name: str | None = None, room: int = 20_000
) -> str:
    """One message; ``note`` tells how an answer ended, ``branches`` that there are others beside it."""
    extra = "".join(f" · {esc(words)}" for words in (note, branches) if words)
    who = esc(role if name is None else f"{role} {name}")
    cut = "" if len(content) <= room else f"<p>Cut after {room - 1} of {len(content)} characters.</p>"
    return (
        f'<div class="flm1-msg {_KINDS.get(role, "other")}"><b>{who}{extra}</b>'
        f'<div class="flm1-text" dir="auto" style="white-space:pre-wrap">{esc(clip(content, room))}</div>{cut}</div>'
    )


def conversation_html(
    path: Sequence[ChatNode], *, alternatives: Mapping[int, tuple[int, int]] | None = None, style: bool = True
) -> str:
    """The messages of a conversation.

    Args:
        path: Its nodes, first message first.
        alternatives: For nodes with others beside them, by index: which of how many this is.
        style: Whether to bring the stylesheet along.
    """
    known = alternatives or {}
    room = _MAX_BYTES // max(1, len(path))
    parts = []
    for node in path:
        note = (node.finish_reason or "being read") if node.is_partial else ""
        place = known.get(node.index)
        branches = f"{place[0]} of {place[1]}" if place is not None and place[1] > 1 else ""
        message = node.message
        parts.append(
            message_html(message.role, message.content, note=note, branches=branches, name=message.name, room=room)
        )
    return wrap("".join(parts) or '<p class="flm1-dim">Nothing was said yet.</p>', label="conversation", style=style)
