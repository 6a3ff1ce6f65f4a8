"""The one way from an op's Python face to the engine: run it on Tensors, or record it on Symbols."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from fastllm import _core
from fastllm._ops_array import A, Array
from fastllm._ops_record import Recorder, Symbol
from fastllm._ops_step import EagerStep, Step
from fastllm.errors import DtypeError, InvalidRequest
from fastllm.tensor import Tensor

__all__ = ["as_array", "device_named", "recorder_of", "run", "run_many"]


@cache
def device_named(name: str) -> _core.Device:
    """The device on which eager ops of this process run, opened at its first use."""
    return _core.Device(name)


def as_array(value: Any) -> Array:
    """An operand as an Array: Tensors, Symbols and filled parameters themselves, numbers and arrays as Tensors."""
    if isinstance(value, Array):
        return value
    tensor_of = getattr(value, "__fastllm_tensor__", None)
    if tensor_of is not None:
        return cast(Tensor, tensor_of())
    return Tensor(value)


def recorder_of(arrays: Sequence[Array]) -> Recorder | None:
    """The recorder of the operands, or None if all are real."""
    for array in arrays:
        if isinstance(array, Symbol):
            return array.recorder
    return None


def run_many(
    kind: str,
    inputs: Sequence[Any],
    attrs: dict[str, Any],
    *,
    name: str | None = None,
    step: Step | None = None,
    half_ok: Sequence[int] = (),
) -> list[Any]:
    """Runs or records an op of src/device/op.h.

    Args:
        kind: Its name there.
        inputs: Operands in its order.
        attrs: Its fields by name.
        name: Label of the node below the module's path, see ``Recorder.op``.
        step: Sequences and caches, for the ops that need them.
        half_ok: Operands that kernels read in any dtype (weights, ids); the others are activations: float32.
    """
    arrays = [as_array(value) for value in inputs]
    recorder = recorder_of(arrays)
    if recorder is not None:
        return recorder.op(kind, arrays, attrs, name)
    tensors = [
        cast(Tensor, array) if index in half_ok else _activation(kind, cast(Tensor, array))
        for index, array in enumerate(arrays)
    ]
    core_step = None
    if step is not None:
        if not isinstance(step, EagerStep):
            raise InvalidRequest(f"[{kind}] Tensors need a real step, not {type(step).__name__}.")
        core_step = step.core
    device = step.device if isinstance(step, EagerStep) else device_named(tensors[0].device)
    handles = _core.run_op(device, kind, [tensor._handle for tensor in tensors], attrs, core_step)
    return [Tensor._wrap(handle) for handle in handles]


def run(kind: str, x: A, others: Sequence[Any], attrs: dict[str, Any], **options: Any) -> A:
    """``run_many`` for ops with one output of the first operand's kind."""
    return cast(A, run_many(kind, [x, *others], attrs, **options)[0])


def _activation(kind: str, tensor: Tensor) -> Tensor:
    """The tensor as the kernels want activations: float32."""
    if tensor.dtype == "float32":
        return tensor
    if not tensor.dtype.floating:
        fact = f"[{kind}] works on real numbers, not on {tensor.dtype} of shape {list(tensor.shape)}"
        raise DtypeError(f"{fact}.", hint='Use x.astype("float32").', expected="float32", actual=tensor.dtype)
    return tensor.astype("float32")
