"""Calls of declared tools, and answers made from what a tool returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from demo_model.corpus import arithmetic, common, world
from demo_model.corpus.base import Chat, Check, Message, Split, Turn, messy, split_of

Tool = Mapping[str, Any]


def _tool(name: str, description: str, **arguments: tuple[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": about} for key, (kind, about) in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = _tool("get_weather", "Get the current weather in a city.", city=("string", "The name of the city."))
CALCULATE = _tool(
    "calculate", "Calculate the value of an expression.", expression=("string", "The expression, such as 17 + 25.")
)
TIME = _tool("get_time", "Get the current time in a city.", city=("string", "The name of the city."))
TIMER = _tool("set_timer", "Set a timer.", minutes=("integer", "How many minutes the timer runs."))
DECLARED = (WEATHER, CALCULATE)
_ALL = {"get_weather": WEATHER, "calculate": CALCULATE, "get_time": TIME, "set_timer": TIMER}

_WEATHER_ASKS = (
    "What is the weather in {x}?", "How is the weather in {x}?", "What's the weather like in {x}?", "Weather in {x}",
    "Is it raining in {x}?",
    "Is it sunny in {x}?", "How warm is it in {x}?", "Do I need an umbrella in {x}?", "What is the temperature in {x}?",
    "Is it cold in {x} today?",
    "Tell me the weather in {x}.", "weather {x}", "What is the weather like in {x} today?", "Get the weather for {x}.",
)  # fmt: skip
_TIME_ASKS = (
    "What time is it in {x}?",
    "What is the time in {x}?",
    "Tell me the time in {x}.",
    "How late is it in {x}?",
    "time in {x}",
)
_TIMER_ASKS = (
    "Set a timer for {x} minutes.",
    "Wake me in {x} minutes.",
    "Start a timer of {x} minutes.",
    "timer {x} minutes",
    "Remind me in {x} minutes.",
)
_SUM_ASKS = (
    "What is {e}?", "Calculate {e}.", "How much is {e}?", "{e}", "Compute {e}", "Please calculate {e}.",
    "What does {e} make?", "{e} = ?",
    "Use the calculator: {e}", "What's {e}?",
)  # fmt: skip
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy")
_SYSTEMS = (
    None,
    None,
    None,
    "You are a helpful assistant.",
    "You are a helpful assistant with tools.",
    "Use the tools when they help.",
)


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as the model writes it."""
    return (
        "<tool_call>\n"
        + json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
        + "\n</tool_call>"
    )


def call_split(name: str, argument: str) -> Split:
    """The split of a call."""
    return split_of("call", f"{name}:{argument}", percent=6)


def call_turn(rng: Random, split: Split, *, names: tuple[str, ...] = ("get_weather", "calculate")) -> Turn:
    """A request that one of the named tools answers."""
    while True:
        name = rng.choice(names)
        arguments: dict[str, Any]
        if name in ("get_weather", "get_time"):
            city = rng.choice(world.CITIES) if rng.random() < 0.6 else world.made_up_word(rng).capitalize()
            user = rng.choice(_WEATHER_ASKS if name == "get_weather" else _TIME_ASKS).format(x=city)
            arguments = {"city": city}
        elif name == "set_timer":
            minutes = rng.randint(1, 99)
            user, arguments = rng.choice(_TIMER_ASKS).format(x=minutes), {"minutes": minutes}
        else:
            a, b = rng.randint(0, 999), rng.randint(0, 999)
            sign = rng.choice("+-*/")
            word = rng.choice((sign, {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[sign]))
            gap = "" if word == sign and rng.random() < 0.4 else " "
            user, arguments = (
                rng.choice(_SUM_ASKS).format(e=f"{a}{gap}{word}{gap}{b}"),
                {"expression": f"{a} {sign} {b}"},
            )
            if a < 100 and b < 100 and sign in "+-" and arithmetic.pair_split(sign, a, b) != split:
                continue
        if call_split(name, str(next(iter(arguments.values())))) == split:
            break
    answer = call_text(name, arguments)
    lower = messy(rng, user, typos=False) if name != "get_weather" and name != "get_time" else user
    if name in ("get_weather", "get_time") and rng.random() < 0.2:
        lower = user[0].lower() + user[1:].rstrip("?.")
    return Turn("tools", answer, lower, answer, Check(tool_call={"name": name, "arguments": arguments}))


def result_of(rng: Random, call: Mapping[str, Any]) -> tuple[str, str]:
    """What the tool returns for a call, and what the model says about it."""
    argument = next(iter(call["arguments"].values()))
    if call["name"] == "get_weather":
        sky, degrees = rng.choice(_SKIES), rng.randint(-9, 38)
        returned: Any = rng.choice(
            (
                {"city": argument, "sky": sky, "temperature": degrees}, {"temperature": degrees, "sky": sky},
                {"sky": sky, "temperature": degrees, "unit": "celsius"},
            )
        )  # fmt: skip
        return json.dumps(returned, ensure_ascii=False), f"In {argument} it is {sky} and {degrees} degrees."
    if call["name"] == "get_time":
        clock = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
        return json.dumps({"time": clock}), f"It is {clock} in {argument}."
    if call["name"] == "set_timer":
        return json.dumps({"ok": True}), f"Your timer is set for {argument} minute{'' if argument == 1 else 's'}."
    value = _value_of(argument)
    return rng.choice((value, f'{{"result": {value}}}')), f"{argument} = {value}"


def _value_of(expression: str) -> str:
    left, sign, right = expression.split()
    a, b = int(left), int(right)
    if sign == "/":
        return f"{a / b:.2f}" if b else "0"
    return str({"+": a + b, "-": a - b, "*": a * b}[sign])


def declared(rng: Random, needed: str) -> tuple[Tool, ...]:
    """One to three declared tools with the needed one among them; mostly the usual two."""
    if needed in ("get_weather", "calculate") and rng.random() < 0.6:
        return DECLARED if rng.random() < 0.7 else DECLARED[::-1]
    others = [name for name in _ALL if name != needed]
    names = [needed, *rng.sample(others, rng.randint(0, 2))]
    rng.shuffle(names)
    return tuple(_ALL[name] for name in names)


def chat(rng: Random, split: Split) -> Chat:
    """A chat with declared tools: a call with its result, sometimes small talk that needs no tool."""
    name = rng.choice(("get_weather", "get_weather", "calculate", "calculate", "get_time", "set_timer"))
    tools = declared(rng, name)
    system = rng.choice(_SYSTEMS)
    messages = [Message("system", system)] if system else []
    if rng.random() < 0.25:
        talk = common.turn(rng, split) if rng.random() < 0.5 else common.talk_turn(rng)
        messages += [Message("user", talk.user), Message("assistant", talk.answer)]
    if rng.random() < 0.9:
        for _ in range(1 if rng.random() < 0.8 else 2):
            made = call_turn(rng, split, names=(name,))
            call = made.check.tool_call or {}
            messages += [Message("user", made.user), Message("assistant", made.answer)]
            if rng.random() < 0.75:
                returned, said = result_of(rng, call)
                messages += [Message("tool", returned), Message("assistant", said)]
    elif len(messages) < 2:
        talk = common.talk_turn(rng)
        messages += [Message("user", talk.user), Message("assistant", talk.answer)]
    return Chat(tuple(messages), tools)
