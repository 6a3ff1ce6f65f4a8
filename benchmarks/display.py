"""What live displays cost the engine: streams that are shown beside the same streams that are not, in a real kernel.

    python -m benchmarks.display                                        # the demo model: thousands of tokens a second
    python -m benchmarks.display --model qwen2.5-0.5b --tokens 100      # random weights at the shape of a real model

A kernel is started as a notebook would; both kinds take turns in it, and this process takes every message off the
wire, as a Jupyter server would, without looking into it. Undisturbed means that nothing in Python touches any token
before the end. The engine's own counter gives tokens per second, from submitting to the last end. On Linux the
processor time of the threads that displays use is counted as well: that figure does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shapes import SHAPES, write_checkpoint

PROGRAM = """
import json, os, threading, time
import anyio
import fastllm

model = fastllm.load({model!r})
fields = dict(max_new_tokens={tokens}, ignore_eos=True, logprobs=5)
found = {{"undisturbed": [], "shown": []}}

def spent_by_displays():
    ids = [t.native_id for t in threading.enumerate() if t.name in ("fastllm-display", "IOPub")]
    seconds = 0.0
    for number in ids:
        try:
            with open(f"/proc/self/task/{{number}}/schedstat") as file:
                seconds += int(file.read().split()[0]) / 1e9
        except OSError:
            pass
    return seconds

async def run(shown):
    before, spent = model.stats().generated_tokens, spent_by_displays()
    start = time.perf_counter()
    streams = [model.stream(f"Tell me story {{i}}.", seed=i, **fields) for i in range({streams})]
    if shown:
        views = [fastllm.show(stream) for stream in streams]
    else:
        for stream in streams:
            stream._ask_for_all()
    if shown:  # its thread has just begun
        spent = min(spent, spent_by_displays())
    while any(stream._request.finish is None for stream in streams):
        await anyio.sleep(0.02)
        used = spent_by_displays()
    seconds = time.perf_counter() - start
    speed = (model.stats().generated_tokens - before) / seconds
    if shown:
        for view in views:
            await view
    else:
        for stream in streams:
            await stream.result()
    return {{"tps": speed, "display_cpu": max(0.0, used - spent) / seconds if shown else 0.0}}

for round in range({rounds} + 1):
    for kind in ("undisturbed", "shown") if round % 2 else ("shown", "undisturbed"):
        one = await run(kind == "shown")
        if round:
            found[kind].append(one)
print("RESULT" + json.dumps(found))
"""


def measure(*, model: str, streams: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Runs the comparison in a kernel of its own.

    Returns:
        By kind and round: tokens per second, and the processor time that displays took, in seconds a second; and the
        messages and bytes that the kernel sent.
    """
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(Path.cwd()))
    try:
        asked = client.execute(PROGRAM.format(model=model, streams=streams, tokens=tokens, rounds=rounds))
        socket = client.iopub_channel.socket
        text, messages, size = "", 0, 0
        while True:
            if not socket.poll(600_000):
                raise RuntimeError("The kernel says nothing for ten minutes.")
            frames = socket.recv_multipart()
            messages += 1
            size += sum(map(len, frames))
            first = frames.index(b"<IDS|MSG>")
            kind = json.loads(frames[first + 2])["msg_type"]
            if kind not in ("error", "stream", "status"):
                continue
            parent, content = (json.loads(frames[first + place]) for place in (3, 5))
            if kind == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            if kind == "stream":
                text += content["text"]
            elif content["execution_state"] == "idle" and parent.get("msg_id") == asked:
                break
        found = json.loads(text.split("RESULT")[1])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return {"rounds_by_kind": found, "messages": messages, "bytes": size}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="demo", help=f"demo, or a shape: {', '.join(SHAPES)}")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fastllm-benchmarks")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shape = SHAPES.get(options.model)
    model = options.model if shape is None else str(write_checkpoint(shape, options.folder / shape.name))
    found = measure(model=model, streams=options.streams, tokens=options.tokens, rounds=options.rounds)
    bare, shown = ([entry["tps"] for entry in found["rounds_by_kind"][kind]] for kind in ("undisturbed", "shown"))
    used = statistics.median(entry["display_cpu"] for entry in found["rounds_by_kind"]["shown"])
    ratios = [1 - with_display / without for with_display, without in zip(shown, bare, strict=True)]
    cost = statistics.median(ratios)
    spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"{options.streams} streams of {options.model}, {options.rounds} rounds in turns")
    print(f"undisturbed  median {statistics.median(bare):8.1f} tok/s   best {max(bare):8.1f}")
    print(f"shown        median {statistics.median(shown):8.1f} tok/s   best {max(shown):8.1f}")
    print(f"displays cost {cost:.1%} of the throughput (median of rounds, standard error {spread:.1%})")
    print(f"their threads took {used * 1e3:.0f} ms of processor time a second")
    print(f"{found['messages']} messages, {found['bytes'] / 1e6:.1f} MB from the kernel")
    if options.out is not None:
        record = {
            "when": time.strftime("%Y-%m-%d"), "processor": _processor(), "python": sys.version.split()[0],
            "model": options.model, "streams": options.streams, "tokens": options.tokens, "rounds": options.rounds,
            "undisturbed_tps": statistics.median(bare), "shown_tps": statistics.median(shown),
            "cost": cost, "cost_standard_error": spread, "display_cpu": used, **found,
        }  # fmt: skip
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
