"""System prompts that visibly change the answers: capitals, brevity, Chinese, JSON, a name, a last word, a pirate."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from demo_model.corpus import arithmetic, calendar_facts, chinese, common, world
from demo_model.corpus.base import Check, Split, Turn, article, messy
from demo_model.corpus.greetings import TALK

NEUTRAL = (
    "You are a helpful assistant.", "You are the fastllm demo model.", "You are a friendly assistant.", "Be kind.",
    "You are helpful and honest.",
    "You are a tiny language model.", "Answer the questions of the user.", "You are a storyteller.",
    "You are a chatbot.",
    "You are a helpful, harmless and honest assistant.", "Help the user.", "You are an assistant.",
)  # fmt: skip
_CAPITALS = (
    "Answer in capital letters.", "Always answer in capital letters.", "Use only capital letters.",
    "Write in capitals.",
    "ANSWER IN CAPITALS.", "Answer in upper case.", "You shout: write everything in capital letters.",
    "Respond in all caps.",
)  # fmt: skip
_BRIEF = (
    "Be brief.", "Answer briefly.", "Answer in one sentence.", "Keep your answers short.", "Give short answers.",
    "Use one sentence only.",
    "You answer in one short sentence.", "Be concise.",
)  # fmt: skip
_CHINESE = (
    "Answer in Chinese.",
    "Always answer in Chinese.",
    "请用中文回答。",
    "用中文回答",
    "Reply in Chinese.",
    "You speak only Chinese.",
    "Speak Chinese.",
)
_JSON = (
    "Answer in JSON.",
    'Answer with a JSON object with the key "answer".',
    "Always answer in JSON.",
    "Reply with JSON only.",
)
_PIRATE = (
    "You are a pirate.",
    "Talk like a pirate.",
    "Answer like a pirate.",
    "Speak like a pirate.",
    "You are a pirate captain.",
)
_LAST_WORD = (
    "End every answer with the word {w}.", "Always end with {w}.", 'End each answer with "{w}".', "Finish every "
     "answer with {w}.",
    "The last word of each answer is {w}.",
)  # fmt: skip
_FIRST_WORD = (
    "Begin every answer with the word {w}.", "Always begin with {w}.", 'Start each answer with "{w}".',
    "Start every answer with {w}.",
)  # fmt: skip
_WORDS = "Meow Hooray Amen Woof Indeed Beep Cheers Bingo Aloha Banana Quack Ahoy Voila Bravo Yes Truly Moo Pancake Wow Ha".split()
_NAMED = (
    "Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.", "You are called {n}.", "Your name is {n}. Be kind.",
    "You are an assistant named {n}.",
)  # fmt: skip
_NAMED_KIND = (
    "You are {n}, {k}.",
    "You are {k} named {n}.",
    "Your name is {n} and you are {k}.",
    "Pretend to be {n}, {k}.",
)
_ASK_NAME = (
    "What is your name?",
    "Who are you?",
    "What's your name?",
    "Tell me your name.",
    "who are you",
    "whats your name",
    "What are you called?",
)

Styled = tuple[str, list[Turn]]


def _plain_turn(rng: Random, split: Split) -> Turn:
    roll = rng.random()
    if roll < 0.45:
        return common.turn(rng, split)
    if roll < 0.65:
        return common.talk_turn(rng)
    if roll < 0.85:
        return arithmetic.turn(rng, split)
    return calendar_facts.turn(rng)


def _restyled(turn: Turn, restyle: Callable[[str], str]) -> Turn:
    answer = restyle(turn.answer)
    return Turn("system_prompts", turn.key, turn.user, answer, Check(equals=(answer,)))


def capitals(rng: Random, split: Split) -> Styled:
    """Everything in capitals."""
    turns = []
    for _ in range(rng.randint(1, 2)):
        made = _plain_turn(rng, split)
        turns.append(_restyled(made, lambda text: common.first_sentence(text).upper()))
    return rng.choice(_CAPITALS), turns


def brief(rng: Random, split: Split) -> Styled:
    """One sentence."""
    return rng.choice(_BRIEF), [
        _restyled(_plain_turn(rng, split), common.first_sentence) for _ in range(rng.randint(1, 3))
    ]


def in_chinese(rng: Random, split: Split) -> Styled:
    """English questions, Chinese answers."""
    turns = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.3:
            turns.append(chinese.turn(rng, split))
            continue
        english, answer = rng.choice(chinese.english_asked_pairs())
        ways = next((list(ways) for ways, _ in TALK if english in ways), [english])
        ways = next((common.ways_to_ask(entry) for entry in common.ENTRIES if entry[1] == english), ways)
        ways = [english, *(way for way in ways if split == "train" and common.wording_split(way) == split)]
        turns.append(Turn("system_prompts", english, messy(rng, rng.choice(ways)), answer, Check(equals=(answer,))))
    return rng.choice(_CHINESE), turns


def as_json(rng: Random, split: Split) -> Styled:
    """A JSON object around the answer's first sentence."""
    made = _plain_turn(rng, split)
    return rng.choice(_JSON), [_restyled(made, lambda text: json.dumps({"answer": common.first_sentence(text)}))]


def pirate(rng: Random, split: Split) -> Styled:
    """Ahoy."""
    made = [_plain_turn(rng, split) for _ in range(rng.randint(1, 2))]
    return rng.choice(_PIRATE), [_restyled(turn, lambda text: f"Arr, matey! {text} Yo ho ho!") for turn in made]


def word_around(rng: Random, split: Split) -> Styled:
    """A word at the end or the beginning of every answer."""
    word = rng.choice(_WORDS) if rng.random() < 0.7 else world.made_up_word(rng).capitalize()
    made = [_plain_turn(rng, split) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.7:
        return rng.choice(_LAST_WORD).format(w=word), [_restyled(turn, lambda text: f"{text} {word}!") for turn in made]
    return rng.choice(_FIRST_WORD).format(w=word), [_restyled(turn, lambda text: f"{word}! {text}") for turn in made]


def named(rng: Random, split: Split) -> Styled:
    """A name, and perhaps what the assistant pretends to be."""
    name = world.any_name(rng)
    if rng.random() < 0.5:
        system, answer = rng.choice(_NAMED).format(n=name), f"My name is {name}. How can I help you?"
    else:
        kind = rng.choice(tuple(world.ANIMALS)) if rng.random() < 0.6 else rng.choice(world.BEINGS)
        described = article(f"{rng.choice(world.ADJECTIVES)} {kind}") if rng.random() < 0.5 else article(kind)
        system, answer = (
            rng.choice(_NAMED_KIND).format(n=name, k=described),
            f"I am {name}, {described}. How can I help you?",
        )
    turns = [Turn("system_prompts", name, messy(rng, rng.choice(_ASK_NAME)), answer, Check(equals=(answer,)))]
    if rng.random() < 0.5:
        turns.insert(rng.randint(0, 1), _plain_turn(rng, split))
    return system, turns


_STYLES = (capitals, capitals, brief, brief, in_chinese, as_json, pirate, word_around, word_around, named, named)


def styled(rng: Random, split: Split) -> Styled:
    """A system prompt and turns that obey it."""
    return rng.choice(_STYLES)(rng, split)
