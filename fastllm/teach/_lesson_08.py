"""Exercises of notebook 08, Async for application writers."""

from __future__ import annotations

import time
from typing import Any

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import as_integer, demo, function, wait_for


@exercise(
    "8.1",
    kind="a function made with `async def first_answer(model, prompts)`",
    hints=(
        "model.as_completed(prompts) gives (index, result) in the order in which answers end.",
        "Return from inside `async with model.as_completed(prompts) as answers:`; leaving it cancels the rest.",
    ),
)
def _(answer: Any) -> str:
    first = function(answer, 'check("8.1", first_answer)')
    model = demo()
    prompts = ["Tell me a story about a fox.", "Tell me a story about a dog.", "What is 2 + 2?", "Tell me a story."]
    for turn in range(2):
        order = prompts[turn:] + prompts[:turn]
        before = model.stats().generated_tokens
        found = wait_for(first, model, list(order))
        _wait_until_idle(model, "Something still runs half a second after the first answer. Who cancels the others?")
        made = model.stats().generated_tokens - before
        if as_integer(found) != order.index("What is 2 + 2?"):
            raise NotYet(f"Of {order} it named number {found}, but the sum is answered first by far.")
        if made > 150:
            raise NotYet(f"{made} tokens were generated: the stories were told to their end before you returned.")
    return "And nothing is left behind: a race costs what the winner costs, and a little more."


@exercise(
    "8.2",
    kind="a function made with `async def within(model, prompt, seconds)`",
    hints=(
        "stream.text is there at any time, also after a cancelled read.",
        "with anyio.move_on_after(seconds): read. After it: return stream.text. Or let max_time_s do it.",
    ),
)
def _(answer: Any) -> str:
    within = function(answer, 'check("8.2", within)')
    model = demo()
    for seconds in (0.15, 0.4):
        start = time.monotonic()
        text = wait_for(within, model, "Once upon a time", seconds)
        took = time.monotonic() - start
        if not isinstance(text, str):
            raise NotYet(f"It should give the text, and gave {type(text).__name__}. (completion.text is the text.)")
        if not text:
            raise NotYet(
                "The text is empty: what had come before the deadline is lost. Keep the stream outside the scope."
            )
        if took > seconds + 1.0:
            raise NotYet(f"With {seconds} s it took {took:.2f} s.")
        if took < seconds * 0.8:
            raise NotYet(f"With {seconds} s it was back after {took:.2f} s. Did it write on to the end of the time?")
        _wait_until_idle(model, "The request still runs after you gave the text.")
    return "Half an answer in time is often worth more than a whole one too late."


@exercise(
    "8.3",
    kind="a function made with `async def polite_batch(model, prompts, most)`",
    hints=(
        "anyio.Semaphore(most) lets `most` tasks in at a time: `async with limit: ...`",
        "A task for each prompt in one anyio task group; each puts its text at its own place of a list.",
    ),
)
def _(answer: Any) -> str:
    polite = function(answer, 'check("8.3", polite_batch)')
    for most, count in ((1, 3), (3, 9)):
        watched = _Watched()
        prompts = [f"prompt {index}" for index in range(count)]
        found = wait_for(polite, watched, prompts, most)
        if watched.most > most:
            raise NotYet(f"{watched.most} calls were under way at the same time; at most {most} are allowed.")
        if watched.calls != count:
            raise NotYet(f"{count} prompts, but generate was called {watched.calls} times.")
        if not isinstance(found, (list, tuple)) or [str(text) for text in found] != [text.upper() for text in prompts]:
            raise NotYet("The texts are not in the order of the prompts (or are not texts).")
        if watched.most < most or watched.idle:
            raise NotYet(f"There were moments with fewer than {most} calls under way while prompts were left.")
    return "A limit, no idle place, and order kept. A semaphore is a queue for people who are polite."


class _Watched:
    """Stands for a model: counts the calls under way. Later prompts take less time, so the order gets mixed."""

    def __init__(self) -> None:
        self.calls = 0
        self.running = 0
        self.most = 0
        self.idle = False
        self._free_since: float | None = None

    async def generate(self, prompt: str, /, *_: Any, **__: Any) -> Any:
        import anyio

        from fastllm.types import Completion

        if self._free_since is not None:
            self.idle |= time.monotonic() - self._free_since > 0.12
            self._free_since = None
        number = self.calls
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(0.05 if number % 3 else 0.3)
        finally:
            self.running -= 1
            if self._free_since is None:
                self._free_since = time.monotonic()
        return Completion(text=prompt.upper(), tokens=(), finish_reason="stop")


def _wait_until_idle(model: Any, otherwise: str) -> None:
    deadline = time.monotonic() + 0.5
    while (stats := model.stats()).running + stats.queued + stats.parked > 0:
        if time.monotonic() > deadline:
            raise NotYet(otherwise)
        time.sleep(0.005)
