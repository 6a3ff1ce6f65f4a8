"""Many requests at once, three ways: all results, results as they come, tokens as they come.

The requests share every step of the engine, so ten of them take little longer than one.
"""

import asyncio

import fastllm
from fastllm import Completion, GenerationConfig, Request


async def main() -> None:
    async with await fastllm.load_async("demo") as model:
        sums = [f"What is {a} + {a + 7}?" for a in range(10, 15)]
        prompts = [[{"role": "user", "content": text}] for text in sums]

        print("-- batch: in the order of the prompts")
        for text, answer in zip(sums, await model.batch(prompts), strict=True):
            print(f"{text}  {answer.text}")

        print("-- as_completed: the first to finish first; each request may bring its own settings")
        requests = [
            Request("Once upon a time", GenerationConfig(max_new_tokens=60)),
            Request("What is 2 + 2?", GenerationConfig(max_new_tokens=10)),
            Request("x" * 10_000),  # does not fit, and disturbs no other
        ]
        async for index, result in model.as_completed(requests):
            text = result.text if isinstance(result, Completion) else f"{type(result).__name__}: {result}"
            print(f"{index}: {text!r:.100}")

        print("-- stream_batch: token by token")
        texts = ["", ""]
        async for index, token in model.stream_batch(["Once upon a time", "Why is the sky blue?"], max_new_tokens=12):
            texts[index] += token.text
            print(f"\r{texts[0]!r:.55} | {texts[1]!r:.55}", end="", flush=True)
        print()


asyncio.run(main())
