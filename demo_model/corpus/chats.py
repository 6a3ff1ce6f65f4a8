"""Chats of several turns: a story and questions about it, things to remember, and any skills mixed."""

from __future__ import annotations

from random import Random

from demo_model.corpus import arithmetic, calendar_facts, chinese, common, json_objects, lists, stories, unknown, world
from demo_model.corpus.base import Chat, Check, Split, Turn, chat_of, messy, vary
from demo_model.corpus.system_prompts import NEUTRAL

Memory = tuple[Turn, Turn]


def _memory(rng: Random) -> Memory:
    """Something told, and the question about it later."""
    what = rng.choice(("name", "name", "name", "colour", "pet", "food", "city", "age"))
    name = world.any_name(rng)
    colour, food, city = rng.choice(world.COLOURS), rng.choice(world.FOODS), rng.choice(world.CITIES)
    kind, age = rng.choice(tuple(world.ANIMALS)), rng.randint(3, 99)
    forms: dict[str, tuple[str, str, str, str, str]] = {
        "name": ("My name is {n}.|I am {n}.|Hi, I am {n}.|Call me {n}.|Hello, my name is {n}.|I'm {n}.",
        f"Nice to meet you, {name}!",
                 "What is my name?|Do you know my name?|Who am I?|What's my name?|Do you remember my name?|How am I "
                 "called?",
                 f"Your name is {name}.", name),
        "colour": ("My favourite colour is {c}.|I like {c} best of all colours.|My favorite color is {c}.",
        f"{colour.capitalize()} is a lovely colour!",
                   "What is my favourite colour?|Which colour do I like?|What's my favorite color?|What color do I "
                   "like?",
                   f"Your favourite colour is {colour}.", colour),
        "pet": ("I have a {k} named {n}.|My {k} is called {n}.|My {k}'s name is {n}.", f"{name} is a fine name for a "
         f"{kind}!",
                "What is the name of my {k}?|What is my {k} called?|What's my {k}'s name?|Who is {n}?",
                f"{name} is your {kind}.", name),
        "food": ("I love {o}.|My favourite food is {o}.|I like to eat {o}.", f"Mmm, {food}! Good choice.",
                 "What is my favourite food?|What do I like to eat?|What food do I like?", f"You like {food}.", food),
        "city": ("I live in {x}.|I am from {x}.|My home is {x}.", f"{city} must be a nice place!",
                 "Where do I live?|Where am I from?|In which city do I live?|What city am I from?",
                 f"You live in {city}.", city),
        "age": ("I am {a} years old.|My age is {a}.|I'm {a} years old.", f"{age} is a good age!", "How old am I?|What "
         "is my age?|Do you know how old I am?",
                f"You are {age} years old.", str(age)),
    }  # fmt: skip
    tell, reply, ask, answer, fact = forms[what]
    values = {"n": name, "c": colour, "k": kind, "o": food, "x": city, "a": age}
    told = rng.choice(tell.split("|")).format(**values)
    asked = messy(rng, rng.choice(ask.split("|")).format(**values), typos=False)
    if rng.random() < 0.2:
        told = told.rstrip(".").replace("I am", "i am").replace("My", "my")
    return (
        Turn("memory", f"{what}:{fact}", told, reply, Check(equals=(reply,))),
        Turn("memory", f"{what}:{fact}", asked, answer, Check(contains=(fact,))),
    )


_NOT_TOLD = (
    (
        ("What is my name?", "Do you know my name?", "Who am I?", "What's my name?"),
        "You have not told me your name yet.",
    ),
    (("How old am I?", "What is my age?"), "You have not told me how old you are."),
    (("Where do I live?", "Where am I from?"), "You have not told me where you live."),
    (("What is my favourite colour?", "What's my favorite color?"), "You have not told me your favourite colour yet."),
)


def not_told_turn(rng: Random) -> Turn:
    """A question about the person that cannot be known."""
    ways, answer = rng.choice(_NOT_TOLD)
    return Turn("memory", answer, messy(rng, rng.choice(ways)), answer, Check(equals=(answer,)))


def any_turn(rng: Random, split: Split) -> Turn:
    """A short turn of any skill."""
    roll = rng.random()
    if roll < 0.2:
        return common.turn(rng, split)
    if roll < 0.36:
        return common.talk_turn(rng)
    if roll < 0.58:
        return arithmetic.turn(rng, split)
    if roll < 0.74:
        return lists.turn(rng, split)
    if roll < 0.82:
        return calendar_facts.turn(rng)
    if roll < 0.87:
        return chinese.turn(rng, split)
    if roll < 0.92:
        return unknown.turn(rng)
    if roll < 0.95:
        return arithmetic.times_turn(rng)
    return json_objects.turn(rng, split)


def _system(rng: Random) -> str | None:
    return rng.choice(NEUTRAL) if rng.random() < 0.25 else None


def story_chat(rng: Random, split: Split) -> tuple[Chat, Turn]:
    """A story on request and questions about it; also the last turn alone."""
    request, story = stories.request_turn(rng, split)
    turns = [request]
    if rng.random() < 0.12:
        turns.insert(0, common.talk_turn(rng))
    for _ in range(rng.randint(1, 4)):
        turns.append(stories.question_turn(rng, story))
        if rng.random() < 0.1:
            turns.append(any_turn(rng, split))
            turns.append(stories.question_turn(rng, story))
    if rng.random() < 0.06:
        request, story = stories.request_turn(rng, split)
        turns += [request, stories.question_turn(rng, story)]
    return chat_of(turns, system=_system(rng)), turns[-1]


def given_story_chat(rng: Random, split: Split) -> Chat:
    """A story that the person brings along, with one or more questions."""
    first = stories.question_about_given_story(rng, split)
    return chat_of([first], system=_system(rng))


def brought_story_chat(rng: Random, split: Split) -> Chat:
    """A story in the first message with a question, and further questions about it."""
    story = stories.tell(rng, split)
    turns = [stories.question_turn(rng, story, user_prefix=story.text + vary(rng, "[\n\n|\n| ]"))]
    turns += [stories.question_turn(rng, story) for _ in range(rng.randint(1, 4))]
    return chat_of(turns, system=_system(rng))


def memory_chat(rng: Random, split: Split) -> Chat:
    """Facts about the person, other things, and the facts again."""
    turns: list[Turn] = []
    asked: list[Turn] = []
    kinds = set()
    for _ in range(rng.choice((1, 1, 1, 2, 2))):
        told, question = _memory(rng)
        kind = question.key.split(":")[0]
        if kind in kinds:
            continue
        kinds.add(kind)
        turns.append(told)
        asked.append(question)
    turns += [any_turn(rng, split) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    rng.shuffle(asked)
    turns += asked
    if rng.random() < 0.1:
        turns.insert(0, not_told_turn(rng))
    return chat_of(turns, system=_system(rng))


def mixed_chat(rng: Random, split: Split) -> Chat:
    """One to six turns of any skills."""
    count = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    return chat_of([any_turn(rng, split) for _ in range(count)], system=_system(rng))


def single(rng: Random, turn: Turn) -> Chat:
    """A chat of one turn, sometimes with a system prompt that changes nothing."""
    return chat_of([turn], system=_system(rng))


def memory_turns(rng: Random) -> Memory:
    """A fact about the person and the question about it."""
    return _memory(rng)
