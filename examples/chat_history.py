"""A conversation: turns, another answer, a rewording, a fork, and keeping it as JSON."""

import asyncio
import tempfile
from pathlib import Path

import fastllm


async def say(stream: fastllm.TokenStream) -> None:
    async for token in stream:
        print(token, end="", flush=True)
    usage = stream.usage
    print(f"\n   [{usage.prompt_tokens} prompt tokens, {usage.cached_tokens} of them from the cache]")


async def main() -> None:
    model = fastllm.load("demo")
    chat = fastllm.Chat(model, max_new_tokens=80)
    await say(chat.send("Hello! Who are you?"))
    await say(chat.send("What is 12 + 30?"))
    print("-- asked again: a second answer beside the first")
    await say(chat.regenerate(temperature=0.8, seed=3))
    print("-- reworded: a new branch")
    await say(chat.edit(2, "What is 12 + 31?"))
    other = chat.fork()
    await say(other.send("Thank you!"))
    print(f"-- {len(chat.nodes)} messages in the tree, {len(chat)} on this path")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chat.json"
        chat.save(file)
        again = fastllm.Chat.load(file, model)
        for message in again.messages:
            print(f"{message.role}: {message.content}")


asyncio.run(main())
