# %% [markdown]
# # I · Instructor notes
#
# For whoever teaches with these notebooks: what each one is for, how long it takes, what should come out, what goes
# wrong, and how to run a room without a network.
#
# The course in one sentence: *a language model is a function from a text to scores, and everything else can be looked
# at.* Nothing here is a simulation. Every number comes from the engine that would serve a large model.

# %% [markdown]
# ## Before the lesson
#
# Run this notebook in the room, on one of the machines. If the cell below ends with `ready`, the course runs there: it
# needs a CPU, 150 MB of memory, and no network.

# %%
import os
import sys
import time

import fastllm

start = time.perf_counter()
model = fastllm.load("demo")
loaded_s = time.perf_counter() - start
answer = await model.generate("What is 12 + 30?", temperature=0)
print("Python", sys.version.split()[0], "· fastllm", fastllm.__version__, "·", os.cpu_count(), "CPUs")
print(f"loaded in {loaded_s:.2f} s, {answer.timing.decode_tps:.0f} tokens/s, and it says {answer.text.strip()!r}")
print("ready" if "42" in answer.text else "something is wrong: `make doctor` in the checkout says what")

# %% [markdown]
# **Offline.** The model is inside the package; `pip install fastllm[notebook]` (or a wheel on a USB stick, with
# `pip download` done once at home) is all that must be there. Set `HF_HUB_OFFLINE=1` to be sure that nothing tries.
# Thirty students on one server: each kernel takes about 150 MB; give each `OMP_NUM_THREADS=1` for numpy, and
# `fastllm.load("demo", engine=fastllm.EngineConfig(threads=1))`.
#
# **Order.** 00, 01, 02 belong together and fill a first afternoon. Then choose: 03 and 09 for people who use models, 04
# and 05 for people who want to understand them, 06, 08 and 12 for people who build with them, A1 for the last day.

# %% [markdown]
# ## The notebooks
#
# | | title | minutes | needs | the thing they remember |
# |---|---|---|---|---|
# | 00 | Hello, token | 20 | — | the model recites its joke and makes up its story: one look at the shading |
# | 01 | Text is not tokens | 25 | — | one astronaut costs more than a sentence |
# | 02 | One step, slowly | 30 | 01 | a lady named Tuesday, in a castle |
# | 03 | The sampling lab | 35 | 02 | top-k is right nowhere; the loop about Stockholm |
# | 04 | Inside a transformer | 60 | 02, numpy | forty lines of theirs talk |
# | 05 | Where attention looks | 45 | 04 | one head of 48, switched off, and copying breaks |
# | 06 | Why is it fast | 35 | 02 | eight stories cost little more than one |
# | 08 | Async for application writers | 40 | `await` | the heartbeat that stops |
# | 09 | Talking | 30 | 01 | Xanthippe becomes somebody else; a forged system message is obeyed |
# | 12 | Measure honestly | 40 | 06 | a program beats itself |
# | A1 | Add a model in one file | 45 | 02 | without attention, two questions get one answer |
#
# Numbers 07, 10 and 11 are kept for quantisation, adapters and the server.

# %% [markdown]
# ## How to teach with them
#
# * **Let them predict aloud**, and write three predictions on the board before anyone presses Shift+Enter. A section
#   without a prediction is a slide show.
# * **Work in pairs**, one keyboard. The one who does not type predicts.
# * **Stop at the surprises** (the last column above) and ask *why* before you explain. Most explanations stand one cell
#   further down; ask them not to scroll.
# * Exercises are marked by `check`. It gives a reason with every *no*, and `hint` gives two or three hints in order.
#   Whoever is stuck for ten minutes should take the hint.
# * The solutions are in the repository, in `tests/notebook_solutions.py`, together with typical wrong answers.

# %% [markdown]
# ## What should come out
#
# At temperature 0 the demo model gives the same text each time, so the outputs stored in the notebooks are the expected
# ones. (On another kind of processor a tie may fall the other way, once in a long while.) Times are not: those come
# from the machine that stored them, a shared one.
#
# | exercise | kind of answer | typical mistake |
# |---|---|---|
# | 0.1 | a number | forgetting the invisible end token: one too few |
# | 0.3 | a coroutine | searching in `token.text`: a word may come in pieces |
# | 1.1 | a word | words with a space in front are easy, and not asked for |
# | 1.3 | a function | decoding each id by itself; or holding everything back to the end |
# | 2.1 | a function | `exp` of a large score; temperature 0 |
# | 2.3 | a coroutine | forgetting the end token; changing the list in place |
# | 3.1 | a function | leaving out the token that reaches `p` |
# | 3.3 | a dict | trying top-k; it cannot be done |
# | 4.1 | a function | a window one too wide: the token itself counts |
# | 6.2 | a function | off by one in the sum |
# | 6.3 | a function | forgetting that the last token of a prompt is always computed |
# | 8.1 | a coroutine | right answer, but the losers run on |
# | 8.3 | a coroutine | working in portions: places stay empty while the slowest of a portion ends |
# | 9.2 | a function | losing the system message |
# | 12.1 | a function | comparing means; one hiccup decides |
# | 12.3 | letters | taking the best of many runs for a result |
# | A1.2 | a function | counting the tied table twice |

# %% [markdown]
# ## What goes wrong
#
# | what they see | why | what to do |
# |---|---|---|
# | `SyntaxError: 'await' outside function` | a script, not a notebook | `model.blocking`, or `asyncio.run` |
# | a cell does not end | an endless stream (`ignore_eos=True`) | the stop button; the next cell works as always |
# | `StreamConsumed` | reading a finished stream again | make a new one; the text is in `stream.text` |
# | nothing happens while a cell runs | `time.sleep` or `model.blocking` in it | `await anyio.sleep`; notebook 08, section 5 |
# | the widget is a still picture | the notebook was opened without a kernel | run the cell |
# | `ImportError` about the native module | Python was started inside a source checkout | start Jupyter elsewhere |
# | a strange answer, said with confidence | it is a model of four million weights | that *is* the lesson; its limits are in `demo_model/README.md` |
#
# ## Checking the course itself
#
# `make test` executes notebooks 00 and 02 and checks all of them for stale or broken outputs; `make test-all` executes
# every one. After a change in `notebooks/source/`, `python tools/notebooks.py build 03` makes and stores a notebook
# anew.
