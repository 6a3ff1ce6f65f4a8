"""A tool's JSON schema from a Python function: names and types from its signature, words from its docstring.

Follows the form that transformers' ``get_json_schema`` gives, on which models were trained.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from fastllm.errors import TemplateError

__all__ = ["function_schema"]

_SCALARS: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_PLAIN: dict[Any, dict[str, Any]] = {
    **{kind: {"type": name} for kind, name in _SCALARS.items()},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
    object: {},
}
_HINT = "Use int, float, str, bool, list, dict, Literal, Enum or unions of them, or give the JSON schema yourself."
_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")


def function_schema(function: Any) -> dict[str, Any]:
    """The schema {"type": "function", "function": {name, description, parameters}} of a function or method.

    A description may end in ``(choices: ["a", "b"])``, which becomes an enum.

    Raises:
        TemplateError: It is no function, or a type hint cannot be written as a schema.
    """
    name = getattr(function, "__name__", None) or type(function).__name__
    if not callable(function):
        fact = f"a tool is a {name}, neither a function nor a JSON schema"
        raise TemplateError(f"[tools] {fact}.", hint="Give functions or dictionaries.")
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except (TypeError, ValueError, NameError) as error:
        raise TemplateError(f"[tools] the signature of {name} cannot be read: {error}.", hint=_HINT) from error
    description, arguments, returns = _sections(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required = []
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if position == 0 and parameter.name in ("self", "cls") and parameter.name not in hints:
            continue
        schema = _schema(hints[parameter.name], f"{name}({parameter.name})") if parameter.name in hints else {}
        text = arguments.get(parameter.name)
        if text is not None:
            choices = re.search(r"\(choices:\s*(.*?)\)\s*$", text, flags=re.IGNORECASE)
            if choices:
                schema["enum"] = _choices(choices[1], f"{name}({parameter.name})")
                text = text[: choices.start()].strip()
            schema["description"] = text
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    body: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    result = _return_schema(hints, name)
    if result is not None:
        body["return"] = {**result, "description": returns} if returns is not None else result
    return {"type": "function", "function": body}


def _return_schema(hints: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The schema of the result, or None where there is no hint or none that can be written."""
    try:
        return _schema(hints["return"], name)
    except (KeyError, TemplateError):
        return None


def _choices(text: str, where: str) -> list[Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        fact = f"the choices of {where} are not a JSON list: {text}"
        raise TemplateError(f"[tools] {fact}.", hint='Write (choices: ["a", "b"]).') from error
    return [value.strip() if isinstance(value, str) else value for value in values]


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is None:
        if isinstance(hint, type) and issubclass(hint, Enum):
            return _enum([member.value for member in hint], where)
        if hint not in _PLAIN:
            raise TemplateError(f"[tools] {where} has the type {hint!r}, which has no JSON schema.", hint=_HINT)
        return dict(_PLAIN[hint])
    if origin is Union or origin is types.UnionType:
        return _union(args, where)
    if origin is Literal:
        return _enum(args, where)
    if origin is typing.Annotated:
        return _schema(args[0], where)
    if origin in (list, set, frozenset, Sequence, Iterable) and args:
        return {"type": "array", "items": _schema(args[0], where)}
    if origin is tuple:
        if len(args) < 2 or ... in args:
            raise TemplateError(f"[tools] {where} has the type {hint!r}, which has no JSON schema.", hint="Use list.")
        return {"type": "array", "prefixItems": [_schema(arg, where) for arg in args]}
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        return {"type": "object", "additionalProperties": _schema(args[1], where)}
    raise TemplateError(f"[tools] {where} has the type {hint!r}, which has no JSON schema.", hint=_HINT)


def _union(args: Sequence[Any], where: str) -> dict[str, Any]:
    members = [_schema(arg, where) for arg in args if arg is not type(None)]
    result: dict[str, Any]
    if len(members) == 1:
        result = members[0]
    elif all(member.keys() == {"type"} and isinstance(member["type"], str) for member in members):
        names = sorted({member["type"] for member in members})
        result = {"type": names[0] if len(names) == 1 else names}
    else:
        result = {"anyOf": members}
    if type(None) in args:
        result["nullable"] = True
    return result


def _enum(values: Sequence[Any], where: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise TemplateError(f"[tools] {where} has choices that are no JSON values: {list(values)!r}.", hint=_HINT)
    names = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}


def _sections(doc: str) -> tuple[str | None, dict[str, str], str | None]:
    """A Google-style docstring: (description, words of each argument, words of the result)."""
    blocks: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.strip().splitlines():
        match = _SECTION.match(line)
        if match:
            current = match[1]
            blocks[current] = []
        else:
            blocks[current].append(line)
    arguments: dict[str, str] = {}
    name, outer = "", None
    for line in blocks.get("Args") or blocks.get("Arguments") or blocks.get("Parameters") or []:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        match = re.match(r"\s*\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$", line)
        if match and (outer is None or indent <= outer):
            name, outer = match[1], indent
            arguments[name] = match[2].strip()
        elif name:
            arguments[name] = f"{arguments[name]} {line.strip()}".strip()
    description = "\n".join(blocks[""]).strip() or None
    returns = "\n".join(line.strip() for line in blocks["Returns"]).strip() if "Returns" in blocks else None
    return description, arguments, returns or None
