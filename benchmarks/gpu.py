"""fastllm on a GPU at the shapes of `shapes.py`: `python -m benchmarks.gpu --shape llama3.2-1b --out FILE`.

Prompts of 128 random tokens, 128 timed decode steps, greedy, prefix cache off; a step is everything the engine does for
one token of every sequence, scheduling and sampling included. Each figure is the median of `--rounds` and stands beside
its floor: the bytes of weights that a step must read over the GPU's read bandwidth. Before anything is timed, the
greedy ids on the GPU are compared with the CPU's on the same weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import numpy as np

import fastllm
import fastllm._core
from benchmarks.shapes import SHAPES, Shape, write_checkpoint

PROMPT = 128
HERE = ("--out", "--folder")
STEPS = 128


def prompts(shape: Shape, count: int, length: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[int(t) for t in rng.integers(0, shape.vocab, length)] for _ in range(count)]


def load(folder: Path, device: str, quant: str | None = None, **engine: Any) -> fastllm.Model:
    config = fastllm.EngineConfig(prefix_cache=False, **engine)
    return fastllm.load(folder, device=device, engine=config, progress=False, quant=quant)


def agreement(gpu: fastllm.Model, cpu: fastllm.Model, shape: Shape, count: int = 16) -> int:
    """Leading greedy ids that both devices share, the worst of four prompts."""
    worst = count
    for prompt in prompts(shape, 4, 32, seed=5):
        ids = [m.blocking.generate(prompt, temperature=0, max_new_tokens=count, ignore_eos=True) for m in (gpu, cpu)]
        same = 0
        while same < count and ids[0].token_ids[same] == ids[1].token_ids[same]:
            same += 1
        worst = min(worst, same)
    return worst


def decode_ms(model: fastllm.Model, shape: Shape, batch: int, rounds: int) -> list[float]:
    """Milliseconds a decode step takes with `batch` sequences, from the last one's first token to the last one's end.

    Before that, prompts of a large batch are still being prefilled between the steps of those that came first.
    """
    found = []
    for turn in range(rounds + 1):
        batch_prompts = prompts(shape, batch, PROMPT, seed=turn)
        done = model.blocking.batch(batch_prompts, temperature=0, max_new_tokens=STEPS + 1, ignore_eos=True)
        if turn:
            window = max(c.timing.total_s for c in done) - max(c.timing.ttft_s for c in done)
            found.append(window / STEPS * 1e3)
    return found


def ttft_ms(model: fastllm.Model, shape: Shape, length: int, rounds: int) -> list[float]:
    """Milliseconds until the first token of one prompt."""
    found = []
    for turn in range(rounds + 1):
        prompt = prompts(shape, 1, length, seed=100 + turn)[0]
        done = model.blocking.generate(prompt, temperature=0, max_new_tokens=1, ignore_eos=True)
        if turn:
            found.append(done.timing.ttft_s * 1e3)
    return found


def throughput(model: fastllm.Model, shape: Shape) -> float:
    """Output tokens per second of 512 requests at once, 512 tokens in and 256 out."""
    batch = prompts(shape, 512, 512, seed=7)
    start = time.perf_counter()
    done = model.blocking.batch(batch, temperature=0, max_new_tokens=256, ignore_eos=True)
    return sum(len(c.token_ids) for c in done) / (time.perf_counter() - start)


async def consumed(model: fastllm.Model, shape: Shape, count: int) -> float:
    """Tokens per second that `count` tasks receive, each iterating its own stream in this one process.

    Counted from the moment that every stream has its first token until one of them ends: prefill and tail do not count.
    """
    arrived = 0
    started = anyio.Event()
    waiting = count
    first = last = 0.0

    async def read(prompt: list[int]) -> None:
        nonlocal arrived, waiting, first, last
        seen = False
        async for _ in model.stream(prompt, temperature=0, max_new_tokens=STEPS + 1, ignore_eos=True):
            if not seen:
                seen = True
                waiting -= 1
                if waiting == 0:
                    first = time.perf_counter()
                    started.set()
            elif started.is_set() and not last:
                arrived += 1
        last = last or time.perf_counter()

    async with anyio.create_task_group() as group:
        for prompt in prompts(shape, count, PROMPT, seed=9):
            group.start_soon(read, prompt)
    return arrived / (last - first)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama3.2-1b", help="comma-separated, of " + ", ".join(SHAPES))
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--prefill", default="512,2048")
    parser.add_argument("--deterministic", action="store_true", help="with EngineConfig(deterministic=True)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=0, help="also read so many asynchronous streams at once")
    parser.add_argument("--throughput", action="store_true", help="also 512 requests of 512 tokens in, 256 out")
    parser.add_argument("--check", type=int, default=16, help="greedy ids to compare with the CPU; 0: none")
    parser.add_argument("--quant", help="weight format, such as fp8, int8, int4; none: bfloat16")
    parser.add_argument("--bandwidth", type=float, default=4.60e12, help="read bandwidth of the GPU, bytes per second")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fastllm-benchmarks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)

    records = [measure(SHAPES[name], options, argv) for name in options.shape.split(",")]
    if options.out:
        options.out.write_text(json.dumps(records, indent=1))
    return 1 if any(record["shared_ids"] == 0 for record in records) else 0


def command_of(arguments: list[str]) -> str:
    """The command line without the paths of this machine."""
    kept = [a for i, a in enumerate(arguments) if a not in HERE and (i == 0 or arguments[i - 1] not in HERE)]
    return " ".join(["python -m benchmarks.gpu", *kept])


def device_of(name: str) -> str:
    """The device's name with what it is."""
    found = [text for known, _, text in fastllm._core.list_devices() if known == name]
    return ", ".join([name, *found])


def measure(shape: Shape, options: argparse.Namespace, argv: list[str] | None) -> dict[str, Any]:
    """Checks the ids, then times every row; prints the table as it goes."""
    folder = write_checkpoint(shape, options.folder / shape.name)
    start = time.perf_counter()
    gpu = load(
        folder,
        "cuda",
        options.quant,
        max_running=512,
        max_batch_tokens=8192,
        prefill_chunk=8192,
        deterministic=options.deterministic,
    )
    load_s = time.perf_counter() - start
    # What a step reads: all weights but the rows of an embedding that is no output layer.
    table = 0 if shape.tied else 2 * shape.vocab * shape.hidden
    floor = (gpu.info.weight_bytes - table) / options.bandwidth * 1e3
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": device_of(str(gpu.info.device)),
        "version": fastllm.__version__,
        "python": platform.python_version(),
        "command": command_of(argv if argv is not None else sys.argv[1:]),
        "shape": shape.name,
        "quant": gpu.info.quant,
        "deterministic": options.deterministic,
        "load_s": load_s,
        "floor_ms": floor,
        "decode": {},
        "ttft": {},
    }
    if options.check:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the CPU computes with numbers rounded to the format
            cpu = load(folder, "cpu", options.quant)
        record["shared_ids"] = agreement(gpu, cpu, shape, options.check)
        cpu.close()
    else:
        record["shared_ids"] = None
    kind = options.quant or "bfloat16"
    print(f"\n{shape.name}, {kind}, {gpu.info.device}; load {load_s:.1f} s; floor of a decode step {floor:.2f} ms")
    if options.check:
        found = record["shared_ids"]
        print(f"greedy ids shared by GPU and CPU, worst of 4 prompts: {found} of {options.check}")
    print(flush=True)
    if record["shared_ids"] == 0:
        print("the devices do not compute the same function; nothing is timed", file=sys.stderr)
        return record
    print("| row | tok/s | step ms (spread) | share of the floor |\n|---|---|---|---|")
    for batch in (int(b) for b in options.batches.split(",") if b):
        times = decode_ms(gpu, shape, batch, options.rounds)
        record["decode"][batch] = times
        rate, spread = batch / median(times) * 1e3, f"{min(times):.2f} to {max(times):.2f}"
        print(
            f"| decode, batch {batch} | {rate:.0f} | {median(times):.3f} ({spread}) | {floor / median(times):.0%} |",
            flush=True,
        )
    for length in (int(n) for n in options.prefill.split(",") if n):
        times = ttft_ms(gpu, shape, length, options.rounds)
        record["ttft"][length] = times
        print(
            f"| first token after {length} | {length / median(times) * 1e3:.0f} | {median(times):.2f} | |", flush=True
        )
    if options.streams:
        record["streams"] = rate = anyio.run(consumed, gpu, shape, options.streams)
        print(f"| {options.streams} asynchronous streams in one process | {rate:.0f} | | |", flush=True)
    if options.throughput:
        record["throughput"] = rate = throughput(gpu, shape)
        print(f"| 512 requests, 512 in, 256 out | {rate:.0f} | | |", flush=True)
    gpu.close()
    return record


if __name__ == "__main__":
    sys.exit(main())
