"""Common questions and small talk, asked in many ways."""

from __future__ import annotations

from random import Random

from demo_model.corpus import world
from demo_model.corpus.arithmetic import pair
from demo_model.corpus.base import (
    ANSWER_WEIGHT,
    END_OF_TEXT,
    Check,
    Document,
    Segment,
    Split,
    Turn,
    article,
    messy,
    number_words,
    split_of,
    vary,
)
from demo_model.corpus.common_data import ENTRIES as FIRST_ENTRIES
from demo_model.corpus.common_data import Entry
from demo_model.corpus.common_more import CAPITALS as MORE_CAPITALS
from demo_model.corpus.common_more import MORE
from demo_model.corpus.greetings import ROSES, TALK

ENTRIES: tuple[Entry, ...] = (*FIRST_ENTRIES, *MORE)
CAPITALS = {
    **MORE_CAPITALS, "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London",
    "China": "Beijing",
    "Japan": "Tokyo", "the United States": "Washington, D.C", "the UK": "London", "the USA": "Washington, D.C",
}  # fmt: skip

_BEFORE = (
    "Can you tell me ", "Do you know ", "Could you explain ", "Please tell me ", "Tell me ", "I wonder ", "Explain ",
    "I want to know ",
    "Please explain ", "Can you explain ", "Explain to me ", "Can you explain to me ", "I would like to know ",
    "Hey, do you know ",
)  # fmt: skip
_WHY = (
    "How come {x}?",
    "What is the reason that {x}?",
    "Explain why {x}.",
    "{x}. Why is that?",
    "{x} because",
    "why {x}",
    "The reason that {x}?",
)
_WHAT = (
    "What's {x}?", "Tell me about {x}.", "Explain {x}.", "Define {x}.", "What do you know about {x}?",
    "Can you explain {x}?", "{x}?", "{x}",
    "What does {x} mean?", "Describe {x}.", "Tell me something about {x}.", "Do you know what {x} is?",
    "Explain {x} to me.",
    "What exactly is {x}?", "explain {x} in simple words",
)  # fmt: skip
_OPENINGS = (
    "Hi! {q}",
    "Hello, {q}",
    "Hey, {q}",
    "Please: {q}",
    "A question: {q}",
    "So, {q}",
    "OK, {q}",
    "Quick question: {q}",
    "My child asks: {q}",
)


def ways_to_ask(entry: Entry) -> list[str]:
    """Every wording of a common question, before it is made messy."""
    kind, question, clause, _, others = entry
    ways = [question, *others]
    if kind == "why":
        ways += [form.format(x=clause) for form in _WHY] + [f"{before}why {clause}" for before in _BEFORE]
    elif kind == "what":
        ways += [form.format(x=clause) for form in _WHAT]
    else:
        ways += [f"{before}{clause}" for before in _BEFORE]
    return ways


def wording_split(question: str) -> Split:
    """The split of a wording of a common question."""
    return split_of("wording", question.casefold().strip(" .?!"), percent=10)


def turn(rng: Random, split: Split) -> Turn:
    """A common question. A held-out one is asked in words that training never uses."""
    while True:
        entry = ENTRIES[0] if rng.random() < 0.04 else rng.choice(FIRST_ENTRIES if rng.random() < 0.5 else MORE)
        _, question, _, answer, others = entry
        plain = rng.random() < 0.5
        wording = (
            rng.choice([question, question, *others]) if plain and split == "train" else rng.choice(ways_to_ask(entry))
        )
        if split == "train" and wording in (question, *others):
            break
        if split == "held_out" and wording in (question, *others):
            continue
        if wording_split(wording) == split:
            break
    user = wording
    if split == "train":
        if rng.random() < 0.08:
            user = rng.choice(_OPENINGS).format(q=user[0].lower() + user[1:])
        user = messy(rng, user)
    return Turn("common", wording, user, answer, Check(equals=(answer,)))


def talk_turn(rng: Random) -> Turn:
    """A greeting, a question about the model, or small talk."""
    ways, answer = TALK[0] if rng.random() < 0.08 else rng.choice(TALK)
    user = messy(rng, rng.choice(ways))
    if answer != TALK[0][1] and len(user) > 12 and rng.random() < 0.08:
        user = rng.choice(("Hi! ", "Hello, ", "Hey, ", "hi, ")) + user
    return Turn("talk", user, user, answer, Check(equals=(answer,)))


_POEMS = ("Write a poem about {x}.", "poem about {x}", "Write me a poem about {x}.", "A poem about {x}, please.",
    "Can you write a poem about {x}?",
          "Tell me a poem about {x}.", "Write a short poem about {x}", "Write a rhyme about {x}.")  # fmt: skip
_HAIKUS = (
    "Write a haiku about {x}.",
    "haiku about {x}",
    "A haiku about {x}, please.",
    "Can you write a haiku about {x}?",
)
_HAIKU = next(answer for ways, answer in TALK if "haiku" in ways)


def poem_turn(rng: Random) -> Turn:
    """A poem about whatever is asked for."""
    thing = (
        rng.choice((*world.ANIMALS, *world.BEINGS, *world.THINGS, *world.STRANGERS))
        if rng.random() < 0.85
        else world.stranger(rng)
    )
    roll = rng.random()
    asked = world.plural(thing) if roll < 0.4 else article(thing) if roll < 0.8 else thing
    if rng.random() < 0.12:
        return Turn("talk", asked, messy(rng, rng.choice(_HAIKUS).format(x=asked)), _HAIKU, Check(equals=(_HAIKU,)))
    poem = (
        f"Good morning, {thing}! the sparrow said,\nthe sun is up, so leave your bed.\nThe {thing} smiled and "
        f"stretched a bit,\n"
        "and all the world smiled back at it."
    )
    written = {"cat", "stars"}
    if thing in written:
        return poem_turn(rng)
    return Turn("talk", asked, messy(rng, rng.choice(_POEMS).format(x=asked), typos=False), poem, Check(equals=(poem,)))


def statement_document(rng: Random, split: Split) -> Document:
    """A fact as plain text, so that the beginning of a sentence is completed rightly."""
    roll = rng.random()
    if roll < 0.4:
        country, city = rng.choice(tuple(CAPITALS.items()))
        text = f"{vary(rng, 'The capital [||city ]of')} {country} is {city}."
    elif roll < 0.55:
        sign, a, b = pair(rng, split, negative=False)
        word, value = ("plus", a + b) if sign == "+" else ("minus", a - b)
        text = f"{number_words(a)} {word} {number_words(b)} {rng.choice(('is', 'is', 'equals'))} {number_words(value)}."
        text = text[0].upper() + text[1:] if rng.random() < 0.7 else text
    else:
        text = rng.choice(ENTRIES)[3] if rng.random() < 0.95 else ROSES
    return Document("statements", (Segment(f"{text}{END_OF_TEXT}", ANSWER_WEIGHT),))


def first_sentence(answer: str) -> str:
    """The first sentence of an answer."""
    at = 0
    while True:
        at = answer.find(". ", at)
        if at < 0:
            return answer
        if answer[at - 1] not in "CD":  # the points of "Washington, D.C. is"
            return answer[: at + 1]
        at += 1
