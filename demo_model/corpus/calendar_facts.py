"""Days, months and seasons."""

from __future__ import annotations

from random import Random

from demo_model.corpus.base import NUMBER_WORDS, Check, Turn, messy, vary_line
from demo_model.corpus.world import DAYS, MONTHS

_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SEASONS = (
    "winter",
    "winter",
    "spring",
    "spring",
    "spring",
    "summer",
    "summer",
    "summer",
    "autumn",
    "autumn",
    "autumn",
    "winter",
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
_FIXED = (
    ("How many days are [in a|there in a|in one] week?|How many days does a week have?", "A week has seven days."),
    ("How many months are [in a|there in a|in one] year?|How many months does a year have?",
    "A year has twelve months."),
    ("How many days are [in a|there in a|in one] year?|How many days does a year have?",
     "A year has 365 days, and a leap year has 366."),
    ("How many days are in a leap year?|What is a leap year?", "A leap year has 366 days. Every fourth year, February "
     "gets one day more."),
    ("How many hours are [in a|there in a|in one] day?|How many hours does a day have?", "A day has 24 hours."),
    ("How many minutes are [in an|there in an|in one] hour?|How many minutes does an hour have?", "An hour has 60 "
     "minutes."),
    ("How many seconds are [in a|there in a|in one] minute?|How many seconds does a minute have?", "A minute has 60 "
     "seconds."),
    ("How many weeks are [in a|there in a|in one] year?",
    "A year has 52 weeks and one day, or two days in a leap year."),
    ("What are the days of the week?|[List|Name|Tell me] the days of the week.|Days of the week",
     "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    ("What are the months of the year?|[List|Name|Tell me] the months[ of the year|].|Months of the year",
     "The months are January, February, March, April, May, June, July, August, September, October, November and "
     "December."),
    ("What are the [four |]seasons?|[List|Name|Tell me] the seasons.|How many seasons are there?",
     "There are four seasons: spring, summer, autumn and winter."),
    ("What is the shortest month?|Which month is the shortest?", "February is the shortest month, with 28 or 29 days."),
    ("Which days are the weekend?|What is the weekend?", "The weekend is Saturday and Sunday."),
    ("When is Christmas?", "Christmas is on December 25."),
    ("When is New Year?|When does the year begin?", "The new year begins on January 1."),
)  # fmt: skip


def turn(rng: Random) -> Turn:
    """One question about the calendar."""
    user, answer = _make(rng)
    return Turn("calendar", answer, messy(rng, user), answer, Check(equals=(answer,)))


def _make(rng: Random) -> tuple[str, str]:
    roll = rng.random()
    if roll < 0.25:
        names, what = (DAYS, "day") if rng.random() < 0.6 else (MONTHS, "month")
        i = rng.randrange(len(names))
        if rng.random() < 0.5:
            ask = f"[What|Which] {what} [comes|is] after {names[i]}?|What comes after {names[i]}?|{what} after {names[i]}?"
            return vary_line(rng, ask), f"After {names[i]} comes {names[(i + 1) % len(names)]}."
        ask = (
            f"[What|Which] {what} [comes|is] before {names[i]}?|What comes before {names[i]}?|{what} before {names[i]}?"
        )
        return vary_line(rng, ask), f"Before {names[i]} comes {names[i - 1]}."
    if roll < 0.45:
        i = rng.randrange(7)
        offset, word = rng.choice(((1, "tomorrow"), (-1, "yesterday"), (2, "the day after tomorrow")))
        then = DAYS[(i + offset) % 7]
        be = "was" if offset < 0 else "is"
        ask = f"If today is {DAYS[i]}, what day {be} {word}?|Today is {DAYS[i]}. What day {be} {word}?|Today is {DAYS[i]}, what is {word}?"
        return vary_line(rng, ask), f"If today is {DAYS[i]}, {word} {be} {then}."
    if roll < 0.55:
        i, n = rng.randrange(7), rng.randint(2, 7)
        count = NUMBER_WORDS[n] if rng.random() < 0.5 else str(n)
        ask = f"What day is {count} days after {DAYS[i]}?|Today is {DAYS[i]}. What day is it in {count} days?"
        return vary_line(rng, ask), f"{NUMBER_WORDS[n].capitalize()} days after {DAYS[i]} comes {DAYS[(i + n) % 7]}."
    i = rng.randrange(12)
    if roll < 0.67:
        days = "28 days, and 29 in a leap year" if i == 1 else f"{_LENGTHS[i]} days"
        return vary_line(
            rng,
            f"How many days are in {MONTHS[i]}?|How many days does {MONTHS[i]} have?|How many days has {MONTHS[i]}?|How long is {MONTHS[i]}?",
        ), f"{MONTHS[i]} has {days}."
    if roll < 0.74:
        return vary_line(
            rng, f"[What|Which] season is {MONTHS[i]} in?|In which season is {MONTHS[i]}?"
        ), f"In the northern half of the world, {MONTHS[i]} is in {_SEASONS[i]}."
    if roll < 0.8:
        return vary_line(
            rng, f"[What|Which] is the {_ORDINALS[i]} month[ of the year|]?"
        ), f"The {_ORDINALS[i]} month is {MONTHS[i]}."
    return next((vary_line(rng, ask), answer) for ask, answer in [rng.choice(_FIXED)])
