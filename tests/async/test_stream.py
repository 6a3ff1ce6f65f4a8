"""TokenStream: what is read, when it runs, when it stops, what it refuses."""

from __future__ import annotations

import gc
import json
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from nullmodel import expected

from fastllm import (
    EngineClosed,
    EngineDead,
    GenerationConfig,
    InvalidConfig,
    InvalidRequest,
    Model,
    StreamBusy,
    StreamConsumed,
    Token,
    WrongLoop,
)
from fastllm.errors import ContextTooLong, UnknownAdapter

pytestmark = pytest.mark.anyio

Make = Callable[..., Model]


# --- reading


async def test_tokens_text_and_completion(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=20)
    assert stream.completion is None
    assert stream.finish_reason is None
    seen = ""
    tokens = []
    async for token in stream:
        assert isinstance(token, Token)
        seen += str(token)
        tokens.append(token)
        assert stream.text == seen
        assert stream.tokens == tuple(tokens)
    assert seen == expected("a", 20)
    assert [token.index for token in tokens] == list(range(20))
    assert [token.id for token in tokens] == [98 + step for step in range(20)]
    assert b"".join(token.bytes for token in tokens) == seen.encode()
    assert [token.finish_reason for token in tokens] == [None] * 19 + ["length"]
    times = [token.time_s for token in tokens]
    assert times == sorted(times)
    assert times[0] > 0
    completion = stream.completion
    assert completion is not None
    assert completion.text == str(completion) == stream.text == seen
    assert completion.token_ids == tuple(token.id for token in tokens)
    assert completion.tokens == tuple(tokens)
    assert completion.finish_reason == stream.finish_reason == "length"
    assert completion.usage == stream.usage
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1, 20)
    assert completion.usage.total_tokens == 21
    assert completion.prompt_token_ids == (97,)
    assert completion.model == "null"
    assert completion.request_id == stream.request_id
    timing = completion.timing
    assert 0 <= timing.queue_s <= timing.ttft_s <= timing.total_s
    assert timing.steps >= 20
    assert stream.state == "done"
    assert not stream.cancelled


async def test_generate_equals_stream(model: Model) -> None:
    whole = await model.generate("a", max_new_tokens=30)
    assert whole.text == expected("a", 30)
    assert whole.finish_reason == "length"
    read = [token async for token in model.stream("a", max_new_tokens=30)]
    assert [token.id for token in read] == list(whole.token_ids)


async def test_prompts_as_ids_arrays_and_messages(model: Model) -> None:
    import numpy as np

    for prompt in ([97], (97,), np.array([97]), np.array([97], dtype=np.uint8)):
        assert (await model.generate(prompt, max_new_tokens=3)).text == "bcd"
    completion = await model.generate([{"role": "user", "content": "hello"}], max_new_tokens=3)
    assert model.detokenize(completion.prompt_token_ids) == "<user>hello\n<assistant>"
    assert completion.message is not None
    assert completion.message.role == "assistant"
    assert completion.message.content == completion.text == "?@A"


async def test_end_of_sequence_and_stop_strings(make_model: Make) -> None:
    model = make_model([bytes([code]) for code in range(128)], eos=[110])
    done = await model.generate("a")
    assert done.text == "bcdefghijklm"
    assert (done.finish_reason, done.stop) == ("stop", 110)
    assert done.tokens[-1].special
    assert done.tokens[-1].text == ""
    done = await model.generate("a", ignore_eos=True, max_new_tokens=20)
    assert (done.finish_reason, done.usage.completion_tokens) == ("length", 20)
    stream = model.stream("a", stop=["efg", "xyz"])
    pieces = [token.text async for token in stream]
    assert "".join(pieces) == "bcd"
    assert stream.completion is not None
    assert (stream.completion.finish_reason, stream.completion.stop) == ("stop", "efg")
    kept = await model.generate("a", stop="efg", include_stop=True)
    assert kept.text == "bcdefg"
    by_id = await model.generate("a", stop_token_ids=[101])
    assert (by_id.text, by_id.stop) == ("bcd", 101)


async def test_texts_gives_printable_pieces_only(make_model: Make) -> None:
    model = make_model([b"?", "é".encode()[:1], "é".encode()[1:], b"!", b"", b"x"])
    stream = model.stream([0], max_new_tokens=5)
    assert [text async for text in stream.texts()] == ["é", "!", "x"]
    again = model.stream([0], max_new_tokens=5)
    assert [text async for text in again.text()] == ["é", "!", "x"]
    assert again.text == "é!x"
    assert json.dumps(again.text) == json.dumps("é!x")
    assert pickle.loads(pickle.dumps(again.text)) == "é!x"


async def test_result_after_reading_some(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=50)
    first = await stream.__anext__()
    completion = await stream.result()
    assert completion.text == expected("a", 50)
    assert completion.tokens[0] == first
    assert await stream.result() is completion


async def test_echo_gives_the_prompt_first(model: Model) -> None:
    stream = model.stream("abc", max_new_tokens=2, echo=True)
    tokens = [token async for token in stream]
    assert [token.index for token in tokens] == [-3, -2, -1, 0, 1]
    completion = stream.completion
    assert completion is not None
    assert completion.text == "abcde" == "".join(token.text for token in tokens)
    assert completion.token_ids == (100, 101)
    assert completion.usage.completion_tokens == 2


async def test_max_length_counts_the_prompt(model: Model) -> None:
    with pytest.warns(UserWarning) if "max_length" not in _noticed() else anyio.CancelScope():
        config = GenerationConfig(max_length=10)
    assert (await model.generate("abcd", config)).usage.completion_tokens == 6
    with pytest.raises(InvalidConfig, match="max_length"):
        model.stream("abcdefghijkl", config)


def _noticed() -> set[str]:
    from fastllm import config

    return config._noticed


# --- when it runs


async def test_streams_run_from_construction(slow_model: Model, settle: Any) -> None:
    streams = [slow_model.stream("a", max_new_tokens=10) for _ in range(8)]
    await settle(lambda: all(stream.state == "done" for stream in streams))
    assert slow_model.stats().steps < 40, "they ran together, not one after the other"
    for stream in streams:
        assert "".join([str(token) async for token in stream]) == expected("a", 10)


async def test_unread_stream_is_parked_at_the_mark(model: Model, settle: Any) -> None:
    stream = model.stream("a", max_new_tokens=None)
    await settle(lambda: stream.state == "parked")
    stats = model.stats()
    assert (stats.parked, stats.running) == (1, 0)
    assert stats.generated_tokens == 256
    steps = stats.steps
    await anyio.sleep(0.02)
    assert model.stats().steps == steps, "a parked stream costs nothing"
    count = 0
    async for _ in stream:
        count += 1
        if count == 400:
            break
    assert 400 <= model.stats().generated_tokens <= 400 + 256
    assert stream.text == expected("a", 400)


async def test_lookahead_zero_runs_one_step_a_read(model: Model, settle: Any) -> None:
    stream = model.stream("a", lookahead=0, max_new_tokens=10)
    await anyio.sleep(0.02)
    assert model.stats().steps == 0, "not even the prompt, before the first token is wanted"
    for count in range(1, 11):
        token = await stream.__anext__()
        assert token.index == count - 1
        await anyio.sleep(0.002)
        assert model.stats().steps == count
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()
    assert model.stats().steps == 10


async def test_generate_ignores_the_mark(model: Model) -> None:
    assert len((await model.generate("a", max_new_tokens=1000)).tokens) == 1000


# --- when it stops


async def test_break_frees_the_place_at_once(slow_model: Model, settle: Any) -> None:
    model = slow_model
    free = model.stats().kv_blocks_free
    async for _ in model.stream("a", max_new_tokens=None):
        break
    steps = model.stats().steps
    await settle(lambda: model.stats().running == 0)
    assert model.stats().steps <= steps + 1
    assert model.stats().kv_blocks_free == free
    assert model.delivery.open_count == 0


async def test_cancelling_a_bare_read_cancels_the_request(slow_model: Model, settle: Any) -> None:
    stream = slow_model.stream("a", lookahead=0, max_new_tokens=None)
    slow_model.stream("b", lookahead=None, max_new_tokens=None)
    with anyio.move_on_after(0.03) as scope:
        async for _ in stream:
            pass
    assert scope.cancelled_caught
    assert stream.cancelled
    await settle(lambda: stream.state == "done")
    assert stream.finish_reason == "cancelled"
    assert stream.text == expected("a", len(stream.tokens))
    assert stream.completion is not None
    assert stream.completion.text == stream.text


async def test_inside_async_with_a_cancelled_read_leaves_it_running(make_model: Make) -> None:
    model = make_model(step_us=50_000)
    async with model.stream("a", max_new_tokens=3) as stream:
        with anyio.move_on_after(0.005) as scope:
            await stream.__anext__()
        assert scope.cancelled_caught
        assert not stream.cancelled
        assert "".join([str(token) async for token in stream]) == "bcd", "no token was lost"
    assert stream.finish_reason == "length"


async def test_leaving_async_with_cancels_and_waits(slow_model: Model) -> None:
    free = slow_model.stats().kv_blocks_free
    async with slow_model.stream("a", max_new_tokens=None) as stream:
        await stream.__anext__()
        await stream.__anext__()
    assert stream.state == "done"
    assert slow_model.stats().kv_blocks_free == free
    assert stream.finish_reason == "cancelled"
    assert stream.text == "bc"
    assert stream.completion is not None
    assert stream.completion.finish_reason == "cancelled"


async def test_leaving_async_with_by_cancellation_still_waits(slow_model: Model) -> None:
    free = slow_model.stats().kv_blocks_free
    with anyio.move_on_after(0.02):
        async with slow_model.stream("a", max_new_tokens=None) as stream:
            async for _ in stream:
                pass
    assert stream.state == "done"
    assert slow_model.stats().kv_blocks_free == free


@pytest.mark.parametrize("way", ["gc", "cancel", "exception", "aclose"])
async def test_every_way_out_frees_the_place(slow_model: Model, settle: Any, way: str) -> None:
    free = slow_model.stats().kv_blocks_free
    stream = slow_model.stream("a", max_new_tokens=None)
    await stream.__anext__()
    if way == "gc":
        del stream
        gc.collect()
    elif way == "cancel":
        stream.cancel()
        stream.cancel()
    elif way == "exception":

        async def fail() -> None:
            async with stream:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
    else:
        await stream.aclose()
        await stream.aclose()
    await settle(lambda: slow_model.stats().kv_blocks_free == free, within_s=1)
    assert slow_model.stats().running == 0


async def test_cancel_ends_the_iteration_and_keeps_what_was_read(slow_model: Model) -> None:
    stream = slow_model.stream("a", max_new_tokens=None)
    count = 0
    async for _ in stream:
        count += 1
        if count == 5:
            stream.cancel()
    assert count == 5
    assert stream.finish_reason == "cancelled", "known when the loop is left"
    assert stream.text == expected("a", 5)
    completion = await stream.result()
    assert completion.finish_reason == "cancelled"


async def test_cancel_from_another_thread_while_a_read_waits(make_model: Make) -> None:
    model = make_model(step_us=20_000)
    stream = model.stream("a", max_new_tokens=None)
    timer = threading.Timer(0.1, stream.cancel)
    timer.start()
    began = time.monotonic()
    async for _ in stream:
        pass
    assert 0.05 < time.monotonic() - began < 2
    assert stream.cancelled
    timer.join()


async def test_cancel_from_another_loop_while_a_read_waits(make_model: Make, anyio_backend: Any) -> None:
    model = make_model(step_us=20_000)
    stream = model.stream("a", max_new_tokens=None)

    async def other() -> None:
        await anyio.sleep(0.1)
        stream.cancel()

    thread = threading.Thread(
        target=lambda: anyio.run(other, backend=anyio_backend[0], backend_options=anyio_backend[1])
    )
    thread.start()
    async for _ in stream:
        pass
    await anyio.to_thread.run_sync(thread.join)
    assert stream.finish_reason == "cancelled"


async def test_queued_requests_are_dropped_before_they_start(make_model: Make, settle: Any) -> None:
    model = make_model(step_us=5000, max_running=1)
    first = model.stream("a", max_new_tokens=None, lookahead=None)
    second = model.stream("b", max_new_tokens=5)
    await settle(lambda: first.state == "running")
    assert second.state == "queued"
    second.cancel()
    await settle(lambda: second.state == "done")
    assert second.finish_reason == "cancelled"
    assert second.completion is not None
    assert second.completion.timing.steps == 0
    first.cancel()


async def test_cancel_between_prefill_chunks(make_model: Make, settle: Any) -> None:
    model = make_model(step_us=10_000, prefill_chunk=8, max_batch_tokens=64)
    stream = model.stream("a" * 4000, max_new_tokens=5)
    await settle(lambda: stream.state == "prefill" and stream.progress[0] > 0)
    assert stream.progress[1] == 4000
    stream.cancel()
    done = stream.progress[0]
    await settle(lambda: stream.state == "done")
    assert stream.progress[0] <= done + 2 * 8
    assert model.stats().running == 0


async def test_max_time_keeps_the_text(slow_model: Model) -> None:
    completion = await slow_model.generate("a", max_time_s=0.05, max_new_tokens=None)
    assert completion.finish_reason == "timeout"
    assert completion.text == expected("a", len(completion.tokens))
    assert len(completion.tokens) > 1
    assert 0.04 < completion.timing.total_s < 1


async def test_cancelling_generate_cancels_the_request(slow_model: Model, settle: Any) -> None:
    with anyio.move_on_after(0.02) as scope:
        await slow_model.generate("a", max_new_tokens=None)
    assert scope.cancelled_caught
    await settle(lambda: slow_model.stats().running == 0, within_s=1)
    assert slow_model.delivery.open_count == 0


# --- what it refuses


async def test_a_second_consumer_is_refused(slow_model: Model) -> None:
    stream = slow_model.stream("a", max_new_tokens=20)
    refused = []

    async def read() -> None:
        try:
            async for _ in stream:
                pass
        except StreamBusy as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(read)
    assert len(refused) == 1
    assert refused[0].code == "stream_busy"
    assert len(stream.tokens) == 20, "the first was not disturbed"


async def test_a_stream_is_read_once(model: Model) -> None:
    stream = model.stream("a", max_new_tokens=3)
    async for _ in stream:
        pass
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()
    with pytest.raises(StreamConsumed, match="read to its end after 3 tokens"):
        async for _ in stream:
            pass


async def test_another_loop_is_refused(model: Model, anyio_backend: Any) -> None:
    stream = model.stream("a", max_new_tokens=10)
    await stream.__anext__()
    caught: list[BaseException] = []

    async def read() -> None:
        try:
            await stream.__anext__()
        except WrongLoop as error:
            caught.append(error)

    def run() -> None:
        anyio.run(read, backend=anyio_backend[0], backend_options=anyio_backend[1])

    await anyio.to_thread.run_sync(run)
    assert len(caught) == 1
    assert len([token async for token in stream]) == 9, "its own loop reads on"


async def test_bad_requests_raise_at_the_call(make_model: Make) -> None:
    model = make_model(context_length=64)
    with pytest.raises(InvalidConfig, match="temprature.*Did you mean 'temperature'"):
        model.stream("a", temprature=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        model.stream("a", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidConfig, match=r"batch\(\[prompt\], n=2\)"):
        model.stream("a", n=2)
    with pytest.raises(InvalidRequest, match="no tokens"):
        model.stream("")
    with pytest.raises(InvalidRequest):
        model.stream(3.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        model.stream([5000])
    with pytest.raises(ContextTooLong) as caught:
        model.stream("a" * 64)
    assert (caught.value.prompt_tokens, caught.value.limit) == (64, 63)
    with pytest.raises(UnknownAdapter) as unknown:
        model.stream("a", adapter="pirate")
    assert unknown.value.adapter == "pirate"
    with pytest.raises(InvalidConfig, match="constraint"):
        model.stream("a", constraint=object())
    assert model.delivery.open_count == 0


# --- the engine fails or goes


async def test_a_dead_engine_fails_every_stream_at_once(slow_model: Model) -> None:
    streams = [slow_model.stream("a", max_new_tokens=None) for _ in range(5)]
    failures = []

    async def read(stream: Any) -> None:
        try:
            async for _ in stream:
                pass
        except EngineDead as error:
            failures.append((time.monotonic(), error))

    async with anyio.create_task_group() as group:
        for stream in streams:
            group.start_soon(read, stream)
        await anyio.sleep(0.02)
        began = time.monotonic()
        slow_model._engine.inject_fault("the device went away")
    assert len(failures) == 5
    assert max(at for at, _ in failures) - began < 0.1 + 0.2  # the machine may be busy
    assert "the device went away" in str(failures[0][1].cause)
    with pytest.raises(EngineDead):
        slow_model.stream("a")
    with pytest.raises(EngineDead):
        await slow_model.generate("a")
    assert slow_model.stats().dead is not None
    assert all(stream.finish_reason == "error" for stream in streams)


async def test_closing_the_model_ends_its_streams(slow_model: Model) -> None:
    stream = slow_model.stream("a", max_new_tokens=None)
    await stream.__anext__()
    await slow_model.aclose()
    with pytest.raises(EngineClosed):
        async for _ in stream:
            pass
    with pytest.raises(EngineClosed):
        slow_model.stream("b")
    assert stream.text.startswith("b")


async def test_draining_lets_requests_finish(slow_model: Model) -> None:
    stream = slow_model.stream("a", max_new_tokens=20)
    await slow_model.aclose(drain=True)
    assert slow_model.closed
    assert len([token async for token in stream]) == 20
    await slow_model.aclose()


async def test_async_context_manager_closes(make_model: Make) -> None:
    async with make_model() as model:
        assert (await model.generate("a", max_new_tokens=2)).text == "bc"
    assert model.closed


# --- several at once


async def test_many_streams_in_one_task_group(model: Model) -> None:
    found: dict[int, str] = {}

    async def read(index: int) -> None:
        text = ""
        async for token in model.stream(chr(97 + index % 26), max_new_tokens=10 + index):
            text += token.text
        found[index] = text

    async with anyio.create_task_group() as group:
        for index in range(64):
            group.start_soon(read, index)
    assert found == {index: expected(chr(97 + index % 26), 10 + index) for index in range(64)}
    assert model.delivery.open_count == 0


async def test_priorities_go_first(make_model: Make) -> None:
    model = make_model(max_running=1, step_us=500)
    order: list[str] = []

    async def read(name: str, priority: int) -> None:
        await model.generate("a", max_new_tokens=5, priority=priority, request_id=name)
        order.append(name)

    blocker = model.stream("a", max_new_tokens=30, lookahead=None)
    async with anyio.create_task_group() as group:
        group.start_soon(read, "low", 0)
        await anyio.sleep(0.002)
        group.start_soon(read, "high", 5)
    assert order == ["high", "low"]
    await blocker.result()
