"""fastllm beside llama.cpp and transformers on the CPU: `python -m benchmarks.cpu --shape llama3.2-1b`.

All peers load the same random bfloat16 weights and stay loaded, each in its own process; every row is measured round by
round, one peer after the other (A B C A B C ...), so that a busy machine slows them alike. Figures are medians; the
share is of the read bandwidth measured in the same rounds. Before anything is timed, the greedy ids are compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.floors import read_bandwidth
from benchmarks.peers import NAMES
from benchmarks.shapes import SHAPES, Shape, write_checkpoint


class Worker:
    """A peer's process; `call` sends one request and waits for its answer."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.worker", name, str(folder), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.version = self._read()["version"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def call(self, method: str, *args: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": method, "args": args}) + "\n")
        self._process.stdin.flush()
        return self._read()["result"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Row:
    """One measured row; `seconds` by peer, all rounds."""

    name: str
    tokens: int
    weight_reads: int
    seconds: dict[str, list[float]] = field(default_factory=dict)


def agreement(workers: list[Worker], prompt: list[int], count: int = 12) -> dict[str, int]:
    """Leading greedy ids that each peer shares with the first one.

    Random weights give nearly tied logits now and then, and 16-bit arithmetic differs between peers, so a late parting
    is no fault; parting at once is.
    """
    reference = workers[0].call("greedy", prompt, count)
    shared = {}
    for worker in workers[1:]:
        ids = worker.call("greedy", prompt, count)
        same = 0
        while same < count and ids[same] == reference[same]:
            same += 1
        shared[worker.name] = same
    return shared


def measure(
    workers: list[Worker],
    shape: Shape,
    *,
    batches: list[int],
    prefill: list[int],
    steps: int,
    rounds: int,
    threads: int,
) -> tuple[list[Row], list[float]]:
    """All rows, interleaved; and the read bandwidth of each round, bytes per second."""
    rng = np.random.default_rng(1)

    def prompt(length: int) -> list[int]:
        return [int(t) for t in rng.integers(0, shape.vocab, length)]

    rows = [Row(f"prefill {n}", n, 0) for n in prefill] + [Row(f"decode, batch {b}", b * steps, steps) for b in batches]
    bandwidth = []
    for turn in range(rounds + 1):  # the first is warm-up
        if turn:
            bandwidth.append(read_bandwidth(threads, rounds=1))
        for row in rows:
            for worker in workers:
                if row.weight_reads:
                    batch = row.tokens // steps
                    seconds = worker.call("decode", [prompt(128) for _ in range(batch)], steps)
                else:
                    seconds = worker.call("prefill", prompt(row.tokens))
                if turn:
                    row.seconds.setdefault(worker.name, []).append(seconds)
    return rows, bandwidth


def table(rows: list[Row], names: list[str], shape: Shape, bandwidth: float) -> str:
    """Markdown: tokens per second by peer with the spread, the ratio to the best other, the share of bandwidth."""
    lines = [
        "| row | " + " | ".join(names) + " | fastllm / best other | share of read bandwidth |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in rows:
        rate = {n: row.tokens / median(row.seconds[n]) for n in names}
        spread = {n: (row.tokens / max(row.seconds[n]), row.tokens / min(row.seconds[n])) for n in names}
        cells = [f"{rate[n]:.1f} ({spread[n][0]:.1f} to {spread[n][1]:.1f})" for n in names]
        others = [rate[n] for n in names if n != "fastllm"]
        ratio = f"{rate['fastllm'] / max(others):.2f}" if others and "fastllm" in rate else ""
        share = ""
        if row.weight_reads and "fastllm" in rate:
            share = f"{shape.step_bytes * row.weight_reads / median(row.seconds['fastllm']) / bandwidth:.0%}"
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {ratio} | {share} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3.2-1b")
    parser.add_argument("--peers", default=",".join(NAMES), help="comma-separated; the first is the reference for ids")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--prefill", default="512")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fastllm-benchmarks")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)

    shape = SHAPES[options.shape]
    folder = write_checkpoint(shape, options.folder / shape.name)
    names = options.peers.split(",")
    if "llama_cpp" in names:
        from benchmarks.gguf_export import write_gguf

        write_gguf(shape, folder)
    workers = []
    for name in names:
        try:
            workers.append(Worker(name, folder, options.threads))
        except RuntimeError as reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    names = [w.name for w in workers]
    rng = np.random.default_rng(2)
    shared = agreement(workers, [int(t) for t in rng.integers(0, shape.vocab, 64)])
    print(f"greedy ids shared with {names[0]} (of 12): {shared}", file=sys.stderr)
    if any(count == 0 for count in shared.values()):
        print("the peers do not compute the same function; nothing is timed", file=sys.stderr)
        return 1
    rows, bandwidth = measure(
        workers,
        shape,
        batches=[int(b) for b in options.batches.split(",") if b],
        prefill=[int(n) for n in options.prefill.split(",") if n],
        steps=options.steps,
        rounds=options.rounds,
        threads=options.threads,
    )
    peak = {w.name: w.call("peak_bytes") for w in workers}
    versions = {w.name: w.version for w in workers}
    for worker in workers:
        worker.close()
    print(f"\n{shape.name}, bfloat16, {options.threads} threads; tokens per second: median (slowest to fastest)")
    print(f"read bandwidth {median(bandwidth) / 1e9:.1f} GB/s; a decode step reads {shape.step_bytes / 1e9:.2f} GB\n")
    print(table(rows, names, shape, median(bandwidth)))
    print("\npeak memory: " + ", ".join(f"{n} {peak[n] / 1e9:.2f} GB" for n in names))
    if options.out:
        record = {
            "date": datetime.date.today().isoformat(),
            "cpu": _cpu_name(),
            "python": platform.python_version(),
            "command": "python -m benchmarks.cpu " + " ".join(argv if argv is not None else sys.argv[1:]),
            "shape": asdict(shape),
            "versions": versions,
            "threads": options.threads,
            "read_bandwidth": bandwidth,
            "rows": [asdict(r) for r in rows],
            "peak_bytes": peak,
            "shared_ids": shared,
        }
        options.out.write_text(json.dumps(record, indent=1))
    return 0


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
