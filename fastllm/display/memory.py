"""Where a model's memory goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastllm.display.chart import stacked
from fastllm.display.escape import esc
from fastllm.display.numbers import binary_size, percent
from fastllm.display.style import wrap

__all__ = ["MemoryReport"]


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Bytes by purpose. A notebook shows it as a bar and tables.

    Attributes:
        device: Where the model runs.
        weight_bytes: Its weights.
        kv_bytes: The reserved key/value pool.
        kv_used_bytes: What running requests hold of it.
        kv_cached_bytes: What the prefix cache keeps of it, for as long as nobody needs the room.
        activation_bytes: Room for all intermediate results of the largest step.
        unshared_activation_bytes: What they would take if none took over the room of another that is over.
        logits_bytes: Room on the host for logits that come from a device with memory of its own.
        step_tokens: Tokens of the largest step.
        step_rows: Rows of logits of the largest step.
        module_bytes: Weights that the Python modules hold; shared with the engine where it can map them.
        biggest: Names and bytes of the biggest weights, the biggest first.
        kv_dtype: Element type of keys and values, "" if unknown.
    """

    device: str
    weight_bytes: int
    kv_bytes: int
    kv_used_bytes: int
    kv_cached_bytes: int
    activation_bytes: int = 0
    unshared_activation_bytes: int = 0
    logits_bytes: int = 0
    step_tokens: int = 0
    step_rows: int = 0
    module_bytes: int = 0
    biggest: Sequence[tuple[str, str, int]] = ()
    kv_dtype: str = ""

    @property
    def total_bytes(self) -> int:
        """What is reserved: weights, pool, and the room that a step works in."""
        return self.weight_bytes + self.kv_bytes + self.workspace_bytes

    @property
    def workspace_bytes(self) -> int:
        """The room that a step works in: intermediate results, and logits on the host."""
        return self.activation_bytes + self.logits_bytes

    def __repr__(self) -> str:
        kept = f"{self.kv_dtype}, " if self.kv_dtype else ""
        return (
            f"<Memory {self.device} · weights {binary_size(self.weight_bytes)} · KV pool {binary_size(self.kv_bytes)}"
            f" ({kept}{binary_size(self.kv_used_bytes)} in use, {binary_size(self.kv_cached_bytes)} cached)"
            f" · a step's room {binary_size(self.workspace_bytes)}>"
        )

    def _repr_html_(self) -> str:
        free = max(0, self.kv_bytes - self.kv_used_bytes - self.kv_cached_bytes)
        parts = [
            ("weights", float(self.weight_bytes), binary_size(self.weight_bytes)),
            ("KV in use", float(self.kv_used_bytes), binary_size(self.kv_used_bytes)),
            ("KV kept by the prefix cache", float(self.kv_cached_bytes), binary_size(self.kv_cached_bytes)),
            ("KV reserved and empty", float(free), binary_size(free)),
            ("activations of a step", float(self.activation_bytes), binary_size(self.activation_bytes)),
        ]
        if self.logits_bytes:
            parts.append(("logits on the host", float(self.logits_bytes), binary_size(self.logits_bytes)))
        notes = ""
        if self.activation_bytes:
            notes = (
                f"<p>The largest step has {self.step_tokens} tokens and {self.step_rows} rows of logits."
                f" What is over makes room for what follows; side by side all would take"
                f" {binary_size(self.unshared_activation_bytes)}.</p>"
            )
        rows = "".join(
            f'<tr><th scope="row">{esc(name)}</th><td class="n">{esc(kind)}</td><td class="n">{binary_size(size)}</td>'
            f'<td class="n">{percent(size / self.weight_bytes) if self.weight_bytes else ""}</td></tr>'
            for name, kind, size in self.biggest
        )
        table = f'<table class="flm1-t"><caption>Biggest weights</caption>{rows}</table>' if rows else ""
        kept = f"; keys and values are {esc(self.kv_dtype)}" if self.kv_dtype else ""
        head = f"<p>{esc(self.device)}: {binary_size(self.total_bytes)} reserved{kept}</p>"
        return wrap(head + stacked(parts, label=f"memory on {self.device}") + notes + table, label="memory")
