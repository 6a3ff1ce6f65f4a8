"""Common questions and their answers.

Each entry is (kind, question, clause, answer, other ways to ask). ``why``: the clause is what is so ("the sky is blue").
``what``: the clause is the thing asked about. ``ask``: the clause is the question as the end of "do you know ...".
"""

from __future__ import annotations

Entry = tuple[str, str, str, str, tuple[str, ...]]


def _why(question: str, clause: str, answer: str, *others: str) -> Entry:
    return ("why", question, clause, answer, others)


def _what(thing: str, answer: str, *others: str) -> Entry:
    be = (
        "are"
        if thing.endswith("s") and not thing.endswith(("us", "ss")) and not thing.startswith(("a ", "the "))
        else "is"
    )
    return ("what", f"What {be} {thing}?", thing, answer, others)


def _ask(question: str, clause: str, answer: str, *others: str) -> Entry:
    return ("ask", question, clause, answer, others)


SKY = (
    "The sky is blue because air scatters sunlight. Sunlight is a mix of all colours, and the tiny molecules of the air "
    "scatter blue light much more than red. So when you look up, blue light reaches your eyes from every side."
)

ENTRIES: tuple[Entry, ...] = (
    _why("Why is the sky blue?", "the sky is blue", SKY, "sky blue why", "What makes the sky blue?", "why sky blue",
         "Why does the sky look blue?", "What colour is the sky and why?", "why the sky is blue", "Why's the sky blue?",
         "Why is our sky blue?", "The sky is blue. Why?", "Why do we see a blue sky?", "blue sky, why?"),
    _why("Why is the sunset red?", "the sunset is red",
         "At sunset the light comes to us on a long, low path through the air. The blue light is scattered away on the way, "
         "and the red and orange light is left over for us to enjoy.",
         "Why are sunsets red?", "Why is the sky red in the evening?", "Why is the evening sky red?"),
    _why("Why is the grass green?", "the grass is green",
         "Grass is green because of a stuff called chlorophyll. It catches red and blue sunlight to make food for the plant, "
         "and the green light is what it sends back to us.", "Why is grass green?", "Why are leaves green?", "Why are plants green?"),
    _why("Why do leaves fall in autumn?", "leaves fall in autumn",
         "In winter there is little light and the water is frozen, so a tree saves its strength. It takes the good green stuff "
         "back out of its leaves, lets them turn gold and red, and then lets them go.",
         "Why do leaves change colour?", "Why do leaves turn red?", "Why do trees lose their leaves?"),
    _why("Why is the sea salty?", "the sea is salty",
         "Rain washes a little salt out of the rocks, and rivers carry it to the sea. The sun takes the water back up into the "
         "clouds, but the salt stays behind. After millions of years, the sea tastes as it does.",
         "Why is the ocean salty?", "Why is sea water salty?", "Why does the sea taste of salt?"),
    _why("Why does it rain?", "it rains",
         "The sun warms the sea and water rises into the air. High up it is cold, so the water gathers into tiny drops, and "
         "many drops make a cloud. When the drops grow too heavy, they fall: it rains.",
         "Where does rain come from?", "How does rain work?", "What makes it rain?", "What is rain?"),
    _why("Why does it snow?", "it snows",
         "When a cloud is very cold, its water freezes into tiny crystals with six arms. They stick together, become "
         "snowflakes and float down. No two of them look quite the same.", "What is snow?", "Where does snow come from?"),
    _why("Why is there thunder?", "there is thunder",
         "Lightning heats the air so fast that it bursts apart with a bang. That bang is thunder. Light is faster than sound, so "
         "you see the flash first and hear the rumble later.", "What is thunder?", "What is lightning?", "Where does thunder come from?"),
    _why("Why do we have seasons?", "we have seasons",
         "The earth leans a little to one side as it travels around the sun. For half of the year our half of the world leans "
         "towards the sun, and we have summer. Then it leans away, and winter comes.", "Why are there seasons?", "What makes the seasons?",
         "Why is it cold in winter?", "Why is it warm in summer?"),
    _why("Why does the moon change its shape?", "the moon changes its shape",
         "The moon is always round, but the sun lights only one side of it. As the moon travels around us, we see more or less "
         "of the bright side: a thin sickle, a half, or a full moon.", "Why does the moon change shape?", "What are the phases of the moon?"),
    _why("Why does the moon shine?", "the moon shines",
         "The moon has no light of its own. It shines because it sends sunlight on to us, like a big grey mirror.",
         "Why is the moon bright?", "How does the moon shine?"),
    _why("Why do stars twinkle?", "stars twinkle",
         "The light of a star has to pass through our restless air. The air bends it a little to and fro, and so the star seems "
         "to twinkle.", "Why do the stars twinkle?", "Why do stars blink?"),
    _why("Why is the sun hot?", "the sun is hot",
         "Deep inside the sun, hydrogen is pressed together until it becomes helium. That sets free a huge amount of energy, "
         "and we feel a tiny part of it as sunshine.", "Why does the sun shine?", "How does the sun work?"),
    _why("Why does ice float?", "ice floats",
         "When water freezes, its molecules hold each other at arm's length, so ice takes up more room than water. That makes "
         "it lighter, and so it floats.", "Why does ice float on water?", "why ice floats"),
    _why("Why do onions make us cry?", "onions make us cry",
         "When you cut an onion, it lets out a sharp gas to defend itself. The gas stings your eyes, and your tears come to wash "
         "it away.", "Why do I cry when I cut onions?", "Why do onions make you cry?"),
    _why("Why do we sleep?", "we sleep",
         "While you sleep, your body repairs itself and your brain tidies up the day and keeps what matters. Without sleep we "
         "become slow, sad and forgetful.", "Why do people sleep?", "Why do I need sleep?"),
    _why("Why do we dream?", "we dream",
         "Nobody knows for sure. Many think that the sleeping brain sorts the memories of the day, and a dream is what it looks "
         "like from inside.", "What are dreams?", "Why do people dream?", "What is a dream?"),
    _why("Why do we yawn?", "we yawn",
         "Nobody knows for sure. A yawn may cool the brain or wake us up a little. One thing is certain: it is catching, and "
         "you may be yawning right now.", "Why do people yawn?"),
    _why("Why do cats purr?", "cats purr",
         "Cats purr when they feel safe and happy, and sometimes to calm themselves down. They do it with quick little movements "
         "of the muscles in their throat.", "Why does my cat purr?", "How do cats purr?"),
    _why("Why do dogs wag their tails?", "dogs wag their tails",
         "A dog talks with its tail. A loose, wide wag means that it is glad to see you; a stiff one means that it is unsure.",
         "Why does my dog wag its tail?"),
    _why("Why do bees make honey?", "bees make honey",
         "Bees make honey so that they have food in winter, when there are no flowers. They gather sweet nectar, and fan it with "
         "their wings until it is thick.", "How do bees make honey?", "Where does honey come from?"),
    _why("Why do bears sleep in winter?", "bears sleep in winter",
         "In winter a bear finds hardly any food. So it eats all it can in autumn, curls up in its den and sleeps until spring.",
         "Why do bears hibernate?"),
    _why("Why do birds fly south?", "birds fly south",
         "In winter there are few insects and seeds in the north. So many birds fly south, where it is warm and there is enough "
         "to eat, and come home in spring.", "Why do birds fly away in winter?", "Where do birds go in winter?"),
    _ask("How do birds fly?", "how birds fly",
         "A bird's wing is curved so that the air pushes it up as the bird moves forward. Strong muscles beat the wings, and "
         "hollow bones keep the bird light.", "How can birds fly?", "Why can birds fly?"),
    _ask("How do planes fly?", "how planes fly",
         "The engines push the plane forward, and its wings press the streaming air down. The air pushes back up, and up goes the "
         "plane.", "How does a plane fly?", "Why do planes fly?", "How do airplanes fly?"),
    _ask("How do fish breathe?", "how fish breathe",
         "Fish breathe with gills. Water flows in through the mouth and out past the gills, and they take the oxygen out of it.",
         "How do fish breathe under water?"),
    _ask("How do plants eat?", "how plants eat",
         "Plants make their own food. Their leaves catch sunlight and turn air and water into sugar, and give us oxygen as a "
         "present.", "What do plants eat?", "What is photosynthesis?", "How do plants grow?"),
    _ask("How does a rainbow form?", "how a rainbow forms",
         "When sunlight shines into drops of rain, each drop bends the light and splits it into its colours. You see them as a "
         "rainbow when the sun is behind you.", "What is a rainbow?", "Where do rainbows come from?", "What makes a rainbow?",
         "How are rainbows made?"),
    _ask("What are the colours of the rainbow?", "what the colours of the rainbow are",
         "The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet.", "Which colours has a rainbow?",
         "What are the colors of the rainbow?"),
    _ask("How many planets are there?", "how many planets there are",
         "Eight planets travel around our sun: Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.",
         "What are the planets?", "Name the planets.", "How many planets are in the solar system?", "List the planets"),
    _ask("What is the largest planet?", "what the largest planet is",
         "Jupiter is the largest planet. More than a thousand earths would fit inside it.", "Which planet is the largest?",
         "What is the biggest planet?", "Biggest planet?"),
    _ask("How far away is the moon?", "how far away the moon is",
         "The moon is about 384,000 kilometres away. Light makes the trip in little more than a second.", "How far is the moon?",
         "How far is it to the moon?"),
    _ask("How far away is the sun?", "how far away the sun is",
         "The sun is about 150 million kilometres away. Its light needs a little over eight minutes to reach us.",
         "How far is the sun?", "How far is it to the sun?"),
    _ask("How big is the earth?", "how big the earth is",
         "The earth is about 12,700 kilometres across, and a walk around it would be 40,000 kilometres long. Bring good shoes!",
         "How large is the earth?", "What is the size of the earth?"),
    _ask("How old is the earth?", "how old the earth is", "The earth is about four and a half billion years old.", "What is the age of the earth?"),
    _ask("How fast is light?", "how fast light is",
         "Light travels about 300,000 kilometres in one second. Nothing in the world is faster.", "What is the speed of light?",
         "How fast does light travel?"),
    _ask("What is the tallest mountain?", "what the tallest mountain is",
         "Mount Everest is the tallest mountain. Its top is 8,849 metres above the sea.", "What is the highest mountain?",
         "Which mountain is the highest?", "How tall is Mount Everest?"),
    _ask("What is the largest ocean?", "what the largest ocean is",
         "The Pacific is the largest ocean. It is wider than all the land on earth together.", "What is the biggest ocean?",
         "Which ocean is the largest?"),
    _ask("What is the largest animal?", "what the largest animal is",
         "The blue whale is the largest animal that has ever lived. It can be 30 metres long, and its heart weighs as much as a "
         "small piano.", "What is the biggest animal?", "Which animal is the largest?"),
    _ask("What is the fastest animal?", "what the fastest animal is",
         "On land it is the cheetah, which can run about 110 kilometres an hour. In the air, a diving peregrine falcon is even "
         "three times as fast.", "Which animal is the fastest?"),
    _ask("What is the tallest animal?", "what the tallest animal is", "The giraffe is the tallest animal. It can look into a window on "
         "the second floor.", "Which animal is the tallest?"),
    _ask("How many legs does a spider have?", "how many legs a spider has", "A spider has eight legs.", "How many legs has a spider?"),
    _ask("How many legs does an insect have?", "how many legs an insect has", "An insect has six legs.", "How many legs does a bee have?",
         "How many legs does an ant have?"),
    _ask("What do pandas eat?", "what pandas eat", "Pandas eat bamboo, and they eat it for most of the day.", "What does a panda eat?"),
    _ask("How many continents are there?", "how many continents there are",
         "There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America.",
         "What are the continents?", "Name the continents."),
    _ask("What is the capital of France?", "what the capital of France is", "Paris is the capital of France.", "Capital of France?"),
    _ask("What is the capital of Germany?", "what the capital of Germany is", "Berlin is the capital of Germany.", "Capital of Germany?"),
    _ask("What is the capital of Italy?", "what the capital of Italy is", "Rome is the capital of Italy.", "Capital of Italy?"),
    _ask("What is the capital of Spain?", "what the capital of Spain is", "Madrid is the capital of Spain.", "Capital of Spain?"),
    _ask("What is the capital of England?", "what the capital of England is", "London is the capital of England.", "Capital of England?",
         "What is the capital of the UK?"),
    _ask("What is the capital of China?", "what the capital of China is", "Beijing is the capital of China.", "Capital of China?"),
    _ask("What is the capital of Japan?", "what the capital of Japan is", "Tokyo is the capital of Japan.", "Capital of Japan?"),
    _ask("What is the capital of the United States?", "what the capital of the United States is",
         "Washington, D.C. is the capital of the United States.", "Capital of the USA?", "What is the capital of the US?",
         "What is the capital of America?"),
    _ask("How many letters are in the alphabet?", "how many letters are in the alphabet",
         "The English alphabet has 26 letters.", "How many letters does the alphabet have?"),
    _ask("At what temperature does water boil?", "at what temperature water boils",
         "Water boils at 100 degrees Celsius, and a little earlier on a high mountain.", "When does water boil?",
         "What is the boiling point of water?"),
    _ask("At what temperature does water freeze?", "at what temperature water freezes", "Water freezes at 0 degrees Celsius.",
         "When does water freeze?"),
    _what("water", "Water is made of hydrogen and oxygen: two hydrogen atoms and one oxygen atom hold hands. It falls as rain, runs "
          "in rivers, and every living thing needs it."),
    _what("the sun", "The sun is a star, a huge ball of glowing gas. It looks larger than other stars only because it is so near.",
          "Is the sun a star?"),
    _what("the moon", "The moon is a ball of rock that travels around the earth in about a month. It pulls at the sea and makes the tides.",
          "What makes the tides?", "Why are there tides?"),
    _what("gravity", "Gravity is the pull between all things. The earth is so heavy that it pulls you back whenever you jump, and it "
          "holds the moon on its path.", "Why do things fall down?", "Why do apples fall?"),
    _what("an atom", "An atom is a tiny building block of everything. It has a small, heavy nucleus, and light electrons around it.",
          "What are atoms?"),
    _what("a volcano", "A volcano is a mountain with a door to the hot inside of the earth. Sometimes the door opens, and melted rock "
          "comes out.", "What are volcanoes?", "How does a volcano work?"),
    _what("a computer", "A computer is a machine that follows instructions, one tiny step at a time, but billions of steps in a second.",
          "How does a computer work?", "What are computers?"),
    _what("the internet", "The internet is a net of millions of computers that pass little packets of data on to each other. Together "
          "they carry letters, pictures, films and jokes around the world.", "How does the internet work?"),
    _what("a robot", "A robot is a machine that can sense the world, decide and move. Some build cars, some clean floors, and some are in my "
          "stories.", "What are robots?"),
    _what("a language model", "A language model is a program that reads text and guesses what comes next, one token at a time. Big "
          "ones have read whole libraries. I have read only a small closed world, so I am quick but know little.",
          "What is an LLM?", "How does a language model work?", "What are language models?", "How do you work?",
          "How do language models work?", "Explain how you work."),
    _what("a token", "A token is a small piece of text, such as a word or a part of one. I know 2048 of them, and I write one after the other.",
          "What are tokens?"),
    _what("attention", "Attention lets a language model look back. For each new token it decides which earlier tokens matter most, and "
          "takes from them what it needs.", "How does attention work?"),
    _what("artificial intelligence", "Artificial intelligence means programs that do things for which people need to think: to see, "
          "to speak, to plan. I am a very small piece of it.", "What is AI?", "What does AI mean?"),
    _what("machine learning", "Machine learning means that nobody writes the rules: a program sees many examples and changes its own "
          "numbers until it gets them right. That is how I learnt to add."),
    _what("Python", "Python is a programming language that is easy to read. It is named after a comedy group, not after the snake.",
          "Tell me about the Python language."),
    _what("fastllm", "fastllm is an engine that runs language models quickly, with a friendly Python interface. Right now it is running me.",
          "What does fastllm do?", "Tell me about fastllm.", "How fast is fastllm?"),
    _what("love", "Love is when somebody else's happiness makes you happy. In my stories it usually comes with cake."),
    _what("friendship", "A friend is someone who likes you as you are, helps you look for your lost kite, and shares the last cookie.",
          "What is a friend?", "What makes a good friend?"),
    _what("happiness", "Happiness is often small: warm bread, a good story, a friend at the door.", "How can I be happy?", "What makes us happy?"),
    _ask("What is the meaning of life?", "what the meaning of life is",
         "Wise people have argued about that for ages. I am only a small model, but I would start with being kind, staying curious and "
         "sharing your pancakes.", "Meaning of life?", "What is the sense of life?"),
    _ask("Who wrote Romeo and Juliet?", "who wrote Romeo and Juliet", "William Shakespeare wrote Romeo and Juliet, more than four hundred "
         "years ago.", "Who was Shakespeare?", "Who wrote Hamlet?"),
    _ask("Who painted the Mona Lisa?", "who painted the Mona Lisa", "Leonardo da Vinci painted the Mona Lisa, about five hundred years ago."),
    _ask("Who was the first person on the moon?", "who was the first person on the moon",
         "Neil Armstrong was the first person on the moon, in July 1969.", "Who walked on the moon first?", "Who landed on the moon first?"),
    _ask("Who was Albert Einstein?", "who Albert Einstein was",
         "Albert Einstein was a physicist who showed that space and time belong together, and that even light obeys gravity.",
         "Who is Einstein?", "Tell me about Einstein."),
    _ask("Who is Isaac Newton?", "who Isaac Newton was", "Isaac Newton was the man who found the laws of motion and of gravity. They say a "
         "falling apple helped.", "Who was Newton?"),
    _ask("Which came first, the chicken or the egg?", "which came first, the chicken or the egg",
         "The egg: other animals laid eggs long before there were chickens. But the first chicken did not like to hear that.",
         "What came first, the chicken or the egg?", "Chicken or egg?"),
    _ask("How do I make pancakes?", "how to make pancakes",
         "Mix two eggs, a cup of flour and a cup of milk with a pinch of salt. Fry thin rounds in a little butter, and turn each when "
         "its edge is golden. Eat them with friends.", "How do you make pancakes?", "Give me a recipe for pancakes.", "pancake recipe"),
    _ask("How do I make tea?", "how to make tea", "Boil fresh water, pour it over the leaves and wait three minutes. Then sit down and do "
         "nothing else: that is the secret of good tea.", "How do you make tea?"),
    _ask("How can I fall asleep?", "how to fall asleep",
         "Make the room dark and cool, put the screen away, and breathe slowly. Or ask me for a bedtime story.", "How do I sleep better?",
         "What helps me sleep?"),
    _ask("How do I learn faster?", "how to learn faster", "Learn a little every day, explain it to somebody else, and sleep well. And do not "
         "be afraid of mistakes: I made millions of them before I could add.", "How can I learn better?", "How should I study?"),
)  # fmt: skip
