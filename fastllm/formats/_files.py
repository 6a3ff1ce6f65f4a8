"""Reading the small files of a checkpoint, with errors that name file, line and remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastllm.errors import CorruptFile, LoadError

__all__ = ["read_bytes", "read_json", "read_text"]

_AGAIN = "The file is damaged or was cut short: download it again."


def read_bytes(path: str | os.PathLike[str], *, where: str = "load") -> bytes:
    """The whole content of a small file.

    Raises:
        LoadError: The file is missing or unreadable.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise LoadError(f"[{where}] {path} does not exist.", path=str(path), hint="Check the path.") from error
    except OSError as error:
        raise LoadError(f"[{where}] {path} cannot be read: {error.strerror or error}.", path=str(path)) from error


def read_text(path: str | os.PathLike[str], *, where: str = "load") -> str:
    """A UTF-8 file, with or without a byte order mark.

    Raises:
        LoadError: The file is missing or unreadable.
        CorruptFile: It is not UTF-8.
    """
    data = read_bytes(path, where=where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fact = f"byte {error.start} of {len(data)} (0x{data[error.start]:02X}) is not UTF-8"
        raise CorruptFile(f"[{where}] {path}: {fact}.", path=str(path), hint=_AGAIN) from error


def read_json(path: str | os.PathLike[str], *, where: str = "load") -> dict[str, Any]:
    """A JSON file that must hold an object.

    Raises:
        LoadError: The file is missing or unreadable.
        CorruptFile: It is not JSON (names line and column), or not an object.
    """
    text = read_text(path, where=where)
    if text.startswith("version https://git-lfs.github.com/spec/"):
        hint = "Run `git lfs pull` in the checkpoint's repository."
        raise CorruptFile(f"[{where}] {path}: this is a Git LFS pointer, not the file.", path=str(path), hint=hint)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise CorruptFile(f"[{where}] {path}: the file is empty.", path=str(path), hint=_AGAIN) from error
        fact = f"line {error.lineno}, column {error.colno}: {error.msg}"
        hint = f"Correct that line, or: {_AGAIN[0].lower()}{_AGAIN[1:]}"
        raise CorruptFile(f"[{where}] {path}, {fact}.", path=str(path), hint=hint) from error
    except (ValueError, RecursionError) as error:
        fact = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise CorruptFile(f"[{where}] {path}: not usable JSON ({fact}).", path=str(path), hint=_AGAIN) from error
    if not isinstance(value, dict):
        fact = f"holds a JSON {type(value).__name__} where an object is expected"
        raise CorruptFile(f"[{where}] {path} {fact}.", path=str(path), hint=_AGAIN)
    return value
