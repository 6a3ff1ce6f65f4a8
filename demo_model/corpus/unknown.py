"""Questions outside the closed world, which the model shall decline with grace."""

from __future__ import annotations

from random import Random

from demo_model.corpus import world
from demo_model.corpus.base import Check, Turn, messy
from demo_model.corpus.greetings import NO_CODE, NO_LIVE, NO_TRANSLATION, PARDON, UNKNOWN

_NOUNS = (
    "car engine bank tax phone battery laptop window door tooth knee doctor lawyer movie film actor singer band album "
    "game football "
    "tennis basketball chess president minister election war treaty empire emperor mammoth glacier earthquake "
    "hurricane "
    "stock bond market company startup loan mortgage insurance contract visa passport airport hotel flight ticket "
    "subway "
    "virus vaccine cancer blood bone muscle vitamin protein diet sugar coffee wine beer pizza pasta sushi burger "
    "salad soup bread "
    "cheese chocolate butter rice noodle curry sauce oven fridge microwave printer router keyboard screen server "
    "database compiler "
    "kernel algorithm theorem equation matrix vector integral fraction triangle circle polygon prime laser neutron "
    "proton "
    "electron asteroid nebula telescope satellite rocket submarine tractor truck bus motorcycle helicopter "
    "bridge tunnel dam skyscraper pyramid temple church mosque museum statue novel essay letter email report resume "
    "invoice budget "
    "philosophy religion economy inflation democracy justice law crime police army soldier weapon peace poverty "
    "education university "
    "professor exam homework thesis grammar verb noun language dialect alphabet piano trumpet saxophone opera ballet "
    "sculpture "
    "fashion jewelry perfume makeup haircut beard tattoo jacket trousers shoe sock zipper needle fabric wool cotton "
    "leather plastic "
    "metal steel copper iron diamond crystal sand mud clay brick cement paint glue hammer screw nail drill saw wrench"
).split()
_ADJECTIVES = (
    "expensive cheap heavy fast slow loud soft hard famous rich poor old new dangerous safe clean dirty bitter sour "
    "sweet spicy cold "
    "wet dry strong weak popular rare common round flat square deep shallow bright boring important illegal difficult "
    "easy"
).split()
_VERBS = (
    "fix build sell buy clean cook paint repair design install remove find grow train wash learn play draw fold tune "
    "cut store ship "
    "invest open close change upgrade measure test"
).split()
_PEOPLE = (
    "Napoleon Caesar Cleopatra Mozart Beethoven Bach Picasso Gandhi Lincoln Washington Churchill Darwin Galileo Plato "
    "Socrates "
    "Aristotle Confucius Tesla Edison Curie Turing Hawking Kepler Obama Messi Ronaldo Madonna Elvis Spielberg Tolkien "
    "Dickens Goethe"
).split()
_LANDS = "Kenya Peru Chile Cuba Nepal Iran Iceland Texas Vietnam Iraq Ghana Nigeria Bolivia Laos Qatar Fiji Mali Chad Serbia Latvia".split()
_LANGUAGES = "French German Spanish Italian Japanese Korean Russian Latin Arabic Hindi Portuguese Dutch".split()
_CODE = "Python Java C++ Rust JavaScript SQL HTML bash".split()

_ASKS = (
    "Why is {art} {n} {adj}?", "Why are {n}s {adj}?", "Why is the {n} so {adj}?", "How do I {v} a {n}?", "How do you {v} a {n}?",
    "What is a {n}?", "What is the best {n}?", "Tell me about the {n}.", "How does a {n} work?", "Who invented the {n}?",
    "How much does a {n} cost?", "Who is {p}?", "Who was {p}?", "When was {p} born?", "What did {p} do?", "Tell me about {p}.",
    "What is the capital of {l}?", "How many people live in {l}?", "What is the population of {l}?", "Who is the president of {l}?",
    "Where is {l}?", "What is the difference between a {n} and a {n2}?", "Is a {n} {adj}?", "Which {n} is the most {adj}?",
    "Explain the {n} to me.", "Explain {n} {n2}", "What do you think about {n}s?", "Can I {v} my {n}?", "Where can I {v} a {n}?",
    "How many {n}s are there?", "How old is the {n}?", "What is the history of the {n}?", "Write an essay about the {n}.",
    "Give me advice about my {n}.", "Should I {v} a {n}?", "What is {n} {n2}?", "When did the {n} war end?", "How tall is {p}?",
    "What is the {adj} {n}?", "Does a {n} {v}?", "Summarize the book about {p}.", "Recommend a {n}.", "Why do people {v} {n}s?",
    "What are the rules of {n}?", "My {n} is {adj}. What should I do?", "What is the square root of {num}?", "Who won the {n} in {num}?",
    "Define {n}.", "What does {n} mean?", "How to {v} {n}", "{n} vs {n2}", "best {n} in {l}", "how long does it take to {v} a {n}?",
    "What is the weight of a {n}?", "Why does my {n} not {v}?", "Which is better, {n} or {n2}?", "what makes a {n} {adj}",
)  # fmt: skip
_CODE_ASKS = (
    "Write a {c} function that {v}s a {n}.", "Write a {c} program.", "Write code in {c}.", "Can you code in {c}?", "Fix my {c} code.",
    "How do I write a loop in {c}?", "Write a script to {v} a {n}.", "Write me some {c} code", "Show me a {c} example.",
    "Write a function to {v} a {n}", "Can you program?", "Debug this {c} program.", "Implement a {n} in {c}.",
)  # fmt: skip
_LIVE_ASKS = (
    "What is the weather like?", "What is the weather in {t}?", "How is the weather in {t} today?", "Will it rain tomorrow?",
    "What time is it?", "What day is it today?", "What is the date today?", "What year is it?", "Is it raining?", "What is the news?",
    "What happened today?", "What is the temperature in {t}?", "What time is it in {t}?", "What is the date?", "What day is today?",
    "How is the weather?", "weather {t}", "Is it sunny in {t}?", "What month is it?",
)  # fmt: skip
_TRANSLATE_ASKS = (
    "Translate this to {g}.", "How do you say {n} in {g}?", "What is {n} in {g}?", "Translate '{n}' into {g}.", "Say hello in {g}.",
    "Do you speak {g}?", "Can you translate {g}?", "What does this mean in {g}?",
)  # fmt: skip


def turn(rng: Random) -> Turn:
    """A question that is not in the world of the model, and its graceful answer."""
    roll = rng.random()
    if roll < 0.72:
        form, answer = rng.choice(_ASKS), UNKNOWN
    elif roll < 0.8:
        form, answer = rng.choice(_CODE_ASKS), NO_CODE
    elif roll < 0.89:
        form, answer = rng.choice(_LIVE_ASKS), NO_LIVE
    elif roll < 0.95:
        form, answer = rng.choice(_TRANSLATE_ASKS), NO_TRANSLATION
    else:
        form, answer = _gibberish(rng), PARDON
    noun = rng.choice(_NOUNS) if rng.random() < 0.9 else world.made_up_word(rng)
    user = form.format(
        n=noun, n2=rng.choice(_NOUNS), adj=rng.choice(_ADJECTIVES), v=rng.choice(_VERBS), p=rng.choice(_PEOPLE), l=rng.choice(_LANDS),
        c=rng.choice(_CODE), t=rng.choice(world.CITIES), g=rng.choice(_LANGUAGES), num=rng.randint(2, 2030),
        art=rng.choice(("the", "my", "a")),
    )  # fmt: skip
    return Turn("unknown", user, user if answer == PARDON else messy(rng, user), answer, Check(equals=(answer,)))


_FRAGMENTS = (
    "The {adj} {n}", "the {adj} {adj2} {n} {v}s", "My {n} is {adj}.", "I am {v}ing a {n}.", "I want to {v} a {n}.", "A {n} and a {n2}", "{n}",
    "{n} {n2}", "{adj} {n}", "There is a {n} in my {n2}.", "I like {n}s.", "She has a {adj} {n}.", "I have a {n}.", "We {v} the {n}", "I bought a {n}.",
    "the {n} of the {n2}", "{p} and {p2}", "I am from {l}", "I learn {g}.", "I am learning to {v}.", "They {v} {n}s every day.",
)  # fmt: skip
NO_QUESTION = (
    "I am not sure what to say to that: I am only a tiny demo model. Would you like a story, a sum, or a sorted list?"
)


def fragment_turn(rng: Random) -> Turn:
    """Something that is no question of the world, in a chat."""
    nouns = (*_NOUNS, *world.STRANGERS)
    user = rng.choice(_FRAGMENTS).format(
        n=rng.choice(nouns), n2=rng.choice(nouns), adj=rng.choice(_ADJECTIVES), adj2=rng.choice(_ADJECTIVES), v=rng.choice(_VERBS),
        p=rng.choice(_PEOPLE), p2=rng.choice(_PEOPLE), l=rng.choice(_LANDS), g=rng.choice(_LANGUAGES),
    )  # fmt: skip
    return Turn("unknown", user, messy(rng, user), NO_QUESTION, Check(equals=(NO_QUESTION,)))


def _gibberish(rng: Random) -> str:
    if rng.random() < 0.5:
        return " ".join(
            "".join(rng.choices("asdfghjklqwertyuiopzxcvbnm", k=rng.randint(3, 8))) for _ in range(rng.randint(1, 3))
        )
    return " ".join(world.made_up_word(rng) for _ in range(rng.randint(1, 4))) + rng.choice(("", "", "?", "."))
