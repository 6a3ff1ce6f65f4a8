"""What live displays cost the engine: streams that are shown beside the same streams that are not, in a real kernel.

    python -m benchmarks.display --streams 8 --rounds 12

A kernel is started as a notebook would; both kinds take turns in it, and this process reads every message, as a page
would. Undisturbed means `stream.result()`: no Python for any token. The engine's own counter gives tokens per second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = """
import json, time
import anyio
import fastllm

model = fastllm.load({model!r})
fields = dict(max_new_tokens={tokens}, ignore_eos=True, logprobs=5, prompt_logprobs=None)
speeds = {{"undisturbed": [], "shown": []}}

async def run(shown):
    before = model.stats().generated_tokens
    start = time.perf_counter()
    streams = [model.stream(f"Tell me story {{i}}.", seed=i, **fields) for i in range({streams})]
    if shown:
        views = [fastllm.show(stream) for stream in streams]
    while any(stream._request.finish is None for stream in streams):
        if not shown:
            for stream in streams:
                stream._ask_for_all()
        await anyio.sleep(0.005)
    spent = time.perf_counter() - start
    speed = (model.stats().generated_tokens - before) / spent
    if shown:
        for view in views:
            await view
    else:
        for stream in streams:
            await stream.result()
    return speed

for round in range({rounds} + 1):
    for kind in ("undisturbed", "shown") if round % 2 else ("shown", "undisturbed"):
        speed = await run(kind == "shown")
        if round:
            speeds[kind].append(speed)
print("RESULT" + json.dumps(speeds))
"""


def measure(*, model: str, streams: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Runs the comparison in a kernel of its own.

    Returns:
        Tokens per second by kind, each round; and the messages and bytes that the kernel sent.
    """
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(Path.cwd()))
    try:
        code = PROGRAM.format(model=model, streams=streams, tokens=tokens, rounds=rounds)
        asked = client.execute(code)
        text, messages, size = "", 0, 0
        while True:
            message = client.get_iopub_msg(timeout=600)
            messages += 1
            size += len(json.dumps(message["content"], default=str))
            content = message["content"]
            if message["msg_type"] == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            if message["msg_type"] == "stream":
                text += content["text"]
            ended = message["msg_type"] == "status" and content["execution_state"] == "idle"
            if ended and message["parent_header"].get("msg_id") == asked:
                break
        speeds = json.loads(text.split("RESULT")[1])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return {"speeds": speeds, "messages": messages, "bytes": size}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(model=options.model, streams=options.streams, tokens=options.tokens, rounds=options.rounds)
    bare, shown = (found["speeds"][kind] for kind in ("undisturbed", "shown"))
    ratios = [1 - with_display / without for with_display, without in zip(shown, bare, strict=True)]
    cost = statistics.median(ratios)
    spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"{options.streams} streams of {options.model}, {options.rounds} rounds in turns")
    print(f"undisturbed  median {statistics.median(bare):8.1f} tok/s   best {max(bare):8.1f}")
    print(f"shown        median {statistics.median(shown):8.1f} tok/s   best {max(shown):8.1f}")
    print(f"displays cost {cost:.1%} of the throughput (median of rounds, standard error {spread:.1%})")
    print(f"{found['messages']} messages, {found['bytes'] / 1e6:.1f} MB from the kernel")
    if options.out is not None:
        when = time.strftime("%Y-%m-%d")
        record = {"when": when, "python": sys.version.split()[0], **vars(options), "out": None, **found, "cost": cost}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
