"""The real model of the external test data, against references computed apart from this project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from parity.engine import Compiled, compiled

TOLERANCE = 1e-4


def test_logits(shared: Callable[[str], Path]) -> None:
    folder = shared("models/stories260K")
    reference = np.load(folder / "reference.npz")
    prompts = [reference[f"ids_{index}"].tolist() for index in range(5)]
    program = compiled(folder / "hf").program
    for chunk in (512, 5, 1):
        with Compiled(program, prefill_chunk=chunk) as engine:
            for index, logits in enumerate(engine.logits(*prompts)):
                expected = reference[f"logits_{index}"]
                assert np.abs(logits - expected).max() < TOLERANCE * np.ptp(expected)


def test_greedy(shared: Callable[[str], Path]) -> None:
    folder = shared("models/stories260K")
    reference = np.load(folder / "reference.npz")
    with Compiled(compiled(folder / "hf").program) as engine:
        for index in range(4):
            expected, margins = reference[f"greedy_{index}"], reference[f"margin_{index}"]
            close = np.flatnonzero(margins < 1e-3)
            certain = int(close[0]) if close.size else len(expected)
            assert certain > 20
            actual = engine.greedy(reference[f"ids_{index}"].tolist(), len(expected))
            assert actual[:certain] == expected[:certain].tolist()


def test_text(shared: Callable[[str], Path]) -> None:
    """From text to text: the tokenizer, the model and the reference's words."""
    folder = shared("models/stories260K")
    told = json.loads((folder / "reference.json").read_text())
    loaded = compiled(folder / "hf")
    assert loaded.tokenizer is not None
    entry = next(item for item in told["prompts"] if item["prompt"] == "Once upon a time")
    ids = loaded.tokenizer.encode(entry["prompt"])
    assert ids == entry["ids"]
    with Compiled(loaded.program) as engine:
        chosen = engine.greedy(ids, 100)
    text = loaded.tokenizer.decode([*ids, *chosen])
    assert "there was a little girl named Lily. She loved to play outside in the park." in text


def test_loss_on_text(shared: Callable[[str], Path]) -> None:
    folder = shared("models/stories260K")
    told = json.loads((folder / "reference.json").read_text())
    ids = np.load(folder / "reference.npz")["nll_ids"].tolist()
    with Compiled(compiled(folder / "hf").program, prefill_chunk=64) as engine:
        logits = engine.logits(ids)[0].astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_probabilities = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    loss = -log_probabilities[np.arange(len(ids) - 1), ids[1:]].mean()
    assert abs(loss - told["nll"]["mean_nll"]) < 1e-4
