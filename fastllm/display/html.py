"""The few shapes of HTML that displays are made of. Arguments are HTML already, unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastllm.display.escape import bdi, clip, esc

__all__ = ["alert", "facts", "image", "number", "progress", "row", "scroll", "svg", "table"]


def scroll(label: str, body: str) -> str:
    """A box that scrolls by itself when what is in it is wide, for the keyboard, too; ``label`` is plain text."""
    return f'<div class="flm1-scroll" tabindex="0" role="region" aria-label="{esc(label)}">{body}</div>'


def table(rows: Iterable[str], *, caption: str = "", head: Sequence[str] = ()) -> str:
    """A table of rows."""
    top = f"<caption>{caption}</caption>" if caption else ""
    first = "<tr>" + "".join(f'<th scope="col">{words}</th>' if words else "<td></td>" for words in head) + "</tr>"
    return f'<table class="flm1-t">{top}{first if head else ""}{"".join(rows)}</table>'


def row(name: str, *cells: str) -> str:
    """A table row that begins with a name; cells are `number` or bring their own ``<td>``."""
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def number(words: object, *, bad: bool = False) -> str:
    """A cell of digits, aligned at its end; plain text."""
    return f'<td class="n{" flm1-bad" if bad else ""}">{esc(words)}</td>'


def facts(pairs: Iterable[tuple[str, object]], *, caption: str = "", limit: int = 400) -> str:
    """A table of names and values, both plain text."""
    return table((row(esc(name), f"<td>{bdi(clip(str(value), limit))}</td>") for name, value in pairs), caption=caption)


def alert(text: str) -> str:
    """Bad news that a screen reader tells at once; plain text."""
    return f'<div class="flm1-bad" role="alert"><p>{esc(clip(text, 2000))}</p></div>'


def progress(label: str, share: float, style: str = "") -> str:
    """A bar that fills; ``label`` is plain text, ``share`` 0 to 1."""
    percent = round(100 * min(1.0, max(0.0, share)))
    return (
        f'<div class="flm1-prog" role="progressbar" aria-label="{esc(label)}" aria-valuemin="0" aria-valuemax="100"'
        f' aria-valuenow="{percent}" style="{style}"><div style="width:{percent}%"></div></div>'
    )


def svg(width: float, height: float, label: str, body: str, style: str = "") -> str:
    """A drawing of so many pixels; ``label`` is plain text and says all that it shows."""
    more = f' style="{style}"' if style else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
        f' aria-label="{esc(label)}"{more}>{body}</svg>'
    )


def image(address: str, alt: str, width: int, height: int) -> str:
    """A picture; ``alt`` is plain text."""
    return f'<img src="{address}" alt="{esc(alt)}" width="{width}" height="{height}">'
