"""The shortest program: load the bundled model, stream an answer.

python examples/hello.py ["a prompt"]
"""

import asyncio
import sys

import fastllm


async def main() -> None:
    prompt = sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?"
    model = fastllm.load("demo")
    stream = model.stream(prompt)
    async for token in stream:
        print(token, end="", flush=True)
    print()
    print(repr(stream.completion))


asyncio.run(main())
