"""Reading config.json: typed values by name, with an error that says which one is missing or wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, overload

from fastllm._ops_elementwise import ACTIVATIONS
from fastllm.errors import LoadError
from fastllm.formats.rope import RopeConfig, rope_config

__all__ = ["Config"]

T = TypeVar("T")
_MISSING: Any = object()
_LARGEST = 2**31 - 1  # what the engine can count to


class Config(Mapping[str, Any]):
    """The values of a checkpoint's config.json.

    A null counts as missing: checkpoints write null for "use the default". Several names for one value may be given,
    newest first.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_any(self, names: tuple[str, ...]) -> Any:
        """The first of these names that has a value, or None."""
        return next((self._values[name] for name in names if self._values.get(name) is not None), None)

    @overload
    def integer(self, *names: str) -> int: ...
    @overload
    def integer(self, *names: str, default: T) -> int | T: ...
    def integer(self, *names: str, default: Any = _MISSING) -> Any:
        """A whole number above 0.

        Raises:
            LoadError: It is missing without a default, or it is something else.
        """
        value = self._found(names, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise _wrong(names, value, "a whole number above 0")
        if value != int(value) or not 0 < value <= _LARGEST:
            raise _wrong(names, value, f"a whole number from 1 to {_LARGEST}")
        return int(value)

    @overload
    def real(self, *names: str) -> float: ...
    @overload
    def real(self, *names: str, default: T) -> float | T: ...
    def real(self, *names: str, default: Any = _MISSING) -> Any:
        """A finite number.

        Raises:
            LoadError: It is missing without a default, or it is something else.
        """
        value = self._found(names, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
            raise _wrong(names, value, "a number of ordinary size")
        return float(value)

    def positive(self, *names: str, default: Any = _MISSING) -> float:
        """A finite number above 0.

        Raises:
            LoadError: It is missing without a default, or it is something else.
        """
        value = self.real(*names, default=default)
        if not value > 0:
            raise _wrong(names, value, "a number above 0")
        return float(value)

    def activation(self, *names: str, default: str) -> str:
        """The name of an activation function.

        Raises:
            LoadError: There is none of that name.
        """
        name = self.text(*names, default=default)
        if name not in ACTIVATIONS:
            raise _wrong(names, name, f"one of {', '.join(sorted(ACTIVATIONS))}")
        return name

    def bound(self, name: str, *, missing: float) -> float:
        """A positive number that null switches off: 0 for null, ``missing`` where the config does not mention it.

        Raises:
            LoadError: It is something else.
        """
        if name not in self._values:
            return missing
        value = self.real(name, default=0.0)
        if value < 0:
            raise _wrong((name,), value, "a positive number or null")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        """True or false.

        Raises:
            LoadError: It is something else.
        """
        value = self._found(names, default)
        if not isinstance(value, (bool, int)):
            raise _wrong(names, value, "true or false")
        return bool(value)

    @overload
    def text(self, *names: str) -> str: ...
    @overload
    def text(self, *names: str, default: T) -> str | T: ...
    def text(self, *names: str, default: Any = _MISSING) -> Any:
        """A string.

        Raises:
            LoadError: It is missing without a default, or it is something else.
        """
        value = self._found(names, default)
        if value is not default and not isinstance(value, str):
            raise _wrong(names, value, "a string")
        return value

    def layer_types(self, layers: int) -> list[str] | None:
        """``layer_types`` with its length checked, or None where the config does not list them."""
        value = self.get_any(("layer_types",))
        if value is None:
            return None
        known = ("full_attention", "sliding_attention")
        if not isinstance(value, list) or len(value) != layers or any(item not in known for item in value):
            raise _wrong(("layer_types",), value, f"a list of {layers} words out of {known}")
        return list(value)

    def rope(self, layer_type: str | None = None, **defaults: float) -> RopeConfig:
        """The rotary parameters, from old or new keys; see ``fastllm.formats.rope``."""
        return rope_config(self._values, layer_type, **defaults)

    def _found(self, names: tuple[str, ...], default: Any) -> Any:
        value = self.get_any(names)
        if value is not None:
            return value
        if default is _MISSING:
            raise LoadError(f"[config] config.json has no {' or '.join(map(repr, names))}.", hint="Is it complete?")
        return default

    def __repr__(self) -> str:
        return f"Config({self._values!r})"


def _wrong(names: tuple[str, ...], value: Any, wanted: str) -> LoadError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    fact = f"[config] {names[0]} is {shown} instead of {wanted}"
    return LoadError(f"{fact}.", hint="Is config.json of this checkpoint sound?")
