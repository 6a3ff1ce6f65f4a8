"""Model: what it says of itself, rendering, tokens, loading's arguments."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

from nullmodel import null_model

import fastllm
from fastllm import EngineConfig, GenerationConfig, InvalidConfig, LoadError, Message, Model, QueueFull, _opening


@pytest.fixture
def model() -> Iterator[Model]:
    with null_model() as made:
        yield made


def test_repr_and_stats(model: Model) -> None:
    assert repr(model) == "<Model null · Null · 0 parameters · float32 · 0 B · context 100000 · null>"
    assert "100000 tokens" in model._repr_html_()
    stats = model.stats()
    assert (stats.running, stats.queued, stats.parked, stats.dead, stats.forked) == (0, 0, 0, None, False)
    assert stats.kv_blocks_free == stats.kv_blocks_total > 0
    assert stats.kv_use == 0
    model.blocking.generate("abc", max_new_tokens=5)
    later = model.stats()
    assert (later.prompt_tokens, later.generated_tokens, later.finished) == (3, 5, 1)


def test_tokens_and_rendering(model: Model) -> None:
    assert model.tokenize("abc") == [97, 98, 99]
    assert model.detokenize([97, 98, 99]) == "abc"
    rendered = model.render([Message("user", "hi"), {"role": "assistant", "content": "ho"}])
    assert str(rendered) == rendered.text == "<user>hi\n<assistant>ho\n<assistant>"
    assert list(rendered.token_ids) == model.tokenize(rendered.text)
    assert model.render("hi", add_generation_prompt=False).text == "<user>hi\n"
    assert model.render("hi", tools=[{"name": "f"}]).text == "<user>hi\nT1\n<assistant>"


def test_the_checkpoint_s_defaults_are_the_lowest_layer() -> None:
    with null_model(generation_config=GenerationConfig(temperature=0.0, max_new_tokens=7)) as model:
        assert len(model.blocking.generate("a").tokens) == 7
        assert len(model.blocking.generate("a", GenerationConfig(max_new_tokens=5)).tokens) == 5
        assert len(model.blocking.generate("a", GenerationConfig(max_new_tokens=5), max_new_tokens=3).tokens) == 3
        assert model.blocking.stream("a", GenerationConfig(top_k=3)).config.temperature == 0.0
        with pytest.raises(InvalidConfig, match="by name"):
            model.blocking.generate("a", {"max_new_tokens": 3})  # type: ignore[arg-type]


def test_seeds_are_told_and_repeat() -> None:
    with null_model(generation_config=GenerationConfig(temperature=1.0)) as model:
        first = model.blocking.generate("a", max_new_tokens=20)
        again = model.blocking.generate("a", max_new_tokens=20, seed=first.seed)
        assert first.token_ids == again.token_ids
        assert 0 <= first.seed < 2**48
        assert model.blocking.generate("a", max_new_tokens=1, seed=2**64 - 1).seed == 2**64 - 1


def test_a_full_queue_says_when_to_come_back() -> None:
    with null_model(max_queue=3, max_running=1, step_us=20_000) as model:
        kept = []

        def fill() -> None:
            for _ in range(10):
                kept.append(model.stream("a", max_new_tokens=None))

        with pytest.raises(QueueFull) as caught:
            fill()
        assert 3 <= len(kept) <= 5
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0


def test_an_unreferenced_model_is_collected() -> None:
    model = null_model()
    anyio.run(model.generate, "a")
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_stream_keeps_its_model_alive() -> None:
    stream = null_model(step_us=500).blocking.stream("a", max_new_tokens=300)
    gc.collect()
    assert len(list(stream)) == 300


def test_arguments_for_later_releases_are_refused_with_a_hint() -> None:
    with pytest.raises(InvalidConfig, match="adapters.*later release"):
        fastllm.load("demo", adapters={"x": "y"})
    with pytest.raises(InvalidConfig, match="EngineConfig"):
        fastllm.load("demo", engine={"threads": 1})  # type: ignore[arg-type]


def test_loading_nothing_says_so() -> None:
    with pytest.raises(LoadError):
        fastllm.load("/nowhere/at/all")

    async def main() -> None:
        with pytest.raises(LoadError):
            await fastllm.load_async("/nowhere/at/all")

    anyio.run(main)
    anyio.run(main, backend="trio")


class Terminal:
    """Collects what is written; says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_the_progress_bar_waits_draws_and_wipes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    terminal: Any = Terminal()
    now = 100.0
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_opening.time, "monotonic", lambda: now)
    bar = _opening._bar(None, "demo")
    assert bar is not None
    half = SimpleNamespace(nbytes=5_000_000, total_nbytes=10_000_000, stage="weights")
    bar.update(half)  # type: ignore[arg-type]
    assert terminal.text == "", "a quick load shows nothing"
    now = 101.0
    bar.update(half)  # type: ignore[arg-type]
    assert "50%" in terminal.text
    assert "5/10 MB" in terminal.text
    drawn = terminal.text
    bar.update(half)  # type: ignore[arg-type]
    assert terminal.text == drawn, "no more than ten times a second"
    bar.close()
    assert terminal.text.endswith(" \r")
    assert _opening._bar(False, "x") is None
    assert _opening._bar(lambda _: None, "x") is None
    terminal.isatty = lambda: False
    assert _opening._bar(None, "x") is None
    assert _opening._bar(True, "x") is not None


# --- the bundled model


@pytest.fixture(scope="module")
def demo() -> Iterator[Model]:
    with fastllm.load("demo", engine=EngineConfig(threads=2)) as made:
        yield made


def test_the_demo_model_loads_and_answers(demo: Model) -> None:
    assert demo.info.chat
    assert demo.info.parameters > 1_000_000
    assert demo.info.context_length == 1024
    answer = demo.blocking.chat("What is 17 + 25?", temperature=0)
    assert "42" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(answer.prompt_token_ids)
    assert "".join(token.text for token in answer.tokens) == answer.text


def test_load_async_gives_the_same_model(demo: Model) -> None:
    want = demo.blocking.generate("Once upon a time", temperature=0, max_new_tokens=20).token_ids

    async def main() -> tuple[int, ...]:
        async with await fastllm.load_async("demo") as model:
            return (await model.generate("Once upon a time", temperature=0, max_new_tokens=20)).token_ids

    assert anyio.run(main) == want
    assert anyio.run(main, backend="trio") == want


def test_load_async_can_be_cancelled() -> None:
    async def main() -> bool:
        with anyio.move_on_after(0) as scope:
            await fastllm.load_async("demo")
        return scope.cancelled_caught

    for backend in ("asyncio", "trio"):
        assert anyio.run(main, backend=backend)


def test_progress_is_reported(demo: Model) -> None:
    seen = []
    with fastllm.load("demo", progress=seen.append):
        pass
    assert seen[-1].stage == "done"
    assert [step.tensors for step in seen] == sorted(step.tensors for step in seen)


def test_the_same_seed_alone_and_in_a_batch_of_32(demo: Model) -> None:
    prompts = ["Once upon a time", "Tell me a story about a fox.", "Hello", "Why is the sky blue?"] * 8
    batch = demo.blocking.batch(prompts, temperature=1.0, seed=5, max_new_tokens=24)
    for index in range(4):
        alone = demo.blocking.generate(prompts[index], temperature=1.0, seed=5, max_new_tokens=24)
        assert batch[index].token_ids == batch[index + 28].token_ids == alone.token_ids
    assert len({done.token_ids for done in batch}) == 4


def test_logits_and_scores_agree(demo: Model) -> None:
    import numpy as np

    prompt, answer = "Once upon a", " time"
    scores = demo.blocking.score(prompt, answer)
    ids = demo.tokenize(prompt + answer)
    rows = demo.blocking.logits(ids).astype(np.float64)
    logprobs = rows - rows.max(axis=1, keepdims=True)
    logprobs -= np.log(np.exp(logprobs).sum(axis=1, keepdims=True))
    start = len(ids) - len(scores)
    want = [logprobs[at - 1, ids[at]] for at in range(start, len(ids))]
    assert scores.logprobs == pytest.approx(want, abs=1e-4)
    greedy = demo.blocking.generate(prompt, temperature=0, max_new_tokens=1, logprobs=3)
    first = demo.blocking.logits(prompt)[-1]
    assert greedy.token_ids[0] == int(first.argmax())
    assert [top.id for top in greedy.tokens[0].top] == np.argsort(-first, kind="stable")[:3].tolist()
