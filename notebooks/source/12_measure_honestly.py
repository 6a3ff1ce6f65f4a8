# %% [markdown]
# # 12 · Measure honestly
#
# "Twice as fast!" Than what, measured how, how often, and how sure are you? This notebook is about not fooling others,
# beginning with yourself.
#
# About 40 minutes. All numbers below come from the machine that ran this notebook last. Run it, and get your own: the
# conclusions should survive, the numbers will not.

# %%
import os
import time

import numpy as np

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
print(model.info)
print(os.cpu_count(), "CPUs,", "load", os.getloadavg() if hasattr(os, "getloadavg") else "unknown")

# %% [markdown]
# ## 1 · The same thing, thirty times
#
# **Predict.** We generate the same 100 tokens 30 times. By how many percent do fastest and slowest differ?


# %%
async def once(tokens=100):
    start = time.perf_counter()
    await model.generate("Once upon a time", max_new_tokens=tokens, temperature=0, ignore_eos=True)
    return (time.perf_counter() - start) * 1000


times = np.array([await once() for _ in range(30)])
print(" ".join(f"{t:.0f}" for t in times), "ms")
print(f"fastest {times.min():.1f}, slowest {times.max():.1f}: {times.max() / times.min() - 1:.0%} more")

# %% [markdown]
# Nothing changed between them, and yet. Other programs ran, caches were cold, the clock of the processor moved. A
# single measurement is one draw from this bag.
#
# **Predict.** Of two equal candidates, measured once each, how often does one "win" by more than 5 %?

# %%
random = np.random.default_rng(0)
pairs = random.choice(times, (10_000, 2))
wins = np.abs(pairs[:, 0] / pairs[:, 1] - 1) > 0.05
print(f"A and B are the same program. One of them wins by over 5 % in {wins.mean():.0%} of all comparisons.")

# %% [markdown]
# That is how most "improvements" are found.
#
# ## 2 · One number, with an honest ±
#
# The mean follows a single outlier; the *median* does not. And how sure is the median? Ask: if I had drawn other thirty
# from the same bag, what would it have been? We cannot draw others, but we can draw *from our own, with replacement*.
# This is the bootstrap.


# %%
def median_with_interval(samples, rounds=2000):
    dice = np.random.default_rng(1)
    medians = np.median(dice.choice(samples, (rounds, len(samples))), axis=1)
    return np.median(samples), *np.percentile(medians, [2.5, 97.5])


for name, bag in {"as measured": times, "with one hiccup": np.append(times, times.max() * 20)}.items():
    middle, low, high = median_with_interval(bag)
    print(f"{name:16} mean {bag.mean():6.1f} ms   median {middle:6.1f} ms, 95 % between {low:.1f} and {high:.1f}")

# %% [markdown]
# One hiccup moved the mean a lot and the median hardly. **Rule:** if two intervals overlap, you have not shown a
# difference. Take turns (A, B, A, B, …) instead of all A and then all B: the machine drifts.
#
# ## 3 · Fast for whom?
#
# **Predict.** From 1 to 32 requests at once: what happens to the time *one person* waits for a token, and what to the
# tokens *all together* get?


# %%
async def crowd(size, tokens=48):
    start = time.perf_counter()
    done = await model.batch(["Once upon a time"] * size, max_new_tokens=tokens, ignore_eos=True, seed=1)
    seconds = time.perf_counter() - start
    each = [answer.timing.decode_s / (tokens - 1) * 1000 for answer in done]
    first = [answer.timing.ttft_s * 1000 for answer in done]
    return size * tokens / seconds, np.median(each), np.median(first)


await crowd(4)
print("at once   tokens/s   ms a token, each   ms to the first")
sweep = {}
for size in [1, 2, 4, 8, 16, 32]:
    runs = np.array([await crowd(size) for _ in range(3)])
    sweep[size] = np.median(runs, axis=0)
    print(f"{size:7} {sweep[size][0]:10.0f} {sweep[size][1]:18.2f} {sweep[size][2]:17.1f}")

# %% [markdown]
# *Throughput* rises, and each single reader waits longer. Both columns are true; an advertisement shows one of them.
# A comparison is worth something only if it says how many requests ran at once.
#
# ## 4 · What could it be at best?
#
# To make one token, every weight is read once. So no engine can make more tokens a second than
# **memory bandwidth / size of the weights**. First the bandwidth. **Predict:** how many GB a second does this machine
# read?


# %%
def seconds_of(work, rounds=15):
    work()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


for megabytes in [1, 4, 16, 256]:
    block = np.ones(megabytes * 131072)
    print(f"{megabytes:4} MB: {block.nbytes / seconds_of(lambda block=block: block.max()) / 1e9:6.1f} GB/s (one core)")

# %% [markdown]
# Small blocks are faster: they fit into the caches near the processor. The demo model is small, too...

# %%
size = model.info.weight_bytes
block = np.ones(256 * 131072)
bandwidth = block.nbytes / seconds_of(lambda: block.max())
limit = bandwidth / size
print(f"weights {size / 1e6:.2f} MB, memory {bandwidth / 1e9:.1f} GB/s: at most {limit:.0f} tokens/s, says the rule")
print(f"measured: {1000 / sweep[1][1]:.0f} tokens/s")
model_of_7b = 14e9
print(f"the rule for a model of 7 B weights in bfloat16 on this core: {bandwidth / model_of_7b:.2f} tokens/s")

# %% [markdown]
# **Explain** your two numbers. Is the measured one above the limit? Then the weights live in a cache, and the rule used
# the wrong memory. Is it far below? Then a step of this small model is mostly overhead, not reading. A limit that you
# can compute on a napkin tells you which question to ask next. For a large model it is almost the whole truth.
#
# ## 5 · One matrix, one vector: the roofline
#
# Bring a weight, multiply, add: two operations for two bytes. With *n* vectors at once: 2·n operations for the same two
# bytes. **Predict** where doubling *n* stops being nearly free.

# %%
from fastllm import ops

weight = fastllm.Tensor(np.random.default_rng(2).normal(size=(4096, 2048)).astype(np.float32), dtype="bfloat16")
print(weight)
for n in [1, 2, 4, 8, 16, 32, 64]:
    x = fastllm.Tensor(np.ones((n, 2048), np.float32))
    seconds = seconds_of(lambda x=x: ops.linear(x, weight), rounds=7)
    gflops = 2 * n * 4096 * 2048 / seconds / 1e9
    print(f"n={n:3} {seconds * 1000:7.2f} ms {gflops:7.1f} Gop/s  {weight.nbytes / seconds / 1e9:6.1f} GB/s")

# %% [markdown]
# On the left side of this table memory is the wall, on the right side arithmetic. That is the *roofline*, and it is the
# reason behind the batch sweep of section 3.
#
# ## 6 · A table that one can argue with

# %%
single = np.array([await once(64) for _ in range(15)]) / 64
middle, low, high = median_with_interval(single)
print(f"| model | {model.info.name}, {model.info.dtype}, {model.info.weight_bytes / 1e6:.2f} MB |")
print("|---|---|")
print(f"| machine | {os.cpu_count()} CPUs, shared |")
print(f"| what | 64 tokens after a prompt of 4, one request at a time, {len(single)} runs after a warm-up |")
print(f"| ms a token | {middle:.3f} (95 %: {low:.3f} to {high:.3f}) |")
print(f"| version | fastllm {fastllm.__version__} |")

# %% [markdown]
# With an NVIDIA GPU: the sweep of section 3 once more. (Optional, and stored without outputs.) **Predict** who wins
# with one request, and who with 32. A model this small is the hardest case for a GPU.

# %% tags=["optional"]
model = fastllm.load("demo", device="cuda")
await crowd(4)
for size in [1, 8, 32, 64]:
    print(size, *np.median([await crowd(size) for _ in range(5)], axis=0).round(2))

# %% [markdown]
# ## Exercises
#
# **12.1** Write `faster(a, b)`: two arrays of times. Give `"a"` or `"b"`, whichever is faster, if the bootstrap
# intervals (95 %, of the median) do not overlap; and `"unclear"` if they do.


# %%
def faster(a, b):
    return ...


check("12.1", faster)

# %% [markdown]
# **12.2** Write `best_speed(bandwidth, weight_bytes, kv_bytes, context, batch)`: an upper limit of tokens a second, all
# requests together, when memory is the wall. In one step, the weights are read once for all; and each of the `batch`
# requests reads its own `context` tokens of `kv_bytes` each.


# %%
def best_speed(bandwidth, weight_bytes, kv_bytes, context, batch):
    return ...


check("12.2", best_speed)

# %% [markdown]
# **12.3** Which of these sentences can be checked by somebody else and holds if the measurement was right? Give the
# letters as one text, such as `"ab"`.
#
# * **a** "Our engine is 3 times faster."
# * **b** "At 8 requests at once: 81 tokens/s (79 to 84), the other engine 58 (56 to 61); same weights, same
#   machine, turns taken."
# * **c** "The best of 50 runs took 12 ms."
# * **d** "The mean of 3 runs is 4 % lower, so the change helps."
# * **e** "One request, 512 tokens of prompt: first token after 3.9 s (median of 20; 95 %: 3.8 to 4.1)."

# %%
answer = None
check("12.3", answer)

# %% [markdown]
# Next: measure a change of your own. **A1** shows how to make one.
