"""The incremental detokenizer against a naive one that sees the whole text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

core = pytest.importorskip("fastllm._core", reason="the native module is not built")

EMOJI = "👩‍👩‍👧‍👦🇨🇳👍🏽"
SAMPLES = ["Hello, world", "你好，世界", "naïve café", EMOJI, "a\n\tb", "</think>", "日本語テキスト", "𝒳²", "\ufffd"]


def characters(data: bytes) -> list[tuple[str, bytes, bool]]:
    """(text, raw bytes, malformed) for each character, malformed subparts as Python's own decoder delimits them."""
    found: list[tuple[str, bytes, bool]] = []
    position = 0
    while position < len(data):
        try:
            found += [(c, c.encode(), False) for c in data[position:].decode()]
            break
        except UnicodeDecodeError as error:
            found += [(c, c.encode(), False) for c in data[position : position + error.start].decode()]
            found.append(("\ufffd", data[position + error.start : position + error.end], True))
            position += error.end
    assert "".join(text for text, _, _ in found) == data.decode(errors="replace")
    return found


def reference(data: bytes, stops: list[str], *, include_stop: bool) -> tuple[str, bytes, str | None]:
    """(text, bytes, matched stop) of the whole stream: the first stop string to be complete, the longest of those."""
    found = characters(data)
    window = ""  # since the last malformed part
    for end, (text, _, malformed) in enumerate(found, 1):
        window = "" if malformed else window + text
        matches = [stop for stop in stops if window.endswith(stop)]
        if matches:
            stop = max(matches, key=lambda s: len(s.encode()))
            kept = found[: end if include_stop else end - len(stop)]
            return "".join(t for t, _, _ in kept), b"".join(b for _, b, _ in kept), stop
    return "".join(t for t, _, _ in found), b"".join(b for _, b, _ in found), None


def held_back(data: bytes, stops: list[str]) -> tuple[int, int]:
    """(bytes of text, bytes of the incomplete character) to hold after `data`, in which no stop is complete."""
    pending = 0  # of a character that may still be completed
    for size in range(1, min(4, len(data)) + 1):
        try:
            data[-size:].decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and error.start == 0:
                pending = size
    window = b""
    for text, _, malformed in characters(data[: len(data) - pending]):
        window = b"" if malformed else window + text.encode()
    window += data[len(data) - pending :]
    longest = 0
    for stop in stops:
        encoded = stop.encode()
        for size in range(1, len(encoded)):
            if window.endswith(encoded[:size]):
                longest = max(longest, size)
    return (longest - pending, pending) if longest >= pending and longest > 0 else (0, 0)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def run(pieces: list[bytes], **options: object) -> tuple[list[str], list[bytes], bool]:
    vocab = core.Vocab([*pieces, b""], [False] * (len(pieces) + 1))
    detokenizer = core.Detokenizer(vocab, **options)
    texts, parts, stopped = [], [], False
    for token in range(len(pieces)):
        text, data, stopped = detokenizer.push(token)
        texts.append(text)
        parts.append(data)
        if stopped:
            break
    text, data = detokenizer.finish()
    texts.append(text)
    parts.append(data)
    assert detokenizer.finish() == ("", b"")
    return texts, parts, stopped


texts = st.text(alphabet=st.sampled_from("abAB<>/\n你好é👍🏽‍👩\ufffd"), max_size=30) | st.sampled_from(SAMPLES)
streams = (
    texts.map(str.encode)
    | st.binary(max_size=24)
    | st.tuples(texts, st.binary(max_size=4), texts).map(lambda t: t[0].encode() + t[1] + t[2].encode())
)
stop_lists = st.lists(
    st.text(alphabet=st.sampled_from("abAB<>/\n你好é👍🏽‍👩\ufffd"), min_size=1, max_size=4), max_size=4
)
cut_lists = st.lists(st.integers(0, 200), max_size=30)


@settings(max_examples=400, deadline=None)
@given(streams, cut_lists)
def test_text_is_what_python_decodes_and_bytes_are_exact(data: bytes, cuts: list[int]) -> None:
    texts, parts, stopped = run(cut(data, cuts))
    assert "".join(texts) == data.decode(errors="replace")
    assert b"".join(parts) == data
    assert not stopped


@settings(max_examples=200, deadline=None)
@given(streams, cut_lists)
def test_without_stop_strings_bytes_come_with_their_token(data: bytes, cuts: list[int]) -> None:
    pieces = cut(data, cuts)
    _, parts, _ = run(pieces)
    assert parts == [*pieces, b""]


@settings(max_examples=800, deadline=None)
@given(streams, cut_lists, stop_lists, st.booleans())
def test_stop_strings_do_not_depend_on_the_cut(
    data: bytes, cuts: list[int], stops: list[str], include_stop: bool
) -> None:
    texts, parts, stopped = run(cut(data, cuts), stop=stops, include_stop=include_stop)
    text, raw, stop = reference(data, stops, include_stop=include_stop)
    assert ("".join(texts), b"".join(parts), stopped) == (text, raw, stop is not None)


@settings(max_examples=800, deadline=None)
@given(streams, cut_lists, stop_lists)
def test_held_back_is_exactly_what_may_begin_a_stop_string(data: bytes, cuts: list[int], stops: list[str]) -> None:
    pieces = cut(data, cuts)
    detokenizer = core.Detokenizer(core.Vocab([*pieces, b""], [False] * (len(pieces) + 1)), stop=stops)
    seen, released, released_text = b"", b"", ""
    for token, piece in enumerate(pieces):
        text, raw, stopped = detokenizer.push(token)
        seen += piece
        if reference(seen, stops, include_stop=False)[2] is not None:
            assert stopped
            return
        released += raw
        released_text += text
        held_text, held_pending = held_back(seen, stops)
        assert seen.startswith(released)
        assert len(seen) - len(released) == held_text + held_pending
        whole = "".join(t for t, _, _ in characters(released))
        # A character that is not complete yet shows in `whole` as U+FFFD and has no text so far.
        assert released_text in (whole, whole[:-1])


def test_a_byte_at_a_time() -> None:
    data = (EMOJI + "你好").encode()
    texts, parts, _ = run([bytes([b]) for b in data])
    assert "".join(texts) == EMOJI + "你好"
    assert all(len(t) <= 1 for t in texts)
    assert b"".join(parts) == data
    assert texts[-1] == ""


def test_an_unfinished_character_becomes_one_replacement_at_the_end() -> None:
    texts, parts, _ = run([b"a", "👍".encode()[:3]])
    assert texts == ["a", "", "\ufffd"]
    assert parts == [b"a", "👍".encode()[:3], b""]


def test_special_tokens_are_skipped_or_shown() -> None:
    vocab = core.Vocab([b"Hi", b"<|end|>", b" there"], [False, True, False])
    assert len(vocab) == 3
    hidden = core.Detokenizer(vocab)
    shown = core.Detokenizer(vocab, skip_special=False)
    assert [hidden.push(i) for i in range(3)] == [("Hi", b"Hi", False), ("", b"", False), (" there", b" there", False)]
    assert [shown.push(i)[0] for i in range(3)] == ["Hi", "<|end|>", " there"]


def test_the_leading_space_is_dropped_from_the_text_once_and_never_from_the_bytes() -> None:
    vocab = core.Vocab([b" Once", b" ", b" upon"], [False] * 3, strip_leading_space=True)
    first = core.Detokenizer(vocab)
    assert [first.push(0), first.push(2)] == [("Once", b" Once", False), (" upon", b" upon", False)]
    second = core.Detokenizer(vocab)
    assert [second.push(1), second.push(2)] == [("", b" ", False), (" upon", b" upon", False)]


def test_without_hold_nothing_is_held_and_nothing_stops() -> None:
    vocab = core.Vocab([b"EN", b"D", b"END"], [False] * 3)
    detokenizer = core.Detokenizer(vocab, stop=["END"])
    assert detokenizer.push(0, hold=False) == ("EN", b"EN", False)
    assert detokenizer.push(1) == ("D", b"D", False)  # it began before anybody looked
    assert detokenizer.push(2) == ("", b"", True)
    assert detokenizer.push(2) == ("", b"", True)


def test_ids_beyond_the_vocabulary_have_no_text() -> None:
    detokenizer = core.Detokenizer(core.Vocab([b"a"], [False]))
    assert detokenizer.push(99) == ("", b"", False)
    assert detokenizer.push(-1) == ("", b"", False)


def test_refusals() -> None:
    from fastllm.errors import InvalidConfig, InvalidRequest

    with pytest.raises(InvalidRequest, match="2 byte strings came with 1"):
        core.Vocab([b"a", b"b"], [False])
    with pytest.raises(InvalidRequest, match="entry 1 of token_bytes is a str"):
        core.Vocab([b"a", "b"], [False, False])
    with pytest.raises(InvalidConfig, match="stop"):
        core.Detokenizer(core.Vocab([b"a"], [False]), stop=[""])
