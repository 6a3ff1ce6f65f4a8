"""What the commands share: the arguments for a model and for sampling, loading, the answer's printing."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.blocking import BlockingStream
    from fastllm.model import Model
    from fastllm.types import Completion

__all__ = ["add_model_arguments", "add_sampling_arguments", "load_model", "print_stream", "sampling_of", "usage_line"]


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """-p, -t and what else decides how a model is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-p", "--path", "--model", dest="path", default="demo", metavar="PATH",
        help="directory, repository name, or demo (the bundled model; default)",
    )  # fmt: skip
    group.add_argument("-t", "--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    group.add_argument("--device", default="auto", help="auto (default), cpu, ...; `fastllm info --devices` lists them")
    group.add_argument("--dtype", default="auto", help="auto (default: as in the file), float32, bfloat16, float16")
    group.add_argument("--kv-dtype", default="auto", help="of keys and values: auto (default: the weights'), fp8, ...")
    group.add_argument("--context", type=int, metavar="TOKENS", help="context length (default: the model's)")


def _limit(text: str) -> int | str:
    return "max" if text in ("max", "-1") else int(text)


_SAMPLING: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("-n", "--max-new-tokens", "--max-tokens"), {"type": _limit, "metavar": "N",
      "help": "most tokens to generate; max: until the context is full (default 256)"}),
    (("--temperature", "--temp"), {"type": float, "metavar": "T", "help": "0: always the most probable token"}),
    (("--top-k",), {"type": int, "metavar": "K", "help": "sample among the K most probable"}),
    (("--top-p",), {"type": float, "metavar": "P", "help": "sample among the smallest set of probability P"}),
    (("--min-p",), {"type": float, "metavar": "P", "help": "leave out what is less probable than P times the best"}),
    (("--repetition-penalty", "--repeat-penalty"), {"type": float, "metavar": "R", "help": "1: off"}),
    (("--presence-penalty",), {"type": float, "metavar": "R", "help": "0: off"}),
    (("--frequency-penalty",), {"type": float, "metavar": "R", "help": "0: off"}),
    (("--seed",), {"type": int, "metavar": "N", "help": "the same seed gives the same answer"}),
    (("--stop",), {"action": "append", "metavar": "TEXT", "help": "end at this text; may be given several times"}),
    (("--max-time",), {"type": float, "dest": "max_time_s", "metavar": "S", "help": "end after S seconds"}),
]  # fmt: skip


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """The fields of `GenerationConfig` that a command line needs."""
    group = parser.add_argument_group("sampling", "Defaults are the model's own.")
    for flags, options in _SAMPLING:
        group.add_argument(*flags, **options)


def sampling_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling arguments that were given, as fields of `GenerationConfig`."""
    found: dict[str, Any] = {}
    for flags, options in _SAMPLING:
        long = next(flag for flag in flags if flag.startswith("--"))
        name = options.get("dest") or long[2:].replace("-", "_")
        value = getattr(arguments, name)
        if value is not None:
            found[name] = None if value == "max" else value
    return found


def load_model(arguments: argparse.Namespace) -> Model:
    """Loads the model that the arguments name, with a progress bar if it takes a while on a terminal."""
    import fastllm

    engine = fastllm.EngineConfig(
        threads=arguments.threads, context_length=arguments.context, kv_dtype=arguments.kv_dtype
    )
    return fastllm.load(arguments.path, device=arguments.device, dtype=arguments.dtype, engine=engine)


def print_stream(stream: BlockingStream) -> bool:
    """Prints an answer as it comes, and ends the line. Ctrl-C stops the answer.

    Returns:
        Whether it was stopped.
    """
    last, stopped = "\n", False
    try:
        for text in stream.texts():
            last = text  # first: an interrupt may come inside the write
            sys.stdout.write(text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        stream.close()
        stopped = True
    if not last.endswith("\n"):
        sys.stdout.write("\n")
    sys.stdout.flush()
    return stopped


def usage_line(completion: Completion) -> str:
    """Tokens and speed of an answer, in one line."""
    usage, timing = completion.usage, completion.timing
    return (
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), {usage.completion_tokens} generated, "
        f"{timing.decode_tps:.1f} tok/s, first after {timing.ttft_s * 1000:.0f} ms, "
        f"{completion.finish_reason}, seed {completion.seed}"
    )
