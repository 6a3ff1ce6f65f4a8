"""Ways to stop an answer: leaving the loop, a deadline, cancel() from another thread, a time limit in the request."""

import asyncio
import threading

import anyio

import fastllm


async def main() -> None:
    model = fastllm.load("demo")

    async for token in model.stream("Once upon a time"):
        print("leaving the loop:", repr(str(token)))
        break
    await anyio.sleep(0.05)
    print(model.stats())  # nothing runs any more

    with anyio.move_on_after(0.05):
        async for _ in model.stream("Once upon a time", max_new_tokens=None, ignore_eos=True):
            pass
    print("a deadline passed")

    async with model.stream("Once upon a time", max_new_tokens=None, ignore_eos=True) as stream:
        with anyio.move_on_after(0.05):
            async for _ in stream:
                pass
        print("inside `async with` a deadline only pauses the reading:", repr(stream.text), stream.state)
        async for token in stream:
            print("it goes on:", repr(str(token)))
            break

    stream = model.stream("Once upon a time", max_new_tokens=None, ignore_eos=True)
    threading.Timer(0.05, stream.cancel).start()  # as a Stop button would
    async for _ in stream:
        pass
    print("cancelled from a thread:", stream.finish_reason, repr(stream.text))

    completion = await model.generate("Once upon a time", max_time_s=0.05, max_new_tokens=None, ignore_eos=True)
    print("out of time:", completion.finish_reason, repr(completion.text))


asyncio.run(main())
