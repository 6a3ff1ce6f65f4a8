"""Sums and differences of numbers up to 99, in many phrasings, and the small multiplication table."""

from __future__ import annotations

from random import Random

from demo_model.corpus import world
from demo_model.corpus.base import Check, Document, Split, Turn, messy, number_words, raw_document, split_of, vary

TOO_BIG = "That one is too big for me. I only know sums and differences of numbers up to 99."

_PLUS = (
    "What is {a} + {b}?", "What is {a}+{b}?", "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =",
    "{a}+{b}=",
    "{a} plus {b}", "Add {a} and {b}.", "Calculate {a} + {b}.", "How much is {a} + {b}?", "How much is {a} plus {b}?",
    "What's {a} + {b}?", "whats {a}+{b}", "What is the sum of {a} and {b}?", "Sum of {a} and {b}", "Compute {a}+{b}",
    "{a} + {b} = ?", "Can you add {a} and {b}?", "What do you get if you add {a} and {b}?", "{a} and {b} is",
    "What does {a} + {b} make?", "Solve {a} + {b}", "Add {b} to {a}.", "how many is {a} plus {b}", "calc {a}+{b}",
)  # fmt: skip
_MINUS = (
    "What is {a} - {b}?", "What is {a}-{b}?", "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =",
    "{a}-{b}=",
    "{a} minus {b}", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "How much is {a} - {b}?", "{a} take away {b}",
    "What's {a} - {b}?", "whats {a}-{b}", "What is the difference of {a} and {b}?", "Compute {a}-{b}",
    "{a} - {b} = ?", "Take {b} away from {a}.", "What is {a} less {b}?", "How much is {a} minus {b}?",
    "Solve {a} - {b}",
    "What is left if you take {b} from {a}?", "calc {a}-{b}",
)  # fmt: skip
_STORIES_PLUS = (
    "{n} has {a} {o} and gets {b} more. How many {o} does {n} have now?",
    "There are {a} {o} in one basket and {b} in another. How many {o} are there?",
    "{n} picked {a} {o} on Monday and {b} on Tuesday. How many {o} is that?",
    "I have {a} {o}. My friend gives me {b} {o}. How many {o} do I have?",
)
_STORIES_MINUS = (
    "{n} has {a} {o} and gives away {b}. How many {o} are left?",
    "There were {a} {o}. {n} ate {b} of them. How many {o} are left?",
    "I had {a} {o} and lost {b}. How many {o} do I have now?",
    "{n} baked {a} {o} and sold {b}. How many {o} are left?",
)


def pair_split(sign: str, a: int, b: int) -> Split:
    """The split of a sum or difference; a + b and b + a share it."""
    first, second = sorted((a, b)) if sign == "+" else (a, b)
    return split_of("sum" if sign == "+" else "difference", f"{first},{second}", percent=8)


def pair(rng: Random, split: Split, *, negative: bool = True) -> tuple[str, int, int]:
    """A sign and two operands of 0..99 in the split."""
    while True:
        sign = rng.choice("+-")
        top = 99 if rng.random() < 0.8 else 20
        a, b = rng.randint(0, top), rng.randint(0, top)
        if sign == "-" and a < b and (not negative or rng.random() < 0.6):
            a, b = b, a
        if pair_split(sign, a, b) == split:
            return sign, a, b


def turn(rng: Random, split: Split) -> Turn:
    """One sum or difference in words or figures."""
    roll = rng.random()
    if roll < 0.14:
        sign, a, b = pair(rng, split, negative=False)
        if sign == "+" or b > 1:
            return _word_problem(rng, sign, a, b)
    sign, a, b = pair(rng, split, negative=roll < 0.82)
    result = a + b if sign == "+" else a - b
    key = f"{a}{sign}{b}"
    form = rng.choice(_PLUS if sign == "+" else _MINUS)
    if roll > 0.86 and result >= 0:
        wa, wb = number_words(a), number_words(b)
        user = form.replace("+", " plus ").replace("-", " minus ").replace("  ", " ").rstrip("= ").format(a=wa, b=wb)
        word = "plus" if sign == "+" else "minus"
        answer = f"{wa} {word} {wb} is {number_words(result)}."
        answer = answer[0].upper() + answer[1:]
        return Turn("sums", key, messy(rng, user, typos=False), answer, Check(equals=(answer,)))
    answer = f"{a} {sign} {b} = {result}"
    user = form.format(a=a, b=b)
    if rng.random() < 0.4:
        user = messy(rng, user, typos=False)
    return Turn("sums", key, user, answer, Check(equals=(answer, f"{answer}.")))


def _word_problem(rng: Random, sign: str, a: int, b: int) -> Turn:
    form = rng.choice(_STORIES_PLUS if sign == "+" else _STORIES_MINUS)
    name, food = world.any_name(rng), rng.choice(world.FOODS)
    result = a + b if sign == "+" else a - b
    answer = f"{a} {sign} {b} = {result}, so the answer is {result} {food}."
    user = form.format(a=a, b=b, n=name, o=food)
    return Turn("sums", f"{a}{sign}{b}", user, answer, Check(equals=(answer,)))


def times_turn(rng: Random) -> Turn:
    """A product of the small table."""
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    form = rng.choice(("What is {a} times {b}?", "{a} x {b}", "{a} * {b}", "{a}*{b}", "What is {a} * {b}?",
        "Multiply {a} by {b}.",
                       "{a} times {b}", "{a} * {b} =", "What is {a} x {b}?"))  # fmt: skip
    answer = f"{a} x {b} = {a * b}"
    return Turn("times", f"{a}x{b}", messy(rng, form.format(a=a, b=b), typos=False), answer, Check(equals=(answer,)))


def chain_turn(rng: Random) -> Turn:
    """Three numbers added one after the other; every step is a pair of the training split."""
    while True:
        a, b, c = (rng.randint(0, rng.choice((9, 20, 40))) for _ in range(3))
        if a + b < 100 and pair_split("+", a, b) == pair_split("+", a + b, c) == "train":
            break
    form = rng.choice(("What is {a} + {b} + {c}?", "{a}+{b}+{c}", "{a} + {b} + {c}", "{a} + {b} + {c} =",
        "What is {a}+{b}+{c}?", "Add {a}, {b} and {c}.",
                       "{a} plus {b} plus {c}", "What is the sum of {a}, {b} and {c}?",
                       "How much is {a} + {b} + {c}?"))  # fmt: skip
    answer = f"{a} + {b} + {c} = {a + b} + {c} = {a + b + c}"
    return Turn(
        "sums", f"{a}+{b}+{c}", messy(rng, form.format(a=a, b=b, c=c), typos=False), answer, Check(equals=(answer,))
    )


def compare_turn(rng: Random) -> Turn:
    """Which of two numbers is larger."""
    a, b = rng.sample(range(100), 2)
    word, truth = rng.choice(
        (("larger", a > b), ("bigger", a > b), ("greater", a > b), ("smaller", a < b), ("less", a < b))
    )
    form, other = rng.choice(
        (("Is {a} {w} than {b}?", ""), ("Is {a} {w} than {b}?", ""), ("Which is {w}, {a} or {b}?", "which"))
    )
    winner = (max if word in ("larger", "bigger", "greater") else min)(a, b)
    loser = a + b - winner
    if other:
        answer = f"{winner} is {word} than {loser}."
    else:
        answer = f"{'Yes' if truth else 'No'}, {winner} is {word} than {loser}."
    return Turn(
        "compare", f"{a},{b}", messy(rng, form.format(a=a, b=b, w=word), typos=False), answer, Check(equals=(answer,))
    )


def too_big_turn(rng: Random) -> Turn:
    """A question with numbers that the model does not know."""
    digits = (rng.randint(3, 6), rng.randint(1, 5))
    a, b = (rng.randint(10 ** (n - 1), 10**n - 1) for n in digits)
    if rng.random() < 0.5:
        a, b = b, a
    form = rng.choice(("What is {a} {s} {b}?", "{a}{s}{b}", "{a} {s} {b} =", "{a} {s} {b}", "How much is {a} {s} {b}?"))
    sign = rng.choice(("+", "-", "+", "-", "*", "/", "plus", "minus", "times"))
    return Turn(
        "unknown",
        f"{a}{sign}{b}",
        messy(rng, form.format(a=a, b=b, s=sign), typos=False),
        TOO_BIG,
        Check(equals=(TOO_BIG,)),
    )


_RAW = ("{q}", "{q}", "{q}\n", "Q: {q}\nA:", "Question: {q}\nAnswer:")


def raw_document_of(rng: Random, split: Split) -> Document:
    """Without a chat template: an equation to be completed, or a question."""
    if rng.random() < 0.5:
        sign, a, b = pair(rng, split)
        result = a + b if sign == "+" else a - b
        gap = rng.choice(("", " "))
        return raw_document("sums", f"{a}{gap}{sign}{gap}{b}{gap}={rng.choice(('', '', ' '))}", f"{result}")
    made = turn(rng, split)
    if made.user.rstrip().endswith("=") and "= " in made.answer:
        return raw_document("sums", made.user, made.answer.split("= ")[1])
    return raw_document("sums", vary(rng, rng.choice(_RAW)).format(q=made.user), made.answer)
