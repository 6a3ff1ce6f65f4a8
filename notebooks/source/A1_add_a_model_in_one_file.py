# %% [markdown]
# # A1 · Add a model in one file
#
# In this notebook you write a language model: not train it, *write* it. Four small classes, and it will speak, because
# its weights already exist. Then you take organs out, one by one, and listen to what is missing.
#
# About 45 minutes. It helps to have seen notebook 02. Predict, run, change, explain.

# %%
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

import fastllm
from fastllm import nn, ops
from fastllm.teach import check, hint

demo = fastllm.load("demo")

# %% [markdown]
# ## 1 · A checkpoint is a list of names
#
# What is in the file `model.safetensors`? Arrays of numbers, each with a name. Nothing says what to do with them.

# %%
for name, weight in list(demo.module.named_parameters())[:12]:
    print(f"{name:48} {list(weight.shape)}")
print("... and", len(list(demo.module.named_parameters())) - 12, "more")

# %% [markdown]
# **Predict.** The names tell the architecture. Which parts does a layer have, and in which order might they work?
#
# ## 2 · The four classes
#
# An attribute path is a name: `self.layers[0].mlp.up_proj.weight` is found under `layers.0.mlp.up_proj.weight`.
#
# First, the part that looks at other tokens. Each token makes a *query* (what do I look for?), a *key* (what am I?) and
# a *value* (what do I tell?). `config.get("without")` is for the surgery later.


# %%
class Attention(nn.Module):
    def __init__(self, config, layer, rotary):
        hidden, self.dim = config.integer("hidden_size"), config.integer("head_dim")
        self.heads, self.kv_heads = config.integer("num_attention_heads"), config.integer("num_key_value_heads")
        self.layer, self.rotary, self.without = layer, rotary, config.get("without")
        self.q_proj = nn.Linear(hidden, self.heads * self.dim)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim)
        self.o_proj = nn.Linear(self.heads * self.dim, hidden)
        self.q_norm, self.k_norm = nn.RMSNorm(self.dim), nn.RMSNorm(self.dim)

    def forward(self, x, step):  # [tokens, hidden] -> [tokens, hidden]
        q = self.q_norm(self.q_proj(x).reshape(-1, self.heads, self.dim))
        k = self.k_norm(self.k_proj(x).reshape(-1, self.kv_heads, self.dim))
        v = self.v_proj(x).reshape(-1, self.kv_heads, self.dim)
        if self.without != "positions":
            q, k = self.rotary(q, step), self.rotary(k, step)
        mixed = ops.attention(q, k, v, step, layer=self.layer)
        return self.o_proj(mixed.reshape(-1, self.heads * self.dim))


# %% [markdown]
# Then the part where each token thinks by itself, and the layer that joins the two. Look at the `x +`: a layer does not
# replace what it gets, it adds to it.


# %%
class FeedForward(nn.Module):
    def __init__(self, config):
        hidden, inner = config.integer("hidden_size"), config.integer("intermediate_size")
        self.gate_proj, self.up_proj = nn.Linear(hidden, inner), nn.Linear(hidden, inner)
        self.down_proj = nn.Linear(inner, hidden)

    def forward(self, x):
        return self.down_proj(ops.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config, layer, rotary):
        hidden, self.without = config.integer("hidden_size"), config.get("without")
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.self_attn, self.mlp = Attention(config, layer, rotary), FeedForward(config)

    def forward(self, x, step):
        if self.without != "attention":
            x = x + self.self_attn(self.input_layernorm(x), step)
        if self.without != "feed-forward":
            x = x + self.mlp(self.post_attention_layernorm(x))
        return x


# %% [markdown]
# And the whole: a row of numbers for each token, the layers, and the scores of notebook 02. The table that turns ids
# into rows is used again, the other way round, to turn rows into scores (`tie`).


# %%
class Body(nn.Module):
    def __init__(self, config):
        rotary = nn.RotaryEmbedding(config.integer("head_dim"))
        self.embed_tokens = nn.Embedding(config.integer("vocab_size"), config.integer("hidden_size"))
        self.layers = nn.ModuleList(Layer(config, i, rotary) for i in range(config.integer("num_hidden_layers")))
        self.norm = nn.RMSNorm(config.integer("hidden_size"))

    def forward(self, ids, step):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, step)
        return self.norm(x)


@fastllm.register("Speaker")
class Speaker(nn.Model):
    def __init__(self, config):
        super().__init__(config)
        self.model = Body(config)
        self.lm_head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"))
        self.tie(self.model.embed_tokens, self.lm_head)

    def forward(self, ids, step):
        return self.lm_head(self.model(ids, step))


# %% [markdown]
# ## 3 · Does it speak?
#
# We copy the demo checkpoint and change one word in its `config.json`: the name of the architecture. **Predict.**


# %%
def checkpoint(**changes):
    folder = Path(tempfile.mkdtemp(prefix="speaker-"))
    for file in Path(demo.info.path).iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps({**demo.config, "architectures": ["Speaker"], **changes}))
    return folder


speaker = fastllm.load(checkpoint())
async for token in speaker.stream("Why is the sky blue?", temperature=0):
    print(token, end="")

# %% [markdown]
# It speaks! Your classes were called *once*, with symbols in place of numbers; what they did was recorded as a graph
# and compiled. No Python runs while it streams. It is a full member of the engine: batching, cache, cancelling, all of
# it.
#
# And how near is it to the built-in model?

# %%
text = "Why is the sky blue?"
mine, theirs = await speaker.logits(text), await demo.logits(text)
print("largest difference to the built-in model:", np.abs(mine - theirs).max())

by_hand = speaker.module(speaker.tokenize(text)).numpy()  # the same classes, now with numbers, one op at a time
print("largest difference, compiled and by hand:", np.abs(mine - by_hand).max())

# %% [markdown]
# ## 4 · Surgery
#
# The same weights, with one part left out. **Predict** what each of these says, before you run it. What does a model do
# that does not know the order of words? One that cannot look at other tokens at all?

# %%
for organ in ["nothing", "positions", "feed-forward", "attention"]:
    patient = fastllm.load(checkpoint(without=organ))
    print(f"without {organ}:")
    for question in ["Why is the sky blue?", "What is 12 + 30?"]:
        answer = await patient.generate(question, temperature=0, max_new_tokens=22)
        print(f"    {question}{answer.text!r}")

# %% [markdown]
# **Explain.** Without positions it still knows the facts and says them in whatever order they come: it sees a *bag* of
# words. Without the feed-forward part the topic is there, but nothing to say about it.
#
# And without attention, both questions get *exactly the same answer*. Why? (Look at how both prompts end. A token that
# cannot see others knows only itself, and both end with the same `?`.)
#
# ## 5 · Looking at numbers
#
# By hand, every part is a function that you may call. Does `RMSNorm` do what its formula says?

# %%
layer = speaker.module.model.layers[0]
ids = fastllm.Tensor(speaker.tokenize(text))
x = speaker.module.model.embed_tokens(ids)
print(x)

a = x.numpy()
formula = a / np.sqrt((a**2).mean(axis=-1, keepdims=True) + 1e-6) * layer.input_layernorm.weight.numpy()
print("RMSNorm differs by", np.abs(layer.input_layernorm(x).numpy() - formula).max())

gate, up, down = (getattr(layer.mlp, name).weight.numpy() for name in ["gate_proj", "up_proj", "down_proj"])
g = formula @ gate.T
formula = (g / (1 + np.exp(-g)) * (formula @ up.T)) @ down.T
difference = np.abs(layer.mlp(layer.input_layernorm(x)).numpy() - formula).max()
print("MLP differs by", difference, "where values reach", np.abs(formula).max())

# %% [markdown]
# Rounding, and nothing else. **Change:** compare the queries, too. Notebook 04 rebuilds the whole model this way.
#
# ## 6 · When it does not fit
#
# Two mistakes that everybody makes. **Predict** what the messages should say to be of help.

# %%
for changes in [{"intermediate_size": 500}, {"architectures": ["Speeker"]}]:
    try:
        fastllm.load(checkpoint(**changes))
    except fastllm.LoadError as error:
        print(f"{type(error).__name__}: {error}\n")

# %% [markdown]
# If you have transformers installed, it can read the same checkpoint (under its true name). An independent witness:

# %% tags=["optional"]
import torch
from transformers import AutoModelForCausalLM

reference = AutoModelForCausalLM.from_pretrained(demo.info.path, dtype=torch.float32)
with torch.no_grad():
    theirs = reference(torch.tensor([speaker.tokenize(text)])).logits[0].numpy()
print("largest difference:", np.abs(mine - theirs).max(), "of a range of", np.ptp(theirs))

# %% [markdown]
# ## Exercises
#
# **A1.1** Some models let both parts of a layer read the *same* normed input and add both results at once. Write it:
# `x + attention(norm(x)) + mlp(norm(x))`. The three parts are given.


# %%
class ParallelLayer(nn.Module):
    def __init__(self, norm, attention, mlp):
        self.norm, self.attention, self.mlp = norm, attention, mlp

    def forward(self, x, step):
        return ...


check("A1.1", ParallelLayer)

# %% [markdown]
# **A1.2** Write `weights(config)`: the number of weights of the model above, from its config (a dict such as
# `demo.config`). Tied weights count once. `demo.info.parameters` is one case to try it on.


# %%
def weights(config):
    return ...


check("A1.2", weights)

# %% [markdown]
# **A1.3** The smallest language model: `Bigram`. It has an `nn.Embedding` called `embed` and an `nn.Linear` called
# `head`, takes `vocab_size` and `hidden_size` from its config, and looks at nothing but the last token.


# %%
class Bigram(nn.Model):
    base_prefix = ""

    def forward(self, ids, step):
        return ...


check("A1.3", Bigram)

# %% [markdown]
# The built-in models are written exactly like this: start with `fastllm/models/llama.py`, about a hundred lines. An
# architecture of yours that is public fits into one file beside it.
