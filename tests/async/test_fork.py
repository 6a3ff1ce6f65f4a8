"""`fork`: another answer that begins like the first one; and streams that capture, on every event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from nullmodel import expected
from tinymodel import tiny_model

from fastllm import InvalidRequest, Model, TopToken

pytestmark = pytest.mark.anyio

Make = Callable[..., Model]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Model]:
    """A model with real weights."""
    with tiny_model(tmp_path) as made:
        yield made


async def test_it_goes_on_from_another_token(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=8)
    for _ in range(4):
        await stream.__anext__()
    other = stream.fork(at=2, token="x")
    tokens = [token async for token in other]
    assert [str(token) for token in tokens] == ["b", "c", "x", "y", "z", "{", "|", "}"]
    assert [token.index for token in tokens] == list(range(8))
    completion = other.completion
    assert completion is not None
    assert completion.text == other.text == "bcxyz{|}"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1, 8)
    assert completion.finish_reason == "length"
    assert completion.prompt_token_ids == (97,)
    assert [token.finish_reason for token in tokens] == [None] * 7 + ["length"]
    assert str((await stream.result()).text) == expected("a", 8), "the first one went on"


async def test_every_place_and_every_form_of_token(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=6)
    await stream.result()
    for at in range(5):
        text = expected("a", 6)[:at] + "K" + expected("K", 5 - at)
        for token in ("K", ord("K"), TopToken(ord("K"), "K", 0.0), stream.tokens[0].__class__(ord("K"), "K", b"K", 0)):
            assert (await stream.fork(at=at, token=token).result()).text == text
    with pytest.raises(InvalidRequest, match="6 tokens are kept, but max_new_tokens is 6"):
        stream.fork(at=5, token="K")
    again = stream.fork(at=3)
    assert (await again.result()).text == expected("a", 6), "without another token it is the same answer"
    longer = stream.fork(at=6, token="A", max_new_tokens=9)
    assert (await longer.result()).text == "bcdefgABC"
    deeper = longer.fork(at=8, token="0", max_new_tokens=12)
    assert (await deeper.result()).text == "bcdefgAB0123"


async def test_the_prefix_is_shared(model: Model) -> None:
    """Full blocks of prompt and output come from the cache; the original runs on and says what it would have said."""
    prompt = "p" * 40
    stream = model.stream(prompt, max_new_tokens=300, lookahead=0)
    for _ in range(60):
        await stream.__anext__()
    before = model.stats()
    other = stream.fork(at=50, token="0", max_new_tokens=60)
    completion = await other.result()
    assert completion.usage.cached_tokens == 80, "of 91 tokens in blocks of 16"
    assert model.stats().prompt_tokens == before.prompt_tokens
    assert completion.text == expected("p", 50) + "0" + expected("0", 9)
    assert (await stream.result()).text == expected("p", 300)


async def test_many_forks_at_once(slow_model: Model, settle: Any) -> None:
    free = slow_model.stats().kv_blocks_free
    stream = slow_model.stream("a" * 33, max_new_tokens=64)
    async for token in stream:
        if token.index == 20:
            break
    stream.cancel()
    forks = [stream.fork(at=index, token=65 + index, max_new_tokens=30) for index in range(20)]
    for index, fork in enumerate(forks):
        start = chr(65 + index)
        assert (await fork.result()).text == expected("a", index) + start + expected(start, 29 - index)
    await settle(lambda: slow_model.stats().kv_blocks_free == free)
    del stream
    assert slow_model.delivery.open_count == 0


async def test_breaking_off_a_fork_leaves_the_original(slow_model: Model, settle: Any) -> None:
    stream = slow_model.stream("a", max_new_tokens=30)
    await stream.__anext__()
    other = stream.fork(at=1, token="q", max_new_tokens=None)
    async for token in other:
        if token.index == 5:
            break
    other.cancel()
    del other
    assert (await stream.result()).text == expected("a", 30)
    await settle(lambda: slow_model.stats().running == 0)


async def test_characters_are_not_cut(make_model: Make) -> None:
    """Kept tokens that end in the middle of a character: what follows completes it."""
    euro = "€".encode()
    table = [b"a", euro[:1], euro[1:2], euro[2:], b"z", b"\xff"]
    model = make_model(table)
    stream = model.stream("a", max_new_tokens=5)
    assert (await stream.result()).text == "€z\ufffd"
    forked = await stream.fork(at=2).result()
    assert forked.text == "€z\ufffd"
    assert [token.text for token in forked.tokens] == [token.text for token in stream.tokens]
    other = await stream.fork(at=1, token=2).result()
    assert other.text == "€z\ufffd"
    broken = await stream.fork(at=1, token=4, max_new_tokens=3).result()
    assert (broken.text, b"".join(token.bytes for token in broken.tokens)) == ("\ufffdz\ufffd", euro[:1] + b"z\xff")


async def test_stop_strings_reach_over_the_seam(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=10)
    await stream.result()
    stopped = await stream.fork(at=4, stop="ef").result()
    assert (stopped.text, stopped.finish_reason, stopped.stop) == ("bcd", "stop", "ef")
    held = stream.fork(at=3, token="e", stop="ef")
    assert [str(token) async for token in held] == ["b", "c", "d", "", ""]
    assert held.text == "bcd"
    with pytest.raises(InvalidRequest, match="stop strings"):
        stream.fork(at=4, token="X", stop=["eX"])


async def test_what_is_no_fork(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=5)
    await stream.__anext__()
    for at in (-1, 2, 99):
        with pytest.raises(InvalidRequest, match=f"at is {at}, but 1 tokens were read"):
            stream.fork(at=at, token="x")
    with pytest.raises(InvalidRequest, match="no single token"):
        stream.fork(at=0, token="xy")
    with pytest.raises(InvalidRequest, match="outside the vocabulary of 128"):
        stream.fork(at=0, token=128)
    with pytest.raises(InvalidRequest, match="max_new_tokens is 1"):
        stream.fork(at=0, token="x", max_new_tokens=1)
    echoed = model.stream("abc", max_new_tokens=3, echo=True)
    await echoed.result()
    assert [str(t) async for t in echoed.fork(at=1, token="x")] == ["a", "b", "c", "d", "x", "y"]


async def test_look_ahead_counts_what_is_kept(model: Model, settle: Any) -> None:
    stream = model.stream("a", max_new_tokens=20)
    await stream.result()
    steps = model.stats().steps
    other = stream.fork(at=10, token="A", lookahead=0)
    for count in range(11):
        assert (await other.__anext__()).index == count
    assert model.stats().steps == steps, "what is kept costs no step"
    for count in range(1, 5):
        await other.__anext__()
        await anyio.sleep(0.002)
        assert model.stats().steps == steps + count


async def test_a_sampled_answer_forks_as_it_was_drawn(tiny: Model) -> None:
    """Draws depend on seed and position alone: the same token gives the same answer, another one another."""
    stream = tiny.stream([1, 2, 3] * 9, temperature=1.0, seed=4, max_new_tokens=40, logprobs=5)
    whole = await stream.result()
    for at in (0, 7, 39):
        same = await stream.fork(at=at, token=whole.tokens[at] if at < 39 else None).result()
        assert same.token_ids == whole.token_ids
    taken = whole.tokens[11]
    other = next(top for top in taken.top if top.id != taken.id)
    forked = stream.fork(at=11, token=other)
    completion = await forked.result()
    assert completion.token_ids[:11] == whole.token_ids[:11]
    assert completion.token_ids[11] == other.id
    assert completion.token_ids[12:] != whole.token_ids[12:]
    alone = await tiny.generate(
        [1, 2, 3] * 9 + list(completion.token_ids[:12]), temperature=1.0, seed=4, max_new_tokens=28
    )
    assert alone.token_ids == completion.token_ids[12:]
    assert completion.seed == 4


async def test_capture_and_steer_on_a_loop(tiny: Model) -> None:
    """The async verbs, and a fork of a steered stream, which stays steered."""
    from fastllm import Ablate

    steer = {"blocks.1.attn.z": Ablate(head=0)}
    cap = await tiny.capture([1, 2, 3], "*.attn.pattern", "logits", steer=steer, max_new_tokens=4)
    assert cap.completion is not None
    assert cap["logits"].shape == (6, 61)
    stream = tiny.stream([1, 2, 3], capture=["*.attn.z"], steer=steer, max_new_tokens=4)
    async for token in stream:
        assert stream.capture is not None
        assert stream.capture.positions >= 3 + token.index
    assert stream.completion is not None
    assert stream.completion.token_ids == cap.completion.token_ids
    assert not stream.capture["blocks.1.attn.z"].numpy()[:, 0].any()
    assert (await stream.fork(at=2).result()).token_ids == cap.completion.token_ids
    with anyio.move_on_after(0):
        await tiny.capture([1, 2, 3], max_new_tokens=200)
    assert (await tiny.logits([1, 2, 3], steer=steer)).tolist() == cap["logits"].numpy()[:3].tolist()
