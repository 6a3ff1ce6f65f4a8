# %% [markdown]
# # 01 · Text is not tokens
#
# A language model never sees a letter. It sees numbers, and each number stands for a few bytes.
# Which bytes? That was decided once, before training, by counting.
#
# About 25 minutes. You need nothing but this notebook: the model is bundled, no network is used.
# Every section goes the same way: **predict, run, change, explain**. Do write your prediction down. Being wrong is the
# part that you will remember.

# %%
import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
tokenizer = model.tokenizer


def pieces(text):
    """The tokens of a text, each as its own text."""
    return [tokenizer.decode([id_]) for id_ in model.tokenize(text)]


print(model.info)

# %% [markdown]
# ## 1 · Cutting
#
# **Predict.** `Why is the sky blue?` has 20 characters. How many tokens?

# %%
text = "Why is the sky blue?"
print(model.tokenize(text))
print(pieces(text))

# %% [markdown]
# Six. The space belongs to the word behind it: `" sky"` is one token, and it is not the same token as `"sky"`.
#
# **Predict.** One word, four ways. Which of them costs most?

# %%
for word in [" sky", "sky", "Sky", "SKY"]:
    print(f"{word!r:8} {model.tokenize(word)!s:18} {pieces(word)}")

# %% [markdown]
# The same three letters cost one, one, two and three tokens, and no two rows share an id. To you they are one word in
# four dresses. To the model they are four things that have, at first, nothing to do with each other. That they mean the
# same is something it had to learn.
#
# **Change** the list: try your name, with and without a capital letter, with and without a space in front.

# %% [markdown]
# ## 2 · What was frequent became one piece
#
# **Predict.** Which is cheaper: one `strawberry`, or many `strawberries`?

# %%
for word in [" strawberries", " strawberry", "antidisestablishmentarianism"]:
    print(f"{len(model.tokenize(word)):2} tokens  {pieces(word)}")

# %% [markdown]
# The plural is one token, the singular is five! The vocabulary was made by joining, over and over, the pair of pieces
# that stood side by side most often in the training text (*byte-pair encoding*). That text was full of shopping lists.
#
# **Explain.** So a vocabulary is a fossil: it shows what its makers read. What did these people read?

# %%
everything = [tokenizer.decode([id_]) for id_ in range(tokenizer.vocab_size)]
print(sorted(everything, key=len, reverse=True)[:48])

# %% [markdown]
# Stories, a little programming, and the marks of a chat. A vocabulary made from the web would hold 100 000 pieces and
# other fossils. (Some real ones hold user names of forum members who posted a lot.)
#
# ## 3 · Below the letters: bytes
#
# **Predict.** How many tokens is 🦊? And the astronaut 👩‍🚀, which is one sign on your screen?

# %%
print("text     signs  len()  bytes  tokens")
for text, signs in [("fox", 3), ("naïve", 5), ("мир", 3), ("你好", 2), ("🦊", 1), ("👩‍🚀", 1)]:
    print(f"{text:8} {signs:4} {len(text):6} {len(text.encode()):6} {len(model.tokenize(text)):7}")

# %% [markdown]
# One astronaut costs more than `Why is the sky blue?`. She is a woman, an invisible joiner and a rocket: three code
# points, eleven bytes, eleven tokens. Four different lengths of the same text, and all four are right.
#
# No text can break this tokenizer: where no piece fits, it falls back to single bytes, and every text is bytes.
# Look closely at 你好 ("hello"):

# %%
for id_ in model.tokenize("你好"):
    print(id_, tokenizer.token_bytes(id_), repr(tokenizer.decode([id_])))

# %% [markdown]
# 你 was frequent enough to be one token. 好 is three, and each of them alone is *no character at all*: � is what is
# shown for bytes that make no sense yet.
#
# ## 4 · Why streaming text is harder than it looks
#
# A model makes one token at a time. **Predict:** what should appear on the screen after the first third of 好?

# %%
async for token in model.stream("天空为什么是蓝色的？", temperature=0, max_new_tokens=14):
    print(f"{token.index:2}  id {token.id:4}  {token.bytes!s:18} shows {token.text!r}")

# %% [markdown]
# Some tokens show nothing: their text is `''` until the character is complete, and then it comes at once. The bytes are
# always exact. A program that prints `decode([id])` for each token would have shown �s and lost the characters for
# good.
#
# **Change** the question above to one in your own language. (This model answers English and a little Chinese. Others it
# has never seen, and it will tell you something anyway.)
#
# ## 5 · What it costs
#
# You pay for models by the token: in money, in time, and in memory. **Predict:** the same sentence in four languages.
# Which is the most expensive, and by how much?

# %%
sentences = {
    "English": "Good morning, how are you today?",
    "Deutsch": "Guten Morgen, wie geht es dir heute?",
    "中文": "早上好，你今天怎么样？",
    "Русский": "Доброе утро, как у вас дела сегодня?",
}
for language, sentence in sentences.items():
    count = len(model.tokenize(sentence))
    print(f"{language:8} {len(sentence):3} characters {count:4} tokens   {count / len(sentence):.2f} a character")

# %% [markdown]
# Same meaning, very different bills. This is no law of nature: it follows from which texts were counted when the
# vocabulary was made. It is one of the quiet ways in which a model can be unfair.
#
# ## Exercises
#
# `check` knows the truth, but does not tell it. `hint("1.1")` helps a little; call it again for more.
#
# **1.1** Find a lower-case word of at least seven letters, without a space in front, that is a single token.

# %%
answer = None  # a word, in quotes
check("1.1", answer)

# %% [markdown]
# **1.2** Find a text with `len(text) <= 10` that costs at least 36 tokens.

# %%
answer = None
check("1.2", answer)

# %% [markdown]
# **1.3** Write what every streaming program needs: a function that takes token ids and gives a list of the texts to
# show, one for each token. Nothing broken may be shown, and nothing may be held back longer than necessary.
# `tokenizer.token_bytes(id_)` gives the bytes. Pass the function itself to `check`.


# %%
def show_each(ids):
    return [tokenizer.decode([id_]) for id_ in ids]  # the naive way; make it right


check("1.3", show_each)

# %% [markdown]
# Next: **02 · One step, slowly**. Now that you know what a token is, watch a model choose one.
