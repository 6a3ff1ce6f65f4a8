# %% [markdown]
# # 02 · One step, slowly
#
# Text that streams looks like speech. It is not: it is one question, asked again and again. *Given all of this, what
# comes next?* In this notebook you hold the engine still and go through one such step by hand.
#
# About 30 minutes. Predict, run, change, explain.

# %%
import numpy as np

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
prompt = "Once upon a time there was a"

# %% [markdown]
# ## 1 · One token for one `anext`
#
# A request usually runs ahead of its reader. With `lookahead=0` it does not: the engine makes one step when you ask for
# one token, and then waits for you. As long as you like.

# %%
stream = model.stream(prompt, lookahead=0, logprobs=5, temperature=0)
before = model.stats().steps

token = await anext(stream)
print(repr(token.text), "·", model.stats().steps - before, "engine step(s)")

# %% [markdown]
# **Run the next cell three times.** Each time is one step of the engine, and nothing happens in between.

# %%
token = await anext(stream)
print(repr(stream.text))

# %% [markdown]
# Between two cells the stream is *parked*: it keeps its memory, and costs nothing. You can go for lunch.
#
# **Predict.** The model chose this last token. Was it sure? Which others did it consider?

# %%
print(stream.state, "after", model.stats().steps - before, "steps")
for other in token.top:
    print(f"{np.exp(other.logprob):6.1%}  {other.text!r}")
stream.cancel()

# %% [markdown]
# It always considers *all* 2048 tokens. It gave you one. The rest of this notebook is about how that one is made.
#
# ## 2 · Scores
#
# `model.logits` gives what comes out of the network: for every token of the prompt a row of scores, one for each token
# of the vocabulary, for the question *what comes behind this?*
#
# **Predict** the shape. And: are these probabilities?

# %%
logits = await model.logits(prompt)
print(logits.shape, logits.dtype)
last = logits[-1]  # behind the last token of the prompt
print(f"from {last.min():.2f} to {last.max():.2f}, sum {last.sum():.1f}")

# %% [markdown]
# Some are negative and they do not sum to one: they are *logits*, scores without a unit. Only differences mean
# something. To make probabilities of them: `exp`, then divide by the sum. That is softmax, all of it.


# %%
def softmax(scores):
    powers = np.exp(scores - scores.max())  # minus the largest: exp of a large number overflows
    return powers / powers.sum()


probabilities = softmax(last)
best = np.argsort(probabilities)[::-1][:8]
for id_ in best:
    print(f"{probabilities[id_]:6.1%}  {model.detokenize([id_])!r}")
print(f"all {len(probabilities)} together: {probabilities.sum():.6f}")

# %% [markdown]
# **Explain.** Why may we subtract `scores.max()` without changing the result?
# (Because both the top and the bottom of the fraction are divided by the same `exp(max)`.)
#
# Is that really what the engine uses? Compare with what it reports for the same question:

# %%
completion = await model.generate(prompt, max_new_tokens=1, logprobs=5, temperature=0)
for other in completion.tokens[0].top:
    print(f"engine {np.exp(other.logprob):.6f}   by hand {probabilities[other.id]:.6f}   {other.text!r}")

# %% [markdown]
# ## 3 · The draw
#
# The network is done. It knows nothing of chance: same text in, same scores out. Chance comes last, in a single draw.
#
# **Predict.** We ask for the same first token with 12 seeds. How many different ones will there be?

# %%
answers = await model.batch([prompt], n=12, seed=0, max_new_tokens=1, temperature=1, top_p=1)
print([a.text for a in answers])

# %% [markdown]
# Same model, same prompt, same scores; only the seed differs. **Run it again:** the same twelve. A seed fixes the draw.
#
# Do the draws follow the probabilities? 1000 of them should show it.

# %%
draws = await model.batch([prompt], n=1000, seed=100, max_new_tokens=1, temperature=1, top_p=1)
counts = np.bincount([d.token_ids[0] for d in draws], minlength=len(probabilities))
for id_ in best:
    expected = 1000 * probabilities[id_]
    print(f"{model.detokenize([id_])!r:14} expected {expected:6.1f} ± {expected**0.5:4.1f}   drawn {counts[id_]:4}")

# %% [markdown]
# ## 4 · The step after that
#
# A chosen token is put behind the prompt, and the question is asked again. So the model reads its own words, and
# cannot take them back.
#
# **Predict.** We choose its first word ourselves. How far does that carry?

# %%
for word in [" fox", " robot", " strawberry", " Tuesday"]:
    told = await model.generate(prompt + word, temperature=0, max_new_tokens=24)
    print(f"{prompt + word}{told.text}\n")

# %% [markdown]
# A lady called Tuesday, in a castle! One token, and everything behind it is another story. That is why a model that
# made a slip early tends to defend it: the slip is now part of the facts.
#
# **Change** the words above. Try one that cannot follow.
#
# ## Exercises
#
# **2.1** Write softmax with a *temperature*: divide the scores by it first. It must survive large scores, such as
# `[1000, 999]`, and temperature 0 shall put everything on the largest score (on the first of them, if there are ties).


# %%
def softmax_at(scores, temperature):
    return ...


check("2.1", softmax_at)

# %% [markdown]
# **2.2** Write the draw: given probabilities and a number `u` (at least 0 and below 1), give an index, so that index
# `i` comes out for a share of `probabilities[i]` of all `u`. Go through the indices in order.


# %%
def draw(probabilities, u):
    return ...


check("2.2", draw)

# %% [markdown]
# **2.3** Now the whole loop. Write `async def greedy(model, ids, count)`: `count` times ask `await model.logits(ids)`,
# take the best token, put it behind. Give the list of the new ids. Stop early at an id in `model.tokenizer.eos_ids`
# (and do give that one, too).


# %%
async def greedy(model, ids, count):
    return ...


check("2.3", greedy)

# %% [markdown]
# If 2.3 is right, you have written the heart of every inference engine. The rest is speed (notebook **06**) and taste
# (notebook **03 · The sampling lab**).
