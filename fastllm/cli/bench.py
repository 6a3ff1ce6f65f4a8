"""`fastllm bench`: prompt and generation speed of a model on this machine."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

from fastllm.cli import common
from fastllm.errors import InvalidRequest

if TYPE_CHECKING:
    from fastllm.model import Model

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure speed",
        description="Measures tokens per second: reading a prompt, and generating, alone and in a batch.",
    )
    parser.add_argument("--prompt-tokens", type=int, default=256, metavar="N", help="length of the prompt (256)")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="tokens to generate (64)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="B", help="requests at once (1 8)")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="runs of each; the median counts (3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    common.add_model_arguments(parser)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; see `fastllm.cli.main` for exit codes."""
    from fastllm.cli.main import EXIT_OK

    for name in ("prompt_tokens", "new_tokens", "repeat"):
        if getattr(arguments, name) < 1:
            raise InvalidRequest(f"[bench] --{name.replace('_', '-')} is {getattr(arguments, name)}, below 1.")
    if min(arguments.batch) < 1:
        raise InvalidRequest(f"[bench] --batch has {min(arguments.batch)}, below 1.")
    with common.load_model(arguments) as model:
        rows = [
            measure(model, batch, arguments.prompt_tokens, arguments.new_tokens, arguments.repeat)
            for batch in arguments.batch
        ]
        info, kernels = model.info, _kernels()
    if arguments.json:
        facts = {"model": info.name, "dtype": info.dtype, "device": info.device, "kernels": kernels, "rows": rows}
        print(json.dumps(facts, indent=1))
        return EXIT_OK
    print(f"{info.name}: {info.architecture}, {info.parameters} parameters, {info.dtype}, {info.device} ({kernels})")
    print("| batch | prompt tokens | new tokens | prompt tok/s | decode tok/s | decode tok/s each | first token ms |")
    print("|------:|--------------:|-----------:|-------------:|-------------:|------------------:|---------------:|")
    for row in rows:
        print(
            f"| {row['batch']} | {row['prompt_tokens']} | {row['new_tokens']} | {row['prompt_tps']:.1f} "
            f"| {row['decode_tps']:.1f} | {row['decode_tps'] / row['batch']:.1f} | {row['ttft_ms']:.1f} |"
        )
    return EXIT_OK


def _kernels() -> str:
    from fastllm import _core

    return str(_core.build_info().get("isa"))


def measure(model: Model, batch: int, prompt_tokens: int, new_tokens: int, repeat: int) -> dict[str, Any]:
    """Speeds of one batch size: medians over some runs, after one that does not count.

    Args:
        model: The model.
        batch: Requests at once.
        prompt_tokens: Tokens of each prompt, all different, so that no prefix is found in the cache.
        new_tokens: Tokens each request generates.
        repeat: Runs that count.

    Returns:
        batch, prompt_tokens, new_tokens, prompt_tps and decode_tps (tokens per second of all together), ttft_ms.
    """
    rng = random.Random(0)
    ordinary = [index for index in range(model.tokenizer.vocab_size) if index not in model.tokenizer.special_ids]
    runs = []
    for turn in range(repeat + 1):
        prompts = [[rng.choice(ordinary) for _ in range(prompt_tokens)] for _ in range(batch)]
        began = time.perf_counter()
        done = model.blocking.batch(prompts, temperature=0.0, max_new_tokens=new_tokens, ignore_eos=True)
        elapsed_s = time.perf_counter() - began
        if turn == 0:
            continue  # pages in the weights, fills the arenas
        first_s = max(completion.timing.ttft_s for completion in done)
        later = sum(completion.usage.completion_tokens - 1 for completion in done)
        runs.append(
            {
                "prompt_tps": batch * prompt_tokens / first_s,
                "decode_tps": later / max(elapsed_s - first_s, 1e-9),
                "ttft_ms": statistics.median(completion.timing.ttft_s for completion in done) * 1e3,
            }
        )
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {"batch": batch, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, **medians}
