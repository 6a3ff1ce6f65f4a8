"""Processes: fork, exit, interrupts, pickling."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastllm import Model

Make = Callable[..., Model]
TESTS = Path(__file__).resolve().parents[1]


def start(program: str) -> subprocess.Popen[str]:
    """A program in an interpreter of its own, with the test helpers on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=TESTS
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


PRELUDE = """
import anyio, asyncio, gc, os, signal, sys, threading, time
from nullmodel import null_model, expected
import fastllm

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have them ignore it
"""

EXITS = {
    "unread stream": "s = model.stream('a', max_new_tokens=None, lookahead=None)",
    "read stream": """
async def main():
    global s
    s = model.stream('a', max_new_tokens=None, lookahead=None)
    await s.__anext__()
anyio.run(main, backend=BACKEND)
""",
    "exit inside the loop": """
async def main():
    async for token in model.stream('a', max_new_tokens=None):
        sys.exit(0)
anyio.run(main, backend=BACKEND)
""",
    "fifty streams": """
async def main():
    global s
    s = [model.stream('a', max_new_tokens=None, lookahead=None) for _ in range(50)]
    for one in s:
        await one.__anext__()
anyio.run(main, backend=BACKEND)
""",
    "blocking stream": "s = model.blocking.stream('a', max_new_tokens=None, lookahead=None); next(s)",
    "unfinished batch": """
async def main():
    global s
    s = model.stream_batch(['a', 'b'], max_new_tokens=None)
    await s.__anext__()
anyio.run(main, backend=BACKEND)
""",
    "model collected just before": """
async def main():
    await model.generate('a', max_new_tokens=3)
anyio.run(main, backend=BACKEND)
del model
""",
    "daemon thread that reads": """
def read():
    for _ in model.blocking.stream('a', max_new_tokens=None):
        pass
threading.Thread(target=read, daemon=True).start()
time.sleep(0.1)
""",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("case", list(EXITS))
def test_exit_with_open_streams_is_quick_and_quiet(case: str, backend: str) -> None:
    if backend == "trio" and "BACKEND" not in EXITS[case]:
        pytest.skip("no loop in it")
    program = PRELUDE + f"BACKEND = {backend!r}\nmodel = null_model(step_us=2000)\n" + EXITS[case]
    program += "\nprint('end', flush=True)"
    process = start(program)
    assert process.stdout is not None
    process.stdout.readline()  # "end", or the exit itself
    began = time.monotonic()
    code, _, err = finish(process)
    assert (code, err) == (0, "")
    assert time.monotonic() - began < 2


def test_a_forked_child_is_told_and_the_parent_goes_on() -> None:
    program = (
        PRELUDE
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own: fork with threads
model = null_model(step_us=500)
stream = model.blocking.stream("a", max_new_tokens=2000)
next(stream)
anyio.run(lambda: model.generate("a", max_new_tokens=3))
pid = os.fork()
if pid == 0:
    told = []
    for call in (lambda: model.stream("a"), lambda: model.blocking.generate("a"), lambda: next(stream),
                 lambda: anyio.run(lambda: model.generate("a"))):
        try:
            call()
        except fastllm.ForkedProcess as error:
            told.append("spawn" in str(error))
    model.close()
    del stream
    gc.collect()
    assert told == [True] * 4, told
    sys.exit(7)  # through atexit and the finalisers
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
text = "b" + "".join(token.text for token in stream)
assert text == expected("a", 2000)
assert model.blocking.generate("a", max_new_tokens=3).text == "bcd"
print("fine")
"""
    )
    code, out, err = finish(start(program))
    assert (code, out, err) == (0, "fine\n", "")


def test_an_interrupt_stops_a_blocking_stream_and_not_the_process() -> None:
    program = (
        PRELUDE
        + """
model = null_model(step_us=100_000)
for way in ("stream", "generate", "batch", "queued"):
    began = None
    try:
        print("ready", flush=True)
        if way == "stream":
            for _ in model.blocking.stream("a", max_new_tokens=None): pass
        elif way == "generate":
            model.blocking.generate("a", max_new_tokens=None)
        elif way == "batch":
            model.blocking.batch(["a"] * 3, max_new_tokens=None)
        else:
            blockers = [model.blocking.stream("a", max_new_tokens=None, lookahead=None) for _ in range(64)]
            model.blocking.generate("a", max_new_tokens=None)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        blockers = None
    deadline = time.monotonic() + 2
    while model.stats().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert model.stats().running == 0
print(model.blocking.generate("a", max_new_tokens=2).text)
"""
    )
    process = start(program)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - began < 0.2 + 0.3  # 200 ms, and a busy machine
    code, out, err = finish(process)
    assert (code, out, err) == (0, "bc\n", "")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run turns SIGINT into cancellation from 3.11 on")
def test_an_interrupt_cancels_an_async_stream_and_keeps_its_text() -> None:
    program = (
        PRELUDE
        + """
model = null_model(step_us=20_000)
kept = []
async def cell():
    stream = model.stream("a", max_new_tokens=None)
    kept.append(stream)
    print("ready", flush=True)
    async for _ in stream:
        pass
for turn in range(2):
    try:
        asyncio.run(cell())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
for stream in kept:
    while stream.state != "done":
        time.sleep(0.005)
    assert stream.finish_reason == "cancelled" and len(stream.text) > 2
    assert stream.text == expected("a", len(stream.text))
assert model.stats().running == 0
print(asyncio.run(model.generate("a", max_new_tokens=2)).text)
"""
    )
    process = start(program)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - began < 0.5
    code, out, err = finish(process)
    assert (code, out, err) == (0, "bc\n", "")


def test_pickling_and_copying_are_refused_with_a_hint(make_model: Make) -> None:
    model = make_model()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="spawn"):
            attempt(model)


def test_close_is_idempotent_and_a_context_manager_closes(make_model: Make) -> None:
    with make_model() as model:
        assert model.blocking.generate("a", max_new_tokens=1).text == "b"
        assert not model.closed
    assert model.closed
    model.close()
    model.close(drain=True)
    assert "closed" in repr(model)


def test_draining_has_a_limit(make_model: Make) -> None:
    model = make_model(step_us=2000)
    stream = model.blocking.stream("a", max_new_tokens=None)
    began = time.monotonic()
    model.close(drain=True, timeout_s=0.2)
    assert 0.1 < time.monotonic() - began < 2
    assert stream.state == "done"
