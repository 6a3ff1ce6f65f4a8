"""A compiled model behind the real engine: prompts in, logits and greedy tokens out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Self

Logits = npt.NDArray[np.float32]
_TIMEOUT_S = 60.0


class Compiled:
    """A program and an engine with the chunking that a test wants; a context manager: programs serve one engine."""

    def __init__(
        self,
        program: Any,
        *,
        prefill_chunk: int = 512,
        max_batch_tokens: int = 512,
        deterministic: bool = True,
        prefix_cache: bool = False,
        kv_memory_bytes: int = 0,
    ) -> None:
        from fastllm import _core

        size = program.vocab_size
        self.engine = _core.Engine(
            program,
            _core.Vocab([b"x"] * size, [False] * size),
            max_running=16,
            kv_memory_bytes=kv_memory_bytes,
            block_tokens=16,
            max_batch_tokens=max_batch_tokens,
            prefill_chunk=prefill_chunk,
            max_queue=64,
            deterministic=deterministic,
            prefix_cache=prefix_cache,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.engine.close(drain=False)

    def logits(self, *prompts: Sequence[int]) -> list[Logits]:
        """Logits [tokens, vocab] of each prompt, all of them submitted at once."""
        requests = [self._submit(prompt, 0, keep_logits=True) for prompt in prompts]
        for request in requests:
            self._finish(request)
        return [request.logits() for request in requests]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The `count` tokens that follow, each the most likely one."""
        return self.greedy_logprobs(prompt, count)[0]

    def greedy_logprobs(self, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """The same with the log-probability of each."""
        return self.greedy_many([prompt], count)[0]

    def greedy_many(self, prompts: Sequence[Sequence[int]], count: int) -> list[tuple[list[int], list[float]]]:
        """The same for prompts that run together."""
        requests = [self._submit(prompt, count, logprobs=0) for prompt in prompts]
        for request in requests:
            self._finish(request)
        found = []
        for request in requests:
            records = request.take()
            found.append(([int(record[0]) for record in records], [float(record[4]) for record in records]))
        return found

    def among_others(self, prompt: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[Logits, list[list[int]]]:
        """Logits of a prompt that runs while others are being prefilled and continued, and their continuations."""
        running = [self._submit(other, 24) for other in others[: len(others) // 2]]
        request = self._submit(prompt, 0, keep_logits=True)
        running += [self._submit(other, 24) for other in others[len(others) // 2 :]]
        for one in [request, *running]:
            self._finish(one)
        return request.logits(), [[int(record[0]) for record in one.take()] for one in running]

    def _submit(self, prompt: Sequence[int], count: int, *, keep_logits: bool = False, **more: Any) -> Any:
        params = {"max_new_tokens": count, "temperature": 0.0, "ignore_eos": True, **more}
        return self.engine.submit(list(prompt), params, lookahead=-1, keep_logits=keep_logits)

    def _finish(self, request: Any) -> None:
        while request.finish is None:
            if not request.wait(_TIMEOUT_S) and request.finish is None:
                raise TimeoutError(f"the engine gave nothing for {_TIMEOUT_S} s: {self.engine.stats()}")
            if request.unread and request.finish is None:
                time.sleep(0.001)  # wait() returns at once while tokens are unread
        if request.finish["error"] is not None:
            raise AssertionError(request.finish["error"])


def compiled(folder: Path, **options: Any) -> Any:
    """The loaded model of a checkpoint folder."""
    from fastllm.formats.checkpoint import open_checkpoint
    from fastllm.loading import load_program

    return load_program(open_checkpoint(folder), threads=1, **options)
