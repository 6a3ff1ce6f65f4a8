"""transformers eager, bfloat16, static prompts, its default cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers


class Transformers:
    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.version = f"{transformers.__version__} (torch {torch.__version__})"
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self._model.eval()

    @torch.inference_mode()
    def greedy(self, prompt: list[int], count: int) -> list[int]:
        ids = torch.tensor([prompt])
        cache: Any = None
        found: list[int] = []
        for _ in range(count):
            out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = out.past_key_values, out.logits[:, -1].float().argmax(-1, keepdim=True)
            found.append(int(ids))
        return found

    @torch.inference_mode()
    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits.argmax(-1)
        return time.perf_counter() - start

    @torch.inference_mode()
    def decode(self, prompts: list[list[int]], steps: int) -> float:
        out = self._model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
        start = time.perf_counter()
        for _ in range(steps):
            out = self._model(ids, past_key_values=cache, use_cache=True)
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
        return time.perf_counter() - start


def open(folder: Path, threads: int) -> Transformers:  # noqa: A001
    return Transformers(folder, threads)
