"""The plots of the stories: beats with slots, and the questions that each plot can answer.

Slots: ``h`` hero, ``k`` the hero's kind, ``f`` friend, ``fk`` the friend's kind, ``t`` thing, ``c`` colour, ``p`` place,
``s`` spot, ``n`` number word, ``o`` food (plural), ``d`` day; ``he His him`` and ``fhe Fhis fhim`` are the pronouns of
hero and friend. ``[a|b]`` is a free choice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question that a plot answers.

    Attributes:
        fact: the slot that the answer must state.
        ask: the question, with alternatives.
        answer: the right answer.
    """

    fact: str
    ask: str
    answer: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot. ``topics`` are the abstract subjects that it serves; and ``foods`` narrows the food."""

    name: str
    beats: tuple[str, ...]
    questions: tuple[Question, ...]
    topics: tuple[str, ...] = ()
    foods: tuple[str, ...] = ()


def _q(fact: str, ask: str, answer: str) -> Question:
    return Question(fact, ask, answer)


_COLOUR = _q("c", "[What|Which] colour [was|is] the {t}?", "The {t} was {c}.")

PLOTS = (
    Plot(
        "lost",
        (
            "{He} had a {c} {t} and [took it everywhere|loved it more than anything else|would not sleep without it].",
            "But on {d} the {t} was gone! {h} looked [high and low|in every corner|here, there and everywhere], "
            "but could not find it.",
            '"[Do not worry|Do not cry|Dry your tears]," said {f} the {fk}. "[Four eyes see more than two|Lost things '
            'like to be found|We will look together]."',
            "So they searched [all morning|until tea time|until the sun was low], and at last {f} found the {t} {s}.",
            "{h} was so happy that {he} [danced in a circle|laughed out loud|hugged {fhim} tight]. "
            '"[You are the best friend in the world|Thank you, thank you|What would I do without you]!" {he} said.',
        ),
        (
            _COLOUR,
            _q("t", "What did {h} lose?|What was gone?|What was {h} looking for?", "{h} lost a {c} {t}."),
            _q("f", "Who found the {t}?|Who helped {h}?", "{f} the {fk} found the {t}."),
            _q("s", "Where was the {t}?|Where did {f} find the {t}?", "The {t} was {s}."),
            _q("d", "[When|On which day|On what day] was the {t} gone?|When did {h} lose the {t}?", "It was on {d}."),
        ),
        topics=("friends", "friendship", "a lost toy", "losing something"),
    ),
    Plot(
        "found",
        (
            "One {d}, [on the way home|while out for a walk|just after breakfast], {he} found a {c} {t} {s}.",
            '"[Somebody must miss this|This is not mine|Who may have lost this]," {he} [thought|said to {him}self].',
            "{h} asked [everyone {he} met|at every door|all over town], until {f} the {fk} cried: "
            '"[My|Oh, my|That is my] {t}! [I thought I had lost it for ever|I have missed it so]!"',
            "To say thank you, {f} gave {h} {n} {o}.",
            "[They ate them together and talked until the stars came out|And the two of them were friends from that "
            "day on|{h} went home with a full bag and a warm heart].",
        ),
        (
            _COLOUR,
            _q("t", "What did {h} find?", "{h} found a {c} {t}."),
            _q("s", "Where did {h} find the {t}?|Where was the {t}?", "{h} found it {s}."),
            _q("f", "Who had lost the {t}?|[Whose|To whom belonged the] {t}[ was it|]?", "The {t} belonged to {f} the {fk}."),
            _q("n", "How many {o} did {f} give {h}?|How many {o} did {h} get?", "{f} gave {h} {n} {o}."),
            _q("o", "What did {f} give {h}?|What did {h} get as a thank you?", "{f} gave {h} {n} {o}."),
            _q("d", "[When|On which day] did {h} find the {t}?", "It was on {d}."),
        ),
        topics=("honesty", "kindness", "finding something"),
    ),
    Plot(
        "dark",
        (
            "{h} was [brave by day|not afraid of anything], [but at night|but when the lights went out] {he} was afraid "
            "of the dark.",
            "One night {he} heard a [strange|funny|scary] sound [at the window|at the door|outside]. "
            "[Tap, tap, tap|Scratch, scratch|Hoo, hoo]!",
            "It was only {f} the {fk}, who had come with a {c} {t}. "
            '"[I cannot sleep either|I was lonely|I saw that you were awake]," said {f}.',
            "So they sat {s} and counted {n} stars, [one by one|very slowly|in a whisper].",
            "[Soon {h} was fast asleep, and the dark was not so dark any more|\"The dark is just the day with its eyes "
            'closed," said {h}, and yawned|Before they knew it, both were asleep].',
        ),
        (
            _COLOUR,
            _q("f", "Who came [at night|to {h}]?|Who was at the [window|door]?", "It was {f} the {fk}."),
            _q("n", "How many stars did they count?", "They counted {n} stars."),
            _q("s", "Where did they sit?|Where did they count the stars?", "They sat {s}."),
            _q("t", "What did {f} bring?|What did {f} have with {fhim}?", "{f} brought a {c} {t}."),
        ),
        topics=("the night", "being afraid", "the stars", "the dark"),
    ),
    Plot(
        "race",
        (
            'One {d}, {f} the {fk} [laughed|boasted|said]: "[I am the fastest of all|Nobody is as fast as I am]!"',
            '"[Let us see|We will see about that|Then let us race]," said {h}. So they made a race, and the prize '
            "was a {c} {t}.",
            "{f} was quick, but stopped {s} to [take a nap|eat {n} {o}|pick some flowers].|{f} was quick, but ran the "
            "wrong way and ended up {s}.",
            "{h} [never stopped|ran and ran|went on, step by step], and [won the race|came in first|reached the goal "
            "first].",
            'Then {h} gave the {t} to {f}. "[Friends are better than prizes|The fun was the best part|Next time you '
            'win]," said {h}[, and they both laughed|].',
        ),
        (
            _COLOUR,
            _q("h", "Who won the race?|Who came in first?|Who was first?", "{h} won the race."),
            _q("t", "What was the prize?", "The prize was a {c} {t}."),
            _q("f", "Who said that {fhe} was the fastest?|Who [lost|did not win] the race?|Who did {h} race against?", "It was {f} the {fk}."),
            _q("s", "Where did {f} [stop|end up]?", "{f} {stopped} {s}."),
            _q("d", "[When|On which day] was the race?", "The race was on {d}."),
        ),
        topics=("a race", "running", "winning"),
    ),
    Plot(
        "baking",
        (
            "On {d}, {h} baked {n} {o} and put them {s} to cool.",
            "[When {he} came back|An hour later|But then, oh no], [there was only one left|all but one were gone]! "
            "[Crumbs were everywhere|There were crumbs on the floor|A trail of crumbs led to the door].",
            "{h} followed the crumbs and found {f} the {fk} {p}, with a very [round|full] tummy.",
            '"[I am sorry|Oh dear]," said {f}. "[They smelled so good|I only wanted to try one|I was so hungry]. '
            'Please take my {c} {t}."',
            "{h} [laughed|smiled|could not be angry]. \"[Come|Never mind]! [Next time|Tomorrow] we will bake together,\" "
            "{he} said. And so they did.",
        ),
        (
            _COLOUR,
            _q("n", "How many {o} did {h} bake?", "{h} baked {n} {o}."),
            _q("o", "What did {h} bake?", "{h} baked {n} {o}."),
            _q("f", "Who ate the {o}?|Who had eaten the {o}?", "{f} the {fk} ate the {o}."),
            _q("s", "Where did {h} put the {o}?|Where were the {o}?", "{h} put them {s}."),
            _q("t", "What did {f} give {h}?|What did {f} want to give {h}?", "{f} gave {h} a {c} {t}."),
            _q("d", "[When|On which day] did {h} bake?", "{h} baked on {d}."),
            _q("p", "Where did the crumbs lead?|Where did {h} find {f}?", "{h} found {f} {p}."),
        ),
        topics=("baking", "food", "cooking", "sharing"),
        foods=("cookies", "pancakes", "muffins", "cakes", "pies", "buns", "cupcakes"),
    ),
    Plot(
        "gift",
        (
            "On {d} it was the birthday of {f} the {fk}, and {h} had no present.",
            "{He} had no money, but {he} had {n} {o}. [At the market|On the road|By the old bridge] a merchant "
            '[smiled|winked] and said: "I will swap them for this {c} {t}."',
            "{h} wrapped the {t} in [paper|leaves|an old newspaper] and hid it {s} until the party.",
            "When {f} opened it, {fhis} eyes [shone|grew big|lit up]. "
            '"[It is just what I wanted|How did you know|The best present ever]!" cried {f}.',
            "They [sang|danced] and ate cake [until bedtime|until the moon came up], [and nobody wanted to go home|and "
            "everyone was happy].",
        ),
        (
            _COLOUR,
            _q("f", "Whose birthday was it?|Who had a birthday?", "It was the birthday of {f} the {fk}."),
            _q("t", "What [was the present|did {h} give {f}|did {f} get]?", "The present was a {c} {t}."),
            _q("n", "How many {o} did {h} have?", "{h} had {n} {o}."),
            _q("o", "What did {h} swap for the {t}?", "{h} swapped {n} {o}."),
            _q("s", "Where did {h} hide the {t}?|Where was the {t} hidden?", "{h} hid it {s}."),
            _q("d", "[When|On which day] was the birthday?", "The birthday was on {d}."),
        ),
        topics=("a birthday", "a present", "a party", "a gift"),
    ),
    Plot(
        "boat",
        (
            "{h} [built|made] a small boat out of [an old door|a wooden box|a bathtub]. {He} painted it {c} and took a "
            "{t} and {n} {o} along.",
            "[The wind was good|The waves were gentle|The sun was warm], and {he} sailed [all day|for hours and hours|"
            "far, far away].",
            'Suddenly a voice called: "Help!" It was {f} the {fk}, [sitting on a rock|holding on to a log|on a tiny '
            "island with one tree].",
            '"[Come aboard|Jump in|There is room for two]!" called {h}. They shared the {o} and sang [old|funny|loud] '
            "songs.",
            "That night they slept {s}, [and the sea sang them a song|and dreamed of the next trip|under a sky full of "
            "stars].",
        ),
        (
            _q("c", "[What|Which] colour was the boat?", "The boat was {c}."),
            _q("f", "Who [called for help|needed help|did {h} save|did {h} rescue]?", "It was {f} the {fk}."),
            _q("n", "How many {o} did {h} take along?|How many {o} were on the boat?", "{h} took {n} {o} along."),
            _q("s", "Where did they sleep?", "They slept {s}."),
            _q("t", "What did {h} take along?", "{h} took a {t} and {n} {o} along."),
        ),
        topics=("the sea", "a boat", "a journey", "an adventure", "sailing", "the ocean"),
    ),
    Plot(
        "garden",
        (
            "On {d}, {h} planted {n} seeds {s} and [waited|watered them every day|told them a story every evening].",
            "[Days went by|The sun shone|It rained and the sun came back], but nothing grew. "
            "[{h} was very sad|\"Maybe the seeds are asleep,\" said {h}|{h} almost gave up].",
            '"[Be patient|Good things take time|Sing to them]," said {f} the {fk}, who knew a lot about gardens.',
            "And one morning, there it was: a {c} flower, as [big as a plate|tall as a door|bright as a lamp]!",
            "[Everyone|The whole neighbourhood] came to look, and {h} gave {f} a {t} to say thank you.",
        ),
        (
            _q("c", "[What|Which] colour was the flower?", "The flower was {c}."),
            _q("n", "How many seeds did {h} plant?", "{h} planted {n} seeds."),
            _q("s", "Where did {h} plant the seeds?|Where were the seeds?", "{h} planted them {s}."),
            _q("f", "Who told {h} to [be patient|wait]?|Who knew a lot about gardens?", "It was {f} the {fk}."),
            _q("t", "What did {h} give {f}?", "{h} gave {f} a {t}."),
            _q("d", "[When|On which day] did {h} plant the seeds?", "{h} planted them on {d}."),
        ),
        topics=("a garden", "a flower", "flowers", "spring", "a plant", "waiting"),
    ),
    Plot(
        "treasure",
        (
            "One {d}, {he} found an old map [in a bottle|in the attic|between two books]. [A big X was drawn on it|It "
            'smelled of salt and secrets|"Treasure!" it said].',
            "{h} and {fhis0} friend {f} the {fk} took a {t} and followed the map to a place {p}.",
            "They dug {s}, [deeper and deeper|for a long time|until their arms were tired], and then: clonk! A {c} chest!",
            "Inside there was no gold, but {n} {o} and a note: \"[The real treasure is the friend who digs with you|Well "
            'done, brave explorers|Share this and be happy]."',
            "[They laughed and shared everything|It was the best treasure they could think of|They kept the note for "
            "ever].",
        ),
        (
            _q("c", "[What|Which] colour was the chest?", "The chest was {c}."),
            _q("p", "Where did the map lead?|Where did they follow the map?", "The map led them to a place {p}."),
            _q("s", "Where did they dig?|Where was the chest?", "They dug {s}."),
            _q("n", "How many {o} were in the chest?", "There were {n} {o} in the chest."),
            _q("o", "What was in the chest?|What did they find in the chest?", "There were {n} {o} in the chest."),
            _q("f", "Who went with {h}?|Who was {h}'s friend?|Who helped {h} dig?", "It was {f} the {fk}."),
            _q("d", "[When|On which day] did {h} find the map?", "{h} found it on {d}."),
            _q("t", "What did they take with them?", "They took a {t}."),
        ),
        topics=("a treasure", "treasure", "an adventure", "a map", "pirates"),
    ),
    Plot(
        "new",
        (
            "{h} was new there and did not know anybody. {He} [ate|played|walked] alone [every day|every morning].",
            "On {d}, {he} saw {f} the {fk} sitting {s} with a broken {t}.",
            '"[May I help you|May I try to fix it|Shall I try]?" asked {h} [softly|shyly]. With some {c} string and a bit of '
            "luck, the {t} was as good as new.",
            '"[You are clever|You did it|That is magic]!" said {f}, and shared {n} {o} with {him}.',
            "From that day on {h} was [never alone again|not alone any more]. [A friend is only one kind word away|All it "
            "took was one small hello].",
        ),
        (
            _q("c", "[What|Which] colour was the string?", "The string was {c}."),
            _q("t", "What was broken?|What did {h} fix?", "The {t} was broken."),
            _q("f", "Who [was sitting {s}|had a broken {t}]?|Who did {h} help?", "It was {f} the {fk}."),
            _q("s", "Where was {f} sitting?|Where did {h} [see|meet] {f}?", "{f} was sitting {s}."),
            _q("n", "How many {o} did {f} share?", "{f} shared {n} {o}."),
            _q("d", "[When|On which day] did {h} [see|meet] {f}?", "It was on {d}."),
        ),
        topics=("friendship", "a new friend", "being alone", "making friends"),
    ),
    Plot(
        "music",
        (
            "{h} [found|got] a {c} {t} and found out that it made a [lovely|funny|wonderful] sound.",
            "{He} played it {s} every evening. At first the sound was [terrible|so bad that the crows left|not so nice], "
            "but {h} [kept trying|did not give up].",
            "On {d}, {f} the {fk} stopped to listen. Then {n} [rabbits|ducks|mice] came, and then the whole town.",
            '"[More|Again|Encore]!" they [called|cried], and {f} began to dance.',
            "They danced {p} [until the moon went to bed|all night long|until their feet hurt], and {h} played on "
            "[and smiled|and on].",
        ),
        (
            _COLOUR,
            _q("t", "What did {h} play?|What did {h} [find|get|have]?", "{h} had a {c} {t}."),
            _q("s", "Where did {h} play?|Where did {h} play every evening?", "{h} played {s}."),
            _q("f", "Who [stopped to listen|began to dance|came first]?", "It was {f} the {fk}."),
            _q("n", "How many [rabbits|ducks|mice] came?", "{N} came."),
            _q("p", "Where did they dance?", "They danced {p}."),
            _q("d", "[When|On which day] did {f} stop to listen?", "It was on {d}."),
        ),
        topics=("music", "dancing", "a song"),
    ),
    Plot(
        "snow",
        (
            "On {d} it snowed and snowed. [The world was white and quiet|The snow was as high as a chair|\"Hooray!\" "
            "cried {h}].",
            "{h} and {f} the {fk} built a snowman {s}. It had {n} buttons, a carrot nose and a {c} {t}.",
            '"[He looks lonely|I think he is cold]," said {f}[, so they sang him a song|, and they gave him a friend|].',
            "At night, when all were asleep, the snowman [winked|waved|smiled] at the moon. [Nobody saw it, but the owl "
            "did|Only a mouse saw it].",
            "In the morning there were footprints {p}, and {n} {o} on the doorstep. [Who could that have been|Guess from "
            "whom]?",
        ),
        (
            _COLOUR,
            _q("n", "How many buttons did the snowman have?", "The snowman had {n} buttons."),
            _q("s", "Where did they build the snowman?|Where was the snowman?", "They built it {s}."),
            _q("f", "Who built the snowman with {h}?|Who helped {h} build the snowman?", "It was {f} the {fk}."),
            _q("d", "[When|On which day] did it snow?", "It snowed on {d}."),
            _q("o", "What was on the doorstep?", "There were {n} {o} on the doorstep."),
            _q("p", "Where were the footprints?", "The footprints were {p}."),
        ),
        topics=("winter", "snow", "a snowman", "christmas", "a cold day"),
    ),
    Plot(
        "wind",
        (
            "One {d}, the wind [was in a silly mood|blew hard|wanted to play]. Whoosh! It took {h}'s {c} {t} and carried "
            "it away.",
            "{h} ran after it, [over the fence and past the cows|as fast as {he} could|calling \"Stop, stop!\"], and soon {he} "
            "was {p}.",
            "There the {t} landed {s}, where {he} could not reach it.",
            '"[Need a hand|Shall I help]?" asked {f} the {fk}, and [with one big jump|after {n} tries|with a long stick] '
            "{fhe} got it down.",
            '"How can I thank you?" asked {h}. "{N} {o} would be nice," said {f}, [and they had a picnic|and winked|and '
            "that was that].",
        ),
        (
            _COLOUR,
            _q("t", "What did the wind take?", "The wind took a {c} {t}."),
            _q("s", "Where did the {t} land?|Where was the {t}?", "The {t} landed {s}."),
            _q("f", "Who [helped {h}|got the {t} down]?", "{f} the {fk} helped {h}."),
            _q("o", "What did {f} want[ as a thank you|]?", "{f} wanted {n} {o}."),
            _q("n", "How many {o} did {f} want?", "{f} wanted {n} {o}."),
            _q("p", "Where was {h} then?|Where did {h} run to?", "{h} was {p}."),
            _q("d", "[When|On which day] did the wind take the {t}?", "It was on {d}."),
        ),
        topics=("the wind", "autumn", "the weather", "a storm", "a windy day"),
    ),
    Plot(
        "star",
        (
            "One night, a tiny star fell from the sky and landed {s}. It [shone|glowed] softly in {c} light.",
            '"[I am lost|I want to go home|I fell out of bed]," [sobbed|whispered] the star. {h} [took it gently in '
            "{his} hands|wrapped it in a scarf|gave it a cup of tea].",
            '"[I know who can help|Let us ask {f}|We need {f}]," said {h}. {f} the {fk} lived {p} and owned a very long '
            "ladder.",
            "It took {n} [jumps|tries|minutes], and then the star was back in the sky. "
            "[It blinked three times|It sang for joy|The whole sky clapped].",
            "[Look up tonight|On clear nights you can see it]: one star [winks|shines a little brighter]. It is saying "
            "thank you.",
        ),
        (
            _q("c", "[What|Which] colour was the light[ of the star|]?|[What|Which] colour was the star?", "The star shone in {c} light."),
            _q("s", "Where did the star land?", "The star landed {s}."),
            _q("f", "Who had a long ladder?|Who helped them?|Who owned the ladder?", "It was {f} the {fk}."),
            _q("p", "Where did {f} live?", "{f} lived {p}."),
            _q("n", "How many [jumps|tries|minutes] did it take?", "It took {n}."),
        ),
        topics=("a star", "the stars", "magic", "the sky", "the moon", "space", "the night"),
    ),
    Plot(
        "learn",
        (
            "More than anything, {h} wanted to learn to [swim|whistle|ride a bicycle|do a handstand|dance|juggle].",
            "{He} tried on {d}. [Plop|Bump|Oops]! {He} tried again. [Plop|Bump|Oops]! After {n} tries {he} sat down {s} "
            "[and sighed|and cried a little].",
            "{f} the {fk} came by with a {c} {t}. \"[I needed a hundred tries|Nobody can do it at once|Falling is part "
            'of it]," said {f}.',
            'So {h} took a deep breath and tried once more. And this time it worked! "[Look at me|I can do it|I did '
            'it]!" {he} shouted.',
            "They ate {o} to celebrate, and [the next day {h} taught everyone else|{h} practised until bedtime|{h} could "
            "not stop smiling].",
        ),
        (
            _COLOUR,
            _q("n", "How many tries did it take[ before {h} sat down|]?|How often did {h} try before {he} sat down?", "{h} tried {n} times before {he} sat down."),
            _q("s", "Where did {h} sit down?", "{h} sat down {s}."),
            _q("f", "Who [came by|talked to {h}|cheered {h} up]?", "It was {f} the {fk}."),
            _q("o", "What did they eat[ to celebrate|]?", "They ate {o}."),
            _q("t", "What did {f} have[ with {fhim}|]?", "{f} had a {c} {t}."),
            _q("d", "[When|On which day] did {h} try?", "It was on {d}."),
        ),
        topics=("learning", "never giving up", "courage", "practice", "being brave", "school"),
    ),
)  # fmt: skip
