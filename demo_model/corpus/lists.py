"""Sorting, reversing and copying lists of numbers and words, and asking about them."""

from __future__ import annotations

from random import Random

from demo_model.corpus import world
from demo_model.corpus.base import Check, Split, Turn, messy, split_of

WORDS = tuple(sorted({*world.THINGS, *world.FOODS, *world.COLOURS, *(k for k in world.ANIMALS)} - {"orange"}))
MORE_WORDS = tuple(
    sorted(
        {
            *WORDS, *(word for word in world.STRANGERS if word.isalpha()),
            *"apple banana cherry pear plum lemon peach grape kiwi mango melon orange strawberry berry nut hello "
             "world yes no red cat dog".split(),
        }
    )
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"

_TASKS = {
    "up": (
        "Sort these numbers: {x}", "Sort {x}", "sort {x}", "Sort the list {x}", "Put these numbers in order: {x}",
        "Sort from smallest to largest: {x}", "Order these numbers: {x}", "Can you sort {x}?", "Sort ascending: {x}",
        "Put {x} in order.", "Sort the numbers {x}.", "Please sort this list: {x}", "sort: {x}",
        "Arrange in order: {x}",
    ),
    "down": (
        "Sort from largest to smallest: {x}", "Sort descending: {x}", "Sort {x} from big to small.",
        "Sort {x} descending",
        "Sort in descending order: {x}", "Sort these numbers, largest first: {x}", "Sort backwards: {x}",
    ),
    "abc": (
        "Sort these words: {x}", "Sort these words alphabetically: {x}", "Sort {x}", "sort {x}",
        "Sort alphabetically: {x}",
        "Put these words in alphabetical order: {x}", "Put in ABC order: {x}", "Can you sort {x}?", "Sort the list {x}",
        "Sort the words {x}.", "Please sort this list: {x}", "sort: {x}", "Put {x} in order.",
    ),
    "reverse": (
        "Reverse this list: {x}", "Reverse {x}", "reverse {x}", "Reverse the list {x}",
        "Write this list backwards: {x}",
        "Turn this list around: {x}", "Can you reverse {x}?", "reverse: {x}", "Give me {x} in reverse order.",
        "Say these in reverse: {x}", "Backwards: {x}",
    ),
    "copy": (
        "Copy this list: {x}", "Copy {x}", "Repeat this list: {x}", "Repeat after me: {x}", "Repeat {x}",
        "Write down {x}",
        "Say {x}", "copy: {x}", "Write the list {x} again.",
    ),
    "largest": ("What is the largest of {x}?", "Which number is the largest: {x}?", "Find the maximum: {x}",
    "Largest of {x}", "max of {x}"),
    "smallest": ("What is the smallest of {x}?", "Which number is the smallest: {x}?", "Find the minimum: {x}",
    "Smallest of {x}", "min of {x}"),
    "first": ("What is the first item of {x}?", "What comes first in this list: {x}?", "First item: {x}"),
    "last": ("What is the last item of {x}?", "What comes last in this list: {x}?", "Last item: {x}"),
    "count": ("How many items are in this list: {x}?", "How many items are in {x}?", "Count the items: {x}",
    "How long is this list: {x}?"),
}  # fmt: skip
_NUMBER_TASKS = "up up up up down down down reverse reverse reverse copy copy largest smallest first last count".split()
_WORD_TASKS = "abc abc abc abc reverse reverse reverse copy copy first last count".split()


def canonical(items: list[str]) -> str:
    """The content of a list, whatever its order."""
    return ",".join(sorted(items))


def pick_items(rng: Random, split: Split, *, numbers: bool, lowest: int = 2) -> list[str]:
    """A list of the split: 2 to 8 numbers of 0..99, or 2 to 6 words."""
    while True:
        if numbers:
            size = rng.choice((2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7, 8))
            top = 99 if rng.random() < 0.7 else rng.choice((9, 9, 20, 50))
            items = [str(rng.randint(0, top)) for _ in range(max(size, lowest))]
        else:
            size = rng.choice((2, 3, 3, 3, 4, 4, 5, 6))
            items = rng.sample(WORDS, max(size, lowest))
            roll = rng.random()
            if roll < 0.08:
                items = [word.capitalize() for word in rng.sample(world.NAMES, size)]
            elif roll < 0.45:
                items = rng.sample(MORE_WORDS, size)
            elif roll < 0.55:
                items = rng.sample(LETTERS, size)
        if split_of("list", canonical(items), percent=8) == split:
            return items


def turn(rng: Random, split: Split) -> Turn:
    """One task on one list."""
    numbers = rng.random() < 0.55
    task = rng.choice(_NUMBER_TASKS if numbers else _WORD_TASKS)
    items = pick_items(rng, split, numbers=numbers)
    style = rng.choice(("comma", "comma", "comma", "space", "bracket", "and"))
    if task in ("reverse", "copy", "first", "last", "count") and not numbers and rng.random() < 0.15:
        items = _with_strangers(rng, items)
    shown = _show(items, style)
    out = _solve(task, items)
    if isinstance(out, list):
        answer = _show(out, "bracket" if style == "bracket" else "comma")
    else:
        answer = out
    user = rng.choice(_TASKS[task]).format(x=shown)
    if rng.random() < 0.3:
        at = user.find(shown)
        before = messy(rng, user[:at].rstrip(), typos=False) if at > 1 else ""
        user = before + (" " if before else "") + shown + user[at + len(shown) :]
    return Turn("lists", canonical(items), user, answer, Check(equals=(answer,)))


def _with_strangers(rng: Random, items: list[str]) -> list[str]:
    """The same list with one made-up word put in; its content stays on its side of the split only by chance, so retry."""
    wanted = split_of("list", canonical(items), percent=8)
    while True:
        changed = [*items]
        changed[rng.randrange(len(items))] = world.made_up_word(rng)
        if split_of("list", canonical(changed), percent=8) == wanted:
            return changed


def _show(items: list[str], style: str) -> str:
    if style == "space":
        return " ".join(items)
    if style == "bracket":
        if items[0].isdigit():
            return "[" + ", ".join(items) + "]"
        return "[" + ", ".join(f'"{item}"' for item in items) + "]"
    if style == "and" and len(items) > 1:
        return ", ".join(items[:-1]) + " and " + items[-1]
    return ", ".join(items)


def _solve(task: str, items: list[str]) -> list[str] | str:
    if task in ("up", "down"):
        return sorted(items, key=int, reverse=task == "down")
    if task == "abc":
        return sorted(items, key=str.casefold)
    if task == "reverse":
        return items[::-1]
    if task == "copy":
        return list(items)
    if task == "count":
        return f"The list has {len(items)} items."
    if task in ("first", "last"):
        return items[0 if task == "first" else -1]
    return (max if task == "largest" else min)(items, key=int)
