"""What every skill of the corpus is made of: splits, turns, documents and their ChatML text.

A *turn* is one question with its right answer and a check that scores any other answer. A *document* is a list of
weighted text segments; the weight says how much a token of the segment counts in the training loss. Items (an operand
pair, a list, the facts of a story) are split by a hash of their content, so the same item can never be in the training
text and in the evaluation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Split = Literal["train", "held_out"]

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
TOOL_TAGS = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

PROMPT_WEIGHT = 0.02
ANSWER_WEIGHT = 1.0
HELD_OUT_PERCENT = 5


class CorpusError(ValueError):
    """A generator was asked for something it cannot make."""


def split_of(kind: str, key: str, *, percent: int = HELD_OUT_PERCENT) -> Split:
    """The split an item belongs to, from a hash of its content alone.

    Args:
        kind: namespace of the key, e.g. ``"sum"``.
        key: canonical content of the item, e.g. ``"17,25"``.
        percent: how many items of a hundred are held out.
    """
    digest = hashlib.blake2b(f"{kind}:{key}".encode(), digest_size=4).digest()
    return "held_out" if int.from_bytes(digest, "little") % 100 < percent else "train"


@dataclass(frozen=True, slots=True)
class Check:
    """How to score an answer: every given condition must hold.

    Attributes:
        equals: the answer is one of these, but for white space around it.
        contains: each of these is in the answer, letter case aside.
        rejects: none of these is in the answer as a word, letter case aside.
        json_value: the answer parses as JSON and equals this value.
        is_json: ``json_value`` is to be looked at (it may be None by right).
        tool_call: the answer is one tool call with this name and these arguments.
    """

    equals: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    json_value: Any = None
    is_json: bool = False
    tool_call: Mapping[str, Any] | None = None

    def score(self, answer: str) -> bool:
        """True if the answer is right."""
        text = answer.strip()
        low = text.casefold()
        if self.equals and text not in self.equals:
            return False
        if any(part.casefold() not in low for part in self.contains):
            return False
        if any(re.search(rf"\b{re.escape(part.casefold())}\b", low) for part in self.rejects):
            return False
        if self.is_json:
            try:
                if json.loads(text) != self.json_value:
                    return False
            except ValueError:
                return False
        return self.tool_call is None or parse_tool_call(text) == dict(self.tool_call)


def parse_tool_call(text: str) -> dict[str, Any] | None:
    """The single tool call of an answer as ``{"name": ..., "arguments": {...}}``, or None if it is not just that."""
    match = re.fullmatch(r"<tool_call>\s*(\{.*\})\s*</tool_call>", text.strip(), flags=re.DOTALL)
    if match is None:
        return None
    try:
        call = json.loads(match[1])
    except ValueError:
        return None
    return call if isinstance(call, dict) else None


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its right answer.

    Attributes:
        skill: name of the skill, the row of the evaluation table.
        key: canonical content, what the split is made from.
        user: what the person says.
        answer: what the model shall say.
        check: scores an answer.
        chinese: the turn is in Chinese.
    """

    skill: str
    key: str
    user: str
    answer: str
    check: Check
    chinese: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text tokenized on its own, and the weight of its tokens in the loss."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as a chat template sees it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """A training document: segments in order, ending with an end token."""

    skill: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole text, special tokens spelt out."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages and declared tools, renderable as the chat template renders them."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = field(default=())

    def prompt(self) -> str:
        """The text up to where the assistant speaks next."""
        return "".join(text for text, _ in _render(self)) + f"{IM_START}assistant\n"

    def document(self, skill: str) -> Document:
        """The training document; only what the assistant says carries full weight."""
        merged: list[Segment] = []
        for text, weight in _render(self):
            if merged and merged[-1].weight == weight:
                merged[-1] = Segment(merged[-1].text + text, weight)
            else:
                merged.append(Segment(text, weight))
        return Document(skill, tuple(merged))


TOOLS_HEAD = "# Tools\n\nYou may call these functions:\n<tools>"
TOOLS_TAIL = (
    "\n</tools>\n\nTo call one, answer only with\n"
    '<tool_call>\n{"name": "function name", "arguments": {"argument": "value"}}\n</tool_call>'
)


def _render(chat: Chat) -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    messages = list(chat.messages)
    system = messages.pop(0).content if messages and messages[0].role == "system" else None
    if chat.tools:
        head = f"{system}\n\n" if system else ""
        listed = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in chat.tools)
        out.append((f"{IM_START}system\n{head}{TOOLS_HEAD}{listed}{TOOLS_TAIL}{IM_END}\n", 0.0))
    elif system is not None:
        out.append((f"{IM_START}system\n{system}{IM_END}\n", 0.0))
    for message in messages:
        if message.role == "assistant":
            out.append((f"{IM_START}assistant\n", PROMPT_WEIGHT))
            out.append((f"{message.content}{IM_END}", ANSWER_WEIGHT))
            out.append(("\n", 0.0))
        elif message.role == "tool":
            out.append((f"{IM_START}user\n<tool_response>\n{message.content}\n</tool_response>{IM_END}\n", 0.0))
        else:
            out.append((f"{IM_START}{message.role}\n{message.content}{IM_END}\n", PROMPT_WEIGHT))
    return out


def chat_of(turns: Sequence[Turn], *, system: str | None = None) -> Chat:
    """A chat of several turns, each answered rightly."""
    messages = [Message("system", system)] if system else []
    for turn in turns:
        messages += [Message("user", turn.user), Message("assistant", turn.answer)]
    return Chat(tuple(messages))


def raw_document(skill: str, prompt: str, answer: str) -> Document:
    """Text without a chat template: the prompt, the answer, end of text.

    The answer is set off by a space unless the prompt ends with white space, and is tokenized apart from it, as it is
    when a person gives the prompt and the model goes on.
    """
    gap = "" if prompt[-1:].isspace() else " "
    return Document(skill, (Segment(prompt, 0.0), Segment(f"{gap}{answer}{END_OF_TEXT}", ANSWER_WEIGHT)))


_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")


def vary(rng: Random, template: str) -> str:
    """Replaces every ``[a|b|c]`` of the template by one of its alternatives."""
    return _ALTERNATIVES.sub(lambda match: rng.choice(match[1].split("|")), template)


def vary_line(rng: Random, templates: str) -> str:
    """Chooses among templates split by ``|`` outside brackets, then among the bracketed alternatives."""
    depth, start, lines = 0, 0, []
    for at, char in enumerate(templates):
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            lines.append(templates[start:at])
            start = at + 1
    lines.append(templates[start:])
    return vary(rng, rng.choice(lines))


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"an {noun}" if noun[0] in "aeiou" and not noun.startswith("uni") else f"a {noun}"


_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeio]|um|un(?!i))")


def fix_articles(text: str) -> str:
    """The text with "a orange" turned into "an orange"."""
    return _A_BEFORE_VOWEL.sub(r"\1n ", text)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def join_words(items: Sequence[str], *, last: str = "and") -> str:
    """The items with commas between them, and ``last`` before the last one."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def messy(rng: Random, text: str, *, typos: bool = True) -> str:
    """The text as people type it: without capitals, commas or the question mark, with a please, now and then a slip."""
    roll = rng.random()
    if roll < 0.35:
        text = text[:1].lower() + text[1:] if roll < 0.05 else text.lower()
    elif roll < 0.37:
        text = text.upper()
    roll = rng.random()
    if roll < 0.3:
        text = text.rstrip(" .?!")
    elif roll < 0.34:
        text = text.rstrip(" .?!") + rng.choice(("??", "!", " ?", "?!", "...", "."))
    if rng.random() < 0.06:
        text = text.replace("'", "").replace("What is", "Whats").replace("what is", "whats")
    if rng.random() < 0.05:
        text = text.rstrip(" .?!") + rng.choice((" please", ", please", " pls", "? thanks", "? :)"))
    if typos and rng.random() < 0.04 and len(text) > 8:
        at = rng.randrange(1, len(text) - 2)
        if text[at].isalpha() and text[at + 1].isalpha():
            text = rng.choice((text[:at] + text[at + 1] + text[at] + text[at + 2 :], text[:at] + text[at + 1 :]))
    return text


NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(value: int) -> str:
    """The English words for 0 to 199."""
    if not 0 <= value < 200:
        raise CorpusError(f"[number_words] {value} is not in 0..199.")
    if value >= 100:
        rest = f" and {number_words(value - 100)}" if value > 100 else ""
        return f"one hundred{rest}"
    if value < 20:
        return NUMBER_WORDS[value]
    ones = f"-{NUMBER_WORDS[value % 10]}" if value % 10 else ""
    return _TENS[value // 10] + ones
