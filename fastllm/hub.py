"""Turns what the caller calls a model into a directory on this machine.

"demo" is the model inside the package; a local path is itself; a name such as "org/name" is downloaded once through
``huggingface_hub``, which is optional and imported only then.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

from fastllm.errors import LoadError

__all__ = ["resolve"]

#: What a checkpoint directory needs; weights in other formats stay on the server.
PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
#: Second copies of the weights in other layouts.
IGNORED = ("original/*", "consolidated*", "onnx/*", "openvino/*")

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(path_or_repo: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Finds or downloads a model.

    Args:
        path_or_repo: A local file or directory, a Hugging Face repository such as "org/name", or "demo" (which is
            always the packaged model: a local directory of that name is "./demo").
        revision: Branch, tag or commit of the repository; only for downloads.

    Returns:
        An existing local path.

    Raises:
        LoadError: Nothing is there, ``huggingface_hub`` is not installed, or the download failed.
    """
    name = os.fspath(path_or_repo)
    if not name or "\0" in name:
        raise LoadError(f"[load] {name!r} is not a path.", path=name, hint='Give a directory, "org/name" or "demo".')
    if path_or_repo == "demo":
        return _demo()
    path = Path(name).expanduser()
    if path.exists():
        return path
    if isinstance(path_or_repo, str) and _REPO.fullmatch(name):
        return _download(name, revision)
    hint = f'{_neighbours(path)}Give a local directory, a Hugging Face name such as "org/name", or "demo".'
    raise LoadError(f"[load] {name} does not exist.", path=name, hint=hint)


def _demo() -> Path:
    path = Path(__file__).parent / "demo"
    if not path.is_dir():
        hint = "Install fastllm again; the package should hold the demo model."
        raise LoadError(f"[load] the demo model is not at {path}.", path=str(path), hint=hint)
    return path


def _neighbours(path: Path) -> str:
    """Names the nearest existing parent, which is where the mistake usually sits."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    near = [entry.name for entry in parent.iterdir() if entry.is_dir() and _alike(entry.name, path.name)][:3]
    return f"Did you mean {' or '.join(str(parent / name) for name in near)}? " if near else ""


def _alike(left: str, right: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, left.lower(), right.lower()).ratio() > 0.75


def _download(repo: str, revision: str | None) -> Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        hint = "Run `pip install huggingface_hub` to download it, or give the path of a local directory."
        fact = f"{repo} is no local path, and huggingface_hub is not installed"
        raise LoadError(f"[load] {fact}.", path=repo, hint=hint) from error
    try:
        return Path(
            hub.snapshot_download(repo, revision=revision, allow_patterns=list(PATTERNS), ignore_patterns=list(IGNORED))
        )
    except Exception as error:
        raise _translate(repo, revision, error) from error


#: Class names in huggingface_hub.errors (looked up along the class's bases) and what they mean to the reader.
_MEANINGS = {
    "GatedRepoError": (
        "is gated and this account has no access to it",
        "Accept its licence on huggingface.co, then run `hf auth login`.",
    ),
    "RevisionNotFoundError": ("has no revision {revision!r}", "Check the branch, tag or commit."),
    "RepositoryNotFoundError": (
        "is neither a local path nor a repository of the Hugging Face hub",
        "Check the name; private repositories need `hf auth login`.",
    ),
    "HFValidationError": ("is not a valid repository name", 'Names look like "org/name".'),
    "LocalEntryNotFoundError": (
        "is not in the local cache and the Hugging Face hub cannot be reached",
        "Check the network (or unset HF_HUB_OFFLINE), or give the path of a local directory.",
    ),
    "OfflineModeIsEnabled": (
        "is not in the local cache and offline mode is on",
        "Unset HF_HUB_OFFLINE, or give the path of a local directory.",
    ),
}


def _translate(repo: str, revision: str | None, error: Exception) -> LoadError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    for base in type(error).__mro__:
        if base.__name__ in _MEANINGS:
            fact, hint = _MEANINGS[base.__name__]
            return LoadError(f"[load] {repo} {fact.format(revision=revision)}.", path=repo, hint=hint)
    hint = "Check the network and the free disk space, or give the path of a local directory."
    return LoadError(f"[load] {repo} could not be downloaded: {reason}.", path=repo, hint=hint)
