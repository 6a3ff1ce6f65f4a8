"""``Module``: a part of a network, named by the attributes that lead to it, as checkpoints name their tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast, overload

from fastllm._ops_array import A
from fastllm._ops_record import name_scope
from fastllm.errors import InvalidRequest, MissingTensor, ShapeError
from fastllm.tensor import Tensor

__all__ = ["Module", "ModuleList", "Parameter", "parameter"]


class Parameter:
    """A place for a weight: its shape now, its numbers once a checkpoint is loaded.

    Attributes:
        shape: Sizes the weight must have.
        transposed: Whether checkpoints hold it the other way round, [in, out].
        data: The weight, or None.
        name: Path of its first module, such as "model.norm.weight".
    """

    __slots__ = ("data", "name", "shape", "transposed")

    def __init__(self, shape: Sequence[int], *, transposed: bool = False) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.transposed = transposed
        self.data: Tensor | None = None
        self.name = ""

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def fill(self, tensor: Tensor) -> None:
        """Takes a weight of the right shape.

        Raises:
            ShapeError: It has another shape; the text names both.
        """
        if tensor.shape != self.shape:
            fact = f"[load] {self.name or 'the parameter'} needs shape {list(self.shape)} but got {list(tensor.shape)}"
            raise ShapeError(f"{fact}.", expected=self.shape, actual=tensor.shape)
        if tensor.name != self.name:
            tensor = Tensor._wrap(tensor._handle, self.name)
        self.data = tensor

    def __fastllm_tensor__(self) -> Tensor:
        """The weight, for ops."""
        if self.data is None:
            hint = "Load a checkpoint with fastllm.load, or fill it with model.load_parameters."
            raise MissingTensor(f"[nn] {self!r} has no numbers yet.", hint=hint, names=[self.name])
        return self.data

    def __repr__(self) -> str:
        return f"Parameter {self.name or '(unnamed)'} {list(self.shape)}"


def parameter(shape: Sequence[int], *, transposed: bool = False) -> Tensor:
    """Declares a weight, to be set as an attribute; reading that attribute gives the Tensor once it is loaded."""
    return cast(Tensor, Parameter(shape, transposed=transposed))


class Module:
    """Base of all parts of a network.

    Parameters and modules set as attributes are found by name: ``self.q_proj = Linear(...)`` in ``self_attn`` in layer
    3 reads its weight from "model.layers.3.self_attn.q_proj.weight", and its node in the recorded graph has that path.
    Write ``forward``; call the module.
    """

    _parameters: dict[str, Parameter]
    _modules: dict[str, Module]
    _parent: weakref.ref[Module] | None
    _local_name: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Sets the registers up, so that a subclass need not call ``super().__init__``."""
        self = super().__new__(cls)
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "_parent", None)
        object.__setattr__(self, "_local_name", "")
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. Uses ``fastllm.ops`` and other modules; called through ``__call__``."""
        raise InvalidRequest(f"[nn] {type(self).__name__} has no forward.", hint="Define forward(self, x, ...).")

    def __call__(self, x: A, /, *args: Any, **kwargs: Any) -> A:
        """Runs or records ``forward`` under the module's name."""
        with name_scope(self.path):
            return cast(A, self.forward(x, *args, **kwargs))

    # --- attributes --------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._forget(name)
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._forget(name)
            self._modules[name] = value
            value._adopt(self, name)
        elif isinstance(value, Tensor) and name in self._parameters:
            parameter = self._parameters[name]
            parameter.name = parameter.name or _joined(self.path, name)
            parameter.fill(value)
        else:
            self._forget(name)
            object.__setattr__(self, name, value)

    def _forget(self, name: str) -> None:
        self._parameters.pop(name, None)
        self._modules.pop(name, None)
        self.__dict__.pop(name, None)

    def _adopt(self, parent: Module, name: str) -> None:
        if self._parent is None or self._parent() is None:
            object.__setattr__(self, "_parent", weakref.ref(parent))
            object.__setattr__(self, "_local_name", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        parameter = self._parameters.get(name)
        if parameter is not None:
            return parameter if parameter.data is None else parameter.data
        module = self._modules.get(name)
        if module is not None:
            return module
        known = ", ".join([*self._modules, *self._parameters])
        raise AttributeError(f"[nn] {type(self).__name__} has no attribute {name!r}. It has: {known}.")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._modules, *self._parameters]

    # --- looking through the tree ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The names that lead here from the outermost module, joined by dots; "" for that one."""
        parent = None if self._parent is None else self._parent()
        return self._local_name if parent is None else _joined(parent.path, self._local_name)

    def children(self) -> list[Module]:
        """The modules directly inside."""
        return list(self._modules.values())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, with their paths below ``prefix``; each module once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            yield from child._walk(_joined(prefix, name), seen)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters inside with their paths; a tied one comes once, under its first path."""
        seen: set[int] = set()
        for path, parameter in self._parameter_paths(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield path, parameter

    def _parameter_paths(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All paths of all parameters, those of tied ones too."""
        for path, module in self.named_modules(prefix):
            for name, parameter in module._parameters.items():
                yield _joined(path, name), parameter

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by path."""
        return dict(self.named_parameters())

    # --- display -----------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the tree shows in brackets behind the class; sizes by default."""
        return ", ".join(f"{name} {list(parameter.shape)}" for name, parameter in self._parameters.items())

    def __repr__(self) -> str:
        return "\n".join(self._tree())

    def _tree(self) -> list[str]:
        extra = self.extra_repr()
        lines = [f"{type(self).__name__}({extra})" if extra else type(self).__name__]
        shown: list[tuple[str, list[str]]] = []
        for name, child in self._modules.items():
            tree = child._tree()
            if name.isdigit() and shown and shown[-1][1] == tree and shown[-1][0].split("-")[0].isdigit():
                shown[-1] = (f"{shown[-1][0].split('-')[0]}-{name}", tree)
            else:
                shown.append((name, tree))
        for index, (name, tree) in enumerate(shown):
            last = index == len(shown) - 1
            lines.append(f"{'└─' if last else '├─'} {name}: {tree[0]}")
            lines += [f"{'   ' if last else '│  '}{line}" for line in tree[1:]]
        return lines


M = TypeVar("M", bound=Module)


class ModuleList(Module, Generic[M]):
    """Modules in a row, named "0", "1", ...: ``self.layers = ModuleList(Block(config, i) for i in range(n))``."""

    def __init__(self, modules: Iterable[M] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: M) -> None:
        """Adds a module at the end."""
        setattr(self, str(len(self._modules)), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[M]:
        return iter(cast("list[M]", self.children()))

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> list[M]: ...
    def __getitem__(self, index: int | slice) -> M | list[M]:
        return cast("list[M]", self.children())[index]


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
