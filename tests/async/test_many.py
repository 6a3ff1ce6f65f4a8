"""Random cancels, a thousand streams, and nothing left behind."""

from __future__ import annotations

import functools
import gc
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from nullmodel import expected

from fastllm import Model

pytestmark = pytest.mark.anyio

Make = Callable[..., Model]


async def test_two_hundred_random_cancels_disturb_nobody(make_model: Make, settle: Any) -> None:
    model = make_model(step_us=200, max_running=16, prefill_chunk=8, max_batch_tokens=64, kv_memory=64 * 4096)
    rng = random.Random(11)
    free = model.stats().kv_blocks_free
    texts: dict[int, str] = {}

    async def reader(index: int) -> None:
        prompt = chr(65 + index) * (1 + 7 * index)
        texts[index] = "".join([str(token) async for token in model.stream(prompt, max_new_tokens=150)])

    async def victim(index: int, delay_s: float, way: int) -> None:
        prompt = "x" * (1 + index % 90)
        if way == 0:
            with anyio.move_on_after(delay_s):
                async for _ in model.stream(prompt, max_new_tokens=None):
                    pass
        elif way == 1:
            stream = model.stream(prompt, max_new_tokens=None)
            await anyio.sleep(delay_s)
            stream.cancel()
        elif way == 2:
            stream = model.stream(prompt, max_new_tokens=None)
            timer = threading.Timer(delay_s, stream.cancel)
            timer.start()
            async for _ in stream:
                pass
        else:
            async with model.stream(prompt, max_new_tokens=None) as stream:
                with anyio.move_on_after(delay_s):
                    async for _ in stream:
                        pass

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for index in range(5):
                group.start_soon(reader, index)
            for index in range(200):
                group.start_soon(victim, index, rng.uniform(0, 0.05), rng.randrange(4))
                await anyio.sleep(rng.uniform(0, 0.003))
    assert texts == {index: expected(chr(65 + index), 150) for index in range(5)}
    gc.collect()
    await settle(lambda: model.stats().kv_blocks_free == free)
    stats = model.stats()
    assert (stats.running, stats.queued, stats.parked) == (0, 0, 0)
    assert model.delivery.open_count == 0


async def test_a_thousand_streams_leave_nothing_behind(make_model: Make, settle: Any) -> None:
    model = make_model(max_queue=2000)

    async def round_of(count: int) -> None:
        streams = [model.stream("a", max_new_tokens=None) for _ in range(count)]
        for stream in streams[::10]:
            await stream.__anext__()
        for stream in streams[::2]:
            stream.cancel()
        del streams, stream
        gc.collect()
        await settle(lambda: model.stats().running + model.stats().queued + model.stats().parked == 0)

    def resources() -> tuple[int, int, int]:
        gc.collect()
        objects = sum(str(type(item).__module__).startswith("fastllm") for item in gc.get_objects())
        return len(os.listdir("/proc/self/fd")), threading.active_count(), objects

    def memory_kb() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4

    free = model.stats().kv_blocks_free
    await round_of(1000)
    await anyio.sleep(0.1)
    before, before_kb = resources(), memory_kb()
    for _ in range(3):
        await round_of(1000)
    # The last news of the dropped streams may be on their way still.
    await settle(lambda: all(now <= then for now, then in zip(resources(), before, strict=True)))
    assert model.stats().kv_blocks_free == free
    assert model.delivery.open_count == 0
    assert memory_kb() - before_kb < 20_000, "3 000 more streams"


async def test_a_burst_of_short_requests(model: Model) -> None:
    done = []

    async def one(index: int) -> None:
        completion = await model.generate(chr(32 + index % 90), max_new_tokens=1 + index % 5)
        done.append(completion.text == expected(chr(32 + index % 90), 1 + index % 5))

    async with anyio.create_task_group() as group:
        for index in range(500):
            group.start_soon(functools.partial(one, index))
    assert done == [True] * 500
