"""Architectures by the name in config.json. The built-in ones and a class from a notebook cell are registered alike."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TypeVar

from fastllm.errors import InvalidRequest, UnsupportedArchitecture
from fastllm.nn.model import Model

__all__ = ["architecture_class", "known_architectures", "register"]

_REGISTRY: dict[str, type[Model]] = {}
C = TypeVar("C", bound="type[Model]")


def register(*names: str) -> Callable[[C], C]:
    """Makes a model class load for checkpoints whose ``architectures`` name it.

    ``@fastllm.register("MyModelForCausalLM")`` above a subclass of ``fastllm.nn.Model``; with no name, the class's own.
    A name that is taken is replaced, so that a cell can be run again.

    Raises:
        InvalidRequest: What it decorates is not a subclass of ``nn.Model``.
    """
    if len(names) == 1 and not isinstance(names[0], str):
        return register()(names[0])  # type: ignore[unreachable] # used without brackets

    def keep(cls: C) -> C:
        kind: object = cls
        if not (isinstance(kind, type) and issubclass(kind, Model)):
            raise InvalidRequest(f"[register] {cls!r} is not a subclass of fastllm.nn.Model.")
        for name in names or (cls.__name__,):
            _REGISTRY[name] = cls
        return cls

    return keep


def known_architectures() -> list[str]:
    """Names that load, in alphabetical order."""
    _built_in()
    return sorted(_REGISTRY)


def architecture_class(name: str, *, path: str | None = None) -> type[Model]:
    """The model class of an architecture.

    Raises:
        UnsupportedArchitecture: None is registered; the error lists those that are and says how to add one.
    """
    _built_in()
    found = _REGISTRY.get(name)
    if found is not None:
        return found
    known = known_architectures()
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {close[0]}? " if close else ""
    raise UnsupportedArchitecture(
        f"[load] architecture {name!r} is not known. Known: {', '.join(known)}.",
        hint=f"{guess}To add one, write a subclass of fastllm.nn.Model and put @fastllm.register({name!r}) above it.",
        path=path,
        architecture=name,
        known=known,
    )


def _built_in() -> None:
    """Imports the model files, whose decorators fill the registry."""
    import fastllm.models  # noqa: F401
