"""Async tests: each runs on every event loop, with the detector of blocking calls on, on models without weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

from nullmodel import null_model

from fastllm import Model


@pytest.fixture(autouse=True)
def _detect_blocking_calls(blocking_calls_fail: None) -> None:
    """Every test here fails when fastllm blocks an asyncio loop."""


@pytest.fixture
def make_model() -> Iterator[Callable[..., Model]]:
    """`make_model(step_us=..., ...)`: a null model that is closed after the test."""
    made: list[Model] = []

    def make(*args: Any, **options: Any) -> Model:
        made.append(null_model(*args, **options))
        return made[-1]

    yield make
    for model in made:
        model.close()


@pytest.fixture
def model(make_model: Callable[..., Model]) -> Model:
    """A null model whose steps take no time."""
    return make_model()


@pytest.fixture
def slow_model(make_model: Callable[..., Model]) -> Model:
    """A null model whose steps take two milliseconds."""
    return make_model(step_us=2000)


@pytest.fixture
def settle() -> Callable[..., Any]:
    """`await settle(lambda: condition)`: waits for something the engine does by itself; fails after `within_s`."""

    async def wait(condition: Callable[[], bool], *, within_s: float = 5.0) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < within_s, "the engine did not get there in time"
            await anyio.sleep(0.001)
        return time.monotonic() - began

    return wait
