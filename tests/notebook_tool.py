"""tools/notebooks.py, which is no installed package, and the notebooks it made: for tests/notebooks."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(os.environ.get("FASTLLM_ROOT", Path(__file__).resolve().parents[1]))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@functools.cache
def tool() -> ModuleType:
    """The module."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.insert(0, str(ROOT / "tools"))
    return importlib.import_module("notebooks")
