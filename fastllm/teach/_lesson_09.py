"""Exercises of notebook 09, Talking."""

from __future__ import annotations

import random
import re
from typing import Any

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import demo, function

_SAYINGS = ("Hello!", "What is 2 + 2?", "The sky\nis blue.", "  spaces  ", "你好", "")


@exercise(
    "9.1",
    kind="a function render(messages)",
    hints=(
        "Each message: <|im_start|>, its role, a line break, its content, <|im_end|>, a line break.",
        "At the end stands an open message: <|im_start|>assistant and a line break.",
    ),
)
def _(answer: Any) -> str:
    render = function(answer, 'check("9.1", render)')
    dice = random.Random(91)
    for system in (False, True):
        for turns in (1, 2, 4):
            messages = [{"role": "system", "content": dice.choice(_SAYINGS[:3])}] if system else []
            for turn in range(turns):
                messages.append({"role": "user", "content": dice.choice(_SAYINGS)})
                if turn + 1 < turns:
                    messages.append({"role": "assistant", "content": dice.choice(_SAYINGS)})
            truth = demo().render(messages).text
            found = render([dict(message) for message in messages])
            if not isinstance(found, str):
                raise NotYet(f"It should give a text, and gave {type(found).__name__}.")
            if found != truth:
                place = next(
                    (at for at, (one, other) in enumerate(zip(found, truth, strict=False)) if one != other),
                    min(len(found), len(truth)),
                )
                raise NotYet(
                    f"With {len(messages)} messages it differs at character {place}: "
                    f"{found[place : place + 20]!r} instead of {truth[place : place + 20]!r}."
                )
    return "This form is called ChatML. Other models have other marks, and a wrong one makes a clever model stupid."


@exercise(
    "9.2",
    kind="a function shorten(messages, most, count)",
    hints=(
        "Split off the system message first, and put it back at the end.",
        "Drop from the front while it is too long or begins with an answer, as long as more than one message is left.",
    ),
)
def _(answer: Any) -> str:
    shorten = function(answer, 'check("9.2", shorten)')
    dice = random.Random(92)

    def count(messages: list[dict[str, str]]) -> int:
        return len(demo().render(messages).token_ids)

    for trial in range(12):
        messages = [{"role": "system", "content": "Be brief."}] if trial % 2 else []
        for _ in range(dice.randint(1, 6)):
            messages.append({"role": "user", "content": "Hello! " * dice.randint(1, 6)})
            messages.append({"role": "assistant", "content": "Why is the sky blue? " * dice.randint(1, 6)})
        messages.append({"role": "user", "content": "Thank you!"})
        most = dice.randint(24, 160)
        system, rest = (messages[:1], messages[1:]) if trial % 2 else ([], messages)
        truth = next(
            system + rest[start:]
            for start in range(len(rest))
            if start == len(rest) - 1 or (rest[start]["role"] == "user" and count(system + rest[start:]) <= most)
        )
        copy = [dict(message) for message in messages]
        found = shorten(copy, most, count)
        if copy != messages:
            raise NotYet("It changed the list it was given. Make a new one.")
        if not isinstance(found, (list, tuple)):
            raise NotYet(f"It should give a list of messages, and gave {type(found).__name__}.")
        kept = list(found)
        if system and kept[:1] != system:
            raise NotYet("The system message is gone. Without it the model is somebody else.")
        if kept[-1:] != messages[-1:]:
            raise NotYet("The last message is gone, and with it the question.")
        if len(kept) > len(system) and kept[len(system)]["role"] != "user":
            raise NotYet("What is kept begins with an answer to a question that nobody sees any more.")
        if len(kept) != len(truth):
            more = "more" if len(kept) > len(truth) else "fewer"
            raise NotYet(
                f"Of {len(messages)} messages, {len(truth)} fit into {most} tokens; you kept {len(kept)}, {more}."
            )
        if kept != truth:
            raise NotYet("The number of messages is right, but they are not the newest ones, in order.")
    return "Every chat program does something like this, and its users wonder why it forgets."


@exercise(
    "9.3",
    kind="a Chat",
    hints=(
        "chat.edit(0, ...) rewords the first message in a new branch; the old one stays in chat.nodes.",
        "Every answer must be read to its end: await chat.send(...).result().",
    ),
)
def _(answer: Any) -> str:
    from fastllm.chat import Conversation

    if not isinstance(answer, Conversation):
        raise NotYet(f"This wants a fastllm.Chat, and got {type(answer).__name__}.")
    nodes = answer.nodes
    asked = [
        node for node in nodes if node.message.role == "user" and "what is my name" in node.message.content.lower()
    ]
    if not asked:
        raise NotYet("Nobody asks `What is my name?` in it.")
    names: dict[int, str] = {}
    for question in asked:
        told, node = None, question
        while node.parent is not None:
            node = nodes[node.parent]
            if node.message.role == "user" and (match := re.search(r"[Mm]y name is (\w+)", node.message.content)):
                told = match[1]
                break
        if told is None:
            continue
        replies = [other for other in nodes if other.parent == question.index and other.message.role == "assistant"]
        if any(told in reply.message.content for reply in replies):
            names[question.index] = told
    if not names:
        raise NotYet("The name was asked for, but no answer holds a name told before in its branch.")
    if len(set(names.values())) < 2:
        raise NotYet(
            f"Only the name {next(iter(names.values()))!r} was told, asked and answered. One branch is missing."
        )
    if len({nodes[index].parent for index in names}) < 2:
        raise NotYet("Both names are in one branch. Go back with chat.edit(0, ...), and tell another name there.")
    return f"{' and '.join(sorted(set(names.values())))} never met: each lives in a branch of its own."
