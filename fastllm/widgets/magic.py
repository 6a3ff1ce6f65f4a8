"""``%load_ext fastllm``: ask a model from a cell of plain text.

    %%ask --temperature 0.7 --max-new-tokens 200
    Why is the sky blue?

The model is the variable that ``--model`` names, else the newest `Model` in the notebook, else the demo model.
"""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import fastllm
from fastllm.errors import InvalidRequest
from fastllm.widgets import show

__all__ = ["ask", "register"]

_DEMO = "_fastllm_demo"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise InvalidRequest(f"[ask] {message}.", hint=self.format_usage().strip())


def _parser() -> _Parser:
    parser = _Parser(prog="%ask", add_help=False)
    parser.add_argument("-m", "--model", help="name of the variable that holds the model")
    parser.add_argument("-o", "--to", default="_answer", help="variable for the completion")
    parser.add_argument("-b", "--background", action="store_true", help="do not wait for the answer")
    parser.add_argument("--shade", default="probability")
    parser.add_argument("--raw", action="store_true", help="no chat template")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--logprobs", type=int, default=5)
    parser.add_argument("words", nargs="*")
    return parser


def _model(name: str | None, names: dict[str, Any]) -> Any:
    from fastllm.model import Model

    if name is not None:
        found = names.get(name)
        if not isinstance(found, Model):
            known = sorted(key for key, value in names.items() if isinstance(value, Model) and not key.startswith("_"))
            raise InvalidRequest(
                f"[ask] {name!r} is no model but {type(found).__name__}.",
                hint=f"Models here: {', '.join(known) or 'none'}.",
            )
        return found
    models = [value for value in names.values() if isinstance(value, Model) and not value.closed]
    if models:
        return models[-1]
    names[_DEMO] = fastllm.load("demo")
    return names[_DEMO]


def ask(line: str, cell: str | None, names: dict[str, Any]) -> Any:
    """What the magics do.

    Args:
        line: Options, and with ``%ask`` the question.
        cell: The question, with ``%%ask``.
        names: The notebook's variables.

    Returns:
        The view.

    Raises:
        InvalidRequest: An option is unknown, a name is no model, or nothing was asked.
    """
    try:
        options = _parser().parse_args(shlex.split(line))
    except ValueError as error:
        raise InvalidRequest(
            f"[ask] the line cannot be read: {error}.", hint="Ask with %%ask in the lines below."
        ) from error
    question = cell.strip("\n") if cell is not None else " ".join(options.words)
    if not question.strip():
        raise InvalidRequest("[ask] nothing was asked.", hint="%ask Why is the sky blue?")
    model = _model(options.model, names)
    fields = ("temperature", "top_p", "top_k", "seed", "max_new_tokens", "logprobs")
    given = {field: value for field in fields if (value := getattr(options, field)) is not None}
    start = model.stream_chat if model.info.chat and not options.raw else model.stream
    stream = start(question, **given)
    view = show(stream, shade=options.shade)
    if not options.background:
        names[options.to] = view.result()
    return view


def register(ipython: Any) -> None:
    """Adds the magics to an IPython shell."""

    def magic(line: str, cell: str | None = None) -> None:
        ask(line, cell, ipython.user_ns)

    magic.__doc__ = __doc__
    ipython.register_magic_function(magic, magic_kind="line_cell", magic_name="ask")
