# %% [markdown]
# # 05 · Where attention looks
#
# A transformer has one place where tokens meet: the attention pattern. There are 48 of them in this model, 8 heads in
# each of 6 layers, and you can read them like a seismograph. In this notebook you watch the model work, find the part
# that copies names, and then do to it what one does in science: switch it off, and see.
#
# About 45 minutes. Notebook 04 explains what a pattern is. Predict, run, change, explain.

# %%
import numpy as np

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
patterns = "blocks.*.attn.pattern"

# %% [markdown]
# ## 1 · Reading backwards
#
# The model can turn a list around. **Predict:** when it is about to write `bear`, the first word of its answer, where
# must it look? And for the second?

# %%
seen = await model.capture("Reverse this list: fox, owl, cat, dog, bear", patterns, temperature=0, max_new_tokens=20)
print(seen.completion.text)
print(seen.attention(5).shape, "heads, from each token, to each token")

# %% [markdown]
# One head of the last layer, as a picture. Each row is a token that looks, each column one that is looked at. Find the
# rows of the answer, at the bottom.

# %%
from fastllm.widgets import AttentionView

AttentionView(seen.attention, seen.labels, layers=seen.layers, layer=5, head=1)

# %% [markdown]
# A diagonal that runs the wrong way! As numbers, from the last token of the question on:

# %%
head = seen.attention(5, 1).numpy()
for place in range(seen.prompt_tokens - 1, seen.positions):
    next_token = seen.completion.tokens[place + 1 - seen.prompt_tokens].text
    best = head[place].argmax()
    print(f"about to say {next_token!r:8} it looks at {seen.labels[best]!r:8} ({head[place, best]:.0%})")

# %% [markdown]
# It looks at the word that it is about to say. The head finds the place, and its value brings the word.
#
# **Change** the list, or `Reverse` into `Copy` or `Sort`. In sorting this head is not at work; with the sliders (or in
# a loop over layers and heads) you can look for one that is.
#
# ## 2 · Who reads the name?
#
# In notebook 09 the model was told a name and asked for it. Here is such a talk, up to the moment before it says the
# name.

# %%
talk = [("user", "My name is Mia."), ("assistant", "Nice to meet you, Mia!"), ("user", "What is my name?")]
rendered = model.render([{"role": role, "content": content} for role, content in talk])
ids = [*rendered.token_ids, *model.tokenize("Your name is")]
mia = model.tokenize(" Mia")[0]


async def chance(token, **options):
    scores = (await model.logits(ids, **options))[-1]
    powers = np.exp(scores - scores.max())
    return float(powers[token] / powers.sum())


print(f"about to say ' Mia' with {await chance(mia):.1%}")

# %% [markdown]
# **Predict.** How many of the 48 heads look at `Mia` now, with more than half of their attention?

# %%
seen = await model.capture(ids, patterns)
places = [i for i, id_ in enumerate(ids) if id_ == mia]
look = np.array([seen.attention(layer).numpy()[:, -1, places].sum(axis=-1) for layer in range(seen.layers)])
print(f"{'attention on Mia, head':>24}", *(f"{head:5}" for head in range(8)))
for layer, row in enumerate(look):
    print(f"{f'layer {layer}':>24}", *(f"{share:5.0%}" for share in row))

# %% [markdown]
# Nothing in the lower half; one head in layer 4; and in layer 5 half of all heads look at nothing else. So we have
# found the heads that copy names. Have we? To look at something is not to cause something.
#
# ## 3 · Switch it off
#
# `steer` changes a value inside the network for one request. `Ablate(head=3)` sets what a head found to zero.
#
# **Predict.** Each of the 48 heads is switched off, one after the other. How often does the model lose the name?

# %%
alone = np.zeros_like(look)
for layer in range(6):
    for head in range(8):
        alone[layer, head] = await chance(mia, steer={f"blocks.{layer}.attn.z": fastllm.Ablate(head=head)})
print("lowest chance of ' Mia' with any one head off:", f"{alone.min():.1%}")

# %% [markdown]
# Never! No single head is needed. It is not that we looked at the wrong ones: there are *several* that do the same, and
# each is enough. So switch off more of them. **Predict:** the four of layer 5 that stared at the name; then whole
# layers.


# %%
async def first_word(steer):
    answer = await model.generate(ids, temperature=0, max_new_tokens=1, logprobs=3, steer=steer)
    return [(token.text, f"{np.exp(token.logprob):.0%}") for token in answer.tokens[0].top]


off = [fastllm.Ablate(head=int(head)) for head in np.flatnonzero(look[5] > 0.9)]
print(f"{len(off)} heads of layer 5:", await first_word({"blocks.5.attn.z": off}))
for layer in range(6):
    print(f"all heads of layer {layer}:", await first_word({f"blocks.{layer}.attn.z": fastllm.Ablate()}))

# %% [markdown]
# Now it says *another name*. It still knows that a name must come; it no longer knows which. So these heads carried the
# *which*, and somebody else carries the *what kind*.
#
# And four whole layers could be taken out without harm here, with all their heads. (Layer 0 not: without it nothing
# that follows finds its food.) A network is not a machine in which each wheel is needed. Whoever says "this head does
# that" must switch it off, and its friends, too.
#
# ## 4 · What did it think before it spoke?
#
# After each layer we can ask: if you had to speak *now*? Take the stream of the last token after that layer, and score
# it as if it were the end. This is the *logit lens*.
#
# **Predict.** The answer begins with `Oslo`. After which layer does it know?

# %%
for country in ["Norway", "Italy"]:
    seen = await model.capture(f"What is the capital of {country}?", "blocks.*.resid_post")
    lens = seen.logit_lens(top=3, positions=[-1])
    print(country)
    for layer in range(len(lens.layers)):
        guesses = zip(lens.texts[layer][0], np.exp(lens.logprobs[layer, 0]), strict=True)
        print(f"  after layer {layer}:", "  ".join(f"{text!r} {share:.0%}" for text, share in guesses))

# %% [markdown]
# After layer 4 it was about to say `B`. **B**erlin? It knew that a capital was wanted, took a common one, and the last
# layer set it right. For Italy the right letter wins a layer earlier. *Thinking*, if you want to call it that, is what
# happens between the rows of this table.
#
# **Change** the country; then print the lens for every position, not the last one only. (Careful: that the lens shows a
# `B` is a fact. That it means Berlin is a guess. How could you test it?)
#
# ## Exercises
#
# **5.1** Write `looks_back(pattern, distance)`: for a pattern `[heads, tokens, tokens]`, the mean attention that each
# head pays to the token `distance` back. Tokens that have none so far back do not count.


# %%
def looks_back(pattern, distance):
    return ...


check("5.1", looks_back)

# %% [markdown]
# **5.2** Which head of the model looks most at the token just before? Find it on the text `Once upon a time there was a
# curious little fox named Pip, who lived at the edge of the forest.` and give `(layer, head)`.

# %%
answer = None
check("5.2", answer)

# %% [markdown]
# **5.3** Write `settled(scores)`: `scores` is `[layers, vocab]`, the lens of one position. Give the first layer from
# which on the best token is the same as in the last layer, without interruption.


# %%
def settled(scores):
    return ...


check("5.3", settled)

# %% [markdown]
# Next: **06 · Why is it fast**.
