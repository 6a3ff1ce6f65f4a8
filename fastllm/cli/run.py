"""`fastllm run PROMPT`: one answer, streamed to standard output."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from fastllm.cli import common
from fastllm.errors import InvalidRequest

if TYPE_CHECKING:
    from fastllm.types import Completion

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="answer a prompt",
        description="Streams the answer to a prompt. A model with a chat template gets the prompt as a user message.",
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from standard input")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--chat", action="store_true", help="use the chat template (an error if there is none)")
    form.add_argument("--raw", action="store_true", help="continue the prompt as plain text")
    parser.add_argument("--system", metavar="TEXT", help="system message; implies --chat")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of the text")
    parser.add_argument("--usage", action="store_true", help="print tokens and speed to standard error")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; see `fastllm.cli.main` for exit codes."""
    from fastllm.cli.main import EXIT_INTERRUPTED, EXIT_OK

    if arguments.system is not None and arguments.raw:
        raise InvalidRequest("[run] --system needs a chat, but --raw asks for none.", hint="Leave one of them out.")
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    sampling = common.sampling_of(arguments)
    with common.load_model(arguments) as model:
        as_chat = arguments.chat or arguments.system is not None or (model.info.chat and not arguments.raw)
        if as_chat:
            messages = [{"role": "user", "content": prompt}]
            if arguments.system is not None:
                messages.insert(0, {"role": "system", "content": arguments.system})
            stream = model.blocking.stream_chat(messages, **sampling)
        else:
            stream = model.blocking.stream(prompt, **sampling)
        if arguments.json:
            stopped = False
            try:
                for _ in stream:
                    pass
            except KeyboardInterrupt:
                stream.close()
                stopped = True
        else:
            stopped = common.print_stream(stream)
        completion = stream.completion
        if completion is not None:
            if arguments.json:
                print(json.dumps(completion_dict(completion), ensure_ascii=False))
            if arguments.usage:
                print(common.usage_line(completion), file=sys.stderr)
    return EXIT_INTERRUPTED if stopped else EXIT_OK


def completion_dict(completion: Completion) -> dict[str, Any]:
    """A completion as JSON values."""
    return {
        "model": completion.model,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "stop": completion.stop,
        "token_ids": list(completion.token_ids),
        "seed": completion.seed,
        "usage": {**dataclasses.asdict(completion.usage), "total_tokens": completion.usage.total_tokens},
        "timing": dataclasses.asdict(completion.timing),
    }
