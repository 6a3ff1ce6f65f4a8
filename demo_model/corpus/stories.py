"""Stories with consistent facts, requests for them, and questions about the story just told."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from demo_model.corpus import world
from demo_model.corpus.base import (
    Check,
    Document,
    Segment,
    Split,
    Turn,
    article,
    capital,
    fix_articles,
    messy,
    raw_document,
    split_of,
    vary,
    END_OF_TEXT,
)
from demo_model.corpus.plots import PLOTS, Plot, Question

_HE = ("he", "his", "him")
_SHE = ("she", "her", "her")
_PLACE_WORD = dict(world.PLACES)
_SPOT_WORD = dict(world.SPOTS)
_OPENERS = (
    "Once upon a time, there was", "Once upon a time, there was", "Once there was", "Long ago, there was",
    "There once was", "There was once", "In a time not so long ago, there was", "Far, far away, there was",
)  # fmt: skip
_NO_FACT = "The story does not say."
_ABSENT = {
    "c": ("What colour was the {x}?", ("hat", "house", "door", "roof", "car", "carpet")),
    "n": ("How many {x} were there?", ("teachers", "houses", "windows", "cars", "trains", "shoes")),
    "q": ("{x}", ("How old is {h}?", "What did {h} have for breakfast?", "Who is {h}'s teacher?",
                  "What is the name of {h}'s mother?", "How tall is {h}?", "What time was it?",
                  "What is {h}'s favourite song?", "Where was {f} born?", "How much did the {t} cost?")),
}  # fmt: skip
_WHO = {
    "lost": "{ak} who lost {at}", "found": "{ak} who found {at}", "dark": "{ak} who is afraid of the dark",
    "race": "{ak} who wins a race", "baking": "{ak} who bakes {o}", "boat": "{ak} who builds a boat",
    "garden": "{ak} who plants a flower", "treasure": "{ak} who finds a treasure", "new": "{ak} who is alone",
    "music": "{ak} who makes music", "snow": "{ak} who builds a snowman", "star": "{ak} who finds a star",
    "learn": "{ak} who never gives up",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Story:
    """A told story.

    Attributes:
        plot: where its beats and questions come from.
        slots: the value of every slot.
        text: the story, one paragraph.
        home: where the hero lives.
        topic: a phrase for what it is about, as somebody asks for it.
    """

    plot: Plot
    slots: dict[str, str]
    text: str
    home: str
    topic: str

    @property
    def key(self) -> str:
        """The facts, as the split sees them."""
        return fact_key(self.plot, self.slots, self.home)


def fact_key(plot: Plot, slots: dict[str, str], home: str) -> str:
    """Canonical form of a story's facts."""
    return "/".join((plot.name, home, *(slots[name] for name in ("h", "k", "f", "fk", "t", "c", "p", "s", "n", "o", "d"))))


def _hero(rng: Random, taken: str = "") -> tuple[str, str, tuple[str, str, str]]:
    while True:
        roll = rng.random() if not taken else rng.uniform(0.25, 1)
        if roll < 0.25:
            girl = rng.random() < 0.5
            name = rng.choice(world.GIRLS if girl else world.BOYS)
            kind, pronouns = ("girl", _SHE) if girl else ("boy", _HE)
        else:
            name = world.any_name(rng)
            kind = rng.choice(tuple(world.ANIMALS)) if roll < 0.78 else rng.choice(world.BEINGS)
            if roll > 0.97:
                kind = world.made_up_word(rng)
            known_girl = name in world.GIRLS
            pronouns = _SHE if known_girl or (name not in world.BOYS and rng.random() < 0.5) else _HE
            if kind in ("princess", "queen", "witch", "mermaid", "fairy"):
                name, pronouns = (name if known_girl else rng.choice(world.GIRLS)), _SHE
            elif kind in ("king", "wizard"):
                name, pronouns = (name if name in world.BOYS else rng.choice(world.BOYS)), _HE
        if taken not in (name, kind):
            return name, kind, pronouns


def tell(rng: Random, split: Split, *, plots: tuple[Plot, ...] = PLOTS) -> Story:
    """A story whose facts belong to the split."""
    while True:
        plot = rng.choice(plots)
        h, k, (he, his, him) = _hero(rng)
        f, fk, (fhe, fhis, fhim) = _hero(rng, h)
        if fk == k or f == h:
            continue
        home = rng.choice(world.PLACES)[0]
        place = rng.choice(world.PLACES)[0]
        if place == home:
            continue
        thing = rng.choice(world.THINGS) if rng.random() < 0.96 else world.made_up_word(rng)
        if thing in ("boat", "map", "ladder", "shell", "stone") or thing in (k, fk):
            continue
        slots = {
            "h": h, "k": k, "he": he, "He": capital(he), "his": his, "him": him, "f": f, "fk": fk, "fhe": fhe,
            "fhis": fhis, "fhim": fhim, "fhis0": his, "t": thing, "c": rng.choice(world.COLOURS), "p": place,
            "s": rng.choice(world.SPOTS)[0], "n": rng.choice(world.SMALL_NUMBERS), "o": rng.choice(plot.foods or world.FOODS),
            "d": rng.choice(world.DAYS),
        }  # fmt: skip
        slots["N"] = capital(slots["n"])
        if split_of("story", fact_key(plot, slots, home)) == split:
            break
    adjective = rng.choice(world.ADJECTIVES)
    opener = rng.choice(_OPENERS)
    intro = vary(rng, f"{opener} {article(f'{adjective} {k}')} named {h}[, who lived|. {slots['He']} lived] {home}.")
    beats = [_one_line(rng, beat).format_map(slots) for beat in plot.beats]
    text = fix_articles(" ".join((intro, *(capital(beat) for beat in beats))))
    slots["aak"] = article(f"{adjective} {k}")
    topics = [f"{article(k)}", f"{article(k)} named {h}", f"{article(k)} called {h}", h, f"{h} the {k}",
              f"{h} and {f}", f"{article(k)} and {article(fk)}", article(slots["t"])]  # fmt: skip
    if plot.name not in ("boat", "garden", "treasure", "new", "star"):
        topics.append(article(f"{slots['c']} {slots['t']}"))
    weights = [6, 3, 1, 1, 1, 1, 2, 2, 2][: len(topics)]
    topics.append(f"{article(k)} and {his} {fk}")
    weights.append(1)
    if plot.name in _WHO:
        topics.append(_WHO[plot.name].format_map({**slots, "ak": article(k), "at": article(slots["t"])}))
        weights.append(2)
    topic = rng.choice(plot.topics) if rng.random() < 0.3 else rng.choices(topics, weights)[0]
    return Story(plot, slots, text, home, topic)


def _one_line(rng: Random, template: str) -> str:
    """Chooses among whole lines split by ``|`` outside brackets, then among the bracketed alternatives."""
    depth, start, lines = 0, 0, []
    for at, char in enumerate(template):
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            lines.append(template[start:at])
            start = at + 1
    lines.append(template[start:])
    return vary(rng, rng.choice(lines))


def _answer_check(fact: str, value: str) -> Check:
    word = {"p": _PLACE_WORD, "home": _PLACE_WORD, "s": _SPOT_WORD}.get(fact, {}).get(value, value)
    rivals: tuple[str, ...] = {
        "c": tuple(world.COLOURS), "n": tuple(world.SMALL_NUMBERS), "d": tuple(world.DAYS), "o": tuple(world.FOODS),
        "s": tuple(_SPOT_WORD.values()),
    }.get(fact, ())  # fmt: skip
    return Check(contains=(word,), rejects=tuple(other for other in rivals if other != word))


def _choose_question(rng: Random, story: Story) -> tuple[str, str, Check]:
    """A question about the story, its answer and its check."""
    s = story.slots
    roll = rng.random()
    if roll < 0.1:
        question, answer = rng.choice(
            (
                ("What is the name of the {k}?|What is the {k} called?|What was the {k}'s name?", "The {k} is named {h}."),
                ("Who is the story about?|Who is this story about?|Who is the hero of the story?", "The story is about {h}, {aak}."),
            )
        )  # fmt: skip
        check = Check(contains=(s["h"],))
    elif roll < 0.15:
        question, answer = "[What|What kind of creature] is {h}?|Is {h} a person or an animal?|Who is {h}?", "{h} is {ak}."
        check = Check(contains=(s["k"],), rejects=(s["fk"],))
    elif roll < 0.23:
        question, answer = "Where [does|did] {h} live?|Where is {h}'s home?", "{h} lives {home}."
        check = _answer_check("home", story.home)
    elif roll < 0.29 and any(q.fact == "c" for q in story.plot.questions):
        thing = {"boat": "boat", "garden": "flower", "treasure": "chest", "new": "string", "star": "light"}
        subject = thing.get(story.plot.name, s["t"])
        truth = rng.random() < 0.4
        asked = s["c"] if truth else rng.choice([c for c in world.COLOURS if c != s["c"]])
        question = f"Was the {subject} {asked}?"
        answer = f"Yes, the {subject} was {{c}}." if truth else f"No, the {subject} was {{c}}."
        check = Check(contains=("yes" if truth else "no,", s["c"]))
    elif roll < 0.36:
        form, words = _ABSENT[rng.choice("cnqqq")]
        question, answer = form.replace("{x}", rng.choice(words)), _NO_FACT
        check = Check(equals=(_NO_FACT,))
    else:
        chosen: Question = rng.choice(story.plot.questions)
        question, answer = chosen.ask, chosen.answer
        check = _answer_check(chosen.fact, s[chosen.fact])
    names = {**s, "ak": article(s["k"]), "home": story.home}
    names["stopped"] = "stopped" if ", but stopped " in story.text else "ended up"
    asked_text = _one_line(rng, question).format_map(names)
    if rng.random() < 0.15:
        asked_text = asked_text.replace("colour", "color")
    return messy(rng, asked_text, typos=False), fix_articles(answer.format_map(names)), check


def question_turn(rng: Random, story: Story, *, user_prefix: str = "") -> Turn:
    """A turn that asks about a story told before."""
    question, answer, check = _choose_question(rng, story)
    return Turn("story_questions", story.key, user_prefix + question, answer, check)


def question_about_given_story(rng: Random, split: Split) -> Turn:
    """A turn whose question comes with the story."""
    story = tell(rng, split)
    question, answer, check = _choose_question(rng, story)
    form = rng.choice(
        (
            "{story}\n\n{question}", "{story}\n{question}", "{story} {question}", "{story}\n\nQuestion: {question}",
            "Read this story: {story}\n\n{question}", "Here is a story. {story}\n\nNow answer: {question}",
            "{question}\n\n{story}", "Answer the question about this story.\n\n{story}\n\n{question}",
        )
    )  # fmt: skip
    return Turn("story_questions", story.key, form.format(story=story.text, question=question), answer, check)


_REQUESTS = (
    "Tell me a [||short |little |nice |funny |bedtime ]story about {x}.", "Tell me a story about {x}.",
    "Write a [||short |little ]story about {x}.", "[Can|Could] you tell me a story about {x}?", "A story about {x}.",
    "Story about {x}", "[Give|Write] me a [|short ]story about {x}", "[Please tell|Make up|Invent] a story about {x}.",
    "I [want|would like] [a|to hear a] story about {x}.", "Do you know a story about {x}?",
)  # fmt: skip
_OPEN_REQUESTS = (
    "Tell me a [||short |little |nice |funny |bedtime |good |new ]story.", "Tell me a story", "Write a [|short ]story.",
    "[Can|Could] you tell me a story?", "I want to hear a story.", "A story, please.", "story", "Story time!",
    "Do you know any stories?", "[Another|One more] story[, please|]!", "Tell me another [one|story].", "story please",
    "Make up a story.", "Tell me something.", "I am bored.", "I cannot sleep.", "Write me a story",
)  # fmt: skip


def request_turn(rng: Random, split: Split) -> tuple[Turn, Story]:
    """Somebody asks for a story, and the story."""
    story = tell(rng, split)
    if rng.random() < 0.75:
        topic = story.topic
        if rng.random() < 0.1:
            topic = topic.removeprefix("a ").removeprefix("an ")
        form = vary(rng, rng.choice(_REQUESTS)).replace("{x}", topic)
        check = Check() if topic in story.plot.topics or " who " in topic else Check(contains=(topic.split()[-1],))
    else:
        form, check = vary(rng, rng.choice(_OPEN_REQUESTS)), Check()
    keep = story.slots["h"] in form and rng.random() < 0.7
    return Turn("story_telling", story.key, form if keep else messy(rng, form, typos=False), story.text, check), story


def plain_document(rng: Random, split: Split) -> Document:
    """A story alone, to be continued from any of its beginnings."""
    story = tell(rng, split)
    return Document("prose", (Segment(f"{story.text}{END_OF_TEXT}", 1.0),))


def raw_question_document(rng: Random, split: Split) -> Document:
    """A story and a question without a chat template."""
    story = tell(rng, split)
    question, answer, _ = _choose_question(rng, story)
    form = rng.choice(("{s}\n\nQuestion: {q}\nAnswer:", "{s}\n{q}", "{s}\n\n{q}", "{s} {q}", "{s}\nQ: {q}\nA:"))
    return raw_document("story_questions", form.format(s=story.text, q=question), answer)
