# %% [markdown]
# # 03 · The sampling lab
#
# The network gives scores; what is *said* is up to a draw. Temperature, top-k, top-p, min-p: every interface has these
# four knobs, and few people know what they turn. You will, in half an hour.
#
# Predict, run, change, explain.

# %%
import numpy as np

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def bars(probabilities, count=8):
    for id_ in np.argsort(probabilities)[::-1][:count]:
        print(f"  {probabilities[id_]:6.1%} {'▇' * round(60 * probabilities[id_])} {model.detokenize([id_])!r}")


# %% [markdown]
# ## 1 · Three places in a text
#
# **Predict.** In which of these does the model know what comes next? In which are there two answers, in which many?

# %%
places = ["A poem about the", "In the garden there was a", "Once upon a time there was a little"]
scores = {place: (await model.logits(place))[-1] for place in places}
for place in places:
    p = softmax(scores[place])
    entropy = -(p * np.log(p)).sum()
    print(f"{place} …   as uncertain as a fair choice among {np.exp(entropy):.1f}")
    bars(p, 6)

# %% [markdown]
# One is nearly certain. One has some fourteen equal answers. And one has two favourites and a crowd behind them. Keep
# these three in mind: a knob that is right for one of them may be wrong for another.
#
# ## 2 · Temperature
#
# Divide the scores by a number, then softmax. **Predict:** what do 0.3 and 3 do to the third place?

# %%
little = scores["Once upon a time there was a little"]
for temperature in [0.3, 1.0, 3.0]:
    print(f"temperature {temperature}")
    bars(softmax(little / temperature), 4)

# %% [markdown]
# Cold: the favourites take all. Hot: everyone is equal. The order never changes. But the danger of heat is not in the
# tokens you see here. **Predict:** at temperature 2, how often is a token drawn that is *not among the best 50*?

# %%
for temperature in [0.6, 1.0, 1.5, 2.0, 3.0]:
    p = np.sort(softmax(little / temperature))[::-1]
    print(f"temperature {temperature}: {p[50:].sum():6.1%} beyond the best 50 of {len(p)}")

# %% [markdown]
# Each of those tokens is very improbable. There are just so many of them. It is called *the tail*, and a story needs
# only one draw from it to go wrong:

# %%
for temperature in [0.2, 1.0, 1.5, 3.0]:
    told = await model.generate(
        "In the garden there was a", temperature=temperature, top_p=1, seed=0, max_new_tokens=28
    )
    print(f"{temperature}: …{told.text!r}\n")

# %% [markdown]
# ## 3 · Three ways to cut the tail
#
# * **top-k** keeps the *k* best, always.
# * **top-p** keeps the best until their sum reaches *p*.
# * **min-p** keeps whatever has at least *min-p* times the probability of the best.
#
# **Predict** how many different tokens 200 draws give in each of our three places.


# %%
async def distinct(place, **settings):
    draws = await model.batch([place], n=200, seed=1, max_new_tokens=1, **{"temperature": 1, "top_p": 1, **settings})
    return len({draw.token_ids[0] for draw in draws})


knobs = [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.2}]
print(f"{'':40}", *(f"{knob!s:>16}" for knob in knobs))
for place in places:
    print(f"{place:40}", *[f"{await distinct(place, **knob):>16}" for knob in knobs])

# %% [markdown]
# top-k keeps five in each place: four too many where one answer is right, and nine good ones lost where fourteen are.
# It does not look at the shape. The other two do, in different ways: where is the difference between top-p and min-p
# largest, and why?
#
# ## 4 · The lab
#
# Sliders over one frozen distribution. Move them, then draw a thousand tokens with the engine's own sampler.
# **Predict** the bars before each move. (On a page without a kernel you see a still picture of it.)

# %%
from fastllm.widgets import SamplingLab

lab = SamplingLab(model, little)
lab

# %% [markdown]
# Does the engine do what we think? Here is a prediction by hand, at temperature 0.8 and top-k 6, and 1000 draws.

# %%
predicted = softmax(little / 0.8)
predicted[np.argsort(predicted)[:-6]] = 0
predicted /= predicted.sum()
draws = await model.batch([places[2]], n=1000, seed=7, max_new_tokens=1, temperature=0.8, top_k=6, top_p=1)
counts = np.bincount([draw.token_ids[0] for draw in draws], minlength=len(predicted))
for id_ in np.argsort(predicted)[::-1][:6]:
    print(f"{model.detokenize([id_])!r:9} predicted {1000 * predicted[id_]:6.1f}   drawn {counts[id_]}")
print("drawn outside of the six:", counts.sum() - counts[np.argsort(predicted)[-6:]].sum())

# %% [markdown]
# ## 5 · Why not always take the best?
#
# Temperature 0 never errs by chance. **Predict** what happens if it must go on and on.

# %%
text = await model.generate("Yes", temperature=0, max_new_tokens=130, ignore_eos=True)
print(text.text)

# %% [markdown]
# A loop, and no way out: the same text leads to the same choice, which leads to the same text. Chance breaks it; so
# does a penalty on what was said already. **Change** the cell: `repetition_penalty=1.3`, or `temperature=0.7`.
#
# ## Exercises
#
# **3.1** Write `top_p(probabilities, p)`: keep the best tokens until their sum reaches `p` (the one that reaches it is
# kept), set the others to 0, and make the sum 1 again.


# %%
def top_p(probabilities, p):
    return ...


check("3.1", top_p)

# %% [markdown]
# **3.2** Write `min_p(probabilities, share)`: keep what has at least `share` of the best one's probability.


# %%
def min_p(probabilities, share):
    return ...


check("3.2", min_p)

# %% [markdown]
# **3.3** One setting for two places: find settings (a dict of `temperature`, `top_k`, `top_p`, `min_p`) with a
# temperature of at least 1, so that `A poem about the` can go on in exactly one way, and `In the garden there was a` in
# at least twelve ways, none of them from the tail (no more than twenty).

# %%
answer = None  # such as {"temperature": 1.0, "top_k": 5}
check("3.3", answer)

# %% [markdown]
# Next: **04 · Inside a transformer**, where the scores come from.
