"""The engine's bindings on the model without weights: after token t it gives (t + 1) % vocab."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastllm.errors import (
    ContextTooLong,
    EngineClosed,
    EngineDead,
    FastLLMError,
    ForkedProcess,
    InvalidConfig,
    InvalidRequest,
    QueueFull,
    from_code,
)

core = pytest.importorskip("fastllm._core", reason="the native module is not built")

VOCAB = 128
GREEDY = {"temperature": 0.0, "max_new_tokens": 10}


def make_engine(*, step_us: int = 0, context: int = 512, vocab: int = VOCAB, **overrides: Any) -> Any:
    program = core.Program.null(vocab, context, step_us)
    table = core.Vocab([bytes([i % 128]) for i in range(vocab)], [False] * vocab)
    config: dict[str, Any] = {
        "max_running": 8,
        "kv_memory_bytes": 0,
        "block_tokens": 16,
        "max_batch_tokens": 256,
        "prefill_chunk": 64,
        "max_queue": 64,
        "deterministic": True,
        "prefix_cache": True,
    }
    return core.Engine(program, table, **(config | overrides))


@pytest.fixture
def engine() -> Iterator[Any]:
    made = make_engine()
    yield made
    made.close(drain=False)


def until(ready: Callable[[], Any], timeout_s: float = 20) -> Any:
    end = time.monotonic() + timeout_s
    while not (result := ready()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.0005)
    return result


def read(request: Any) -> list[tuple[Any, ...]]:
    tokens: list[tuple[Any, ...]] = []
    while True:
        assert request.wait(30)
        got = request.take()
        tokens += got
        request.want(len(tokens) + 1)
        if not got and request.finish is not None:
            return tokens


def idle(engine: Any) -> bool:
    stats = engine.stats()
    return (
        stats["running"] + stats["queued"] + stats["parked"] == 0
        and stats["kv_blocks_free"] == stats["kv_blocks_total"]
    )


def test_a_request_from_submit_to_finish(engine: Any) -> None:
    request = engine.submit([60, 61, 62], GREEDY | {"logprobs": 2})
    tokens = read(request)
    assert [t[0] for t in tokens] == list(range(63, 73))
    assert [t[3] for t in tokens] == list(range(10))
    assert "".join(t[1] for t in tokens) == bytes(range(63, 73)).decode()
    assert b"".join(t[2] for t in tokens) == bytes(range(63, 73))
    for id_, text, _, _, logprob, top, special, time_s in tokens:
        assert logprob is not None
        assert -0.1 < logprob <= 0
        assert top[0] == (id_, text, pytest.approx(logprob))
        assert len(top) == 2
        assert special is False
        assert time_s > 0
    finish = request.finish
    assert finish["reason"] == "length"
    assert (finish["stop"], finish["error"], finish["tail_text"], finish["tail_bytes"]) == (None, None, "", b"")
    assert finish["usage"] == {"prompt_tokens": 3, "completion_tokens": 10, "cached_tokens": 0}
    timing = finish["timing"]
    assert timing["steps"] == 10
    assert timing["total_s"] >= timing["ttft_s"] >= timing["queue_s"] >= 0
    assert request.state == "done"
    assert request.progress == (3, 3)
    assert request.unread == 0
    stats = until(lambda: idle(engine) and engine.stats())
    assert stats["generated_tokens"] == 10
    assert stats["prompt_tokens"] == 3
    assert stats["steps"] == 10
    assert stats["finished"] == 1
    assert stats["dead"] is None
    assert stats["forked"] is False


def test_stats_keys_are_those_of_the_stub(engine: Any) -> None:
    assert set(engine.stats()) == {
        "running", "queued", "parked", "prefilling", "kv_blocks_total", "kv_blocks_free", "kv_blocks_cached",
        "block_tokens", "kv_bytes", "weight_bytes", "steps", "prompt_tokens", "generated_tokens", "cached_tokens",
        "preemptions", "cancelled", "finished", "decode_tps", "step_ms", "uptime_s", "dead", "forked",
    }  # fmt: skip


def test_numpy_prompts_and_numpy_integers(engine: Any) -> None:
    for prompt in (np.array([5, 6], np.int32), np.array([5, 6], np.int64), [np.int64(5), np.int32(6)], (5, 6)):
        assert [t[0] for t in read(engine.submit(prompt, GREEDY))][:2] == [7, 8]


def test_lookahead_parks_and_want_resumes(engine: Any) -> None:
    request = engine.submit([1], GREEDY | {"max_new_tokens": 300}, lookahead=20)
    until(lambda: request.state == "parked")
    assert request.unread == 20
    stats = engine.stats()
    assert (stats["parked"], stats["running"]) == (1, 0)
    assert len(request.take(5)) == 5
    request.want(5)
    until(lambda: request.unread == 20)
    assert [t[0] for t in read(request)][-1] == (1 + 300) % VOCAB


def test_lookahead_0_is_exactly_one_step_a_want(engine: Any) -> None:
    request = engine.submit([1, 2, 3], GREEDY, lookahead=0)
    time.sleep(0.02)
    assert engine.stats()["steps"] == 0
    assert request.state == "queued"
    for count in range(1, 11):
        request.want(count)
        assert request.wait(10)
        assert len(request.take()) == 1
        assert engine.stats()["steps"] == count
        time.sleep(0.002)
        assert engine.stats()["steps"] == count
    assert request.finish["reason"] == "length"


def test_dropping_a_request_cancels_it() -> None:
    engine = make_engine(step_us=2000)
    request = engine.submit([1], GREEDY | {"max_new_tokens": -1}, lookahead=-1)
    assert request.wait(10)
    before = engine.stats()["steps"]
    del request
    gc.collect()
    until(lambda: idle(engine))
    assert engine.stats()["steps"] - before <= 2
    assert engine.stats()["cancelled"] == 1
    engine.close(drain=False)


def test_cancel_is_idempotent_and_keeps_what_was_written() -> None:
    engine = make_engine(step_us=1000)
    request = engine.submit([1], GREEDY | {"max_new_tokens": -1}, lookahead=-1)
    until(lambda: request.unread >= 3)
    for _ in range(3):
        request.cancel()
    until(lambda: request.finish is not None)
    assert request.finish["reason"] == "cancelled"
    tokens = request.take()
    assert [t[0] for t in tokens] == [2 + i for i in range(len(tokens))]
    assert request.finish["usage"]["completion_tokens"] == len(tokens)
    request.cancel()
    until(lambda: idle(engine))
    engine.close(drain=False)


def test_cancelled_text_that_was_held_back_is_the_tail() -> None:
    engine = make_engine(step_us=1000, vocab=1000)
    request = engine.submit([64], GREEDY | {"max_new_tokens": 400, "stop": ["CDEFGHIJKLMNOPQRSTUVWXYZ!"]}, lookahead=6)
    until(lambda: request.state == "parked")
    request.cancel()
    until(lambda: request.finish is not None)
    tokens = request.take()
    assert "".join(t[1] for t in tokens) == "AB"
    assert request.finish["tail_text"] == "CDEF"
    assert request.finish["tail_bytes"] == b"CDEF"
    engine.close(drain=False)


def test_stop_strings_and_end_tokens(engine: Any) -> None:
    request = engine.submit([64], GREEDY | {"max_new_tokens": 30, "stop": ["EFG", "ZZ"]})
    tokens = read(request)
    assert "".join(t[1] for t in tokens) == "ABCD"
    assert request.finish["reason"] == "stop"
    assert request.finish["stop"] == "EFG"
    assert len(tokens) == 7
    request = engine.submit([64], GREEDY | {"max_new_tokens": 30, "eos_token_ids": [70]})
    tokens = read(request)
    assert request.finish["stop"] == 70
    assert tokens[-1][:3] == (70, "", b"")
    assert tokens[-1][6] is True
    assert "".join(t[1] for t in tokens) == "ABCDE"
    request = engine.submit([64], GREEDY | {"max_new_tokens": 30, "stop_token_ids": [70], "include_stop": True})
    assert "".join(t[1] for t in read(request)) == "ABCDEF"
    request = engine.submit([64], GREEDY | {"max_new_tokens": 8, "eos_token_ids": [70], "ignore_eos": True})
    assert "".join(t[1] for t in read(request)) == "ABCDEFGH"


def test_held_text_is_released_by_the_last_token(engine: Any) -> None:
    request = engine.submit([64], GREEDY | {"max_new_tokens": 5, "stop": ["EX"]})
    assert [t[1] for t in read(request)] == ["A", "B", "C", "D", "E"]
    request = engine.submit([64], GREEDY | {"max_new_tokens": 9, "stop": ["EX"], "eos_token_ids": [70]})
    assert [t[1] for t in read(request)] == ["A", "B", "C", "D", "", "E"]


def test_the_prefix_cache_saves_prompt_tokens(engine: Any) -> None:
    prompt = [*range(100), 5]
    read(engine.submit(prompt, GREEDY))
    before = engine.stats()
    assert before["kv_blocks_cached"] > 0
    request = engine.submit(prompt, GREEDY)
    read(request)
    assert request.finish["usage"]["cached_tokens"] == 96
    assert engine.stats()["prompt_tokens"] - before["prompt_tokens"] == 5


def test_a_tiny_cache_preempts_and_gives_the_same_tokens() -> None:
    prompts = [[i, i + 1, i + 2] for i in range(20)]
    texts = []
    for memory in (0, 64 * 64):  # 64 bytes a token: 64 tokens
        engine = make_engine(kv_memory_bytes=memory, block_tokens=4)
        requests = [
            engine.submit(p, {"temperature": 1.0, "seed": i, "max_new_tokens": 30}, lookahead=-1)
            for i, p in enumerate(prompts)
        ]
        texts.append([[t[0] for t in read(r)] for r in requests])
        preempted = sum(r.finish["timing"]["preemptions"] for r in requests)
        assert (preempted > 0) == (memory > 0)
        assert engine.stats()["preemptions"] == preempted
        until(lambda engine=engine: idle(engine))
        engine.close(drain=False)
    assert texts[0] == texts[1]


def test_priorities() -> None:
    engine = make_engine(step_us=2000, max_running=1)
    first = engine.submit([1], GREEDY, lookahead=-1)
    until(lambda: first.state in ("running", "prefill"))
    low = engine.submit([1], GREEDY, lookahead=-1)
    high = engine.submit([1], GREEDY, lookahead=-1, priority=5)
    until(lambda: high.finish is not None)
    assert low.finish is None
    read(low)
    engine.close(drain=False)


def test_channels(engine: Any) -> None:
    one, two = engine.open_channel(), engine.open_channel()
    assert engine.wait_events(0.0) == []
    a = engine.submit([1], GREEDY, channel=one, tag=41)
    b = engine.submit([1], GREEDY, channel=two, tag=42)
    until(lambda: a.finish and b.finish)
    seen = set(engine.wait_events(5))
    while len(seen) < 2:
        seen |= set(engine.wait_events(5))
    assert seen == {one, two}
    assert engine.drain(one) == [41]
    assert engine.drain(one) == []
    assert engine.drain(two) == [42]
    blocking = engine.submit([1], GREEDY)  # channel 0 is never reported
    read(blocking)
    assert engine.wait_events(0.02) == []
    engine.close_channel(one)
    with pytest.raises(InvalidRequest, match=f"no channel {one}"):
        engine.drain(one)
    with pytest.raises(InvalidRequest, match=f"no channel {one}"):
        engine.submit([1], GREEDY, channel=one)


def test_closing_a_channel_cancels_its_requests_only() -> None:
    engine = make_engine(step_us=1000)
    channel = engine.open_channel()
    gone = engine.submit([1], GREEDY | {"max_new_tokens": -1}, channel=channel, lookahead=-1)
    stays = engine.submit([1], GREEDY | {"max_new_tokens": 40}, lookahead=-1)
    assert gone.wait(10)
    engine.close_channel(channel)
    until(lambda: gone.finish is not None)
    assert gone.finish["reason"] == "cancelled"
    assert len(read(stays)) == 40
    engine.close(drain=False)


def test_wait_events_and_wait_release_the_gil_and_wake(engine: Any) -> None:
    results: list[Any] = []
    waiter = threading.Thread(target=lambda: results.append(engine.wait_events(30)))
    waiter.start()
    time.sleep(0.05)  # runs only because the waiter has let go of the GIL
    start = time.monotonic()
    engine.wake()
    waiter.join(10)
    assert results == [[]]
    assert time.monotonic() - start < 5
    request = engine.submit([1], GREEDY, lookahead=0)
    start = time.monotonic()
    assert request.wait(0.05) is False
    assert time.monotonic() - start >= 0.04


def test_an_injected_fault_kills_the_engine_for_everybody() -> None:
    engine = make_engine(step_us=1000)
    requests = [engine.submit([1], GREEDY | {"max_new_tokens": -1}, lookahead=-1) for _ in range(12)]
    assert requests[0].wait(10)
    engine.inject_fault("cable pulled")
    for request in requests:
        until(lambda request=request: request.finish is not None)
        error = request.finish["error"]
        assert request.finish["reason"] == "error"
        assert error["code"] == "engine_dead"
        assert "cable pulled" in error["message"]
        assert isinstance(from_code(**error), EngineDead)
        assert "cable pulled" in str(from_code(**error).cause)  # type: ignore[attr-defined]
    with pytest.raises(EngineDead, match="cable pulled") as caught:
        engine.submit([1], GREEDY)
    assert "cable pulled" in str(caught.value.cause)
    assert "cable pulled" in engine.stats()["dead"]
    engine.close(drain=True)


def test_refusals(engine: Any) -> None:
    with pytest.raises(InvalidRequest, match="0 tokens"):
        engine.submit([], GREEDY)
    with pytest.raises(InvalidRequest, match="token 1 of the prompt is 128; the vocabulary has 128"):
        engine.submit([1, 128], GREEDY)
    with pytest.raises(InvalidRequest, match="-1"):
        engine.submit([-1], GREEDY)
    with pytest.raises(InvalidRequest, match="token id 0 is a str"):
        engine.submit(["a"], GREEDY)
    with pytest.raises(InvalidRequest, match="sequence of integers"):
        engine.submit("abc", GREEDY)
    with pytest.raises(InvalidRequest, match="one dimension"):
        engine.submit(np.zeros((2, 2), np.int32), GREEDY)
    with pytest.raises(InvalidRequest, match="kind 'f'"):
        engine.submit(np.zeros(3, np.float32), GREEDY)
    with pytest.raises(InvalidRequest):
        engine.submit([2**70], GREEDY)
    with pytest.raises(ContextTooLong, match="512 tokens; the context takes 511") as caught:
        engine.submit([1] * 512, GREEDY)
    assert (caught.value.prompt_tokens, caught.value.limit) == (512, 511)
    with pytest.raises(InvalidConfig, match="lookahead is -2"):
        engine.submit([1], GREEDY, lookahead=-2)
    with pytest.raises(InvalidConfig, match="temperature"):
        engine.submit([1], {"temperature": -3})
    assert idle(engine)


def test_a_request_beyond_the_whole_cache_is_refused_with_numbers() -> None:
    engine = make_engine(kv_memory_bytes=64 * 64, block_tokens=16)
    with pytest.raises(ContextTooLong, match="65 tokens; the KV cache takes 63") as caught:
        engine.submit([1] * 65, GREEDY)
    assert caught.value.limit == 63
    assert "512" in caught.value.hint
    assert len(read(engine.submit([1] * 60, GREEDY))) == 4  # to the end of the cache: "length"
    engine.close(drain=False)


def test_a_full_queue_says_when_to_come_back() -> None:
    engine = make_engine(step_us=20_000, max_running=1, max_queue=3)
    kept = [engine.submit([1], GREEDY | {"max_new_tokens": 200}, lookahead=-1)]
    until(lambda: engine.stats()["running"] == 1)
    kept += [engine.submit([1], GREEDY) for _ in range(3)]
    with pytest.raises(QueueFull, match="3 requests wait already; max_queue is 3") as caught:
        engine.submit([1], GREEDY)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    kept[-1].cancel()  # its place is free at once, though a step is running
    assert kept[-1].finish["reason"] == "cancelled"
    engine.submit([1], GREEDY)
    engine.close(drain=False)


def test_close_hard_and_drain() -> None:
    engine = make_engine(step_us=500)
    requests = [engine.submit([1], GREEDY | {"max_new_tokens": 50}, lookahead=i - 1) for i in range(4)]
    engine.close(drain=True)
    assert [r.finish["reason"] for r in requests] == ["length"] * 4
    assert [len(r.take()) for r in requests] == [50] * 4
    assert engine.closed
    engine.close(drain=False)
    with pytest.raises(EngineClosed):
        engine.submit([1], GREEDY)

    engine = make_engine(step_us=500)
    requests = [engine.submit([1], GREEDY | {"max_new_tokens": -1}) for _ in range(4)]
    start = time.monotonic()
    engine.close(drain=True, timeout_s=0.05)
    assert time.monotonic() - start < 5
    assert all(r.finish["reason"] in ("cancelled", "length") for r in requests)


def test_max_time_s(engine: Any) -> None:
    request = engine.submit([1], GREEDY | {"max_time_s": 0.05}, lookahead=0)
    until(lambda: request.finish is not None)
    assert request.finish["reason"] == "timeout"


def test_prompt_logprobs_and_logits(engine: Any) -> None:
    prompt = [(i * 7) % VOCAB for i in range(150)]  # several chunks
    request: Any = engine.submit(prompt, GREEDY | {"max_new_tokens": 0, "prompt_logprobs": 2}, keep_logits=True)
    with pytest.raises(InvalidRequest, match="without it"):
        engine.submit([1], GREEDY).logits()
    until(lambda: request.finish is not None)
    assert request.finish["reason"] == "length"
    logits = request.logits()
    assert logits.shape == (150, VOCAB)
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [(t + 1) % VOCAB for t in prompt]
    scores = request.prompt_logprobs()
    assert scores[0] is None
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    for position in range(1, 150):
        token, logprob, rank, top = scores[position]
        assert token == prompt[position]
        assert logprob == pytest.approx(expected[position - 1, token], abs=1e-4)
        assert rank == 1 + int((logits[position - 1] > logits[position - 1, token]).sum())
        assert top[0][0] == (prompt[position - 1] + 1) % VOCAB
    request = None
    gc.collect()
    assert logits[149, (prompt[149] + 1) % VOCAB] == logits.max()  # the array keeps its memory alive


def test_seeds_make_draws_independent_of_the_crowd() -> None:
    engine = make_engine(vocab=50)
    hot = {"temperature": 8.0, "max_new_tokens": 40}
    alone = [[t[0] for t in read(engine.submit([3], hot | {"seed": s}))] for s in range(6)]
    crowd = [engine.submit([3], hot | {"seed": s}, lookahead=-1) for s in range(6)]
    assert [[t[0] for t in read(r)] for r in crowd] == alone
    assert len({tuple(a) for a in alone}) == 6
    engine.close(drain=False)


def test_many_threads() -> None:
    engine = make_engine(max_queue=10_000)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            random = np.random.default_rng(seed)
            for _ in range(25):
                start = int(random.integers(VOCAB))
                request = engine.submit([start], GREEDY, lookahead=int(random.integers(-1, 4)))
                request.want(1)
                if random.random() < 0.3:
                    request.cancel()
                tokens = [t[0] for t in read(request)]
                assert tokens == [(start + 1 + i) % VOCAB for i in range(len(tokens))]
                assert len(tokens) == 10 or request.finish["reason"] == "cancelled"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    until(lambda: idle(engine))
    engine.close(drain=False)


def test_a_thousand_requests_leave_nothing_behind() -> None:
    engine = make_engine(max_queue=10_000, kv_memory_bytes=64 * 4096)

    def open_and_drop(count: int) -> None:
        requests = [engine.submit([i % VOCAB, 1, 2], GREEDY | {"max_new_tokens": 50}) for i in range(count)]
        for request in requests[::2]:
            request.cancel()
        del requests
        gc.collect()
        until(lambda: idle(engine))

    open_and_drop(1000)
    threads = threading.active_count()
    files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        open_and_drop(1000)
    assert threading.active_count() == threads
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == files
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    assert engine.stats()["finished"] == 6000
    engine.close(drain=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(engine: Any) -> None:
    request = engine.submit([1], GREEDY | {"max_new_tokens": 100}, lookahead=2)
    until(lambda: request.state == "parked")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            core.after_fork_in_child()
            refused = 0
            calls: list[Callable[[], Any]] = [
                lambda: engine.submit([1], GREEDY),
                lambda: request.take(),
                lambda: request.wait(0.1),
                lambda: request.finish,
                lambda: engine.wait_events(0.1),
                lambda: engine.drain(0),
                lambda: engine.open_channel(),
            ]
            for call in calls:
                try:
                    call()
                except ForkedProcess:
                    refused += 1
            request.cancel()
            request.want(50)
            engine.wake()
            engine.close(drain=True)
            if refused == len(calls) and engine.stats()["forked"]:
                code = 0
            del request, engine
            gc.collect()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert engine.stats()["forked"] is False
    assert len(read(request)) == 100


def test_engine_sizes_are_checked() -> None:
    for name in ("max_running", "block_tokens", "max_batch_tokens", "prefill_chunk", "max_queue"):
        with pytest.raises(InvalidConfig, match=name):
            make_engine(**{name: 0})
    with pytest.raises(InvalidConfig, match="kv_memory is 10 bytes, one block of 16 tokens needs 1024"):
        make_engine(kv_memory_bytes=10)
    with pytest.raises(FastLLMError):
        make_engine(kv_memory_bytes=-1)


def test_an_engine_that_is_dropped_closes() -> None:
    engine = make_engine(step_us=1000)
    request = engine.submit([1], GREEDY | {"max_new_tokens": -1}, lookahead=-1)
    assert engine.program.vocab_size == VOCAB
    assert request.wait(10)
    del engine
    gc.collect()
    until(lambda: request.finish is not None)
    assert request.finish["reason"] == "cancelled"
    assert request.take()
