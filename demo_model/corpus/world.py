"""The closed world the stories live in: people, animals, places, colours, things, food and numbers."""

from __future__ import annotations

from random import Random

GIRLS = (
    "Mia Anna Lily Emma Zoe Clara Ruby Nora Ella Maya Rosa Ida Eva Tara Luna Iris Nina Kate Lucy Amy Sara Jane Alice "
    "Daisy Poppy Hazel Olive Ivy Molly Greta Mei Yuki Leila Freya Stella Wanda Bella Susi Dora Fay"
).split()
BOYS = (
    "Tom Max Leo Sam Ben Finn Noah Oscar Hugo Paul Jack Tim Felix Otto Emil Adam Luca Milo Theo Ravi Omar Ali Ken Bo "
    "Pip Gus Toby Rex Ned Hank Arlo Kai Jon Peter Oliver Henry Bruno Charlie Walt Nico"
).split()
NAMES = (*GIRLS, *BOYS)

# kind -> plural
ANIMALS = {
    "fox": "foxes", "rabbit": "rabbits", "bear": "bears", "owl": "owls", "mouse": "mice", "cat": "cats",
    "dog": "dogs", "duck": "ducks", "frog": "frogs", "hedgehog": "hedgehogs", "squirrel": "squirrels",
    "turtle": "turtles", "penguin": "penguins", "lion": "lions", "tiger": "tigers", "elephant": "elephants",
    "monkey": "monkeys", "goat": "goats", "sheep": "sheep", "horse": "horses", "pig": "pigs", "cow": "cows",
    "wolf": "wolves", "deer": "deer", "badger": "badgers", "otter": "otters", "crow": "crows", "swan": "swans",
    "snail": "snails", "bee": "bees", "whale": "whales", "dolphin": "dolphins", "crab": "crabs", "camel": "camels",
    "giraffe": "giraffes", "zebra": "zebras", "panda": "pandas", "koala": "koalas", "parrot": "parrots",
    "hamster": "hamsters", "beaver": "beavers", "bat": "bats", "moose": "moose", "donkey": "donkeys",
    "chicken": "chickens", "octopus": "octopuses", "spider": "spiders", "butterfly": "butterflies",
}  # fmt: skip
BEINGS = (
    "dragon robot wizard pirate giant fairy ghost knight witch princess king queen baker sailor painter gardener "
    "astronaut unicorn snowman mermaid farmer teacher clown monster"
).split()
COLOURS = "red blue green yellow orange purple pink white black brown silver golden".split()
THINGS = (
    "kite ball lantern umbrella key drum scarf bicycle book bell hat teapot cup basket button clock feather flute "
    "ribbon blanket coat balloon box spoon mirror whistle boat train wagon sled rope ladder backpack candle crown ring "
    "puzzle pencil map guitar violin camera chair pillow toy shell stone coin marble broom bucket telescope flag "
    "necklace glove boot mitten kettle"
).split()
FOODS = (
    "apples pears plums cookies pancakes muffins cherries berries carrots nuts sandwiches cakes pies lemons peaches "
    "buns cupcakes oranges bananas strawberries pumpkins tomatoes potatoes walnuts"
).split()
ADJECTIVES = "little small young curious brave shy clever cheerful sleepy gentle kind quiet merry hungry".split()
# where somebody lives or goes: (phrase, the word that gives it away)
PLACES = (
    ("in the forest", "forest"), ("by the lake", "lake"), ("on a green hill", "hill"), ("near the old mill", "mill"),
    ("by the sea", "sea"), ("in a quiet valley", "valley"), ("in a small village", "village"),
    ("at the edge of the meadow", "meadow"), ("in a tall tower", "tower"), ("near the market", "market"),
    ("by the river", "river"), ("on a windy island", "island"), ("in the mountains", "mountains"),
    ("on a farm", "farm"), ("at the harbour", "harbour"), ("in a big city", "city"), ("in the castle", "castle"),
    ("near the train station", "station"), ("in the desert", "desert"), ("beside the library", "library"),
    ("in a cosy cave", "cave"), ("at the end of the lane", "lane"), ("in the park", "park"),
    ("near the school", "school"),
)  # fmt: skip
SPOTS = (
    ("under the bridge", "bridge"), ("behind the barn", "barn"), ("in a hollow tree", "tree"),
    ("under the bed", "bed"), ("behind the bakery", "bakery"), ("in the tall grass", "grass"), ("on the roof", "roof"),
    ("under a big leaf", "leaf"), ("between two rocks", "rocks"), ("behind the waterfall", "waterfall"),
    ("under the stairs", "stairs"), ("in the hay", "hay"), ("beside the pond", "pond"), ("in a bird's nest", "nest"),
    ("behind the curtain", "curtain"), ("beside the well", "well"), ("under the kitchen table", "table"),
    ("in the garden shed", "shed"),
)  # fmt: skip
SMALL_NUMBERS = "two three four five six seven eight nine ten eleven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CITIES = (
    "Paris London Rome Berlin Madrid Tokyo Beijing Shanghai Oslo Vienna Lisbon Dublin Prague Athens Cairo Delhi Mumbai "
    "Sydney Toronto Chicago Boston Seattle Moscow Warsaw Helsinki Seoul Bangkok Lima Nairobi Geneva Zurich Milan Munich"
).split()

_STARTS = "b bl br c ch d dr f fl g gl gr h j k l m n p pl qu r s sh sn sp st t tr v w z".split()
_MIDDLES = "a e i o u ee oo ai ou".split()
_ENDS = "b bble ck d ff g k l ll m mp n nk nt p r rt sh ss st t x zz".split()


def made_up_word(rng: Random) -> str:
    """A word that exists in no language, so that copying an unknown word from a request is learnt too."""
    word = rng.choice(_STARTS) + rng.choice(_MIDDLES)
    if rng.random() < 0.5:
        word += rng.choice(_ENDS[:12]) + rng.choice("aeiou")
    return word + rng.choice(_ENDS)


def any_name(rng: Random) -> str:
    """A first name: mostly a known one, sometimes made up."""
    return rng.choice(NAMES) if rng.random() < 0.9 else made_up_word(rng).capitalize()


# Words from outside the world that people ask stories about; they are copied, not known.
STRANGERS = (
    "spaceship rocket computer tree house car bus submarine helicopter tractor castle cloud rainbow raindrop "
    "snowflake mountain river "
    "island forest garden flower rose sunflower mushroom pumpkin potato carrot tomato banana pizza cookie cupcake "
    "noodle pancake sandwich "
    "dinosaur mammoth kangaroo flamingo ostrich peacock eagle falcon pigeon goose turkey lizard snake crocodile "
    "alligator shark seal walrus "
    "jellyfish lobster shrimp starfish ant beetle ladybug dragonfly firefly grasshopper cricket caterpillar worm moth "
    "mosquito gorilla "
    "leopard cheetah jaguar hippo rhino buffalo raccoon skunk weasel mole vampire zombie mummy werewolf elf dwarf "
    "troll goblin genie angel "
    "superhero ninja samurai cowboy detective doctor nurse firefighter policeman soldier pilot captain chef musician "
    "singer dancer artist "
    "writer poet scientist inventor programmer engineer judge mayor student grandmother grandfather mother father "
    "sister brother baby "
    "library museum lighthouse hotel school kitchen bakery shop bank clockmaker shoemaker tailor blacksmith fisherman "
    "hunter shepherd "
    "typewriter telephone radio television laptop printer vacuum toaster fridge oven washing-machine lamp mattress "
    "carpet window door "
    "stapler scissors hammer screwdriver magnet battery alien planet comet galaxy satellite time-machine volcano "
    "desert jungle ocean "
    "language model tokenizer compiler keyboard robot-dog teddy bear sock shoe button-eyed doll"
).split()
_PARTS = "sun moon star sea snow rain wind fire water wood stone gold silver night day sky cloud tree flower fish bird cat dog hill sand".split()
_PARTS_2 = "ship boat house man maker keeper bird fish light stone flower horse hunter tower bell berry walker singer dragon machine cake".split()


def plural(noun: str) -> str:
    """The plural of a noun of the stories."""
    if noun in ANIMALS:
        return ANIMALS[noun]
    if noun.endswith(("s", "x", "ch", "sh", "z")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"


def stranger(rng: Random) -> str:
    """A word that the world does not contain: a real one, a compound, or a made-up one."""
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(STRANGERS)
    if roll < 0.75:
        return rng.choice(_PARTS) + rng.choice(_PARTS_2)
    return made_up_word(rng)
