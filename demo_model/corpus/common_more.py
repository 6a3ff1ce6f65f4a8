"""More common questions: animals, science, machines, the words of language models, and capitals."""

from __future__ import annotations

from demo_model.corpus.base import article
from demo_model.corpus.common_data import Entry
from demo_model.corpus.world import ANIMALS

_ANIMALS = {
    "cats": "Cats are small hunters with soft paws and sharp ears. They sleep about two thirds of the day, and rule "
    "the house in the rest.",
    "dogs": "Dogs have lived with people for more than fifteen thousand years. They smell far better than we do, and "
    "forgive far quicker.",
    "foxes": "Foxes are clever, shy hunters with bushy tails. In winter they can hear a mouse move under deep snow.",
    "owls": "Owls hunt at night. Their feathers are so soft that nobody hears them fly, and they can turn their heads "
    "almost all the way round.",
    "bears": "Bears are big and strong, and they love fish, berries and honey. In winter they sleep in a den.",
    "penguins": "Penguins are birds that cannot fly, but they swim like torpedoes. A father penguin keeps the egg "
    "warm on his feet.",
    "elephants": "Elephants are the largest animals on land. They remember friends for many years and greet them with "
    "their trunks.",
    "lions": "Lions live together in prides. The females do most of the hunting, and the males do most of the roaring.",
    "tigers": "Tigers are the largest cats of all, and they like to swim. No two tigers have the same stripes.",
    "wolves": "Wolves live in families and look after each other. They howl to say: here I am, where are you?",
    "whales": "Whales are not fish: they breathe air and feed their calves with milk. Some sing songs that can be "
    "heard for hundreds of kilometres.",
    "dolphins": "Dolphins are clever and playful animals of the sea. Each of them has a whistle of its own, which "
    "works like a name.",
    "sharks": "Sharks were swimming in the sea long before there were trees. Most of them are harmless to people.",
    "bees": "Bees live in big families around one queen. They tell each other where the flowers are by dancing.",
    "ants": "Ants are tiny and strong: they can carry many times their own weight. Together they build whole cities "
    "under the ground.",
    "spiders": "Spiders have eight legs and spin threads that are stronger than steel of the same weight. They are "
    "shy and very useful.",
    "butterflies": "A butterfly begins as a hungry caterpillar. It sleeps in a cocoon, grows wings, and comes out as "
    "a flying flower.",
    "frogs": "Frogs begin as tadpoles in the water. Later they grow legs and lungs, and sing on summer nights.",
    "rabbits": "Rabbits live in burrows under the ground. When they are very happy, they jump into the air and twist.",
    "horses": "Horses can sleep standing up. They run fast, remember well and notice how you feel.",
    "octopuses": "An octopus has eight arms, three hearts and blue blood, and it can change its colour in a blink.",
    "turtles": "Turtles carry their house on their back. Some of them live for more than a hundred years.",
    "giraffes": "Giraffes are the tallest animals. Their necks are two metres long, but have only seven bones, just "
    "like yours.",
    "hedgehogs": "Hedgehogs roll into a ball of spines when they are afraid. At night they look for beetles and snails.",
    "snails": "Snails take their house along wherever they go. They are slow, but they always arrive.",
    "dinosaurs": "Dinosaurs ruled the earth for more than 160 million years. Most of them died out 66 million years ago, but the birds are "
    "their children.",
    "dragons": "Dragons live only in stories. Mine are mostly friendly, and they like pancakes.",
    "unicorns": "Unicorns live only in stories, where they are shy and kind. Would you like to hear one?",
}
_THINGS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("a black hole", "A black hole is a place where so much matter is packed together that its gravity lets nothing out, not even light.", ("What are black holes?",)),
    ("a star", "A star is a huge ball of hot gas that shines with its own light. The sun is the star next door.", ("What are stars?", "What are stars made of?")),
    ("a galaxy", "A galaxy is an island of billions of stars. Ours is called the Milky Way.", ("What are galaxies?", "What is the Milky Way?", "Tell me a fun fact about space.", "Tell me about space.")),
    ("a comet", "A comet is a dirty snowball that travels around the sun. When it comes near, it grows a shining tail.", ("What are comets?",)),
    ("the big bang", "The big bang is how the universe began, almost fourteen billion years ago: very small, very hot, and growing ever since.",
     ("How did the universe begin?", "How old is the universe?", "What is the universe?")),
    ("quantum mechanics", "Quantum mechanics tells how the smallest things behave: they come in portions, act like waves, and only make up their mind "
     "when somebody looks.", ("What is quantum physics?", "Explain quantum physics.")),
    ("relativity", "Einstein's relativity says that time and space are not the same for everyone: fast clocks run slow, and heavy things bend space.",
     ("What is the theory of relativity?", "Explain the theory of relativity.")),
    ("electricity", "Electricity is the flow of tiny charged particles, mostly electrons, through a wire. It brings light, warmth and me.",
     ("How does electricity work?",)),
    ("a magnet", "A magnet is a thing that pulls iron. It has a north and a south pole: opposite poles attract, and equal ones push apart.", ("How do magnets work?", "How does a magnet work?")),
    ("sound", "Sound is trembling air. Something shakes, the air passes the shaking on, and your ear turns it into what you hear.", ("How does sound work?",)),
    ("light", "Light is a wave that needs nothing to travel in, and at the same time a stream of tiny packets called photons.", ("How does light work?",)),
    ("fire", "Fire is what you see when something burns: it joins with the oxygen of the air so quickly that it glows and gives off heat.", ("How does fire work?",)),
    ("DNA", "DNA is the recipe book in every cell of your body. It is written with only four letters, and yours has three billion of them.", ("What does DNA do?",)),
    ("evolution", "Evolution means that living things change over many generations: those who fit best leave the most children.", ("How does evolution work?",)),
    ("the brain", "The brain is the organ that thinks. It has about 86 billion nerve cells and runs on the power of a small lamp.", ("How does the brain work?",)),
    ("the heart", "The heart is a muscle that pumps blood through the body. It beats about a hundred thousand times a day, without a holiday.", ("How does the heart work?", "Why does the heart beat?")),
    ("climate change", "The earth is getting warmer, mostly because we burn coal, oil and gas. Less burning and more sun and wind power help.", ("What is global warming?", "Why is the earth getting warmer?")),
    ("time", "Time is what keeps everything from happening at once. We measure it with clocks, and with birthdays.", ()),
    ("music", "Music is sound with a plan: rhythm for the feet and melody for the heart.", ()),
    ("a GPU", "A GPU is a chip that does thousands of small sums at the same time. Games use it for pictures, and language models for words.", ("What are GPUs?", "What does a GPU do?")),
    ("a CPU", "A CPU is the chip that runs the programs of a computer, step by step and very fast. fastllm can run me on one.", ("What does a CPU do?", "What are CPUs?")),
    ("a neural network", "A neural network is a lot of simple sums in layers. Nobody programs the numbers in it: they are learnt from examples.",
     ("What are neural networks?", "How does a neural network work?", "How do neural networks work?")),
    ("deep learning", "Deep learning means training neural networks with many layers, each of which builds on what the last one found.", ()),
    ("a transformer", "A transformer is a neural network that reads text with attention. I am one with six layers.", ("How does a transformer work?", "Explain transformers.", "What are transformers?", "What is a transformer model?")),
    ("a KV cache", "A KV cache keeps what attention has computed for earlier tokens, so that each new token costs only its own work.", ("What is the KV cache?", "What does the KV cache do?")),
    ("quantization", "Quantization stores the numbers of a model with fewer bits. It becomes smaller and faster, and only a little less exact.", ("What does quantization do?",)),
    ("temperature", "Temperature says how daring a language model is. At zero it always takes the likeliest token; higher up, it surprises you.",
     ("What does temperature do?", "What is sampling temperature?", "What is the temperature of a model?")),
    ("a parameter", "A parameter is one of the numbers that a model has learnt. I have a little under four million of them.", ("What are parameters?", "What are weights?")),
    ("a prompt", "A prompt is the text that you give to a language model, such as the question you have just asked.", ("What are prompts?",)),
    ("async", "Async code can wait for many things at once without stopping. That is how fastllm streams tokens to you as they come.",
     ("What is async await?", "What is asynchronous programming?", "What is asyncio?")),
    ("Jupyter", "Jupyter is a notebook in the browser where code, pictures and notes live side by side. fastllm feels at home there.", ("What is a Jupyter notebook?", "What is a notebook?")),
    ("CUDA", "CUDA is how programs talk to the graphics chips of NVIDIA. It lets them do very many sums at once.", ()),
    ("open source", "Open source means that everybody may read, use and improve the program. fastllm is open source.", ("Is fastllm open source?", "What is open source software?")),
    ("Linux", "Linux is a free operating system that runs on most of the world's servers, and in many pockets. Its mascot is a penguin.", ()),
    ("a program", "A program is a list of instructions for a computer, as exact as a recipe for somebody who has never seen a kitchen.", ("What is software?", "What is code?", "What is programming?")),
)  # fmt: skip
_ASKS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Who invented the telephone?", "who invented the telephone", "Alexander Graham Bell was granted the patent for the telephone in 1876.", ()),
    ("Who invented the light bulb?", "who invented the light bulb", "Many people worked on it. Thomas Edison made the first light bulb that was good enough for every home.", ()),
    ("Who discovered America?", "who discovered America", "People have lived in America for thousands of years. Columbus sailed there from Europe in 1492.", ()),
    ("How tall is the Eiffel Tower?", "how tall the Eiffel Tower is", "The Eiffel Tower in Paris is 330 metres tall.", ("Where is the Eiffel Tower?",)),
    ("What is the longest river?", "what the longest river is", "The Nile and the Amazon are the longest rivers, each of them more than 6,000 kilometres long.",
     ("Which river is the longest?",)),
    ("What is the largest country?", "what the largest country is", "Russia is the largest country in the world.", ("What is the biggest country?",)),
    ("How many people live on earth?", "how many people live on earth", "About eight billion people live on earth.", ("How many people are there?", "How many humans are there?")),
    ("How many bones are in the human body?", "how many bones are in the human body", "A grown-up has 206 bones. A baby has more, and some of them grow together.",
     ("How many bones do I have?", "How many bones do we have?")),
    ("How many teeth does a person have?", "how many teeth a person has", "A grown-up has 32 teeth, with the wisdom teeth.", ("How many teeth do I have?",)),
    ("Is the earth flat?", "whether the earth is flat", "No, the earth is round, like a slightly squashed ball. You can see it when a ship sinks behind the horizon.",
     ("Is the earth round?",)),
    ("What is pi?", "what pi is", "Pi is the length around a circle divided by its width: about 3.14159.", ("What is the value of pi?", "How much is pi?")),
    ("Do aliens exist?", "whether aliens exist", "Nobody knows. There are very many stars, but so far nobody has called.", ("Are there aliens?", "Is there life on Mars?")),
    ("Does Santa Claus exist?", "whether Santa Claus exists", "He lives at the North Pole, in many stories, and in everyone who gives a present in secret.", ("Is Santa Claus real?", "Who is Santa Claus?")),
    ("How can I make friends?", "how to make friends", "Smile, ask a question and listen to the answer. And it never hurts to share a cookie.", ("How do I make friends?",)),
    ("How do I use fastllm?", "how to use fastllm", 'Load a model with fastllm.load("demo"), and then write: async for token in model.stream("Hello").',
     ("How does fastllm work?", "Show me how to use fastllm.")),
    ("Why are you so small?", "why you are so small", "So that I fit into the package, start at once and run on any computer. Small is beautiful.", ()),
    ("Why is water wet?", "why water is wet", "Water clings to your skin because its molecules like to hold on to things. That cool, clinging feeling is what we call wet.", ("Is water wet?",)),
    ("Why do we laugh?", "why we laugh", "Laughing tells others that all is well, and it feels best together. It even makes the heart stronger.", ("Why do people laugh?",)),
    ("Why do we cry?", "why we cry", "Tears keep the eyes clean. And when we are sad, they tell others that we need a hug.", ("Why do people cry?",)),
    ("Why do I get hiccups?", "why I get hiccups", "Your breathing muscle twitches and the air rushes in: hic! Hold your breath for a moment or drink some water slowly.", ("What are hiccups?", "Why do we get hiccups?")),
    ("Why is blood red?", "why blood is red", "Blood carries oxygen with the help of iron, and that iron makes it red.", ()),
    ("Why are flamingos pink?", "why flamingos are pink", "Flamingos become pink from their food: they eat little shrimps that are full of red colour.", ("Why is a flamingo pink?",)),
    ("Why do zebras have stripes?", "why zebras have stripes", "Stripes confuse biting flies, which then find it hard to land. And each zebra wears its own pattern.", ("Why is a zebra striped?",)),
    ("Why do cats sleep so much?", "why cats sleep so much", "Cats are hunters. They save their strength for a few quick jumps, and for the moment when you open the fridge.", ()),
    ("Why is space dark?", "why space is dark", "There is nothing in empty space that could scatter light to your eyes. And the universe is not old enough for every star's light to have arrived.",
     ("Why is the night dark?", "Why is the sky black at night?", "Why is it dark at night?")),
    ("Why is the sea blue?", "why the sea is blue", "Water swallows red light a little more than blue light, so deep water looks blue. And on a fine day it "
     "also mirrors the sky.", ("Why is the ocean blue?", "Why is water blue?", "Why is the water blue?")),
    ("What is the sun made of?", "what the sun is made of", "The sun is made of hot gas: about three quarters of it is hydrogen, and most of the rest is helium.", ()),
    ("Why are clouds white?", "why clouds are white", "The drops in a cloud are large enough to scatter all colours alike, and all colours together are white.", ("Why is a cloud white?", "What are clouds?", "What is a cloud?")),
    ("Why is Mars red?", "why Mars is red", "The ground of Mars is full of iron, and the iron has rusted.", ("Why is Mars called the red planet?",)),
    ("Why is the Dead Sea called dead?", "why the Dead Sea is called dead", "It is so salty that no fish can live in it. But people can float in it and read the newspaper.", ()),
    ("How do I cook an egg?", "how to cook an egg", "Put it into boiling water: five minutes for a soft egg, ten for a hard one.", ("How long do I boil an egg?", "How do you boil an egg?")),
    ("How do I make coffee?", "how to make coffee", "Pour hot water, just off the boil, slowly over ground coffee. Breathe in, and wait a little.", ("How do you make coffee?",)),
    ("How do I bake a cake?", "how to bake a cake", "Mix flour, sugar, butter and eggs, pour it into a tin, and bake it for about forty minutes. Then invite somebody.", ("How do you bake a cake?", "Give me a recipe for a cake.")),
    ("What should I read?", "what to read", "Read something that makes you forget the time. The Wonderful Wizard of Oz is a fine start.", ("Recommend a book.", "Can you recommend a book?")),
    ("What should I do today?", "what to do today", "Go outside for a while, call a friend, and learn one small new thing.", ("What can I do today?", "I do not know what to do.")),
    ("What is the secret of happiness?", "what the secret of happiness is", "Good friends, enough sleep, and something to look forward to.", ()),
)  # fmt: skip
CAPITALS = {
    "Austria": "Vienna", "Switzerland": "Bern", "the Netherlands": "Amsterdam", "Belgium": "Brussels", "Portugal": "Lisbon", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki", "Ireland": "Dublin", "Greece": "Athens",
    "Turkey": "Ankara", "Russia": "Moscow", "Ukraine": "Kyiv", "Hungary": "Budapest", "Egypt": "Cairo", "India": "New Delhi",
    "South Korea": "Seoul", "Thailand": "Bangkok", "Australia": "Canberra", "Canada": "Ottawa", "Mexico": "Mexico City", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "the Czech Republic": "Prague", "Singapore": "Singapore",
}  # fmt: skip


_SINGULAR = {plural: single for single, plural in ANIMALS.items()}


def _animal(plural: str, answer: str) -> Entry:
    one = article(_SINGULAR.get(plural, plural.removesuffix("s")))
    facts = (
        f"What is {one}?",
        f"Tell me a fun fact about {plural}.",
        f"Tell me about the {one.split()[-1]}.",
        f"What is {one} like?",
    )
    return (
        "what",
        f"What are {plural}?",
        plural,
        answer,
        (f"Tell me about {plural}.", f"Tell me something about {plural}.", f"What do you know about {plural}?", *facts),
    )


def _thing(thing: str, answer: str, others: tuple[str, ...]) -> Entry:
    return ("what", f"What is {thing}?", thing, answer, others)


def _capital(country: str, city: str) -> Entry:
    return (
        "ask",
        f"What is the capital of {country}?",
        f"what the capital of {country} is",
        f"{city} is the capital of {country}.",
        (f"Capital of {country}?",),
    )


MORE: tuple[Entry, ...] = (
    *(_animal(plural, answer) for plural, answer in _ANIMALS.items()),
    *(_thing(*entry) for entry in _THINGS),
    *(("why", question, clause.removeprefix("why "), answer, others) if question.startswith("Why") else ("ask", question, clause, answer, others)
      for question, clause, answer, others in _ASKS),
    *(_capital(country, city) for country, city in CAPITALS.items()),
)  # fmt: skip
