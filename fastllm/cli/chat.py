"""`fastllm chat`: a conversation in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastllm.cli import common
from fastllm.errors import FastLLMError

if TYPE_CHECKING:
    from fastllm.chat import BlockingChat, BlockingChatStream

__all__ = ["add_parser"]

HELP = """\
/again          another answer to the last message
/clear          begin anew (the system message stays)
/system TEXT    begin anew with this system message
/set NAME=VALUE a sampling field, such as /set temperature=0.7
/stats          tokens and speed of the last answer, and the engine
/save FILE      write the conversation as JSON
/load FILE      go on with a saved conversation
/help           this list
/exit           end (as does Ctrl-D); Ctrl-C stops an answer
A line that ends with \\ goes on in the next."""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "chat",
        help="talk to a model",
        description="A conversation in the terminal. Ctrl-C stops an answer, Ctrl-D or /exit ends; /help lists more.",
    )
    parser.add_argument("--system", metavar="TEXT", help="system message")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; see `fastllm.cli.main` for exit codes."""
    from fastllm.chat import BlockingChat
    from fastllm.cli.main import EXIT_OK

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then edits lines and remembers them

    with common.load_model(arguments) as model:
        chat = BlockingChat(model, arguments.system, **common.sampling_of(arguments))
        model.render("")  # a model without a chat template says so now
        session = Session(chat)
        if sys.stdin.isatty():
            print(f"{model.info.name}: {model.info.architecture}, context {model.info.context_length}. /help, /exit")
        while session.turn():
            pass
    return EXIT_OK


class Session:
    """Reads lines, answers them, obeys commands."""

    def __init__(self, chat: BlockingChat) -> None:
        self._chat = chat
        self._last: BlockingChatStream | None = None
        self._commands: dict[str, Callable[[str], bool | None]] = {
            "/again": self._again,
            "/clear": self._clear,
            "/exit": lambda _: True,
            "/help": lambda _: print(HELP),
            "/load": self._load,
            "/quit": lambda _: True,
            "/save": lambda rest: self._chat.save(rest),
            "/set": self._set,
            "/stats": self._stats,
            "/system": self._system,
        }

    def turn(self) -> bool:
        """One line and what it asks for. False at the end."""
        try:
            line = self._read()
        except EOFError:
            print()
            return False
        except KeyboardInterrupt:
            print("\n(/exit or Ctrl-D ends)")
            return True
        if not line.strip():
            return True
        try:
            if line.startswith("/"):
                return not self._obey(line)
            self._show(self._chat.send(line))
        except KeyboardInterrupt:  # before the first token
            print()
        except (FastLLMError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
        return True

    def _read(self) -> str:
        prompt = "> " if sys.stdin.isatty() else ""
        line = input(prompt)
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("  " if prompt else "")
        return line

    def _show(self, stream: BlockingChatStream) -> None:
        self._last = stream
        if common.print_stream(stream):
            print("(stopped)")

    def _obey(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        command = self._commands.get(word)
        if command is None:
            print(f"error: there is no {word}. /help lists the commands.", file=sys.stderr)
            return False
        return bool(command(rest.strip()))

    def _again(self, _: str) -> None:
        self._show(self._chat.regenerate())

    def _clear(self, _: str) -> None:
        messages = self._chat.messages
        self._system(messages[0].content if messages and messages[0].role == "system" else "")

    def _system(self, text: str) -> None:
        old = self._chat
        self._chat = type(old)(
            old.model, text or None, old.config, tools=old.tools, template_kwargs=old.template_kwargs
        )  # fmt: skip

    def _load(self, path: str) -> None:
        self._chat = type(self._chat).load(path, self._chat.model)
        for message in self._chat.messages:
            print(f"{message.role}: {message.content}")

    def _set(self, text: str) -> None:
        name, equals, value = text.partition("=")
        if not equals:
            print(self._chat.config)
            return
        self._chat.config = self._chat.config.merged(None, **{name.strip(): _value(value.strip())})

    def _stats(self, _: str) -> None:
        if self._last is not None and self._last.completion is not None:
            print(common.usage_line(self._last.completion))
        print(self._chat.model.stats())


def _value(text: str) -> Any:
    """None, a boolean, a number, or the text itself."""
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
