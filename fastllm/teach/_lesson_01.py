"""Exercises of notebook 01, Text is not tokens."""

from __future__ import annotations

import codecs
from typing import Any

from fastllm.teach._check import NotYet, exercise
from fastllm.teach._demo import function, tokenizer

_MIXED = ("The sky is blue.", "你好，世界！", "a 🦊 and two 👩‍🚀👩‍🚀", "naïve Straße, мир", "x", "日本🦊語")


@exercise(
    "1.1",
    kind="a word",
    hints=(
        "The longest pieces of the vocabulary were printed above; most of them begin with a space.",
        "len(everything[id_]) and everything[id_].isalpha() and .islower() make a filter.",
    ),
)
def _(answer: Any) -> str:
    if not isinstance(answer, str):
        raise NotYet(f"A word is text in quotes; this is {type(answer).__name__}.")
    if answer.startswith(" "):
        raise NotYet("It begins with a space. Those are easy: look among the words that begin a line or stand in code.")
    if not (answer.isalpha() and answer.islower()):
        raise NotYet(f"{answer!r} is not made of lower-case letters only.")
    if len(answer) < 7:
        raise NotYet(f"{answer!r} has {len(answer)} letters, and at least 7 are wanted.")
    count = len(tokenizer().encode(answer))
    if count != 1:
        raise NotYet(
            f"{answer!r} is cut into {count} tokens. With a space in front it may be one, but that is cheating."
        )
    return f"{answer!r} stood so often without a space in front (in code, say) that it became one piece."


@exercise(
    "1.2",
    kind="a text of at most 10 characters",
    hints=("What is the most that one character can cost? It has to do with its bytes.", "Emoji have 4 bytes each."),
)
def _(answer: Any) -> str:
    if not isinstance(answer, str):
        raise NotYet(f"This wants a text in quotes, and got {type(answer).__name__}.")
    if len(answer) > 10:
        raise NotYet(f"len(text) is {len(answer)}, and at most 10 are allowed. (Some emoji are several characters.)")
    count = len(tokenizer().encode(answer, parse_special=False))
    if count < 36:
        raise NotYet(f"It costs {count} tokens for {len(answer.encode())} bytes; 36 or more are wanted.")
    return f"{count} tokens for {len(answer)} characters: a limit on characters is no limit on cost."


@exercise(
    "1.3",
    kind="a function show_each(ids)",
    hints=(
        "Keep the bytes that do not make a character yet, and put them in front of the next token's bytes.",
        "codecs.getincrementaldecoder('utf-8')() of the standard library does the keeping for you.",
        "A UTF-8 character has 1 to 4 bytes; its first byte tells how many.",
    ),
)
def _(answer: Any) -> str:
    show = function(answer, 'check("1.3", show_each)')
    for text in _MIXED:
        ids = tokenizer().encode(text)
        shown = show(list(ids))
        if not isinstance(shown, (list, tuple)) or not all(isinstance(piece, str) for piece in shown):
            raise NotYet(f"It should give a list of texts; for {text!r} it gave {type(shown).__name__}.")
        if len(shown) != len(ids):
            raise NotYet(
                f"{text!r} has {len(ids)} tokens, but {len(shown)} texts came back: one for each token, please."
            )
        if any("\ufffd" in piece for piece in shown):
            raise NotYet(f"For {text!r} it shows a broken character (�).")
        if "".join(shown) != text:
            raise NotYet(f"Joined, the pieces should give {text!r}, and give {''.join(shown)!r}.")
        decoder = codecs.getincrementaldecoder("utf-8")()
        for place, (piece, id_) in enumerate(zip(shown, ids, strict=True)):
            soonest = decoder.decode(tokenizer().token_bytes(id_))
            if piece != soonest:
                late = "holds back more than it must" if len(piece) < len(soonest) else "is not exact"
                raise NotYet(f"For {text!r} the text at token {place} {late}: {piece!r} instead of {soonest!r}.")
    return "Nothing broken, nothing late. fastllm's own streams do the same, and hold back stop strings besides."
