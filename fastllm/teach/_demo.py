"""What the checks share: the demo model, loaded once, and ways to call a learner's function."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm.teach._check import NotYet, Untouched

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.tokenizer import Tokenizer

__all__ = ["as_array", "as_integer", "as_number", "demo", "function", "tokenizer", "wait_for"]


@functools.cache
def demo() -> Model:
    """The bundled model, loaded when first needed and then kept: the checks' own, beside the learner's."""
    from fastllm import load

    return load("demo")


@functools.cache
def tokenizer() -> Tokenizer:
    """The bundled model's tokenizer alone."""
    from fastllm.tokenizer import Tokenizer

    return Tokenizer.load("demo")


def as_integer(answer: Any) -> int:
    """A whole number, of whatever type.

    Raises:
        NotYet: It is none.
    """
    if isinstance(answer, bool) or not isinstance(answer, (int, float, np.integer, np.floating)):
        raise NotYet(f"This wants a whole number, and got {type(answer).__name__}.")
    if answer != int(answer):
        raise NotYet(f"This wants a whole number; {answer} has a fraction.")
    return int(answer)


def as_number(answer: Any) -> float:
    """A finite number.

    Raises:
        NotYet: It is none.
    """
    if isinstance(answer, bool) or not isinstance(answer, (int, float, np.integer, np.floating)):
        raise NotYet(f"This wants a number, and got {type(answer).__name__}.")
    if not np.isfinite(answer):
        raise NotYet(f"This wants a finite number, and got {answer}.")
    return float(answer)


def as_array(answer: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """An array of this shape.

    Raises:
        NotYet: It has another one, or holds something else than finite numbers.
    """
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise NotYet(f"This wants an array of numbers, and got {type(answer).__name__}.") from None
    if found.shape != shape:
        raise NotYet(f"The shape should be {list(shape)}; yours is {list(found.shape)}.")
    if not np.isfinite(found).all():
        raise NotYet("There are NaN or infinite values in it. An overflow in exp, or a division by zero?")
    return found


def function(answer: Any, example: str) -> Callable[..., Any]:
    """A function, handed over without calling it.

    Raises:
        NotYet: It is something else.
        Untouched: When called, it gives ``...``.
    """
    if not callable(answer):
        raise NotYet(f"This wants the function itself, without calling it: {example}.")

    def call(*arguments: Any) -> Any:
        value = answer(*arguments)
        if value is Ellipsis:
            raise Untouched
        return value

    return call


def wait_for(call: Callable[..., Awaitable[Any]], *arguments: Any, timeout_s: float = 20.0) -> Any:
    """Runs a learner's coroutine on an event loop of its own in a thread: a cell's own loop is busy with the cell.

    Raises:
        NotYet: It gave no coroutine, or did not end in time.
        Exception: What it raised.
    """
    import anyio

    outcome: dict[str, Any] = {}

    async def run() -> None:
        with anyio.move_on_after(timeout_s):
            waiting = call(*arguments)
            if not inspect.isawaitable(waiting):
                raise NotYet("This wants a function made with `async def`.")
            outcome["value"] = await waiting

    def work() -> None:
        try:
            anyio.run(run)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name="fastllm-teach", daemon=True)
    thread.start()
    thread.join(timeout_s + 5.0)
    if "error" in outcome:
        raise outcome["error"]
    if outcome.get("value") is Ellipsis:
        raise Untouched
    if "value" not in outcome:
        raise NotYet(f"It had not ended after {timeout_s:.0f} seconds. Does it wait for something that never comes?")
    return outcome["value"]
