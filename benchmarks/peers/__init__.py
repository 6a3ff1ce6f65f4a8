"""Engines to measure, one a file. Each has `open(folder, threads) -> Peer`; `worker.py` runs it in its own process."""

from __future__ import annotations

from typing import Protocol


class Peer(Protocol):
    """What the harness asks of an engine. Token ids in, seconds out; greedy, end tokens ignored, no prefix reuse."""

    version: str

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The ids that follow, for the correctness check."""
        ...

    def prefill(self, prompt: list[int]) -> float:
        """Seconds until the first token of a fresh prompt."""
        ...

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """Seconds for `steps` decode steps of all prompts together, prefill not counted."""
        ...


NAMES = ("fastllm", "llama_cpp", "transformers")
