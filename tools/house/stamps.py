"""Stamps: skip a step when nothing that it reads has changed, judged by the contents of files, not by their times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = ROOT / ".stamps"
_SKIPPED_FOLDERS = frozenset({"__pycache__", "build", ".git"})
_SKIPPED_SUFFIXES = frozenset({".pyc", ".so", ".o"})

# What a wheel is made of.
PACKAGE_INPUTS = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "cmake", "src", "fastllm")


def digest(paths: Iterable[str], *extra: str) -> str:
    """SHA-256 over texts, and over names and contents of files and of all files below folders of the repository."""
    total = hashlib.sha256()
    for text in extra:
        total.update(f"text {len(text)}\n{text}".encode())
    for name in sorted(paths):
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            relative = file.relative_to(ROOT)
            if not file.is_file() or file.suffix in _SKIPPED_SUFFIXES or _SKIPPED_FOLDERS & set(relative.parts):
                continue
            content = file.read_bytes()
            total.update(f"file {relative.as_posix()} {len(content)}\n".encode())
            total.update(content)
    return total.hexdigest()


def read(name: str) -> dict[str, Any]:
    """What the last successful run of a step noted; empty when there is none."""
    try:
        noted = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def write(name: str, **noted: Any) -> None:
    """Note that a step succeeded. Call it last: a step that was interrupted leaves the old stamp or none."""
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / f"{name}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(noted, indent=1), encoding="utf-8")
    temporary.replace(path)


def forget(name: str) -> None:
    """Make the next run do the step again."""
    (_FOLDER / f"{name}.json").unlink(missing_ok=True)
