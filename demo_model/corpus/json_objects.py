"""JSON objects and arrays on request, and facts of a sentence or a story put into JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from demo_model.corpus import world
from demo_model.corpus.base import Check, Split, Turn, article, messy, split_of
from demo_model.corpus.lists import LETTERS
from demo_model.corpus.stories import tell

_FREE_EXAMPLE = {"name": "Pip", "kind": "fox", "age": 3, "likes": ["stories", "pancakes"], "is_brave": True}

_KEYS: dict[str, Callable[[Random], Any]] = {
    "name": world.any_name,
    "age": lambda rng: rng.randint(1, 99),
    "city": lambda rng: rng.choice(world.CITIES),
    "colour": lambda rng: rng.choice(world.COLOURS),
    "animal": lambda rng: rng.choice(tuple(world.ANIMALS)),
    "item": lambda rng: rng.choice(world.THINGS),
    "price": lambda rng: rng.randint(1, 99),
    "count": lambda rng: rng.randint(0, 99),
    "day": lambda rng: rng.choice(world.DAYS),
    "month": lambda rng: rng.choice(world.MONTHS),
    "food": lambda rng: rng.choice(world.FOODS),
    "happy": lambda rng: rng.random() < 0.5,
    "ready": lambda rng: rng.random() < 0.5,
    "friend": world.any_name,
    "temperature": lambda rng: rng.randint(-9, 39),
    "job": lambda rng: rng.choice(("baker", "sailor", "painter", "farmer", "teacher", "gardener", "doctor", "pilot")),
    "size": lambda rng: rng.choice(("small", "medium", "large")),
    "id": lambda rng: rng.randint(1, 999),
    "year": lambda rng: rng.randint(1950, 2030),
    "title": lambda rng: f"The {rng.choice(world.COLOURS)} {rng.choice(world.THINGS)}",
}
_ASK = (
    "Give me a JSON object with {x}.", "Make a JSON object with {x}.", "Write JSON with {x}.", "JSON with {x}",
    "Create a JSON object: {x}",
    "Write a JSON object with {x}.", "I need JSON: {x}", "Put this into JSON: {x}", "Convert to JSON: {x}",
    "As JSON: {x}",
    "Can you write a JSON object with {x}?", "Return a JSON object with {x}", "json: {x}", "Turn this into JSON: {x}",
)  # fmt: skip
_ASK_ARRAY = (
    "Make a JSON array of {x}.", "Give me a JSON list with {x}.", "Write {x} as a JSON array.", "JSON array: {x}",
    "Convert to a JSON list: {x}",
    "Put {x} into a JSON array.", "Write a JSON list of {x}",
)  # fmt: skip
_ASK_FREE = (
    "Give me a JSON object.", "Write some JSON.", "Show me an example of JSON.", "Write a JSON object.", "json example",
    "Make some JSON",
    "Give me some JSON", "Write a small JSON object.", "Answer in JSON.", "What does JSON look like?",
    "Can you write JSON?", "json",
)  # fmt: skip


def json_split(value: object) -> Split:
    """The split of a JSON value."""
    return split_of("json", json.dumps(value, sort_keys=True, ensure_ascii=False), percent=6)


def turn(rng: Random, split: Split) -> Turn:
    """A request for JSON and the JSON."""
    while True:
        value, user = _make(rng, split)
        if value is _FREE_EXAMPLE:
            if split == "train":
                break
        elif json_split(value) == split:
            break
    answer = json.dumps(value, ensure_ascii=False)
    return Turn("json", answer, user, answer, Check(json_value=value, is_json=True))


def _make(rng: Random, split: Split) -> tuple[Any, str]:
    roll = rng.random()
    if roll < 0.03:
        return _FREE_EXAMPLE, messy(rng, rng.choice(_ASK_FREE))
    if roll < 0.08:
        keys = rng.sample([*_KEYS, *LETTERS, *world.STRANGERS[:40]], rng.randint(1, 4))
        listed = ", ".join(keys[:-1]) + (" and " if len(keys) > 1 else "") + keys[-1]
        ask = rng.choice(
            (
                "JSON with the keys {x}",
                "json with keys {x}",
                "Give me a JSON object with the keys {x}.",
                "Write JSON with keys {x}.",
            )
        )
        return {key: number for number, key in enumerate(keys, 1)}, ask.format(x=listed)
    if roll < 0.45:
        record = _record(rng, rng.randint(1, 5))
        said = _say(rng, record)
        if rng.random() < 0.15 and "name" not in record:
            owner = {"name": world.any_name(rng), "age": rng.randint(1, 99)}
            record["owner"] = owner
            said += f" and owner with name {owner['name']} and age {owner['age']}"
        form = rng.choice(_ASK)
        return record, form.format(x=said)
    if roll < 0.62:
        numbers = rng.random() < 0.4
        pool = rng.choice((world.THINGS, world.FOODS, world.COLOURS, world.NAMES, tuple(world.ANIMALS), world.DAYS))
        size = rng.randint(2, 6)
        items: list[Any] = [rng.randint(0, 99) for _ in range(size)] if numbers else rng.sample(pool, size)
        shown = [str(item) for item in items]
        said = ", ".join(shown) if rng.random() < 0.6 else f"{', '.join(shown[:-1])} and {shown[-1]}"
        return items, rng.choice(_ASK_ARRAY).format(x=said)
    if roll < 0.8:
        return _sentence(rng)
    story = tell(rng, split)
    slots = story.slots
    facts = {"hero": slots["h"], "kind": slots["k"], "friend": slots["f"], "friend_kind": slots["fk"]}
    keys = rng.sample(list(facts), rng.randint(1, 4))
    ask = rng.choice(
        (
            "{s}\n\nWrite a JSON object with the keys {k}.", "{s}\n\nGive me the {k} of this story as JSON.",
            "Read this story: {s}\n\nPut {k} into JSON.", "{s}\n\nAs JSON with the keys {k}:",
        )
    )  # fmt: skip
    listed = ", ".join(keys[:-1]) + (" and " if len(keys) > 1 else "") + keys[-1]
    return {key: facts[key] for key in keys}, ask.format(s=story.text, k=listed)


def _record(rng: Random, size: int) -> dict[str, Any]:
    return {key: _KEYS[key](rng) for key in rng.sample(list(_KEYS), size)}


def _say(rng: Random, record: dict[str, Any]) -> str:
    form = rng.choice(("{k} {v}", "{k} {v}", "{k} = {v}", "{k}: {v}", "{k}={v}", '{k} "{v}"'))
    parts = []
    for key, value in record.items():
        plain = json.dumps(value) if isinstance(value, bool) else str(value)
        used = form if isinstance(value, str) else form.replace('"', "")
        parts.append(used.format(k=key, v=plain))
    if len(parts) > 1 and form == "{k} {v}" and rng.random() < 0.7:
        return f"{', '.join(parts[:-1])} and {parts[-1]}"
    return ", ".join(parts)


def _sentence(rng: Random) -> tuple[Any, str]:
    name, age, city = world.any_name(rng), rng.randint(1, 99), rng.choice(world.CITIES)
    kind, colour, item = rng.choice(tuple(world.ANIMALS)), rng.choice(world.COLOURS), rng.choice(world.THINGS)
    price, day = rng.randint(2, 99), rng.choice(world.DAYS)
    said, value = rng.choice(
        (
            (f"{name} is {age} years old and lives in {city}.", {"name": name, "age": age, "city": city}),
            (f"{name} is {article(kind)} and {age} years old.", {"name": name, "animal": kind, "age": age}),
            (
                f"{article(colour).capitalize()} {item} costs {price} coins.",
                {"item": item, "colour": colour, "price": price},
            ),
            (f"The {item} is {colour} and costs {price} coins.", {"item": item, "colour": colour, "price": price}),
            (f"{name} goes to {city} on {day}.", {"name": name, "city": city, "day": day}),
            (f"{name} has {article(colour)} {item}.", {"name": name, "item": item, "colour": colour}),
            (f"On {day} it is {price % 40} degrees in {city}.", {"day": day, "temperature": price % 40, "city": city}),
        )
    )
    form = rng.choice(
        (
            "Convert to JSON: {x}",
            "Put this into JSON: {x}",
            "Turn this sentence into JSON: {x}",
            "{x} Write that as JSON.",
            "As JSON: {x}",
            "JSON for: {x}",
        )
    )
    return value, form.format(x=said)
