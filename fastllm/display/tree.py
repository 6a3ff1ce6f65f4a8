"""A model as a tree of modules and weights. No weight is read unless figures are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastllm.display.escape import esc
from fastllm.display.numbers import binary_size, count
from fastllm.display.style import wrap

if TYPE_CHECKING:
    from fastllm.model import Model

__all__ = ["model_html", "module_html"]

_MAX_BYTES = 80_000


def _weights(module: Any) -> tuple[int, int]:
    """Elements and bytes of a module's weights, tied ones once."""
    elements = size = 0
    for _, parameter in module.named_parameters():
        elements += parameter.numel
        size += parameter.data.nbytes if parameter.data is not None else 0
    return elements, size


def _shape_of(module: Any) -> tuple[Any, ...]:
    """What makes two modules look the same: classes and weights' shapes, all the way down."""
    return (
        type(module).__name__,
        tuple((name, parameter.shape) for name, parameter in module._parameters.items()),
        tuple((name, _shape_of(child)) for name, child in module._modules.items()),
    )


def _leaf(name: str, parameter: Any, stats: bool) -> str:
    data = parameter.data
    if data is None:
        said = f"{list(parameter.shape)} (no numbers yet)"
    elif stats:
        said = repr(data)
    else:
        said = f"{data.dtype.short} {list(parameter.shape)} {binary_size(data.nbytes)} {data.device}"
    return f'<div class="flm1-m">{esc(name)}: {esc(said)}</div>'


def module_html(
    module: Any, name: str = "", *, stats: bool = False, depth: int = 0, room: list[int] | None = None
) -> str:
    """A module and all inside it, collapsed below the first level; equal neighbours are told once.

    Args:
        module: A `fastllm.nn.Module`.
        name: How it is called by the one around it.
        stats: Whether to read every weight for its one-line summary.
        depth: How deep it lies.
        room: Bytes that may still be written; what does not fit is left out, and said to be.
    """
    room = [_MAX_BYTES] if room is None else room
    elements, size = _weights(module)
    title = f"{name + ': ' if name else ''}{type(module).__name__}"
    facts = f"{count(elements)} parameters, {binary_size(size)}" if elements else "no parameters"
    parts = [_leaf(key, parameter, stats) for key, parameter in module._parameters.items()]
    room[0] -= sum(map(len, parts)) + 200
    children = list(module._modules.items())
    place = 0
    while place < len(children):
        key, child = children[place]
        if room[0] <= 0:
            parts.append(f"<div>… {len(children) - place} more are left out.</div>")
            break
        same, last = _shape_of(child), place
        while not stats and last + 1 < len(children) and _shape_of(children[last + 1][1]) == same:
            last += 1
        shown = key if last == place else f"{key} … {children[last][0]} ({last - place + 1} alike)"
        parts.append(module_html(child, shown, stats=stats, depth=depth + 1, room=room))
        place = last + 1
    style = ' style="margin-inline-start:1.2em"' if depth else ""
    if not parts:
        return f"<div{style}>{esc(title)}</div>"
    opened = " open" if depth == 0 else ""
    return (
        f'<details{opened}{style}><summary>{esc(title)} <span class="flm1-dim">{esc(facts)}</span></summary>'
        f'<div style="margin-inline-start:1.2em">{"".join(parts)}</div></details>'
    )


def model_html(model: Model, *, stats: bool = False) -> str:
    """What was loaded, and its modules.

    Args:
        model: A loaded model.
        stats: Whether to read every weight.
    """
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td>{esc(value)}</td></tr>'
        for name, value in model.info._rows()
        if name != "path"  # of this machine alone
    )
    closed = '<p class="flm1-bad">The model is closed.</p>' if model.closed else ""
    table = f'<table class="flm1-t"><caption>{esc(model.info.name)}</caption>{rows}</table>'
    tree = "" if model.module is None else module_html(model.module, stats=stats)
    return wrap(closed + table + tree, label=f"model {model.info.name}")
