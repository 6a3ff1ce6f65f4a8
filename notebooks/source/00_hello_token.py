# %% [markdown]
# # 00 · Hello, token
#
# In the next quarter of an hour a language model will run on your machine, and you will watch it choose its words. It
# is a very small one (it came with the package, 8 MB), it knows about foxes and the sky, and it works offline.
#
# Every section of this course goes the same way: **predict** what will happen, **run** the cell (Shift+Enter),
# **change** something, **explain** what you saw. Predict first, every time. It is the only trick that we have.

# %%
import anyio

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
print("fastllm", fastllm.__version__)
print(model.info)

# %% [markdown]
# ## 1 · One at a time
#
# **Predict.** Does the answer come as a whole, sentence by sentence, word by word, or letter by letter? The cell prints
# a `|` behind every piece that arrives.

# %%
async for token in model.stream("Why is the sky blue?", temperature=0):
    print(token, end="|")

# %% [markdown]
# Mostly words, each with the space in front of it, and some words in pieces. These pieces are called *tokens*, and a
# model makes them one at a time. (Notebook 01 is about why `molecules` is cut where it is cut.)
#
# **Change** the question. It knows stories, sums, animals, colours, days and a little Chinese. What does it do with a
# question that it cannot know?

# %% [markdown]
# ## 2 · Enough!
#
# **Predict.** You leave the loop after eight tokens. Does the model go on in secret?

# %%
async for token in model.stream("Tell me a story about a fox.", temperature=0):
    print(token, end="", flush=True)
    if token.index == 7:
        break
print(" ...")
await anyio.sleep(0.05)  # the step under way may end
print(model.stats())

# %% [markdown]
# `0 running`. Whoever stops listening stops the work: nothing is computed for nobody.
#
# You can also press the stop button of the notebook (■) while a cell runs, and the next cell works as if nothing had
# happened. Try it with the first cell of this section and a longer story.
#
# ## 3 · Seeing more
#
# `fastllm.show` draws the stream as it comes. The darker a token, the less sure the model was. Hover over one (or reach
# it with the Tab key) and you see what it considered instead. The *Stop* button is real.
#
# **Predict.** Where in a story is a model unsure?

# %%
view = fastllm.show(model.stream("There once was a little", seed=0, logprobs=5, max_new_tokens=70))
completion = await view

# %% [markdown]
# At names, colours and places: where a story could go anywhere. In between it is on rails.
#
# The same as numbers, least certain first:

# %%
import math

for token in sorted(completion.tokens, key=lambda token: token.logprob)[:8]:
    others = ", ".join(f"{other.text!r} {math.exp(other.logprob):.0%}" for other in token.top[:3])
    print(f"{math.exp(token.logprob):4.0%} {token.text!r:14} might have been {others}")

# %% [markdown]
# **Change** `seed=0` to another number: another story, from the same model and the same words. (A seed decides the
# draw; notebook 02 shows how.) Then change the text to `Tell me a joke.`, with any seed you like. **Explain** the
# difference: what is it doing there, if it is not making something up?
#
# ## 4 · The small print
#
# Every answer comes with a line of facts. **Predict:** how many tokens a second does a small model make on your
# machine?

# %%
print(repr(completion))
print(completion.usage)
print(f"first token after {completion.timing.ttft_s * 1000:.1f} ms, then {completion.timing.decode_tps:.0f} tokens/s")

# %% [markdown]
# Read it from left to right: the text; why it ended (`length`: the limit that we set; `stop`: it had said everything);
# what it read and wrote, in tokens; how fast; how long you waited for the first token; the seed. You will meet these
# numbers wherever language models are used, and mostly on a bill.
#
# With a network and 1 GB to spare, the same lines run a real model. (This cell is optional, and stored without
# outputs.)

# %% tags=["optional"]
real = fastllm.load("Qwen/Qwen2.5-0.5B-Instruct")  # pip install huggingface_hub
told = await fastllm.show(real.stream_chat("Why is the sky blue?", logprobs=5, max_new_tokens=80))

# %% [markdown]
# ## Exercises
#
# **0.1** How many tokens does the whole answer to `Why is the sky blue?` have at `temperature=0`? (The invisible one
# that ends it counts.) `completion.usage` of your own request tells.

# %%
answer = None
check("0.1", answer)

# %% [markdown]
# **0.2** In the answer to `Hello! Who are you?` at `temperature=0`, which token was the model least sure of? Ask for
# `logprobs=1`, find the token with the lowest `logprob`, and give its text (exactly, with spaces).

# %%
answer = None
check("0.2", answer)

# %% [markdown]
# **0.3** Write `async def until(model, prompt, word)`: stream the answer at `temperature=0`, and give the text up to
# and including the first time `word` appears in it. Then stop: the model must not write on. (If it never appears, give
# the whole text.)


# %%
async def until(model, prompt, word):
    return ...


check("0.3", until)

# %% [markdown]
# Next: **01 · Text is not tokens**.
