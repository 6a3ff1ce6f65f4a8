"""Tokens into HTML, fast: what can be known of a token before it comes is made once and remembered.

A live display writes every token of an answer, while the engine needs the same processor. So nothing is formatted or
escaped twice: texts are kept by token, numbers come from tables, and a token that can be pointed at costs little more
than joining a dozen strings. One that cannot is part of a run (`fastllm.display.rows`). The engine's own records are
read as they are; `Token` objects are made into such records first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from fastllm.display.escape import clip, esc, visible
from fastllm.display.numbers import duration, percent, text_bar
from fastllm.types import Token

if TYPE_CHECKING:
    from fastllm.display.rows import Rows

__all__ = [
    "Row",
    "Shade",
    "SpecialName",
    "TokenWriter",
    "as_row",
    "entropy_of",
    "gaps_of",
    "level_of",
    "table_row_of",
    "tip_of",
]

Row: TypeAlias = "tuple[int, str, bytes, int, float | None, Sequence[tuple[int, str, float]], bool, float | None]"
"""id, text, bytes, index, logprob, alternatives (id, text, logprob), special, seconds: as the engine gives it."""

Shade: TypeAlias = Literal["off", "probability", "entropy", "rank", "cached"]
"""What the background behind a token tells."""

SpecialName: TypeAlias = Callable[[int], str]
ALTERNATIVES = 6  # lines of a tip
ENTROPY_STEP = 0.4  # bits a shade

_exp = math.exp
_PERCENTS = [percent(k / 1000) for k in range(1001)] + [percent(1e-9)]
_LINES = [f"{words:>7} {text_bar(k / 1000 if k <= 1000 else 0.0)} " for k, words in enumerate(_PERCENTS)]
_PERCENTS_HTML = [esc(words) for words in _PERCENTS]
_LINES_HTML = [esc(words) for words in _LINES]
_LEVELS = [""] + [f" s{step}" for step in range(1, 10)]


def as_row(token: Token) -> Row:
    """A token as the engine would give it."""
    top = [(other.id, other.text, other.logprob) for other in token.top]
    return token.id, token.text, token.bytes, token.index, token.logprob, top, token.special, token.time_s


def _place(logprob: float) -> int:
    """The place of a probability in the tables: thousandths, or the last for what is less but not nothing."""
    share = _exp(logprob) if logprob < 0.0 else 1.0
    return int(share * 1000.0 + 0.5) or (1001 if share > 0.0 else 0)


@functools.lru_cache(maxsize=16_384)
def _text_html(text: str) -> str:
    return esc(text)


@functools.lru_cache(maxsize=16_384)
def _name(text: str, limit: int, html: bool) -> str:
    """A token's text on one line."""
    words = visible(text, limit)
    return esc(words) if html else words


@functools.lru_cache(maxsize=16_384)
def _facts(id_: int, text: str, data: bytes, html: bool) -> tuple[str, str]:
    """What a tip says of a token wherever it stands: before its probability, and behind."""
    said = repr(clip(data.decode("utf-8", "replace") or text, 24))
    behind = f"bytes {data[:12].hex(' ')}{' …' if len(data) > 12 else ''}" if data else "no bytes"
    return f"{esc(said) if html else said}  id {id_}", f"  {behind}"


def _rank(id_: int, top: Sequence[tuple[int, str, float]]) -> str:
    """Its place among the alternatives, in words; "" without them."""
    for place, other in enumerate(top, 1):
        if other[0] == id_:
            return f"rank {place}"
    return f"rank >{len(top)}" if top else ""


def tip_of(row: Row, since_s: float | None = None, *, html: bool = False) -> str:
    """What pointing at a token tells, a line each: facts, then the alternatives with bars.

    Args:
        row: The token.
        since_s: Seconds since the token before it.
        html: Whether it is to stand in an attribute: escaped, lines parted by a character reference.
    """
    id_, text, data, _, logprob, top, _, _ = row
    before, behind = _facts(id_, text, data, html)
    said = before
    if logprob is not None:
        said += f"  p {(_PERCENTS_HTML if html else _PERCENTS)[_place(logprob)]}  logprob {logprob:.3f}"
    if top:
        rank = _rank(id_, top)
        said += f"  {rank.replace('>', '&gt;') if html else rank}"
    said += behind
    if since_s is not None:
        said += f"  +{since_s * 1e3:.1f} ms" if since_s < 0.01 else f"  +{duration(since_s)}"
    end, lines = ("&#10;", _LINES_HTML) if html else ("\n", _LINES)
    for other in top[:ALTERNATIVES]:
        mark = "▸" if other[0] == id_ else " "
        said += f"{end}{mark}{lines[_place(other[2])]}{_name(other[1], 28, html)}"
    return said


def table_row_of(row: Row, since_s: float | None = None) -> str:
    """A token as a row of the table: place, text, id, bytes, probability, rank, alternatives, milliseconds."""
    id_, text, data, index, logprob, top, _, _ = row
    others = ", ".join(
        [f"{_name(other[1], 20, True)} {_PERCENTS_HTML[_place(other[2])]}" for other in top[:ALTERNATIVES]]
    )
    rank = _rank(id_, top)[5:].replace(">", "&gt;")
    code = f"{data[:12].hex(' ')}{'…' if len(data) > 12 else ''}"
    share = "" if logprob is None else _PERCENTS_HTML[_place(logprob)]
    return (
        f'<tr><td class="n">{index}</td><td><bdi>{_name(text, 40, True)}</bdi></td><td class="n">{id_}</td>'
        f'<td class="n">{code}</td><td class="n">{share}</td><td class="n">{rank}</td>'
        f"<td>{f'<bdi>{others}</bdi>' if others else ''}</td>"
        f'<td class="n">{"" if since_s is None else f"{since_s * 1e3:.1f}"}</td></tr>'
    )


def gaps_of(rows: Sequence[Row]) -> list[float | None]:
    """Seconds between each token and the one before it; None where that says nothing."""
    found: list[float | None] = []
    before_s: float | None = None
    for row in rows:
        since_s = None if before_s is None or row[7] is None or row[3] < 0 else row[7] - before_s
        found.append(
            None if since_s is None or since_s < 0.0 else since_s
        )  # less than 0: a fork's first, behind others
        before_s = row[7]
    return found


def entropy_of(top: Sequence[tuple[int, str, float]]) -> float:
    """Bits of surprise to be expected, at least: what is not among the alternatives counts as one more of them."""
    known = [_exp(other[2]) for other in top]
    rest = max(0.0, 1.0 - math.fsum(known))
    return -math.fsum(p * math.log2(p) for p in [*known, rest] if p > 0)


def level_of(row: Row, shade: Shade, *, cached: int = 0, prompt_tokens: int = 0) -> int:
    """How strong a token's background is: 0 (none) to 9; arguments as `fastllm.display.tokens.level`."""
    id_, _, _, index, logprob, top, _, _ = row
    if shade == "probability":
        return 0 if logprob is None or logprob >= 0.0 else min(9, int((1.0 - _exp(logprob)) * 10))
    if shade == "off":
        return 0
    if shade == "cached":
        return 5 if index < 0 and index + prompt_tokens < cached else 0
    if not top:
        return 0
    if shade == "entropy":
        return min(9, int(entropy_of(top) / ENTROPY_STEP))
    rank = next((place for place, other in enumerate(top, 1) if other[0] == id_), 0)
    return 9 if rank == 0 else {1: 0, 2: 3, 3: 5}.get(rank, 7)


def _special_name(id_: int, top: Sequence[tuple[int, str, float]]) -> str:
    return next((other[1] for other in top if other[0] == id_ and other[1]), f"token {id_}")


class TokenWriter:
    """Writes the tokens of one text, one after the other.

    Attributes:
        parts: The HTML of each token written so far.
        group: Name shared by the tokens among which the arrow keys move.
    """

    def __init__(
        self,
        *,
        shade: Shade = "probability",
        group: str = "flm1",
        tips: bool = True,
        special_name: SpecialName | None = None,
        cached: int = 0,
        prompt_tokens: int = 0,
        before_s: float | None = None,
    ) -> None:
        """Begins a text.

        Args:
            shade: What the backgrounds tell.
            group: See the attribute.
            tips: Whether tokens can be pointed at.
            special_name: Names control tokens, by id.
            cached: Prompt tokens that came from the prefix cache.
            prompt_tokens: Length of the prompt; echoed tokens count from minus this.
            before_s: When the token before the first came.
        """
        self.parts: list[str] = []
        self.group = group
        self._shade: Shade = shade
        self._tips = tips
        self._special = special_name
        self._chips: dict[int, str] = {}
        self._cached, self._prompt_tokens = cached, prompt_tokens
        self._before_s = before_s
        # The notebook's own shortcuts would take the arrow keys otherwise: it asks the focused element itself.
        self._radio = f'<input type="radio" hidden data-lm-suppress-shortcuts name="{group}" aria-label="'

    def write(self, rows: Iterable[Row]) -> list[str]:
        """Adds tokens to `parts`; returns what was added."""
        fresh = list(map(self._tipped if self._tips else self._plain, rows))
        self.parts += fresh
        return fresh

    def one(self, row: Row, *, tip: bool = True) -> str:
        """The HTML of a token that may yet change, as what comes next; it is not added."""
        before_s = self._before_s
        try:
            return self._tipped(row) if tip and self._tips else self._plain(row)
        finally:
            self._before_s = before_s

    def runs(self, rows: Rows, start: int, stop: int) -> list[tuple[str, int]]:
        """Tokens that cannot be pointed at: the HTML of neighbours of one shade, and how many they are. Not added."""
        runs = rows.runs(start, stop, shade=self._shade, cached=self._cached, prompt_tokens=self._prompt_tokens)
        found = []
        for step, text, count in runs:
            if step > 0:
                found.append((f'<span class="s{step}">{esc(text)}</span>', count))
            else:
                found.append((esc(text) if step == 0 else self._chip(-1 - step, ()), count))
        return found

    def _level(self, row: Row) -> str:
        return _LEVELS[level_of(row, self._shade, cached=self._cached, prompt_tokens=self._prompt_tokens)]

    def _chip(self, id_: int, top: Sequence[tuple[int, str, float]]) -> str:
        if id_ not in self._chips:
            name = _special_name(id_, top) if self._special is None else self._special(id_)
            self._chips[id_] = f'<span class="flm1-sp">{esc(clip(name, 40))}</span>'
        return self._chips[id_]

    def _text(self, row: Row) -> str:
        return self._chip(row[0], row[5]) if row[6] and not row[1] else _text_html(row[1])

    def _plain(self, row: Row) -> str:
        kind = self._level(row)
        return f'<span class="{kind[1:]}">{self._text(row)}</span>' if kind else self._text(row)

    def _tipped(self, row: Row) -> str:
        id_, text, _, index, logprob, top, _, time_s = row
        before_s, self._before_s = self._before_s, time_s
        since_s = None if before_s is None or time_s is None or index < 0 else time_s - before_s
        if since_s is not None and since_s < 0.0:  # the first token of a fork, behind those of another request
            since_s = None
        label = _name(text, 24, True) or "no text yet"
        if logprob is not None:
            label += f", {_PERCENTS_HTML[_place(logprob)]}"
        if top:
            label += f", {_rank(id_, top).replace('>', '&gt;')}"
        return (
            f'<label class="flm1-k{self._level(row)}" data-tip="{tip_of(row, since_s, html=True)}">'
            f'{self._radio}{label}">{self._text(row)}</label>'
        )
