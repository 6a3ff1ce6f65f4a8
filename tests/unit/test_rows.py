"""Runs of tokens, and rows that are made when asked for: the engine's own against the plain definition."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

from nullmodel import ASCII, null_model

import fastllm
from fastllm.display.rows import MOST_OF_A_RUN, Rows, runs_of
from fastllm.display.tokens import static_html
from fastllm.display.writer import TokenWriter, level_of

pytestmark = pytest.mark.filterwarnings("ignore::fastllm.errors.LoopBlocked")


def taken(model: Any, prompt: str, **fields: Any) -> tuple[Any, list[Any]]:
    """The records of a request, and the rows of the same request taken the usual way."""
    found = []
    for how in ("take_records", "take"):
        stream = model.blocking.stream(prompt, **fields)
        request = stream._request
        request.want(10_000)
        while request.finish is None:
            request.wait(1.0)
        found.append(getattr(request, how)())
    return found[0], found[1]


def untimed(rows: Any) -> list[Any]:
    return [row[:7] for row in rows]


def by_hand(rows: list[Any]) -> list[tuple[int, str]]:
    """(step, text) of every token by itself, from the definition: a tenth of probability a step."""
    found = []
    for id_, text, _, _, logprob, _, special, _ in rows:
        if special and not text:
            found.append((-1 - id_, ""))
        else:
            found.append((0 if logprob is None else min(9, int((1 - math.exp(min(0.0, logprob))) * 10)), text))
    return found


def spread(runs: list[Any]) -> list[tuple[int, str]]:
    """Runs whose steps stand for each character."""
    return [(step, c) for step, text, _ in runs for c in text or [""]]


@pytest.fixture(scope="module")
def sampled() -> tuple[Any, list[Any]]:
    with fastllm.load("demo") as model:
        return taken(model, "Hello", max_new_tokens=300, logprobs=3, seed=4, temperature=1.3, ignore_eos=True)


def test_records_are_the_rows_that_take_gives(sampled: tuple[Any, list[Any]]) -> None:
    records, rows = sampled
    assert len(records) == len(rows) == 300
    assert untimed(records) == untimed(rows)
    assert untimed(records[7:250:3]) == untimed(rows[7:250:3])
    assert untimed([records[-1], records[0]]) == untimed([rows[-1], rows[0]])
    assert records.text() == "".join(row[1] for row in rows)
    assert records.text(11, 12) == rows[11][1]
    for outside in (300, -301):
        with pytest.raises(IndexError, match="of 300"):
            records[outside]


@pytest.mark.parametrize("bounds", [(0, 300), (3, 4), (5, 222), (10, 10)])
def test_native_runs_are_those_of_the_definition(sampled: tuple[Any, list[Any]], bounds: tuple[int, int]) -> None:
    records, rows = sampled
    native = records.runs(*bounds)
    assert native == runs_of(rows[slice(*bounds)], "probability")
    hand = by_hand(rows[slice(*bounds)])
    assert spread(native) == [(step, c) for step, text in hand for c in text or [""]]
    assert len({step for step, _ in hand}) > 3 or len(hand) < 5, "this would compare nothing"
    assert sum(count for _, _, count in native) == len(hand)
    assert all(0 < count <= MOST_OF_A_RUN for _, _, count in native)
    plain = records.runs(*bounds, shaded=False)
    assert plain == runs_of(rows[slice(*bounds)], "off")
    assert {step for step, _, _ in plain} <= {0, *(step for step, _ in hand if step < 0)}


def test_control_tokens_are_runs_of_their_own() -> None:
    with null_model(ASCII[32:100], eos=[5]) as model:
        records, rows = taken(model, "A", max_new_tokens=600, logprobs=1, ignore_eos=True)
    chips = [row for row in rows if row[6] and not row[1]]
    assert len(chips) == 9
    assert sum(step < 0 for step, _, _ in records.runs()) == len(chips)
    assert records.runs() == runs_of(rows, "probability")


def test_rows_in_any_batches_read_as_one_list(sampled: tuple[Any, list[Any]]) -> None:
    records, rows = sampled
    chance = random.Random(3)
    one = Rows()
    at = 0
    while at < 300:
        step = chance.randint(0, 40)
        one.add(rows[at : at + step])
        at += step
    mixed = Rows(rows[:120])
    mixed.add(records)
    whole = [*rows[:120], *rows]
    for _ in range(50):
        a, b = sorted((chance.randint(0, 300), chance.randint(0, 300)))
        assert one[a:b] == rows[a:b]
        assert untimed(mixed[a + 60 : b + 60]) == untimed(whole[a + 60 : b + 60])
        for shade in ("probability", "rank", "entropy", "off"):
            runs = mixed.runs(a + 60, b + 60, shade=shade)
            assert spread(runs) == spread(runs_of(whole[a + 60 : b + 60], shade))
    assert mixed.text(100) == "".join(row[1] for row in whole[100:])
    assert untimed(mixed) == untimed(whole)
    mixed.replace_last((1, "end", b"end", 9, None, (), False, 0.0))
    assert mixed[-1][1] == "end"
    assert len(mixed) == 420
    assert untimed(mixed[:-1]) == untimed(whole[:-1])
    with pytest.raises(IndexError):
        mixed[420]


def test_a_static_copy_of_records_is_that_of_rows(sampled: tuple[Any, list[Any]]) -> None:
    records, _ = sampled
    native = Rows()
    native.add(records)
    a, b = (static_html(rows, usage="u", max_bytes=60_000) for rows in (native, records[:]))
    # Runs end where batches do; what is read is the same.
    assert re.sub(r"<[^>]*>", "", a) == re.sub(r"<[^>]*>", "", b)
    assert a.count("data-tip") == b.count("data-tip") > 10


def test_a_token_that_may_change_is_written_without_being_counted(sampled: tuple[Any, list[Any]]) -> None:
    rows = sampled[1]
    writer, other = TokenWriter(), TokenWriter()
    writer.write(rows[:3])
    assert writer.one(rows[3]) == writer.one(rows[3])
    other.write(rows[:3])
    assert writer.write(rows[3:5]) == other.write(rows[3:5])
    assert len(writer.parts) == 5
    assert f" s{level_of(rows[3], 'probability')}" in writer.one(rows[3]) or level_of(rows[3], "probability") == 0
