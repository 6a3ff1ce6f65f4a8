"""Parity with transformers: skipped, with a word, where torch or transformers are not installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastllm.nn import Model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@dataclass
class Built:
    """A case, built: the checkpoint, the transformers model that it holds, and ours, to be called by hand."""

    folder: Path
    reference: Any
    module: Model


@pytest.fixture(scope="session", autouse=True)
def _quiet_torch() -> Iterator[None]:
    """One thread, no chatter: the machine has better uses for its cores."""
    torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'fastllm[parity]'")
    transformers = pytest.importorskip("transformers", reason="parity tests need transformers")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def build_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """`build_case(case, dtype="float32")`: built once for all tests of a run."""
    from parity.cases import build

    from fastllm.formats.checkpoint import open_checkpoint
    from fastllm.loading import load_module

    known: dict[tuple[str, str], Built] = {}

    def make(case: Any, dtype: str = "float32") -> Built:
        if (case.id, dtype) not in known:
            folder = tmp_path_factory.mktemp(f"{case.id}-{dtype}")
            reference = build(case, folder, dtype=dtype)
            module, _ = load_module(open_checkpoint(folder))
            known[case.id, dtype] = Built(folder, reference, module)
        return known[case.id, dtype]

    return make
