"""Displays as pure functions: data in, text or HTML out. numpy and the standard library only, no script, no network.

Each module draws one kind of thing; `fastllm.widgets` puts sliders and buttons around them. The HTML of every function
is complete: it brings its stylesheet, escapes what it shows, has light and dark colours, and its facts are text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllm.display.memory import MemoryReport
    from fastllm.model import Model

__all__ = ["html_of", "memory_of", "treescope_adapter"]


def html_of(thing: Any) -> str:
    """The static HTML of one of fastllm's objects.

    Raises:
        TypeError: There is no display for it.
    """
    from fastllm.batch import BatchResults
    from fastllm.chat import Conversation
    from fastllm.model import Model
    from fastllm.stream import RequestHandle
    from fastllm.tensor import Tensor
    from fastllm.types import Completion

    if isinstance(thing, Completion):
        from fastllm.display.tokens import completion_html

        return completion_html(thing)
    if isinstance(thing, Tensor):
        from fastllm.display.tensor import tensor_html

        return tensor_html(thing)
    if isinstance(thing, BatchResults):
        from fastllm.display.batch import results_html

        return results_html(thing)
    if isinstance(thing, Conversation):
        from fastllm.display.chat import conversation_html

        return conversation_html(thing.path)
    if isinstance(thing, Model):
        from fastllm.display.tree import model_html

        return model_html(thing)
    if isinstance(thing, RequestHandle):
        from fastllm.display.tokens import handle_html

        return handle_html(thing)
    raise TypeError(f"[display] there is no display for {type(thing).__name__}.")


def treescope_adapter() -> Any:
    """What shows tensors in treescope. Only treescope asks for it, so it is installed."""
    from fastllm.display.treescope import TensorAdapter

    return TensorAdapter()


def memory_of(model: Model) -> MemoryReport:
    """Where a model's memory goes."""
    from fastllm.display.memory import MemoryReport

    stats = model.stats()
    block = stats.kv_bytes / stats.kv_blocks_total if stats.kv_blocks_total else 0.0
    weights = []
    if model.module is not None:
        named = model.module.named_parameters()
        weights = [(path, parameter.data) for path, parameter in named if parameter.data is not None]
    weights.sort(key=lambda entry: -entry[1].nbytes)
    step = model._engine.program.memory
    return MemoryReport(
        activation_bytes=step["activation_bytes"],
        unshared_activation_bytes=step["unshared_activation_bytes"],
        logits_bytes=step["logits_bytes"],
        step_tokens=step["step_tokens"],
        step_rows=step["step_rows"],
        device=model.info.device,
        weight_bytes=stats.weight_bytes,
        kv_bytes=stats.kv_bytes,
        kv_used_bytes=round((stats.kv_blocks_total - stats.kv_blocks_free) * block),
        kv_cached_bytes=round(stats.kv_blocks_cached * block),
        kv_dtype=model.info.kv_dtype,
        module_bytes=sum(data.nbytes for _, data in weights),
        biggest=[(path, f"{data.dtype.short} {list(data.shape)}", data.nbytes) for path, data in weights[:10]],
    )
