# %% [markdown]
# # 08 · Async for application writers
#
# You want to build something: a chat page, a service, a bot that answers ten people. Most of such a program's life is
# waiting. Async is the art of waiting for many things at once, and of *stopping* to wait.
#
# About 40 minutes. You should have seen `async def` and `await` before. Predict, run, change, explain.

# %%
import itertools
import threading
import time

import anyio

import fastllm
from fastllm.teach import check, hint

model = fastllm.load("demo")
endless = {"max_new_tokens": None, "ignore_eos": True}  # writes until it is stopped

# %% [markdown]
# ## 1 · A request runs from the moment it is made
#
# **Predict.** We make three streams, then read the *last* one to its end. How far are the other two by then?

# %%
questions = ["Why is the sky blue?", "Tell me a story about a fox.", "What is 17 + 25?"]
streams = [model.stream(question, max_new_tokens=40) for question in questions]
await streams[-1].result()
print([(stream.state, len(stream.tokens)) for stream in streams])
print(model.stats())
for stream in streams:
    print((await stream.result()).text[:70])

# %% [markdown]
# `0` tokens were *read* of the others, and yet they were under way, or done: the engine made them meanwhile. Reading is
# not what drives a request. (And if nobody ever reads one, it stops by itself
# after 256 tokens and waits. It is `parked`.)
#
# ## 2 · Four ways to ask many
#
# **Predict** the order in which the answers arrive below.

# %%
prompts = ["Tell me a story about a fox.", "What is 17 + 25?", "x" * 9000, "Why is the sky blue?"]
start = time.perf_counter()
async for index, result in model.as_completed(prompts, seed=1):
    took = (time.perf_counter() - start) * 1000
    print(f"{took:5.0f} ms  #{index}  {str(result)[:88]!r}")

# %% [markdown]
# Shortest first, whatever the order of the prompts. And number 2, which is far too long, failed *alone*: one bad
# request never hurts its neighbours.
#
# | you want | use |
# |---|---|
# | all answers, in order | `await model.batch(prompts)` |
# | each answer as soon as it is there | `model.as_completed(prompts)` |
# | each token as soon as it is there | `model.stream_batch(prompts)` |
# | the first answer, and forget the others | a task group and `cancel()`, exercise 8.1 |
#
# **Change** `as_completed` into `batch` and look at what happens to number 2. (`on_error="return"` helps.)

# %% [markdown]
# ## 3 · Stopping
#
# Four ways to stop a stream, and all four free its place at once.
#
# **Predict.** How many requests run after each of them?

# %%
async for token in model.stream("Once upon a time", **endless):
    break
await anyio.sleep(0.02)
print("left the loop:       ", model.stats().running, "running")

with anyio.move_on_after(0.05):
    async for token in model.stream("Once upon a time", **endless):
        pass
await anyio.sleep(0.02)
print("a deadline passed:   ", model.stats().running, "running")

stream = model.stream("Once upon a time", **endless)
threading.Timer(0.05, stream.cancel).start()  # what a Stop button does
async for token in stream:
    pass
print("cancel() from afar:  ", model.stats().running, "running, and", len(stream.tokens), "tokens were kept")

answer = await model.generate("Once upon a time", max_time_s=0.05, **endless)
print("its own time limit:  ", model.stats().running, "running,", answer.finish_reason)

# %% [markdown]
# None. No `finally`, no clean-up of yours was needed: dropping a stream *is* cancelling it.
#
# Sometimes you want the opposite: stop *waiting*, but let it go on. That is what `async with` is for. Then leaving the
# block is what ends it, not a timeout inside.

# %%
async with model.stream("Once upon a time", **endless) as stream:
    for _ in range(3):
        with anyio.move_on_after(0.03):
            async for token in stream:
                pass
        print(f"{stream.state}: {len(stream.tokens)} tokens so far")
print("after the block:", stream.finish_reason)

# %% [markdown]
# ## 4 · Who comes first
#
# With 64 places (`EngineConfig(max_running=64)`) most requests start at once. With two places they queue.
# **Predict** which of the six ends first.

# %%
with fastllm.load("demo", engine=fastllm.EngineConfig(max_running=2)) as small:
    requests = [
        fastllm.Request(
            "Once upon a time", fastllm.GenerationConfig(max_new_tokens=60, ignore_eos=True), priority=urgency
        )
        for urgency in [0, 0, 0, 0, 5, 0]
    ]
    async for index, result in small.as_completed(requests):
        print(f"#{index} priority {requests[index].priority}, waited {result.timing.queue_s * 1000:.1f} ms for a place")

# %% [markdown]
# ## 5 · What blocks a loop
#
# One thread runs your event loop. If anything in it does not `await`, everything else stands still: every user, every
# timer, every heartbeat. Here is a heartbeat that should beat each 10 ms, and two ways to wait for 300 ms.
#
# **Predict** the longest pause of each.


# %%
async def longest_pause(work):
    beats = []

    async def heartbeat():
        while True:
            beats.append(time.perf_counter())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat)
        await anyio.sleep(0.05)
        await work()
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    return max(later - earlier for earlier, later in itertools.pairwise(beats)) * 1000


async def rude():
    time.sleep(0.3)  # on purpose


async def polite():
    await anyio.sleep(0.3)


async def a_story():
    await model.generate("Tell me a story about a fox.", max_new_tokens=200, ignore_eos=True)


async def a_story_blocking():
    model.blocking.generate("Tell me a story about a fox.", max_new_tokens=200, ignore_eos=True)


for work in [rude, polite, a_story, a_story_blocking]:
    print(f"{work.__name__:17} longest pause {await longest_pause(work):6.0f} ms")

# %% [markdown]
# `time.sleep` stops the world, and so does `model.blocking` (which is for plain scripts, where there is no world to
# stop). An awaited answer does not: the engine has threads of its own.
#
# **Explain.** Why does a pause of the *loop* not slow the *engine*? What would `stream` do during `time.sleep(10)`?
#
# ## 6 · Any loop, any number of loops
#
# A stream belongs to the loop that reads it. A model belongs to nobody: below, another thread runs another loop, under
# another library if it is installed, and uses the same model at the same time.

# %%
import importlib.util

library = "trio" if importlib.util.find_spec("trio") else "asyncio"
heard = []


async def elsewhere():
    answer = await model.generate("What is 17 + 25?", temperature=0)
    heard.append(answer.text)


thread = threading.Thread(target=anyio.run, args=(elsewhere,), kwargs={"backend": library})
thread.start()
here = await model.generate("What is 17 + 26?", temperature=0)
while thread.is_alive():
    await anyio.sleep(0.005)
print(f"here: {here.text!r}   on {library} in another thread: {heard[0]!r}")

# %% [markdown]
# ## Exercises
#
# **8.1** Write `async def first_answer(model, prompts)`: ask all prompts at once, give the *index* of the one whose
# answer is complete first, and leave nothing running.


# %%
async def first_answer(model, prompts):
    return ...


check("8.1", first_answer)

# %% [markdown]
# **8.2** Write `async def within(model, prompt, seconds)`: give the text that was made within this time, be it complete
# or not. (Let it write on: `max_new_tokens=None, ignore_eos=True`.)


# %%
async def within(model, prompt, seconds):
    return ...


check("8.2", within)

# %% [markdown]
# **8.3** A paid service allows you `most` requests at a time. Write `async def polite_batch(model, prompts, most)`: the
# texts of all answers in the order of the prompts, with never more than `most` calls of `model.generate` under way, and
# never fewer while prompts are left.


# %%
async def polite_batch(model, prompts, most):
    return ...


check("8.3", polite_batch)

# %% [markdown]
# Next: **09 · Talking**, where requests become a conversation.
