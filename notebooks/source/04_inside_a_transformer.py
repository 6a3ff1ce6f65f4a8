# %% [markdown]
# # 04 · Inside a transformer
#
# You are going to rebuild the model in numpy: forty lines, no library but numpy, the same numbers as the engine at
# every station. When it is done, it will talk.
#
# About 60 minutes, the longest notebook of the course. Matrix products are all the mathematics you need. Predict, run,
# change, explain.

# %%
import numpy as np

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo", dtype="float32")
config = model.config
W = {name.removeprefix("model."): weight.data.numpy() for name, weight in model.module.named_parameters()}
layers, heads, kv_heads, dim = 6, 8, 2, config["head_dim"]
print(len(W), "arrays,", sum(w.size for w in W.values()), "numbers")

# %% [markdown]
# `model.capture` runs a prompt through the real engine and lets us look at any station on the way. It is our referee.

# %%
prompt = "Why is the sky blue?"
truth = await model.capture(prompt, "embed", "blocks.*", "ln_final", "logits")
print(truth.labels)
print([name for name in truth.names if name.startswith(("embed", "blocks.0", "l"))])


def compare(name, mine):
    theirs = truth[name].numpy()
    share = np.abs(mine - theirs).max() / np.ptp(theirs)
    print(f"{name:24} {list(theirs.shape)!s:14} differs by {share:.0e} of its range")


# %% [markdown]
# ## 1 · A row for each token
#
# **Predict** the shape of what enters the first layer, for 6 tokens and a width of 256.

# %%
ids = model.tokenize(prompt)
x = W["embed_tokens.weight"][ids]
compare("embed", x)

# %% [markdown]
# Looking up a row in a table, that is all. From here to the end there are 6 rows of 256 numbers: one for each token. It
# is called the *residual stream*; the layers read from it, and add to it.
#
# ## 2 · Same size for everyone
#
# Before a part reads, each row is brought to the same length and then weighted. **Predict:** how different are the
# lengths of the rows before?


# %%
def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


print("lengths before:", np.linalg.norm(x, axis=1).round(2))
normed = rms_norm(x, W["layers.0.input_layernorm.weight"])
compare("blocks.0.ln1", normed)

# %% [markdown]
# ## 3 · Query, key, value
#
# From each row, three things are made: a *query* (what do I look for?), a *key* (what am I, for those who look?), and a
# *value* (what do I hand over?). Eight heads look, and always four of them share one key and one value.

# %%
q = (normed @ W["layers.0.self_attn.q_proj.weight"].T).reshape(-1, heads, dim)
k = (normed @ W["layers.0.self_attn.k_proj.weight"].T).reshape(-1, kv_heads, dim)
v = (normed @ W["layers.0.self_attn.v_proj.weight"].T).reshape(-1, kv_heads, dim)
compare("blocks.0.attn.q", q)
compare("blocks.0.attn.k", k)
compare("blocks.0.attn.v", v)

# %% [markdown]
# ## 4 · Where am I?
#
# So far the order of the words does not matter at all: row 3 was computed as row 0 would have been. The position comes
# in by *turning*: channels are taken in pairs, and each pair is rotated by an angle that grows with the position. Some
# pairs turn fast, some slowly, like the hands of a clock.
#
# **Predict.** A query at position 5 and a key at position 3, or a query at 105 and a key at 103: which product is
# larger?


# %%
def rope(x, positions, base=10000.0):  # x: [tokens, heads, dim]
    half = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-np.arange(half) / half)  # [tokens, half]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


one = rms_norm(q[:1], W["layers.0.self_attn.q_norm.weight"])
other = rms_norm(k[:1], W["layers.0.self_attn.k_norm.weight"])
for there, here in [(5, 3), (105, 103), (905, 903), (5, 4), (5, 0)]:
    product = (rope(one, np.array([there]))[0, 0] * rope(other, np.array([here]))[0, 0]).sum()
    print(f"query at {there:3}, key at {here:3}: {product:.4f}")

# %% [markdown]
# The first three are equal: only the *distance* counts. That is the beauty of it: "two words back" means the same
# everywhere in a text.

# %%
positions = np.arange(len(ids))
q = rope(rms_norm(q, W["layers.0.self_attn.q_norm.weight"]), positions)
k = rope(rms_norm(k, W["layers.0.self_attn.k_norm.weight"]), positions)
compare("blocks.0.attn.rot_q", q)
compare("blocks.0.attn.rot_k", k)

# %% [markdown]
# ## 5 · Who looks at whom
#
# Each query is multiplied with each key. A softmax makes shares of it, so that each row sums to 1. And nobody may look
# ahead: those scores become minus infinity. **Predict** the first row.


# %%
def attention(q, k, v):  # [tokens, heads, dim], [tokens, kv_heads, dim] twice
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat(share, axis=1), v.repeat(share, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
    pattern = np.exp(scores - scores.max(axis=-1, keepdims=True))
    pattern /= pattern.sum(axis=-1, keepdims=True)
    return pattern, np.einsum("hqk,khd->qhd", pattern, v)


pattern, z = attention(q, k, v)
compare("blocks.0.attn.pattern", pattern)
compare("blocks.0.attn.z", z)
print(pattern[0].round(2))

# %% [markdown]
# The first token can only look at itself: 1, and then zeros. This table *is* attention; notebook 05 is about what one
# can read from such tables.
#
# ## 6 · Everyone thinks alone
#
# What was gathered is added to the stream. Then each row, by itself, passes two wide matrices with a gate between them.


# %%
def layer(x, i):
    w = {name.split(".", 2)[2]: value for name, value in W.items() if name.startswith(f"layers.{i}.")}
    normed = rms_norm(x, w["input_layernorm.weight"])
    q, k, v = ((normed @ w[f"self_attn.{p}_proj.weight"].T).reshape(len(x), -1, dim) for p in "qkv")
    q, k = (rms_norm(t, w[f"self_attn.{p}_norm.weight"]) for t, p in [(q, "q"), (k, "k")])
    positions = np.arange(len(x))
    _, z = attention(rope(q, positions), rope(k, positions), v)
    x = x + z.reshape(len(x), -1) @ w["self_attn.o_proj.weight"].T
    normed = rms_norm(x, w["post_attention_layernorm.weight"])
    gate, up = normed @ w["mlp.gate_proj.weight"].T, normed @ w["mlp.up_proj.weight"].T
    return x + (gate / (1 + np.exp(-gate)) * up) @ w["mlp.down_proj.weight"].T


for i in range(layers):
    x = layer(x, i)
    compare(f"blocks.{i}.resid_post", x)

# %% [markdown]
# Six layers, each the same few lines with other numbers. At the end: norm once more, and compare each row with every
# row of the table that we began with. The more alike, the higher the score.

# %%
compare("ln_final", rms_norm(x, W["norm.weight"]))
logits = rms_norm(x, W["norm.weight"]) @ W["embed_tokens.weight"].T
compare("logits", logits)

# %% [markdown]
# You have a language model. **Predict:** does it talk?


# %%
def mine(ids):
    x = W["embed_tokens.weight"][ids]
    for i in range(layers):
        x = layer(x, i)
    return rms_norm(x[-1:], W["norm.weight"])[0] @ W["embed_tokens.weight"].T


said = list(ids)
while len(said) < 24 and said[-1] not in model.tokenizer.eos_ids:
    said.append(int(mine(said).argmax()))
print(model.detokenize(said))

# %% [markdown]
# That is all there is. No rule of grammar, no fact about the sky stands anywhere in your forty lines: all of that is in
# the numbers.
#
# **Change** something small in `layer` and let it talk again: leave out the `x +` in one place; scale the scores by 2;
# use the keys of layer 0 everywhere. What is fragile, what is not?
#
# ## Exercises
#
# **4.1** Some models let each token see only the last `window` tokens (itself included). Write `windowed(q, k, v,
# window)` with shapes as in `attention` above, and give only the mixed values (`[tokens, heads, dim]`).


# %%
def windowed(q, k, v, window):
    return ...


check("4.1", windowed)

# %% [markdown]
# **4.2** Other models pair *neighbouring* channels for the rotation: (0, 1), (2, 3), ... instead of (0, 16), (1, 17),
# ... Write `rope_neighbours(x, positions, base)`.


# %%
def rope_neighbours(x, positions, base):
    return ...


check("4.2", rope_neighbours)

# %% [markdown]
# **4.3** The KV cache, in one function. The keys and values of all tokens so far are there (`[tokens, kv_heads, dim]`,
# the newest last), and one new query `[heads, dim]`. Write `step(q, keys, values)` that gives the mixed values `[heads,
# dim]`.


# %%
def step(q, keys, values):
    return ...


check("4.3", step)

# %% [markdown]
# Next: **05 · Where attention looks**.
