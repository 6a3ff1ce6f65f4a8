"""The same model under trio (pip install trio): a race of two answers, with a time limit."""

import trio

import fastllm


async def main() -> None:
    async with await fastllm.load_async("demo") as model:

        async def tell(name: str, prompt: str) -> None:
            text = ""
            async for token in model.stream(prompt, max_new_tokens=60):
                text += token.text
            print(f"{name}: {text.strip()}")

        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell, "one", "Why is the sky blue?")
                nursery.start_soon(tell, "two", "Once upon a time")


trio.run(main)
