# %% [markdown]
# # 06 · Why is it fast
#
# In notebook 02 you wrote a loop that generates text. It was right, and it was slow. Two ideas make the difference
# between that loop and an engine: *remember what you computed*, and *compute for many at once*. Both are visible from
# here.
#
# About 35 minutes. Predict, run, change, explain. Times are those of the machine that runs this; yours will differ.

# %%
import time

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
forgetful = fastllm.load("demo", engine=fastllm.EngineConfig(prefix_cache=False))
print(model.info)

# %% [markdown]
# ## 1 · The loop that forgets
#
# Each call below reads the whole text again, from the first token, to make one more.
#
# **Predict.** 200 tokens this way, and 200 tokens as a stream. How many times longer does the first take?


# %%
async def forgetting(prompt, count):
    ids = model.tokenize(prompt)
    for _ in range(count):
        step = await forgetful.generate(ids, max_new_tokens=1, temperature=0, ignore_eos=True)
        ids += step.token_ids
    return ids


prompt, count = "Once upon a time", 200
start = time.perf_counter()
slow_ids = await forgetting(prompt, count)
slow_s = time.perf_counter() - start

start = time.perf_counter()
fast = await model.generate(prompt, max_new_tokens=count, temperature=0, ignore_eos=True)
fast_s = time.perf_counter() - start

print(f"forgetting {slow_s:.2f} s, remembering {fast_s:.2f} s: {slow_s / fast_s:.1f} times")
print("the same tokens:", slow_ids[-count:] == list(fast.token_ids))

# %% [markdown]
# The same tokens, so the extra work bought nothing. What was it? Token 200 needs the *keys* and *values* of
# tokens 1 to 199, and those do not change when a token is added behind them: a token looks back, never ahead. So keep
# them. That is the whole idea of the **KV cache**.
#
# **Change** `count` to 400. Does the factor stay?
#
# ## 2 · What remembering costs
#
# For each token, each layer keeps a key and a value for each of its KV heads. Look at this model's sizes:

# %%
for name in ["num_hidden_layers", "num_key_value_heads", "num_attention_heads", "head_dim", "torch_dtype"]:
    print(f"{name:22} {model.config[name]}")

# %% [markdown]
# **Predict.** How many bytes is one token of context? (A bfloat16 has two bytes.)

# %%
print(model.info.kv_bytes_per_token, "bytes a token")
full = model.info.kv_bytes_per_token * model.info.context_length
print(f"a full context of {model.info.context_length} tokens: {full / 1e6:.1f} MB")
print(f"all weights: {model.info.weight_bytes / 1e6:.1f} MB")

# %% [markdown]
# 2 (key and value) × 6 layers × 2 heads × 32 channels × 2 bytes. Five full conversations need as much memory as the
# model itself! That is true of large models, too, and it is why they have fewer KV heads than query heads.
#
# The engine hands this memory out in *blocks* of 16 tokens. Watch one request take them, one token a step:

# %%
stream = model.stream("Once upon a time", lookahead=0, max_new_tokens=60, ignore_eos=True)
used = []
async for token in stream:
    stats = model.stats()
    used.append(stats.kv_blocks_total - stats.kv_blocks_free)
print(f"blocks of {stats.block_tokens} tokens, {stats.kv_blocks_total} in all")
print("blocks in use after each token:", *used)

# %% [markdown]
# One more each 16 tokens, and none reserved for text that may never come. With one large piece for each request, most
# of the memory would wait for words that nobody says.
#
# ## 3 · Many at once
#
# **Predict.** One story takes some time. How long do eight stories take, if all eight are asked for together: eight
# times as long, the same, or something between?


# %%
async def tell(count):
    prompts = [f"Tell me a story about a {animal}." for animal in ANIMALS[:count]]
    start = time.perf_counter()
    done = await model.batch(prompts, max_new_tokens=64, ignore_eos=True, seed=1)
    seconds = time.perf_counter() - start
    return seconds, sum(answer.usage.completion_tokens for answer in done) / seconds


ANIMALS = ["fox", "cat", "dog", "owl", "bear", "duck", "frog", "goat"] * 4
for count in [1, 2, 4, 8, 16, 32]:
    seconds, speed = min([await tell(count) for _ in range(5)])  # the quickest of five: other programs run here, too
    print(f"{count:3} at once: {seconds * 1000:6.0f} ms   {speed:7.0f} tokens/s   {'▇' * round(speed / 250)}")

# %% [markdown]
# Something between, and closer to *the same*. To make one token, every weight must be brought from memory to the
# processor once. While it is there, it may as well serve seven others. (That the curve bends is the moment when
# arithmetic, not memory, becomes the bottleneck. Where it bends depends on the machine.)
#
# So speed has two meanings: *how long do I wait* and *how much gets done*. They are not the same, and one can be bought
# with the other. Notebook 12 measures both.
#
# ## 4 · A timeline
#
# Requests come and go whenever they like; nobody waits for a batch to be complete. **Predict** what happens to a short
# request that arrives while two long ones run.

# %%
jobs = {"long": 90, "longer": 120, "short": 12}
arrived, came = {}, {name: [] for name in jobs}
origin = time.perf_counter()


def ask(name):
    arrived[name] = time.perf_counter() - origin
    return model.stream("Once upon a time", max_new_tokens=jobs[name], ignore_eos=True, lookahead=None)


streams = {"long": ask("long"), "longer": ask("longer")}
for _ in range(20):
    await anext(streams["long"])
streams["short"] = ask("short")
for name, stream in streams.items():
    came[name] = [arrived[name] + token.time_s for token in [*stream.tokens, *[t async for t in stream]]]

end = max(times[-1] for times in came.values())
for name, times in came.items():
    row = [" "] * 100
    for t in times:
        row[min(99, int(t / end * 100))] = "▪"
    print(f"{name:7}|{''.join(row)}|")
print(f"{'':8}0{f'{end * 1000:.0f} ms':>99}")

# %% [markdown]
# The short one slips in between two steps and is gone again, and the others hardly notice. This is *continuous
# batching*: who takes part is decided anew at every step.
#
# ## 5 · Remembering across requests
#
# Keys and values depend only on the text before them. So if two requests *begin* the same, the second need not compute
# the beginning. **Predict:** how many of the prompt tokens of each turn below will be new?

# %%
chat = fastllm.Chat(model, "You are Theo, a hungry tiger.", temperature=0, max_new_tokens=60)
for question in ["Hello! Who are you?", "What is 12 + 30?", "Why is the sky blue?", "Thank you!"]:
    answer = await chat.send(question).result()
    usage = answer.usage
    print(f"{usage.prompt_tokens:4} prompt tokens, {usage.cached_tokens:4} remembered   {answer.text[:60]!r}")

# %% [markdown]
# The conversation grows, and what a turn costs hardly does. The cache keeps whole blocks only, so a few tokens are
# computed again. And one changed character at the *beginning* changes every key behind it, and all is lost: that is why
# people put what varies (the date, the user's name) at the end of a long prompt.
#
# ## Exercises
#
# **6.1** Write `kv_bytes(config)`: the bytes one token of context costs, for any config.json of this kind (a dict like
# `model.config`). Each key and value has `head_dim` channels. Count 4 bytes for `"float32"`, 2 for `"float16"` and
# `"bfloat16"`.


# %%
def kv_bytes(config):
    return ...


check("6.1", kv_bytes)

# %% [markdown]
# **6.2** How much work does forgetting make? With a prompt of `p` tokens and `n` new ones, the engine that remembers
# runs each token through the network once, except the last one made, which nobody needs: `p + n - 1` in all. Write
# `wasted(p, n)`: how many times more the forgetting loop of section 1 runs.


# %%
def wasted(p, n):
    return ...


check("6.2", wasted)

# %% [markdown]
# **6.3** Two prompts, as lists of ids, run one after the other. Write `remembered(first, second, block)`: how many
# tokens of the second come from the cache. Whole blocks only; and at least one token of a prompt is always computed,
# or there would be no scores for what comes next.


# %%
def remembered(first, second, block):
    return ...


check("6.3", remembered)

# %% [markdown]
# Next: **08 · Async for application writers**, or **12 · Measure honestly** if those numbers made you suspicious.
