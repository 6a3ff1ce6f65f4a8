"""The command line's entry: arguments, dispatch, exit codes.

Exit codes: 0 done; 1 the model, device or engine failed; 2 the arguments or the prompt cannot be served; 130 an answer
was stopped by Ctrl-C (its text up to there is printed); 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from fastllm.errors import FastLLMError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 0, 1, 2, 130, 141


class Parser(argparse.ArgumentParser):
    """argparse, with errors in the form of all others."""

    def error(self, message: str) -> NoReturn:
        """Prints the error with a hint and exits with 2."""
        self.exit(EXIT_USAGE, f"error: {message}. `{self.prog} --help` shows the arguments.\n")


class _Version(argparse.Action):
    """--version, without importing the native module for every other call."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from fastllm import _core

        info = _core.build_info()
        print(f"fastllm {_core.__version__} (kernels: {info.get('isa')}; CUDA: {'yes' if info.get('cuda') else 'no'})")
        parser.exit(EXIT_OK)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    from fastllm.cli import bench, chat, info, run

    parser = Parser(
        prog="fastllm",
        description="Stream tokens from language models.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad arguments or prompt, 130 stopped by Ctrl-C.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show version and build")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for module in (run, chat, info, bench):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.run_command
    try:
        return command(arguments)
    except FastLLMError as error:
        _say_error(error)
        return EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left (`fastllm run ... | head`): say nothing, and keep the interpreter from flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _say_error(error: FastLLMError) -> None:
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
