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
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastllm
from benchmarks.shapes import SHAPES, Shape, write_checkpoint

PROMPT = 128
STEPS = 128


def prompts(shape: Shape, count: int, length: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[int(t) for t in rng.integers(0, shape.vocab, length)] for _ in range(count)]


def load(folder: Path, device: str, **engine: Any) -> fastllm.Model:
    config = fastllm.EngineConfig(prefix_cache=False, **engine)
    return fastllm.load(folder, device=device, engine=config, progress=False)


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
    """Milliseconds a decode step takes with `batch` sequences."""
    found = []
    for turn in range(rounds + 1):
        batch_prompts = prompts(shape, batch, PROMPT, seed=turn)
        done = model.blocking.batch(batch_prompts, temperature=0, max_new_tokens=STEPS + 1, ignore_eos=True)
        if turn:
            found.append(max(c.timing.decode_s for c in done) / STEPS * 1e3)
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3.2-1b")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--prefill", default="512,2048")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bandwidth", type=float, default=4.60e12, help="read bandwidth of the GPU, bytes per second")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fastllm-benchmarks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)

    shape = SHAPES[options.shape]
    folder = write_checkpoint(shape, options.folder / shape.name)
    start = time.perf_counter()
    gpu = load(folder, "cuda", max_running=256, max_batch_tokens=8192, prefill_chunk=8192)
    load_s = time.perf_counter() - start
    cpu = load(folder, "cpu")
    shared = agreement(gpu, cpu, shape)
    cpu.close()
    print(f"greedy ids shared by GPU and CPU, worst of 4 prompts: {shared} of 16", file=sys.stderr)
    if shared == 0:
        print("the devices do not compute the same function; nothing is timed", file=sys.stderr)
        return 1
    floor = shape.step_bytes / options.bandwidth * 1e3
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": str(gpu.info.device),
        "version": fastllm.__version__,
        "python": platform.python_version(),
        "command": "python -m benchmarks.gpu " + " ".join(argv if argv is not None else sys.argv[1:]),
        "shape": shape.name,
        "load_s": load_s,
        "shared_ids": shared,
        "floor_ms": floor,
        "decode": {},
        "ttft": {},
    }
    print(f"\n{shape.name}, bfloat16, {gpu.info.device}; load {load_s:.1f} s; floor of a decode step {floor:.2f} ms\n")
    print("| row | tok/s | step ms (spread) | share of the floor |\n|---|---|---|---|")
    for batch in (int(b) for b in options.batches.split(",") if b):
        times = decode_ms(gpu, shape, batch, options.rounds)
        record["decode"][batch] = times
        rate, spread = batch / median(times) * 1e3, f"{min(times):.2f} to {max(times):.2f}"
        print(f"| decode, batch {batch} | {rate:.0f} | {median(times):.3f} ({spread}) | {floor / median(times):.0%} |")
    for length in (int(n) for n in options.prefill.split(",") if n):
        times = ttft_ms(gpu, shape, length, options.rounds)
        record["ttft"][length] = times
        print(f"| first token after {length} | {length / median(times) * 1e3:.0f} | {median(times):.2f} | |")
    if options.out:
        options.out.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
