"""The blocking face: the same results as the async one, in threads, and inside a running loop."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from nullmodel import expected

from fastllm import (
    BatchError,
    Completion,
    GenerationConfig,
    InvalidConfig,
    InvalidRequest,
    LoopBlocked,
    Model,
    Request,
    StreamConsumed,
    blocking,
)
from fastllm.errors import EngineClosed, EngineDead

Make = Callable[..., Model]


def test_stream_generate_and_result(model: Model) -> None:
    stream = model.blocking.stream("a", max_new_tokens=20)
    text = ""
    for token in stream:
        text += str(token)
        assert stream.text == text
    assert text == expected("a", 20)
    assert stream.completion is not None
    assert stream.completion.text == text
    assert stream.finish_reason == "length"
    with pytest.raises(StreamConsumed):
        iter(stream)
    assert model.blocking.generate("a", max_new_tokens=600).text == expected("a", 600)
    partly = model.blocking.stream("a", max_new_tokens=600)
    next(partly)
    assert partly.result().text == expected("a", 600)
    assert list(model.blocking.stream("a", max_new_tokens=3).texts()) == ["b", "c", "d"]
    assert list(model.blocking.stream("a", max_new_tokens=3).text()) == ["b", "c", "d"]


def test_batch(model: Model) -> None:
    prompts: list[Any] = [Request("a", GenerationConfig(max_new_tokens=7)), "b", [99]]
    assert [done.text for done in model.blocking.batch(prompts, max_new_tokens=3)] == ["bcdefgh", "cde", "def"]
    assert [done.text for done in model.blocking.batch((letter for letter in "ab"), max_new_tokens=2, n=2)] == [
        "bc", "bc", "cd", "cd",
    ]  # fmt: skip
    with pytest.raises(BatchError) as caught:
        model.blocking.batch(["a", ""], max_new_tokens=2)
    assert isinstance(caught.value.results[0], Completion)
    mixed = model.blocking.batch(["a", ""], max_new_tokens=2, on_error="return")
    assert [type(result) for result in mixed] == [Completion, InvalidRequest]
    with pytest.raises(InvalidRequest):
        model.blocking.batch("abc")
    with pytest.raises(InvalidConfig):
        model.blocking.generate("a", n=2)


def test_batches_longer_than_the_queue(make_model: Make) -> None:
    model = make_model(max_queue=4, max_running=2)
    outcomes: list[int] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(len(model.blocking.batch(["a"] * 40, max_new_tokens=3))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == [40] * 3


def test_leaving_early_frees_the_place(slow_model: Model) -> None:
    for token in slow_model.blocking.stream("a", max_new_tokens=None):
        assert token.text == "b"
        break
    with slow_model.blocking.stream("a", max_new_tokens=None) as stream:
        next(stream)
    assert stream.state == "done"
    assert stream.finish_reason == "cancelled"
    assert slow_model.stats().running == 0
    timer = threading.Timer(0.05, lambda: reading.cancel())
    reading = slow_model.blocking.stream("a", max_new_tokens=None)
    timer.start()
    assert len(list(reading)) > 1
    assert reading.cancelled


def test_chat_and_messages(model: Model) -> None:
    done = model.blocking.chat("hello", max_new_tokens=2)
    assert model.detokenize(done.prompt_token_ids) == "<user>hello\n<assistant>"
    assert done.message is not None
    stream = model.blocking.stream_chat([{"role": "user", "content": "x"}], max_new_tokens=2, tools=[{"name": "f"}])
    assert model.detokenize(stream.prompt_token_ids) == "<user>x\nT1\n<assistant>"
    assert "".join(stream.texts()) == "?@"


def test_score_and_logits(model: Model) -> None:
    logits = model.blocking.logits("abc")
    assert logits.shape == (3, 128)
    assert logits.dtype == np.float32
    assert logits.argmax(axis=1).tolist() == [98, 99, 100]
    scores = model.blocking.score("a", "bcd")
    assert scores.token_ids == (98, 99, 100)
    assert scores.texts == ("b", "c", "d")
    assert scores.is_greedy
    wrong = model.blocking.score("a", "bzd")
    assert not wrong.is_greedy
    assert wrong.total < scores.total
    rows = model.blocking.logits("abzd").astype(np.float64)
    logprobs = rows - np.log(np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    logprobs -= rows.max(axis=1, keepdims=True)
    want = [logprobs[at, code] for at, code in enumerate(b"bzd")]
    assert wrong.logprobs == pytest.approx(want, abs=1e-4)
    assert wrong.perplexity == pytest.approx(np.exp(-np.mean(want)), rel=1e-4)
    with pytest.raises(InvalidRequest):
        model.blocking.score("a", "")


@pytest.mark.anyio
async def test_async_score_and_logits_are_the_same(model: Model) -> None:
    assert (await model.logits("abc")).tolist() == model_logits(model, "abc")
    scores = await model.score("a", "bcd")
    assert scores.ranks == (1, 1, 1)
    full = await model.logits([97] * 64)
    assert full.shape == (64, 128)


def model_logits(model: Model, prompt: str) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(model.blocking.logits(prompt).tolist()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.anyio
async def test_inside_a_loop_it_works_and_warns_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "_warned", False)
    with pytest.warns(LoopBlocked, match="async methods"):
        assert model.blocking.generate("a", max_new_tokens=3).text == "bcd"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.blocking.generate("a", max_new_tokens=3).text == "bcd"
    await anyio.sleep(0)


def test_from_a_worker_thread_of_a_loop_it_does_not_warn(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "_warned", False)

    async def main() -> str:
        return await anyio.to_thread.run_sync(lambda: model.blocking.generate("a", max_new_tokens=3).text)

    assert anyio.run(main) == "bcd"


def test_a_dead_or_closed_engine(make_model: Make) -> None:
    model = make_model(step_us=2000)
    stream = model.blocking.stream("a", max_new_tokens=None)
    next(stream)
    model._engine.inject_fault("gone")
    with pytest.raises(EngineDead):
        for _ in stream:
            pass
    with pytest.raises(EngineDead):
        model.blocking.generate("a")
    other = make_model(step_us=2000)
    stream = other.blocking.stream("a", max_new_tokens=None)
    next(stream)
    other.close()
    with pytest.raises(EngineClosed):
        for _ in stream:
            pass
