"""Exercises of notebook 00, Hello, token."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_integer, demo, function, wait_for

if TYPE_CHECKING:
    from fastllm.types import Completion


@functools.cache
def _told(prompt: str) -> Completion:
    return demo().blocking.generate(prompt, temperature=0, logprobs=1)


@exercise(
    "0.1",
    kind="a whole number",
    hints=(
        "completion = await model.generate(..., temperature=0) gives the answer with its facts.",
        "completion.usage.completion_tokens counts the end token, too.",
    ),
)
def _(answer: Any) -> str:
    found, truth = as_integer(answer), _told("Why is the sky blue?").usage.completion_tokens
    if found == truth - 1:
        raise NotYet("One more: the invisible token that says `I am done` was made like all the others.")
    if found != truth:
        raise NotYet(
            f"{found} is too {'many' if found > truth else 'few'}. Was it temperature=0, and the whole answer?"
        )
    return "And each of them was one run through the whole model."


@exercise(
    "0.2",
    kind="the text of a token",
    hints=(
        "min(completion.tokens, key=lambda token: token.logprob) finds it.",
        "Give token.text, with the space in front if it has one.",
    ),
)
def _(answer: Any) -> str:
    if not isinstance(answer, str):
        raise NotYet(f"This wants the token's text in quotes, and got {type(answer).__name__}.")
    tokens = _told("Hello! Who are you?").tokens
    least = min(tokens, key=lambda token: token.logprob or 0.0)
    if answer.strip() == least.text.strip() and answer != least.text:
        raise NotYet("Almost: the space in front belongs to the token.")
    if answer != least.text:
        there = "That token is there, but the model was surer of it." if answer in [t.text for t in tokens] else (
            "There is no such token in that answer."
        )  # fmt: skip
        raise NotYet(there)
    return "It had something else in mind, too: hover over it, or look at token.top with logprobs=5."


@exercise(
    "0.3",
    kind="a function made with `async def until(model, prompt, word)`",
    hints=(
        "Collect the text token by token, and look into the whole of it after each: a word may come in pieces.",
        "text.find(word) + len(word) is where to cut. A `return` inside `async for` leaves the loop, which stops it.",
    ),
)
def _(answer: Any) -> str:
    until = function(answer, 'check("0.3", until)')
    model = demo()
    for prompt, word in (
        ("Why is the sky blue?", "molecules"),
        ("Tell me a story about a fox.", "."),
        ("Hello! Who are you?", "tiny lang"),
        ("What is 2 + 2?", "potato"),
    ):
        whole = _told(prompt).text
        truth = whole[: whole.find(word) + len(word)] if word in whole else whole
        before = model.stats().generated_tokens
        found = wait_for(until, model, prompt, word)
        time.sleep(0.05)
        made = model.stats().generated_tokens - before
        if not isinstance(found, str):
            raise NotYet(f"It should give a text, and gave {type(found).__name__}.")
        if found != truth:
            raise NotYet(
                f"For {prompt!r} until {word!r} it gave {found[-40:]!r} at the end instead of {truth[-40:]!r}."
            )
        if word == "." and made > 0.8 * len(_told(prompt).tokens):
            raise NotYet(f"The text is right, but {made} tokens were made, the whole story. Leave the loop earlier.")
    return "You have just written a stop string. model.stream(..., stop=word, include_stop=True) does the same."
