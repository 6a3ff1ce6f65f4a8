"""The one place where text becomes HTML.

Everything a display shows passes through `esc`: markup characters become entities, control characters visible
pictures, lone surrogates U+FFFD. Direction-changing characters stay what they are; the elements around them are
isolated (``dir="auto"``, ``<bdi>``), so they cannot reach beyond their own text.
"""

from __future__ import annotations

import base64
import html
import re

__all__ = ["bdi", "clip", "data_uri", "esc", "visible"]

_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"
_PICTURES.update(dict.fromkeys((*range(128, 160), 65534, 65535), "�"))
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")  # the keys of _PICTURES
_VISIBLE = {0x0A: "\u21b5", 0x09: "\u21e5", 0x20: "\u2423"}


def esc(text: object) -> str:
    """Text as HTML, good for element content and for quoted attributes; newlines and tabs stay."""
    plain = str(text)
    if _ODD.search(plain):
        plain = plain.translate(_PICTURES)
    if not plain.isascii():
        plain = plain.encode("utf-8", "replace").decode("utf-8") if _has_surrogates(plain) else plain
    return html.escape(plain, quote=True)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def clip(text: str, limit: int) -> str:
    """The text, or so many characters of it with an ellipsis as the last."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible(text: str, limit: int = 40) -> str:
    """A token's text on one line: newlines, tabs and outer spaces as symbols, clipped; not escaped yet."""
    text = clip(text, limit)
    body = text.strip(" ")
    if not body:
        return text.translate(_VISIBLE)
    lead, tail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "\u2423" * lead + body.translate({0x0A: _VISIBLE[0x0A], 0x09: _VISIBLE[0x09]}) + "\u2423" * tail


def bdi(text: object) -> str:
    """Text in an element that its direction cannot leave."""
    return f"<bdi>{esc(text)}</bdi>"


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
