"""The demo model answers as it should, on fastllm itself: its figures tell whether a kernel or a format hurts."""

from __future__ import annotations

import demo_package  # noqa: F401  (makes demo_model importable)
import pytest

from demo_model import evaluate
from demo_model.corpus.common_data import SKY

pytest.importorskip("fastllm._core", reason="the native module is not built")

# what the fast subset must reach; the full table holds the targets of the card
FAST = {"story_questions": 92.0, "sums": 92.0, "lists": 92.0, "json_valid": 96.0, "tools": 96.0}


@pytest.fixture(scope="module")
def generate() -> evaluate.Generate:
    return evaluate.fastllm_generate("demo")


def test_the_first_answer_is_right(generate: evaluate.Generate) -> None:
    prompts = ["Why is the sky blue?", "why's the sky blue", "17 + 25 =", "What is 17 + 25?", "sort 5, 3, 9, 1"]
    answers = [answer.strip() for answer in generate(prompts, 96)]
    assert answers == [SKY, SKY, "42", "17 + 25 = 42", "1, 3, 5, 9"]


def test_a_story_ends_by_itself(generate: evaluate.Generate) -> None:
    (told,) = generate(["Once upon a time"], 256)
    assert told.startswith(", there was a")
    assert told.rstrip()[-1] in '.!?"'
    assert 60 < len(told.split()) < 180


@pytest.mark.parametrize("skill", ["story_questions", "sums", "lists", "json", "tools"])
def test_a_few_held_out_items_of_each_skill(generate: evaluate.Generate, skill: str) -> None:
    for result in evaluate.evaluate(generate, count=24, skills=[skill]):
        assert result.percent >= FAST.get(result.skill, 90.0), (result.skill, result.misses)


@pytest.mark.slow
def test_the_whole_table_reaches_its_targets(generate: evaluate.Generate) -> None:
    results = evaluate.evaluate(generate, count=200)
    print(evaluate.table(results))
    for result in results:
        target = evaluate.TARGETS.get(result.skill, 93.0)
        assert result.percent >= target, (result.skill, result.percent, result.misses[:5])
