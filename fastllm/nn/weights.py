"""From a checkpoint's tensors to a model's parameters: names, shapes, dtypes, all checked before a number is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastllm._ops_dtype import DType, as_dtype
from fastllm.errors import CorruptFile, DtypeError, MissingTensor, ShapeError, UnsupportedFormat
from fastllm.nn.module import Parameter
from fastllm.tensor import Tensor

if TYPE_CHECKING:
    from fastllm.nn.model import Model

__all__ = ["fill", "match", "weight_dtype"]


class Described(Protocol):
    """A tensor, read or not."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes."""

    @property
    def dtype(self) -> str:
        """Element type, in any spelling."""


def match(
    model: Model, tensors: Mapping[str, Any], *, strict: bool = True, path: str | None = None
) -> list[tuple[Parameter, str]]:
    """Finds the tensor of each parameter.

    Args:
        model: Names by its attribute paths; its ``renames``, ``base_prefix`` and ``ignored_tensors`` apply.
        tensors: What there is, by the checkpoint's names; only shapes and dtypes are looked at.
        strict: Whether tensors that the model does not know are an error.
        path: Where the tensors are from, for messages; None if they are not from a checkpoint.

    Returns:
        Parameters with the checkpoint's names of their tensors; each parameter has its ``name`` set.

    Raises:
        MissingTensor: Parameters without a tensor.
        ShapeError: A tensor of another shape (CorruptFile if it is from a checkpoint).
        UnsupportedFormat: A tensor that is not of real numbers, or tensors the model does not know.
    """
    where = path or "the mapping"
    available = _renamed(model, tensors)
    found: list[tuple[Parameter, str]] = []
    used: set[str] = set()
    missing: list[str] = []
    for parameter, paths in _paths(model):
        parameter.name = paths[0]
        names = [available[name] for name in paths if name in available]
        if not names:
            missing.append(paths[0])
            continue
        found.append((parameter, names[0]))
        used.update(names)
    if missing:
        shown = _few(missing)
        fact = f"[load] {where} has {len(tensors)} tensors but lacks {shown}, which {type(model).__name__} needs"
        hint = "Is this a complete checkpoint of that architecture?"
        if missing == ["lm_head.weight"]:
            hint = "If the output table is the embedding, config.json must say tie_word_embeddings: true."
        raise MissingTensor(f"{fact}.", hint=hint, path=path, names=missing)
    extra = [name for name in tensors if name not in used and not _ignored(model, name)]
    if extra and strict:
        fact = f"[load] {where} has {len(extra)} tensors that {type(model).__name__} does not know: {_few(extra)}"
        hint = "Its numbers would be wrong without them. Is this the right architecture?"
        raise UnsupportedFormat(f"{fact}.", hint=hint, path=path)
    for parameter, name in found:
        _check(parameter, name, tensors[name], path)
    return found


def fill(parameter: Parameter, tensor: Tensor) -> None:
    """Puts a tensor into its parameter, turned round if the checkpoint holds it so."""
    if parameter.transposed:
        tensor = Tensor(np.ascontiguousarray(tensor.numpy().T), dtype=tensor.dtype)
    elif not tensor.contiguous:
        tensor = tensor.copy()
    parameter.fill(tensor)


def weight_dtype(name: str, dtype: str, *, path: str | None = None) -> DType:
    """The dtype of a tensor that is to be a weight.

    Raises:
        UnsupportedFormat: It is not float32, float16, bfloat16 or float64.
    """
    try:
        known = as_dtype(dtype)
    except DtypeError:
        known = None
    if known is not None and known in ("float32", "float16", "bfloat16", "float64"):
        return known
    fact = f"[load] {name} is {dtype}, but weights must be float32, float16 or bfloat16"
    hint = "Quantized checkpoints are not read yet: use the unquantized one."
    raise UnsupportedFormat(f"{fact}.", hint=hint, path=path)


def _renamed(model: Model, names: Iterable[str]) -> dict[str, str]:
    """Attribute paths and the checkpoint's names for them."""
    result: dict[str, str] = {}
    for name in names:
        path = name
        for pattern, replacement in model.renames:
            path = re.sub(pattern, replacement, path)
        if path == name:
            result[path] = name
        else:
            result.setdefault(path, name)
    prefix = f"{model.base_prefix}."
    if model.base_prefix and not any(path.startswith(prefix) for path in result):
        inside = {path for path, _ in model._parameter_paths()}
        result = {path if path in inside else prefix + path: name for path, name in result.items()}
    return result


def _paths(model: Model) -> list[tuple[Parameter, list[str]]]:
    """Each parameter with all its paths, the first of which is its name."""
    grouped: dict[int, tuple[Parameter, list[str]]] = {}
    for path, parameter in model._parameter_paths():
        grouped.setdefault(id(parameter), (parameter, []))[1].append(path)
    return list(grouped.values())


def _ignored(model: Model, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in model.ignored_tensors)


def _check(parameter: Parameter, name: str, tensor: Described, path: str | None) -> None:
    weight_dtype(name, str(tensor.dtype), path=path)
    wanted = parameter.shape[::-1] if parameter.transposed else parameter.shape
    if tuple(tensor.shape) == wanted:
        return
    fact = f"[load] {name} has shape {list(tensor.shape)} but config.json asks for {list(wanted)}"
    hint = "Config and weights do not belong together."
    if path is not None:
        raise CorruptFile(f"{fact}.", hint=hint, path=path)
    raise ShapeError(f"{fact}.", hint=hint, expected=wanted, actual=tuple(tensor.shape))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
