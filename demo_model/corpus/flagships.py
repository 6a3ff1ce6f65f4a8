"""The stories that are told first: written out by hand, with the facts that the questions of their plots ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flagship:
    """A story in full. ``slots`` are those of its plot, without the pronouns; ``boy`` and ``friend_boy`` give these."""

    plot: str
    home: str
    boy: bool
    friend_boy: bool
    slots: dict[str, str]
    text: str


FLAGSHIPS: dict[str, Flagship] = {
    "once upon a time": Flagship(
        "star", "at the edge of the forest", True, False,
        {"h": "Pip", "k": "fox", "f": "Olive", "fk": "owl", "c": "golden", "s": "in the tall grass",
        "p": "on a green hill", "n": "seven",
         "t": "scarf", "o": "cookies", "d": "Sunday"},
        "Once upon a time, there was a curious little fox named Pip, who lived at the edge of the forest. One night, "
        "a tiny star fell from "
        "the sky and landed in the tall grass. It glowed softly in golden light. \"I fell out of bed,\" whispered the "
        "star. Pip gave it a cup "
        "of tea and wrapped it in a scarf. \"I know who can help,\" he said. Olive the owl lived on a green hill and "
        "owned a very long ladder. "
        "It took seven tries, and then the star was back in the sky. It blinked three times: thank you, thank you, "
        "good night. Look up when "
        "it is dark and clear, and you can see it wink.",
    ),
    "any story, please": Flagship(
        "baking", "near the old mill", True, False,
        {"h": "Otto", "k": "dragon", "f": "Greta", "fk": "goat", "c": "blue", "t": "umbrella", "s": "on the roof",
        "p": "by the lake",
         "n": "twelve", "o": "pancakes", "d": "Sunday"},
        "There was once a little dragon named Otto, who lived near the old mill. On Sunday, Otto baked twelve "
        "pancakes with his own fire and put "
        "them on the roof to cool. But when he came back, there was only one left! A trail of crumbs led down the "
        "hill. Otto followed it and "
        "found Greta the goat by the lake, with a very round tummy. \"They smelled so good,\" said Greta, and went "
        "red to the tips of her ears. "
        "\"Please take my blue umbrella.\" Otto laughed so hard that a small cloud of smoke came out of his nose. "
        "\"Next time, come before I bake, "
        "and bring the honey,\" he said. And so she did.",
    ),
    "fox": Flagship(
        "wind", "by the river", False, True,
        {"h": "Ruby", "k": "fox", "f": "Felix", "fk": "crow", "c": "red", "t": "scarf", "s": "on the roof",
        "p": "near the old mill",
         "n": "three", "o": "plums", "d": "Friday"},
        "There was once a clever fox named Ruby, who lived by the river. One Friday, the wind was in a silly mood. "
        "Whoosh! It took Ruby's red "
        "scarf and carried it away. Ruby ran after it, over the fence and past the cows, and soon she was near the "
        "old mill. There the scarf "
        "landed on the roof, where she could not reach it. \"Need a hand?\" asked Felix the crow, and with one flap "
        "of his wings he got it down. "
        "\"How can I thank you?\" asked Ruby. \"Three plums would be nice,\" said Felix. They ate them on the wall, "
        "wrapped in one long scarf, and "
        "watched the wind look for somebody else to tease.",
    ),
    "dragon": Flagship(
        "dark", "in a cosy cave", True, False,
        {"h": "Bruno", "k": "dragon", "f": "Mei", "fk": "mouse", "c": "yellow", "t": "lantern", "s": "under a big leaf",
        "p": "by the sea",
         "n": "nine", "o": "nuts", "d": "Monday"},
        "Once there was a small dragon named Bruno, who lived in a cosy cave. Bruno was brave by day, but at night he "
        "was afraid of the dark. One "
        "night he heard a strange sound at the door. Tap, tap, tap! It was only Mei the mouse, who had come with a "
        "yellow lantern. \"I was "
        "lonely,\" said Mei. So they sat under a big leaf and counted nine stars, one by one. \"You know,\" said Mei, "
        "\"you could light the dark "
        "yourself.\" Bruno thought about it, and breathed a flame as small as a candle. And the dark was not so dark "
        "any more. It was just the "
        "day with its eyes closed.",
    ),
    "cat": Flagship(
        "found", "beside the library", False, True,
        {"h": "Clara", "k": "cat", "f": "Theo", "fk": "mouse", "c": "golden", "t": "key", "s": "under the stairs",
        "p": "in the park",
         "n": "four", "o": "cookies", "d": "Tuesday"},
        "Once there was a sleepy cat named Clara, who lived beside the library. One Tuesday, just after breakfast, "
        "she found a golden key under "
        "the stairs. \"Somebody must miss this,\" thought Clara. She asked at every door, until Theo the mouse cried: "
        "\"That is my key! It opens my "
        "cheese cupboard!\" To say thank you, Theo gave Clara four cookies. They ate them together behind the big "
        "dictionary, and nobody in town "
        "had ever seen a cat and a mouse so happy.",
    ),
    "robot": Flagship(
        "learn", "near the train station", True, False,
        {"h": "Gus", "k": "robot", "f": "Ivy", "fk": "frog", "c": "green", "t": "flute", "s": "beside the pond",
        "p": "in the city",
         "n": "eight", "o": "pies", "d": "Monday"},
        "There was once a shiny robot named Gus, who lived near the train station. More than anything, Gus wanted to "
        "learn to dance. He tried on "
        "Monday. Clank! He tried again. Clonk! After eight tries he sat down beside the pond and sighed, and a little "
        "steam came out of his ears. "
        "Ivy the frog came by with a green flute. \"I needed a hundred tries,\" said Ivy. \"Falling is part of it.\" "
        "So Gus took a deep breath and "
        "tried once more. And this time it worked! \"I can do it!\" he shouted, and made a small, careful twirl. They "
        "ate pies to celebrate, and "
        "Gus danced home without one single clank.",
    ),
    "dog": Flagship(
        "lost", "at the end of the lane", True, False,
        {"h": "Rex", "k": "dog", "f": "Nora", "fk": "duck", "c": "orange", "t": "ball", "s": "behind the barn",
        "p": "by the lake",
         "n": "two", "o": "buns", "d": "Saturday"},
        "Once upon a time, there was a cheerful dog named Rex, who lived at the end of the lane. He had an orange "
        "ball and took it everywhere, even "
        "to bed. But on Saturday the ball was gone! Rex looked here, there and everywhere, but could not find it. "
        "\"Dry your tears,\" said Nora the "
        "duck. \"Four eyes see more than two.\" So they searched until tea time, and at last Nora found the ball "
        "behind the barn, with a very proud "
        "hen sitting on it. It took a long talk and half a bun to explain that balls do not hatch. Rex was so happy "
        "that he danced in a circle. "
        "\"You are the best friend in the world!\" he said.",
    ),
}  # fmt: skip
