"""Turns documents into packed rows of tokens, in worker processes."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Full
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from demo_model.corpus.mixture import documents

ROW = 1024
WEIGHT_ONE = 100  # the weight 1.0 as it is stored
_OPEN_ROWS = 24


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows.

    Attributes:
        tokens: uint16 [rows, ROW].
        weights: uint8 [rows, ROW], the loss weight of each token as a target, in hundredths.
        owners: uint8 [rows, ROW], which document of its row a token belongs to; 0 is padding.
    """

    tokens: npt.NDArray[np.uint16]
    weights: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.uint8]


def encoded_documents(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Endless token ids and weights of documents, each at most ROW long."""
    stream = documents(seed)
    while True:
        batch = list(islice(stream, 256))
        texts = [segment.text for document in batch for segment in document.segments]
        encodings = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
        for document in batch:
            ids: list[int] = []
            weights: list[int] = []
            for segment in document.segments:
                piece = next(encodings).ids
                ids += piece
                weights += [round(segment.weight * WEIGHT_ONE)] * len(piece)
            if len(ids) <= ROW:
                weights[0] = 0  # nothing comes before it
                yield ids, weights


def packed_rows(tokenizer: Tokenizer, seed: int, *, rows: int) -> Iterator[Rows]:
    """Endless blocks of packed rows; every document is whole, and rows are filled first fit."""
    open_rows: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(_OPEN_ROWS)]
    room = [ROW] * _OPEN_ROWS
    done: list[list[tuple[list[int], list[int]]]] = []
    for ids, weights in encoded_documents(tokenizer, seed):
        at = next((i for i, free in enumerate(room) if free >= len(ids)), -1)
        if at < 0:
            at = min(range(_OPEN_ROWS), key=room.__getitem__)
            done.append(open_rows[at])
            open_rows[at], room[at] = [], ROW
        open_rows[at].append((ids, weights))
        room[at] -= len(ids)
        if len(done) == rows:
            yield _stack(done)
            done = []


def _stack(done: list[list[tuple[list[int], list[int]]]]) -> Rows:
    tokens = np.zeros((len(done), ROW), np.uint16)
    weights = np.zeros((len(done), ROW), np.uint8)
    owners = np.zeros((len(done), ROW), np.uint8)
    for r, row in enumerate(done):
        at = 0
        for number, (ids, weight) in enumerate(row):
            tokens[r, at : at + len(ids)] = ids
            weights[r, at : at + len(ids)] = weight
            owners[r, at : at + len(ids)] = number % 255 + 1
            at += len(ids)
    return Rows(tokens, weights, owners)


def _work(path: str, seed: int, rows: int, out: Any, stop: Any) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for block in packed_rows(Tokenizer.from_file(path), seed, rows=rows):
        while not stop.is_set():
            try:
                out.put((block.tokens, block.weights, block.owners), timeout=0.5)
                break
            except Full:
                continue
        if stop.is_set():
            return


class Workers:
    """Processes that pack rows, each from its own seed.

    Args:
        tokenizer_path: the tokenizer.json to encode with.
        count: how many processes.
        seed: the first process's seed; the others count up from it.
        rows: rows in a block.
    """

    def __init__(self, tokenizer_path: Path, count: int, *, seed: int, rows: int = 64) -> None:
        context = mp.get_context("spawn")
        self._queue: Any = context.Queue(maxsize=4 * count)
        self._stop = context.Event()
        self._processes = [
            context.Process(
                target=_work, args=(str(tokenizer_path), seed + i, rows, self._queue, self._stop), daemon=True
            )
            for i in range(count)
        ]
        for process in self._processes:
            process.start()

    def take(self, *, wait: bool) -> Rows | None:
        """The next block, or None if there is none and ``wait`` is false."""
        if not wait and self._queue.empty():
            return None
        return Rows(*self._queue.get(timeout=120))

    def close(self) -> None:
        """Ends the processes."""
        self._stop.set()
        for process in self._processes:
            process.terminate()
            process.join(timeout=5)
