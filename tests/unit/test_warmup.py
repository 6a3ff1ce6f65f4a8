"""`Model.warmup`: every number of requests runs at least two steps by itself; where nothing is recorded, none does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import fastllm
from fastllm import _warmup


@pytest.fixture
def model() -> Any:
    with fastllm.load("demo", device="cpu", engine=fastllm.EngineConfig(max_running=6), progress=False) as loaded:
        yield loaded


def test_nothing_runs_on_a_cpu(model: Any) -> None:
    before = model.stats().steps
    assert model.blocking.warmup() == 0
    assert model.stats().steps == before


@pytest.mark.anyio
async def test_the_awaited_form(model: Any) -> None:
    assert await model.warmup(progress=False) == 0


def test_sizes_go_down_one_by_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, in groups of 4 sizes instead of 64."""
    monkeypatch.setattr(_warmup, "_SIZES", 4)
    model.info = dataclasses.replace(model.info, device="cuda:0")
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    assert _warmup.warm_up(model, progress=tell) == 6
    assert told == [(done, 6) for done in range(1, 7)]
    assert model.stats().generated_tokens >= sum(2 * size for size in range(1, 7))
    assert model.stats().finished == 6 + 4  # the group of 5 and 6 has 4 companions, which are cancelled or end with it


def test_it_can_be_stopped(model: Any) -> None:
    model.info = dataclasses.replace(model.info, device="cuda:0")
    assert _warmup.warm_up(model, stopped=lambda: True) == 0
