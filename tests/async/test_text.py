"""Text and bytes of a stream, whatever the tokens' borders and the stop strings are (property tests)."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nullmodel import null_model

CHUNKS = ["a", "ab", " ", "\n", "é", "中文", "你好", "👨‍👩‍👧", "🏳️‍🌈", "𝔘", "e\u0301", "x" * 5, "</", "think>", "END"]

STOPS = ["b ", "中", "</think>", "ENDx", "👩", "\n\n", "xx"]


@st.composite
def tables(draw: Any) -> tuple[bytes, list[bytes]]:
    """A text's bytes, and the same cut at arbitrary places: inside characters, too."""
    data = "".join(draw(st.lists(st.sampled_from(CHUNKS), min_size=1, max_size=12))).encode()
    if draw(st.booleans()):
        data += draw(st.binary(max_size=4))  # byte fallback: not always UTF-8
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    return data, pieces


def cut_at_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What is left of a text when it is read until the first stop string is complete."""
    best: tuple[int, int] | None = None
    found = None
    for stop in stops:
        at = text.find(stop)
        if at >= 0 and (best is None or (at + len(stop), at) < best):
            best, found = (at + len(stop), at), stop
    return (text, None) if best is None else (text[: best[1]], found)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    table=tables(), stops=st.lists(st.sampled_from(["b ", "中", "</think>", "ENDx", "👩", "\n\n", "xx"]), max_size=3)
)
def test_text_and_bytes_survive_any_token_borders(table: tuple[bytes, list[bytes]], stops: list[str]) -> None:
    data, pieces = table
    whole = data.decode("utf-8", "replace")

    async def read() -> Any:
        async with null_model([b"<start>", *pieces, b""], context_length=100, kv_memory=1 << 20) as model:
            stream = model.stream([0], max_new_tokens=len(pieces), stop=stops)
            tokens = [token async for token in stream]
            return tokens, stream.completion

    tokens, completion = anyio.run(read)
    want, stop = cut_at_stop(whole, stops)
    assert completion.text == want
    assert "".join(token.text for token in tokens) == want
    if stop is None:
        assert b"".join(token.bytes for token in tokens) == data
        assert completion.finish_reason == "length"
    else:
        assert (completion.finish_reason, completion.stop) == ("stop", stop)
        assert b"".join(token.bytes for token in tokens).decode("utf-8", "replace") == want
    shown = ""
    for token in tokens:
        shown += token.text
        assert want.startswith(shown)


@pytest.mark.anyio
async def test_text_is_held_back_no_longer_than_needed(make_model: Any) -> None:
    model = make_model([b"?", b"a", b"</", b"thin", b"g", b"</thi", b"nk>", b"z"])
    stream = model.stream([0], max_new_tokens=7, stop="</think>")
    texts = [token.text async for token in stream]
    assert texts == ["a", "", "", "</thing", "", ""]
    assert stream.text == "a</thing"


@pytest.mark.anyio
async def test_a_broken_character_at_the_end_becomes_one_replacement(make_model: Any) -> None:
    model = make_model([b"?", b"ok", "中".encode()[:2]])
    completion = await model.generate([0], max_new_tokens=2)
    assert completion.text == "ok\ufffd"
    assert b"".join(token.bytes for token in completion.tokens) == b"ok" + "中".encode()[:2]
