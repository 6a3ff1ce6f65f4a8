"""Makes ``demo_model`` of the checkout importable; the checkout itself, with its ``fastllm/``, stays off the path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "demo_model"


def _load() -> None:
    if "demo_model" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "demo_model", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"[demo_package] no package at {_FOLDER}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_model"] = module
    spec.loader.exec_module(module)


_load()
