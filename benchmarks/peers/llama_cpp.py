"""llama.cpp inside llama-cpp-python, through its low-level batch API, on the same weights as bfloat16 GGUF."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


class LlamaCpp:
    def __init__(self, folder: Path, threads: int) -> None:
        self.version = llama_cpp.__version__
        llama_cpp.llama_log_set(_quiet, None)
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(folder / "model-bf16.gguf").encode(), model_params)
        if not self._model:
            raise RuntimeError("llama.cpp could not load the model")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 16384, 2048, 512, 32
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Decodes rows of (token, position, sequence, wants logits); the greedy ids of the rows that want them."""
        b = self._batch
        b.n_tokens = len(rows)
        for i, (token, position, sequence, wants) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, position, 1, wants
            b.seq_id[i][0] = sequence
        if llama_cpp.llama_decode(self._context, b) != 0:
            raise RuntimeError("llama_decode failed")
        best = []
        for i, row in enumerate(rows):
            if row[3]:
                logits: Any = llama_cpp.llama_get_logits_ith(self._context, i)
                best.append(int(np.ctypeslib.as_array(logits, (self._vocab,)).argmax()))
        return best

    def _prompt(self, prompt: list[int], sequence: int) -> int:
        last = len(prompt) - 1
        return self._run([(t, i, sequence, i == last) for i, t in enumerate(prompt)])[0]

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        self._clear()
        found = [self._prompt(prompt, 0)]
        while len(found) < count:
            found += self._run([(found[-1], len(prompt) + len(found) - 1, 0, True)])
        return found

    def prefill(self, prompt: list[int]) -> float:
        self._clear()
        start = time.perf_counter()
        self._prompt(prompt, 0)
        return time.perf_counter() - start

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        self._clear()
        tokens = [self._prompt(p, s) for s, p in enumerate(prompts)]
        start = time.perf_counter()
        for step in range(steps):
            tokens = self._run([(t, len(prompts[s]) + step, s, True) for s, t in enumerate(tokens)])
        return time.perf_counter() - start


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: Any) -> None:
    pass


def open(folder: Path, threads: int) -> LlamaCpp:  # noqa: A001
    return LlamaCpp(folder, threads)
