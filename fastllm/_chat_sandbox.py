"""The jinja2 environment of chat templates: Hugging Face's helpers inside a sandbox with limits.

A template comes from whoever made the checkpoint, so it is treated as hostile code. On top of jinja2's immutable
sandbox (no attribute that leads to Python's insides, no change to the data) this bounds what a template may use: every
loop round, macro call and block checks a deadline, and every operation that can make a small value large (``*``, ``+``,
``~``, ``%``, padding, joining, replacing, printing) checks the size of its result before making it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import ext, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["MAX_CHARS", "MAX_SECONDS", "Refused", "compile_template", "limits"]

#: Characters that one render may put out, and that any one value may have.
MAX_CHARS = 20_000_000
#: Items that a list may have, nested ones included, or that a repetition or a padding may ask for.
MAX_COUNT = 1_000_000
#: Bits of an integer.
MAX_BITS = 10_000
#: Characters that all operations of one render may make together.
MAX_WORK = 400_000_000
#: Seconds that one render may take.
MAX_SECONDS = 10.0

_MODULE = __name__


class Refused(jinja2.TemplateError):
    """The template itself refuses the conversation (``raise_exception``)."""


class OverLimitError(SecurityError):
    """The template asks for more time or memory than it may have."""


@dataclass(slots=True)
class _Budget:
    deadline: float
    seconds: float
    chars: int = MAX_CHARS
    work: float = MAX_WORK


_budget: ContextVar[_Budget | None] = ContextVar("fastllm_template_budget", default=None)


@contextmanager
def limits(seconds: float = MAX_SECONDS) -> Iterator[None]:
    """Renders inside of it share one budget of time and output."""
    token = _budget.set(_Budget(time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def tick() -> str:
    """Called in every loop round, macro and block: stops a template that runs too long."""
    budget = _budget.get()
    if budget is not None and time.monotonic() > budget.deadline:
        raise OverLimitError(f"it runs longer than {budget.seconds:g} s")
    return ""


def concat(*values: Any) -> str:
    """The ``~`` operator."""
    _need(sum(_size(value) for value in values))
    return "".join(map(str, values))


def bounded(value: Any) -> Any:
    """A list or dictionary written in the template: nesting must not make it larger than it looks."""
    _need(_size(value))
    return value


def _emit(value: Any) -> Any:
    """Called with everything a template prints: counts the characters."""
    text = value if isinstance(value, str) else _text(value)
    budget = _budget.get()
    if budget is not None:
        budget.chars -= len(text)
        if budget.chars < 0:
            raise OverLimitError(f"its output exceeds {MAX_CHARS} characters")
        tick()
    return text


def _text(value: Any) -> str:
    _need(_size(value))
    return str(value)


def _need(chars: float) -> None:
    if chars > MAX_CHARS:
        raise OverLimitError(f"it makes a value of more than {MAX_CHARS} characters")
    budget = _budget.get()
    if budget is not None:
        budget.work -= chars
        if budget.work < 0:
            raise OverLimitError(f"its operations make more than {MAX_WORK} characters together")


def _count(*values: Any) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_COUNT:
            raise OverLimitError(f"it asks for {'that' if value.bit_length() > 64 else value} many characters or items")
        if isinstance(value, int):
            _need(abs(value))


def _bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise OverLimitError(f"it makes a number of more than {MAX_BITS} bits")


def _size(value: Any) -> int:
    """About the characters of str(value), counted no further than the limits; more items than allowed are too many."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    total, items, stack = 0, 0, [value]
    while stack and total <= MAX_CHARS:
        item = stack.pop()
        items += 1
        if items > MAX_COUNT:
            return MAX_CHARS + 1
        if isinstance(item, (str, bytes)):
            total += len(item) + 2
        elif isinstance(item, Mapping):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend(item)
            total += 2
        else:
            total += _size(item) if isinstance(item, int) else 8
    return total


# --- checks before an operation runs ------------------------------------------------------------------------------


def _check_multiply(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _bits(left.bit_length() + right.bit_length())
        return
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(times, int):
            _count(times)
            _need(len(sequence) * times)
            if not isinstance(sequence, (str, bytes)):
                _count(len(sequence) * times)
                _need(_size(sequence) * times)


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _bits(left.bit_length() * abs(right))


def _check_add(left: Any, right: Any) -> None:
    if isinstance(left, (str, bytes)) and isinstance(right, (str, bytes)):
        _need(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        _count(len(left) + len(right))


def _check_format(template: Any, values: Any) -> None:
    """Old and new style formatting: no widths of seven digits, no result above the limit."""
    if not isinstance(template, (str, bytes)):
        return
    text = template if isinstance(template, str) else template.decode("latin-1")
    if re.search(r"\d{7}", text):
        raise OverLimitError("it formats with a width of seven digits or more")
    items = list(values.values()) if isinstance(values, Mapping) else values
    items = items if isinstance(items, (list, tuple)) else [items]
    if "*" in text or re.search(r"\{[^}]*\{", text):
        _count(*items)
        _need(len(text) * max((item for item in items if isinstance(item, int)), default=0))
    fields = text.count("%") + text.count("{")
    widths = sum(int(width) for width in re.findall(r"\d{2,6}", text))
    _need(len(text) + widths + fields * max(map(_size, items), default=0))


_OPERATORS: dict[str, Callable[[Any, Any], None]] = {
    "*": _check_multiply,
    "**": _check_power,
    "+": _check_add,
    "%": _check_format,
}


def _check_replace(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    text, old, new = (value if isinstance(value, str) else _text(value) for value in (text, old, new))
    _need(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _check_join(items: Any, separator: Any) -> None:
    if isinstance(items, (list, tuple)):
        _need(_size(items) + _size(separator) * len(items))


def _check_method(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """A method of a built-in value, called by the template."""
    values = (*args, *kwargs.values())
    _count(*values)
    if not isinstance(owner, (str, bytes)):
        return
    if name == "join":
        _check_join(list(args[0]) if args and isinstance(args[0], Mapping) else args[0] if args else (), owner)
    elif name == "replace":
        _check_replace(owner, *args, **kwargs)
    elif name in ("format", "format_map"):
        _check_format(owner, [*args, *(kwargs.values())] if name == "format" else args[0] if args else ())
    elif name == "expandtabs":
        _need(len(owner) * max([8, *(value for value in values if isinstance(value, int))]))
    elif name in ("translate", "maketrans"):
        raise OverLimitError(f"it calls str.{name}")


# --- filters -------------------------------------------------------------------------------------------------------


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face templates expect it: no HTML escapes, characters as they are."""
    _count(indent)
    width = indent if isinstance(indent, int) else len(indent or "")
    _need(_size(value) * (1 + width))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _guard_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that checks its arguments first. Filters that take the environment get it as their first argument."""

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        plain = [value for value in args if not isinstance(value, (jinja2.Environment, nodes.EvalContext))]
        plain = [value for value in plain if not isinstance(value, jinja2.runtime.Context)]
        value, rest = (plain[0], plain[1:]) if plain else ("", [])
        tick()
        _count(*rest, *kwargs.values())
        if name == "join":
            items = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) else value
            args = tuple(items if entry is value else entry for entry in args)
            _check_join(items, rest[0] if rest else kwargs.get("d", ""))
        elif name == "replace":
            _check_replace(value, *rest[:2], **kwargs)
        elif name == "format":
            _check_format(value, [*rest, *kwargs.values()])
        elif name in ("indent", "wordwrap"):
            lines = _text(value).count("\n") + 1 if name == "indent" else _size(value)
            wide = max([4, *(entry if isinstance(entry, int) else _size(entry) for entry in (*rest, *kwargs.values()))])
            _need(_size(value) + lines * wide)
        elif name == "sum":
            items = list(value)
            args = tuple(items if entry is value else entry for entry in args)
            _need(sum(len(item) for item in items if isinstance(item, (list, tuple))))
        elif not isinstance(value, str):
            _need(_size(value))
        return function(*args, **kwargs)

    return checked


_GUARDED = (
    "batch",
    "capitalize",
    "center",
    "e",
    "escape",
    "format",
    "indent",
    "join",
    "lower",
    "pprint",
    "replace",
    "slice",
    "string",
    "sum",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlize",
    "wordwrap",
    "xmlattr",
)


# --- the environment ----------------------------------------------------------------------------------------------


class _Dict:
    """``dict`` without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """``dict.fromkeys``."""
        return dict.fromkeys(*args)


class _SafeNamespace(Namespace):
    """``namespace`` that stores no name which could shadow Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot store the name {name!r}")


def _raise_exception(message: Any = "") -> NoReturn:
    raise Refused(str(message))


class _Generation(ext.Extension):
    """Accepts ``{% generation %} ... {% endgeneration %}``, which marks the assistant's words for training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Any) -> nodes.Node:
        """Keeps the body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(_OPERATORS)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Checks the size of the result, then computes it."""
        _OPERATORS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Checks calls of the methods of strings, numbers and containers."""
        tick()
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)  # jinja2 wraps str.format
        if isinstance(owner, (str, bytes, int, list, tuple, dict)) or owner in (str, bytes, int):
            _check_method(owner, getattr(obj, "__name__", ""), args, kwargs)
        return super().call(context, obj, *args, **kwargs)


class _Limiter(NodeTransformer):
    """Puts a tick into every body that can run more than once, and a check into ``~``."""

    def _ticked(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body = [nodes.ExprStmt(_imported("tick"), lineno=node.lineno), *node.body]
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _ticked  # noqa: N815 - jinja2's naming

    def _bounded(self, node: Any) -> Any:
        self.generic_visit(node)
        stored = getattr(node, "ctx", "load") != "load"  # the left side of "set a, b = ..."
        return node if stored else _imported("bounded", [node], node.lineno)

    visit_List = visit_Tuple = visit_Dict = _bounded  # noqa: N815 - jinja2's naming

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's naming
        """``a ~ b`` becomes a checked call."""
        self.generic_visit(node)
        return _imported("concat", node.nodes, node.lineno)


def _imported(name: str, args: list[nodes.Expr] | None = None, line: int = 1) -> nodes.Call:
    function = nodes.ImportedName(f"{_MODULE}.{name}", lineno=line)
    return nodes.Call(function, args or [], [], None, None, lineno=line)


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _Generation], finalize=_emit
    )
    for name in _GUARDED:
        environment.filters[name] = _guard_filter(name, environment.filters[name])
    environment.filters["tojson"] = _tojson
    environment.globals.pop("lipsum", None)
    environment.globals.update(raise_exception=_raise_exception, dict=_Dict(), namespace=_SafeNamespace)
    return environment


_ENVIRONMENT = _make_environment()


def compile_template(source: str, clock: Callable[[], datetime]) -> tuple[jinja2.Template, frozenset[str]]:
    """Compiles a template.

    Args:
        source: Its jinja2 text.
        clock: Gives the time for ``strftime_now``.

    Returns:
        The template, and the names of the variables it reads from outside.

    Raises:
        jinja2.TemplateError: It cannot be parsed.
    """
    from jinja2 import meta

    tree = _ENVIRONMENT.parse(source)
    variables = frozenset(meta.find_undeclared_variables(tree))
    limited = _Limiter().visit(tree)
    limited.set_environment(_ENVIRONMENT)
    code = _ENVIRONMENT.compile(limited)

    def strftime_now(pattern: str) -> str:
        _count(len(pattern))
        return clock().strftime(pattern)

    helpers = _ENVIRONMENT.make_globals({"strftime_now": strftime_now})
    return jinja2.Template.from_code(_ENVIRONMENT, code, helpers), variables
