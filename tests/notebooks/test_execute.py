"""Each notebook runs from top to bottom in a fresh kernel, without a network, on the CPU, in less than a minute."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
from notebook_tool import NOTEBOOKS, ROOT

LIMIT_S = 60.0
QUICK = ("00", "02")  # these also run in `make test`


def cases() -> list[object]:
    """A case for each notebook."""
    return [
        pytest.param(path, id=path.stem, marks=[] if path.stem.split("_")[0] in QUICK else pytest.mark.slow)
        for path in NOTEBOOKS
    ]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("nbclient", "ipykernel")),
    reason="needs nbclient and ipykernel (pip install 'fastllm[test]')",
)
@pytest.mark.parametrize("path", cases())
def test_notebook_runs(path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), "run", path.stem.split("_")[0]]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * LIMIT_S, check=False)
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert took < LIMIT_S, f"{path.stem} took {took:.0f} s"
