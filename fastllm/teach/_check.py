"""Asking a check and wording its reply; the exercises themselves are in the ``_lesson`` files beside this one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastllm.errors import InvalidRequest

__all__ = ["Exercise", "NotYet", "Untouched", "Verdict", "check", "exercise", "exercises", "hint", "sealed"]

Checker = Callable[[Any], str]


class NotYet(Exception):  # noqa: N818 - it says something to a learner, it reports no fault
    """Raised by a checker: the answer is not right; the text says where to look."""


class Untouched(Exception):  # noqa: N818
    """Raised by a checker: the function still gives ``...``, so there is no answer yet."""


@dataclass(frozen=True)
class Verdict:
    """The reply to an answer. It is true if the answer is right, and shows itself as the last line of a cell.

    Attributes:
        exercise: Its number, such as "1.2".
        state: "right", "wrong", or "open" while there is no answer.
        text: Why it is right, or where to look.
    """

    exercise: str
    state: Literal["right", "wrong", "open"]
    text: str

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        mark = {"right": "✓ {} is right.", "wrong": "✗ {}: not yet.", "open": "○ {} waits for you."}[self.state]
        return f"{mark.format(self.exercise)} {self.text}".rstrip()


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        number: "1.2": the second of notebook 01.
        kind: What an answer is, in words: "a number", "a function f(logits, temperature)".
        checker: Says why an answer is right, or raises `NotYet`.
        hints: The next one is given each time `hint` is called.
    """

    number: str
    kind: str
    checker: Checker
    hints: tuple[str, ...]


_exercises: dict[str, Exercise] = {}
_hints_given: dict[str, int] = {}


def exercise(number: str, *, kind: str, hints: tuple[str, ...]) -> Callable[[Checker], Checker]:
    """Registers a checker under its number."""

    def keep(checker: Checker) -> Checker:
        _exercises[number] = Exercise(number, kind, checker, hints)
        return checker

    return keep


def sealed(number: str, choice: str) -> str:
    """The salted hash under which a choice is kept, so that reading the source does not give it away."""
    return hashlib.sha256(f"fastllm course {number}: {choice.strip().lower()}".encode()).hexdigest()[:16]


def exercises(notebook: str, /) -> list[str]:
    """Numbers of the exercises of a notebook: ``exercises("01")`` gives ["1.1", "1.2", "1.3"].

    Raises:
        InvalidRequest: There is no such notebook.
    """
    name = notebook.strip().upper().lstrip("0").rjust(1, "0")
    module = f"fastllm.teach._lesson_{name.lower().rjust(2, '0')}"
    if not name.isalnum() or importlib.util.find_spec(module) is None:
        raise InvalidRequest(
            f"[teach] there are no exercises of a notebook {notebook!r}.",
            hint='A notebook goes by its number, such as "01", an exercise by "1.2".',
        )
    importlib.import_module(module)
    return [number for number in _exercises if number.partition(".")[0] == name]


def check(number: str, answer: Any = None, /) -> Verdict:
    """Looks at the answer to an exercise.

    Args:
        number: Of the exercise: "1.2" is the second of notebook 01.
        answer: A value or a function, as the exercise says; None while you have none.

    Returns:
        A `Verdict`, which shows itself and is true if the answer is right.

    Raises:
        InvalidRequest: There is no such exercise.
    """
    found = _find(number)
    if answer is None or answer is Ellipsis:
        return Verdict(found.number, "open", f"It wants {found.kind}. hint({found.number!r}) helps.")
    try:
        return Verdict(found.number, "right", found.checker(answer))
    except Untouched:
        return Verdict(found.number, "open", f"Write something in place of `...`. hint({found.number!r}) helps.")
    except NotYet as problem:
        return Verdict(found.number, "wrong", str(problem))
    except Exception as error:
        # A learner's function fails in ways of its own; a value of the wrong kind fails in the checker.
        fact = str(error).splitlines()[0] if str(error) else "without a message"
        if callable(answer):
            return Verdict(found.number, "wrong", f"Your function raised {type(error).__name__}: {fact}")
        if not isinstance(error, (TypeError, ValueError, IndexError, KeyError)):
            raise  # not the answer's fault
        return Verdict(
            found.number, "wrong", f"This needs {found.kind}, and got {type(answer).__name__} {_short(answer)}."
        )


def hint(number: str, /) -> Verdict:
    """The next hint for an exercise; after the last one it starts again.

    Raises:
        InvalidRequest: There is no such exercise.
    """
    found = _find(number)
    given = _hints_given.get(found.number, 0)
    _hints_given[found.number] = given + 1
    place = given % len(found.hints)
    return Verdict(found.number, "open", f"Hint {place + 1} of {len(found.hints)}: {found.hints[place]}")


def _find(number: object) -> Exercise:
    text = str(number).strip().upper()
    notebook, dot, rest = text.partition(".")
    text = f"{notebook.lstrip('0') or '0'}{dot}{rest}"
    known = exercises(notebook)
    if text not in _exercises:
        raise InvalidRequest(
            f"[teach] there is no exercise {number!r}; notebook {notebook} has {', '.join(known)}.",
            hint='Write its number as text: check("1.2", answer).',
        )
    return _exercises[text]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
