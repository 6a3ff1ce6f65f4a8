"""Batches: order, isolation of failures, lazy admission, cancellation."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from nullmodel import expected

from fastllm import BatchError, Completion, GenerationConfig, InvalidConfig, InvalidRequest, Model, Request, Token
from fastllm.errors import ContextTooLong, EngineDead, StreamBusy

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.anyio

Make = Callable[..., Model]
LETTERS = [chr(97 + index) for index in range(26)]


async def test_results_come_in_input_order(model: Model) -> None:
    prompts = [Request(letter, GenerationConfig(max_new_tokens=40 - index)) for index, letter in enumerate(LETTERS)]
    results = await model.batch(prompts)
    assert [result.text for result in results] == [expected(letter, 40 - index) for index, letter in enumerate(LETTERS)]


async def test_as_completed_gives_the_short_ones_first(slow_model: Model) -> None:
    lengths = [30, 5, 20, 10]
    order = []
    async for index, result in slow_model.as_completed(
        Request("a", GenerationConfig(max_new_tokens=length)) for length in lengths
    ):
        assert isinstance(result, Completion)
        assert len(result.tokens) == lengths[index]
        order.append(index)
    assert order == [1, 3, 2, 0]


async def test_stream_batch_interleaves_by_step(slow_model: Model) -> None:
    batch = slow_model.stream_batch(LETTERS[:4], max_new_tokens=10)
    texts = dict.fromkeys(range(4), "")
    order = []
    async for index, token in batch:
        assert isinstance(token, Token)
        texts[index] += token.text
        order.append(index)
    assert texts == {index: expected(LETTERS[index], 10) for index in range(4)}
    spread = [max(order[: place + 1].count(i) for i in range(4)) for place in range(0, 40, 4)]
    assert max(abs(count - (place + 1)) for place, count in enumerate(spread)) <= 3, "none runs far ahead"
    assert {index: result.text for index, result in batch.results.items() if isinstance(result, Completion)} == texts


async def test_lookahead_zero_steps_a_batch_in_lockstep(model: Model) -> None:
    batch = model.stream_batch(LETTERS[:3], max_new_tokens=5, lookahead=0)
    counts = [0, 0, 0]
    async for index, _ in batch:
        counts[index] += 1
        assert max(counts) - min(counts) <= 1
    assert counts == [5, 5, 5]


async def test_one_overlong_prompt_fails_alone(make_model: Make) -> None:
    model = make_model(context_length=100)
    prompts = ["a", "b" * 200, "c"]
    with pytest.raises(BatchError) as caught:
        await model.batch(prompts, max_new_tokens=5)
    error = caught.value
    assert [type(result) for result in error.results] == [Completion, ContextTooLong, Completion]
    assert [result.text for result in error.results if isinstance(result, Completion)] == ["bcdef", "defgh"]
    assert "index 1" in str(error)
    assert error.code == "batch_error"
    assert isinstance(error, ExceptionGroup)
    results = await model.batch(prompts, max_new_tokens=5, on_error="return")
    assert [type(result) for result in results] == [Completion, ContextTooLong, Completion]
    found = {index: result async for index, result in model.as_completed(prompts, max_new_tokens=5)}
    assert isinstance(found[1], ContextTooLong)
    streamed = model.stream_batch(prompts, max_new_tokens=5)
    with pytest.raises(BatchError):
        async for _ in streamed:
            pass
    assert isinstance(streamed.results[0], Completion)
    quiet = model.stream_batch(prompts, max_new_tokens=5, on_error="return")
    assert len([token async for token in quiet]) == 10
    assert isinstance(quiet.results[1], ContextTooLong)


async def test_bad_config_of_one_entry_fails_alone(model: Model) -> None:
    prompts: list[Any] = ["a", Request("b", GenerationConfig(stop_token_ids=[10_000])), Request("c", adapter="x"), 7]
    results = await model.batch(prompts, max_new_tokens=3, on_error="return")
    assert isinstance(results[0], Completion)
    assert [isinstance(result, InvalidRequest) for result in results] == [False, True, True, True]


async def test_n_gives_completions_side_by_side(model: Model) -> None:
    results = await model.batch(["a", "b"], max_new_tokens=3, n=3, seed=7)
    assert [result.text for result in results] == ["bcd"] * 3 + ["cde"] * 3
    assert [result.seed for result in results] == [7, 8, 9] * 2
    with pytest.raises(InvalidConfig):
        await model.generate("a", n=3)


async def test_empty_batches(model: Model) -> None:
    assert await model.batch([]) == []
    assert [item async for item in model.as_completed([])] == []
    assert [item async for item in model.stream_batch([])] == []


async def test_a_single_text_is_refused(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="Wrap it"):
        await model.batch("abc")
    with pytest.raises(InvalidRequest, match="on_error"):
        await model.batch(["abc"], on_error="explode")  # type: ignore[call-overload]


async def test_iterables_are_admitted_lazily(make_model: Make) -> None:
    model = make_model(max_queue=10, max_running=4)
    pulled = 0

    def prompts() -> Iterator[str]:
        nonlocal pulled
        for index in range(200):
            pulled += 1
            yield LETTERS[index % 26]

    seen = 0
    completed = model.as_completed(prompts(), max_new_tokens=5)
    async for index, result in completed:
        assert isinstance(result, Completion)
        assert result.text == expected(LETTERS[index % 26], 5)
        seen += 1
        assert pulled - seen <= 11
        assert completed.in_flight <= 10
    assert seen == pulled == 200
    with anyio.fail_after(20):
        tokens = [item async for item in model.stream_batch(prompts(), max_new_tokens=2)]
    assert len(tokens) == 400


async def test_async_iterables_are_read_while_results_come(make_model: Make) -> None:
    model = make_model(max_queue=10)
    gate = anyio.Event()
    closed = False

    async def prompts() -> AsyncIterator[str]:
        nonlocal closed
        try:
            for letter in LETTERS[:20]:
                yield letter
            await gate.wait()  # the source has nothing new for a while
            yield "z"
        finally:
            closed = True

    found = {}
    with anyio.fail_after(10):
        async for index, result in model.as_completed(prompts(), max_new_tokens=5):
            assert isinstance(result, Completion)
            found[index] = result.text
            if len(found) == 20:
                gate.set()  # all others came although the source stood still
    assert found == {**{index: expected(LETTERS[index], 5) for index in range(20)}, 20: expected("z", 5)}
    assert closed
    with anyio.fail_after(20):
        assert [result.text for result in await model.batch(_aiter(LETTERS), max_new_tokens=2)] == [
            expected(letter, 2) for letter in LETTERS
        ]
        tokens = [item async for item in model.stream_batch(_aiter(LETTERS), max_new_tokens=2)]
    assert len(tokens) == 52


async def _aiter(items: list[str]) -> AsyncIterator[str]:
    for item in items:
        await anyio.sleep(0)
        yield item


async def test_a_failing_source_cancels_and_raises(slow_model: Model, settle: Any) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        raise ZeroDivisionError

    async def broken_async() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError

    for source in (broken, broken_async):
        with pytest.raises(ZeroDivisionError):
            await slow_model.batch(source(), max_new_tokens=None)
    await settle(lambda: slow_model.stats().running == 0, within_s=1)


async def test_two_batches_share_a_short_queue(make_model: Make) -> None:
    model = make_model(max_queue=5, max_running=2)
    counts = []

    async def run() -> None:
        counts.append(len(await model.batch(LETTERS * 2, max_new_tokens=3)))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(run)
    assert counts == [52] * 4


async def test_cancelling_the_call_cancels_all(slow_model: Model, settle: Any) -> None:
    free = slow_model.stats().kv_blocks_free
    with anyio.move_on_after(0.03) as scope:
        await slow_model.batch(LETTERS, max_new_tokens=None)
    assert scope.cancelled_caught
    stats = slow_model.stats()
    assert (stats.running, stats.queued) == (0, 0)
    assert stats.kv_blocks_free == free


@pytest.mark.parametrize("kind", ["as_completed", "stream_batch"])
@pytest.mark.parametrize("way", ["break", "with", "cancel"])
async def test_leaving_early_frees_everything(slow_model: Model, settle: Any, kind: str, way: str) -> None:
    free = slow_model.stats().kv_blocks_free
    requests = [Request(letter, GenerationConfig(max_new_tokens=2 + index * 50)) for index, letter in enumerate("abcd")]
    make = getattr(slow_model, kind)
    if way == "break":
        async for _ in make(requests):
            break
        gc.collect()
    elif way == "with":
        async with make(requests) as group:
            async for _ in group:
                break
        assert slow_model.stats().running == 0
    else:
        with anyio.move_on_after(0.03):
            async for _ in make(requests):
                pass
    await settle(lambda: slow_model.stats().kv_blocks_free == free, within_s=1)
    assert slow_model.stats().running == 0
    gc.collect()  # asyncio's debug mode keeps frames in cycles
    assert slow_model.delivery.open_count == 0


async def test_a_group_has_one_consumer(slow_model: Model) -> None:
    group = slow_model.stream_batch(["a", "b"], max_new_tokens=20)
    refused = []

    async def read() -> None:
        try:
            async for _ in group:
                pass
        except StreamBusy as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(read)
    assert len(refused) == 1


async def test_a_dead_engine_fails_every_entry(slow_model: Model) -> None:
    async with anyio.create_task_group() as group:

        async def kill() -> None:
            await anyio.sleep(0.02)
            slow_model._engine.inject_fault("gone")

        group.start_soon(kill)
        results = await slow_model.batch(LETTERS[:5], max_new_tokens=None, on_error="return")
    assert [type(result) for result in results] == [EngineDead] * 5


async def test_cancel_from_outside_ends_the_iteration(slow_model: Model) -> None:
    group = slow_model.stream_batch(["a", "b"], max_new_tokens=None)
    count = 0
    async for _ in group:
        count += 1
        if count == 4:
            group.cancel()
    assert count == 4
