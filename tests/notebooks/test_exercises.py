"""The checks of the course: solutions pass, wrong answers get a hint that fits, and nothing gives an answer away."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

pytest.importorskip("fastllm._core")

import notebook_solutions as solutions

from fastllm import errors, teach

FACTORIES = {"0.1", "0.2", "9.3"}  # answers that need a model: made when the test runs


def answer_of(number: str, answer: Any) -> Any:
    """The answer itself."""
    return answer() if number in FACTORIES and callable(answer) else answer


@pytest.mark.parametrize(
    ("number", "answer"), [(n, a) for n, answers in solutions.RIGHT.items() for a in answers], ids=lambda v: str(v)[:30]
)
def test_solution_is_right(number: str, answer: Any) -> None:
    verdict = teach.check(number, answer_of(number, answer))
    assert verdict, repr(verdict)
    assert verdict.state == "right" and verdict.exercise == number
    assert repr(verdict).startswith(f"✓ {number} is right.")
    assert len(verdict.text) > 20, "a right answer is told why"


@pytest.mark.parametrize(
    ("number", "answer", "word"),
    [(n, a, word) for n, answers in solutions.WRONG.items() for a, word in answers],
    ids=lambda v: str(v)[:30],
)
def test_wrong_answer_gets_a_hint(number: str, answer: Any, word: str) -> None:
    verdict = teach.check(number, answer_of(number, answer))
    assert not verdict, f"a wrong answer passed: {answer!r}"
    assert verdict.state == "wrong"
    assert word in verdict.text, f"{verdict.text!r} does not speak of {word!r}"
    assert repr(verdict).startswith(f"✗ {number}: not yet.")


@pytest.mark.parametrize("number", solutions.RIGHT)
def test_no_answer_yet(number: str) -> None:
    for nothing in (None, ...):
        verdict = teach.check(number, nothing)
        assert verdict.state == "open" and not verdict
    for junk in (object(), [[]], 10**9, -1.5, "", lambda *_: object()):
        assert teach.check(number, junk).state == "wrong", f"{junk!r} passed"


@pytest.mark.parametrize("number", solutions.RIGHT)
def test_a_function_that_is_not_written_yet(number: str) -> None:
    if not any(inspect.isfunction(answer) for answer in solutions.RIGHT[number]) or number in FACTORIES:
        pytest.skip("its answer is a value")

    async def later(*_: Any) -> Any:
        return ...

    stub = later if any(map(inspect.iscoroutinefunction, solutions.RIGHT[number])) else (lambda *_: ...)
    assert teach.check(number, stub).state == "open"


def test_every_exercise_has_solutions_and_wrong_answers() -> None:
    notebooks = sorted({number.partition(".")[0] for number in solutions.RIGHT})
    numbers = [number for notebook in notebooks for number in teach.exercises(notebook.rjust(2, "0"))]
    assert set(numbers) == set(solutions.RIGHT) == set(solutions.WRONG)
    assert all(len(solutions.WRONG[number]) >= 2 for number in numbers)


def test_hints_go_round() -> None:
    first = teach.hint("1.3")
    count = int(re.search(r"of (\d+)", first.text)[1])  # type: ignore[index]
    texts = [first.text, *(teach.hint("1.3").text for _ in range(count - 1))]
    assert len(set(texts)) == count >= 2
    assert teach.hint("1.3").text == first.text
    assert not first


@pytest.mark.parametrize("number", ["1.9", "77.1", "", "x", "../1.1", "1"])
def test_an_unknown_exercise_is_a_typed_error(number: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"\[teach\]"):
        teach.check(number, 1)


def test_numbers_are_forgiving() -> None:
    assert teach.check("01.1", "function").exercise == "1.1"
    assert teach.check(" 1.1 ", "function")
    assert teach.exercises("1") == teach.exercises("01") == ["1.1", "1.2", "1.3"]


def test_a_learner_cannot_crash_a_check() -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("mine")

    verdict = teach.check("2.2", fails)
    assert verdict.state == "wrong" and "KeyError" in verdict.text and "mine" in verdict.text
