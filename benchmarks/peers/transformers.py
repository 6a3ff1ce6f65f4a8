"""transformers eager, static prompts, its default cache; in the dtype that is faster for it on this CPU.

Where a CPU has no bfloat16 products, torch multiplies bfloat16 much slower than float32: there the same weights run in
float32, as its users would run them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers


def _has_bfloat16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "avx512_bf16" in text or "amx_bf16" in text or "bf16" in text.split("Features", 1)[-1].split("\n", 1)[0]


class Transformers:
    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        dtype = torch.bfloat16 if _has_bfloat16() else torch.float32
        self.version = f"{transformers.__version__} (torch {torch.__version__}, {str(dtype).removeprefix('torch.')})"
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
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
