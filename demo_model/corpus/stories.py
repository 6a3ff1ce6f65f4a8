"""Stories with consistent facts, requests for them, and questions about the story just told."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from demo_model.corpus import world
from demo_model.corpus.base import (
    END_OF_TEXT,
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
    vary_line,
)
from demo_model.corpus.flagships import FLAGSHIPS, Flagship
from demo_model.corpus.plots import PLOTS, Plot, Question

_HE = ("he", "his", "him")
_SHE = ("she", "her", "her")
_PLOT_TOPICS = tuple(sorted({topic for plot in PLOTS for topic in plot.topics}))
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
    """

    plot: Plot
    slots: dict[str, str]
    text: str
    home: str

    @property
    def key(self) -> str:
        """The facts, as the split sees them."""
        return fact_key(self.plot, self.slots, self.home)


def fact_key(plot: Plot, slots: dict[str, str], home: str) -> str:
    """Canonical form of a story's facts."""
    return "/".join(
        (plot.name, home, *(slots[name] for name in ("h", "k", "f", "fk", "t", "c", "p", "s", "n", "o", "d")))
    )


def _name(rng: Random, *, odd: bool) -> str:
    return world.made_up_word(rng).capitalize() if odd and rng.random() < 0.25 else rng.choice(world.NAMES)


def _hero(rng: Random, *, odd_name: bool, odd_kind: bool, child: bool) -> tuple[str, str, tuple[str, str, str]]:
    roll = rng.random()
    if child and roll < 0.25:
        girl = rng.random() < 0.5
        name = rng.choice(world.GIRLS if girl else world.BOYS)
        return name, "girl" if girl else "boy", _SHE if girl else _HE
    name = _name(rng, odd=odd_name)
    kind = rng.choice(tuple(world.ANIMALS)) if roll < 0.8 else rng.choice(world.BEINGS)
    if odd_kind and rng.random() < 0.3:
        kind = world.stranger(rng)
    if kind in ("princess", "queen", "witch", "mermaid", "fairy"):
        return (name if name not in world.BOYS else rng.choice(world.GIRLS)), kind, _SHE
    if kind in ("king", "wizard"):
        return (name if name not in world.GIRLS else rng.choice(world.BOYS)), kind, _HE
    girl = name in world.GIRLS or (name not in world.BOYS and rng.random() < 0.5)
    return name, kind, _SHE if girl else _HE


def _facts(rng: Random, plots: tuple[Plot, ...], odd: str, wish: dict[str, str]) -> tuple[Plot, dict[str, str], str]:
    """A plot, its slots and the hero's home. Slots in ``odd`` may get words from outside the world."""
    plot = rng.choice(plots)
    odd_slots = odd.split()
    while True:
        h, k, (he, his, him) = _hero(rng, odd_name="h" in odd_slots, odd_kind="k" in odd_slots, child="k" not in wish)
        f, fk, (fhe, fhis, fhim) = _hero(rng, odd_name="f" in odd_slots, odd_kind="fk" in odd_slots, child=False)
        k = wish.get("k", k)
        if k in ("girl", "boy"):
            h, (he, his, him) = (rng.choice(world.GIRLS), _SHE) if k == "girl" else (rng.choice(world.BOYS), _HE)
        if k in ("princess", "queen", "witch", "mermaid", "fairy"):
            h, he, his, him = (h if h in world.GIRLS else rng.choice(world.GIRLS)), *_SHE
        elif k in ("king", "wizard"):
            h, he, his, him = (h if h in world.BOYS else rng.choice(world.BOYS)), *_HE
        home, place = (rng.choice(world.PLACES)[0] for _ in range(2))
        thing = rng.choice(world.THINGS)
        if "t" in odd_slots and rng.random() < 0.3:
            thing = world.stranger(rng)
        thing = wish.get("t", thing)
        if fk == k or f == h or place == home or thing in ("map", "ladder", "shell", "stone", k, fk):
            continue
        if thing == "boat" and plot.name == "boat":
            continue
        slots = {
            "h": h, "k": k, "he": he, "He": capital(he), "his": his, "him": him, "f": f, "fk": fk, "fhe": fhe,
            "fhis": fhis, "fhim": fhim, "fhis0": his, "t": thing, "c": rng.choice(world.COLOURS), "p": place,
            "s": rng.choice(world.SPOTS)[0], "n": rng.choice(world.SMALL_NUMBERS),
            "o": rng.choice(plot.foods or world.FOODS),
            "d": rng.choice(world.DAYS),
        }  # fmt: skip
        slots["N"] = capital(slots["n"])
        return plot, slots, home


def tell(
    rng: Random,
    split: Split,
    *,
    plots: tuple[Plot, ...] = PLOTS,
    odd: str = "h k f fk t",
    wish: dict[str, str] | None = None,
    intros: tuple[str, ...] = (),
) -> Story:
    """A story whose facts belong to the split.

    Args:
        rng: the source of every choice.
        split: which facts may be used.
        plots: the plots to choose from.
        odd: the slots that may get words from outside the world.
        wish: slots that are given.
        intros: other first sentences than the usual ones.
    """
    while True:
        plot, slots, home = _facts(rng, plots, odd, wish or {})
        if split_of("story", fact_key(plot, slots, home)) == split:
            break
    adjective = rng.choice(world.ADJECTIVES)
    slots["aak"] = article(f"{adjective} {slots['k']}")
    if intros:
        intro = vary_line(rng, rng.choice(intros)).format(
            **slots, ak=article(slots["k"]), adj=adjective, home=home, Home=capital(home), Aak=capital(slots["aak"])
        )
    else:
        opener = rng.choice(_OPENERS)
        he = slots["He"]
        intro = vary(rng, f"{opener} {slots['aak']} named {slots['h']}[, who lived|. {he} lived] {home}.")
    beats = [vary_line(rng, beat).format_map(slots) for beat in plot.beats]
    text = fix_articles(" ".join((intro, *(capital(beat) for beat in beats))))
    return Story(plot, slots, text, home)


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
                ("What is the name of the {k}?|What is the {k} called?|What was the {k}'s name?", "The {k} is named "
                 "{h}."),
                ("Who is the story about?|Who is this story about?|Who is the hero of the story?", "The story is "
                 "about {h}, {aak}."),
            )
        )  # fmt: skip
        check = Check(contains=(s["h"],))
    elif roll < 0.15:
        question, answer = (
            "[What|What kind of creature] is {h}?|Is {h} a person or an animal?|Who is {h}?",
            "{h} is {ak}.",
        )
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
    asked_text = vary_line(rng, question).format_map(names)
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


_TOPICS: tuple[tuple[int, str, str], ...] = (
    # share, the topic, the slots that it names
    (8, "{ak}", "k"), (4, "{ak} named {h}", "k h"), (2, "{ak} called {h}", "k h"), (2, "{h}", "h"), (1, "{h} the {k}",
    "h k"),
    (1, "{h} and {f}", "h f"), (3, "{ak} and {afk}", "k fk"), (1, "{ak} and {his} {fk}", "k fk"), (4, "{at}", "t"), (2,
    "{act}", "c t"),
    (3, "{who}", "k"), (3, "{ks}", "k"), (1, "{ak} who lives {home}", "k"), (5, "{plot}", ""),
)  # fmt: skip
_SIGNATURE = 0.4


def _signature(topic: str, **wish: str) -> Story:
    """The one story that is told most often about a topic, so that the likeliest answer is a whole and varied story."""
    if topic in FLAGSHIPS:
        return _flagship(FLAGSHIPS[topic])
    plots: tuple[Plot, ...] = PLOTS
    if "t" in wish:
        plots = tuple(plot for plot in PLOTS if any("{t}" in beat for beat in plot.beats))
    elif topic in _PLOT_TOPICS:
        plots = tuple(plot for plot in PLOTS if topic in plot.topics)
    return tell(Random(f"signature {topic}"), "train", plots=plots, odd="", wish=wish)


def _flagship(told: Flagship) -> Story:
    (he, his, him), (fhe, fhis, fhim) = (_HE if told.boy else _SHE), (_HE if told.friend_boy else _SHE)
    slots = {
        **told.slots, "he": he, "He": capital(he), "his": his, "him": him, "fhe": fhe, "fhis": fhis, "fhim": fhim,
        "fhis0": his,
        "N": capital(told.slots["n"]), "aak": article(told.slots["k"]),
    }  # fmt: skip
    plot = next(plot for plot in PLOTS if plot.name == told.plot)
    return Story(plot, slots, told.text, told.home)


def _wanted(rng: Random, split: Split) -> tuple[str, Story, Check]:
    """A topic, a story about it, and what the story must contain."""
    _, form, named = rng.choices(_TOPICS, [share for share, _, _ in _TOPICS])[0]
    usual = split == "train" and rng.random() < _SIGNATURE
    if form == "{plot}":
        topic = rng.choice(_PLOT_TOPICS)
        plots = tuple(plot for plot in PLOTS if topic in plot.topics)
        return topic, _signature(topic) if usual else tell(rng, split, plots=plots, odd=""), Check()
    if usual and form in ("{ak}", "{at}"):
        if form == "{ak}":
            kind = rng.choice((*world.ANIMALS, *world.BEINGS, "girl", "boy"))
            if kind in ("girl", "boy"):
                return article(kind), tell(rng, split, odd="", wish={"k": kind}), Check()
            return world.plural(kind) if rng.random() < 0.2 else article(kind), _signature(kind, k=kind), Check()
        thing = rng.choice([thing for thing in world.THINGS if thing not in ("map", "ladder", "shell", "stone")])
        return article(thing), _signature(thing, t=thing), Check()
    if "t" in named.split() or form == "{who}":
        plots = tuple(
            plot for plot in PLOTS
            if (plot.name in _WHO if form == "{who}" else any("{t}" in b for b in plot.beats))
            and (form != "{act}" or plot.name not in ("boat", "garden", "treasure", "new", "star"))
        )  # fmt: skip
        story = tell(rng, split, plots=plots, odd=named)
    else:
        story = tell(rng, split, odd=named)
    s = story.slots
    values = {
        **s,
        "ak": article(s["k"]),
        "afk": article(s["fk"]),
        "at": article(s["t"]),
        "act": article(f"{s['c']} {s['t']}"),
    }
    values |= {"ks": world.plural(s["k"]), "home": story.home}
    values["who"] = _WHO.get(story.plot.name, "").format_map(values)
    must = tuple(s[slot] for slot in named.split())
    return form.format_map(values), story, Check(contains=must)


def request_turn(rng: Random, split: Split) -> tuple[Turn, Story]:
    """Somebody asks for a story, and the story."""
    roll = rng.random()
    if roll < 0.74:
        topic, story, check = _wanted(rng, split)
        asked = topic.removeprefix("a ").removeprefix("an ") if rng.random() < 0.1 else topic
        form = vary(rng, rng.choice(_REQUESTS)).replace("{x}", asked)
    elif roll < 0.92:
        form, check = vary(rng, rng.choice(_OPEN_REQUESTS)), Check()
        usual = split == "train" and rng.random() < _SIGNATURE
        again = any(word in form for word in ("nother", "more", "new"))
        story = _signature("another story" if again else "any story, please") if usual else tell(rng, split, odd="")
    else:  # the beginning of a story, to be told from there
        story = tell(rng, split, odd="", intros=_PROSE_INTROS if rng.random() < 0.7 else ())
        if split == "train" and rng.random() < 0.25:
            story = _signature("once upon a time")
        words = story.text.split()
        start = " ".join(words[: rng.randint(3, 14)])
        return Turn(
            "story_telling",
            story.key,
            start + rng.choice(("", "", "...", " ...")),
            story.text,
            Check(contains=(start,)),
        ), story
    keep = story.slots["h"] in form and rng.random() < 0.7
    return Turn("story_telling", story.key, form if keep else messy(rng, form, typos=False), story.text, check), story


_PROSE_INTROS = (
    "{Home}, there lived {aak} named {h}.", "The [quick|old|big|brown|red|happy|sad|tiny|lonely|clever] {k} {h} lived "
     "{home}.", "The {adj} {k} {h} lived {home}.", "{h} was {aak} who lived {home}.", "{Aak} named {h} lived {home}.",
    "This is the story of {h}, {aak} who lived {home}.", "There was [once |]{aak} named {h}, who lived {home}.",
    "It was a [dark|cold|sunny|quiet|stormy|warm] [night|morning|day|evening], and {aak} named {h} was [awake|all "
    "alone|at home] {home}.",
    "In a [dark|deep|green|magic|quiet|big|strange|faraway] "
    "[forest|valley|village|land|city|house|castle|cave|garden|sea], there [lived|was] {aak} "
    "named {h}.",
    "[One day|One morning|One night|Last summer|Many years ago|A long time ago], {aak} named {h} lived {home}.",
    "The little {k} [was named|was called] {h} and lived {home}.", "My friend {h} is {aak} who lives {home}.",
    "Once, {aak} named {h} lived {home}.",
    "Deep [in the woods|under the sea|in the snow|in the night], {aak} named {h} [lived|was awake|sat all alone].",
)  # fmt: skip


def plain_document(rng: Random, split: Split) -> Document:
    """A story alone, to be continued from any of its beginnings."""
    roll = rng.random()
    if split == "train" and roll < 0.22:
        text = _signature("once upon a time", k="fox").text
    elif roll < 0.75:
        text = tell(rng, split, odd="" if roll < 0.6 else "k t", intros=_PROSE_INTROS).text
    else:
        text = tell(rng, split, odd="").text
    if rng.random() < 0.15:  # begin anywhere
        words = text.split()
        text = " ".join(words[rng.randrange(len(words) // 2) :])
    return Document("prose", (Segment(f"{text}{END_OF_TEXT}", 1.0),))


def raw_question_document(rng: Random, split: Split) -> Document:
    """A story and a question without a chat template."""
    story = tell(rng, split)
    question, answer, _ = _choose_question(rng, story)
    form = rng.choice(("{s}\n\nQuestion: {q}\nAnswer:", "{s}\n{q}", "{s}\n\n{q}", "{s} {q}", "{s}\nQ: {q}\nA:"))
    return raw_document("story_questions", form.format(s=story.text, q=question), answer)
