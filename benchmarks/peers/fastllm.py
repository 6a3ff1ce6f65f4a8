"""fastllm through its public blocking API."""

from __future__ import annotations

from pathlib import Path

import fastllm


class FastLLM:
    def __init__(self, folder: Path, threads: int) -> None:
        self.version = fastllm.__version__
        engine = fastllm.EngineConfig(threads=threads, prefix_cache=False, max_batch_tokens=2048, prefill_chunk=2048)
        self._model = fastllm.load(folder, device="cpu", engine=engine, progress=False)

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        return list(
            self._model.blocking.generate(prompt, temperature=0, max_new_tokens=count, ignore_eos=True).token_ids
        )

    def prefill(self, prompt: list[int]) -> float:
        return self._model.blocking.generate(prompt, temperature=0, max_new_tokens=1, ignore_eos=True).timing.ttft_s

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        done = self._model.blocking.batch(prompts, temperature=0, max_new_tokens=steps + 1, ignore_eos=True)
        # From the last one's first token: before that, prompts are still being prefilled between the first ones' steps.
        return max(c.timing.total_s for c in done) - max(c.timing.ttft_s for c in done)


def open(folder: Path, threads: int) -> FastLLM:  # noqa: A001
    return FastLLM(folder, threads)
