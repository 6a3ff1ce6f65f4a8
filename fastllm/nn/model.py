"""``Model``: a whole network from token ids to logits, and the recording of its forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastllm._ops_array import A, Array
from fastllm._ops_dispatch import device_named
from fastllm._ops_dtype import DType, as_dtype, float32
from fastllm._ops_record import KvLayer, Recorder, Symbol
from fastllm._ops_step import EagerStep, Step, SymbolicStep
from fastllm.errors import InvalidRequest, MissingTensor, ShapeError
from fastllm.nn.config import Config
from fastllm.nn.module import Module
from fastllm.nn.weights import fill, match
from fastllm.tensor import Tensor

__all__ = ["Model", "record"]


class Model(Module):
    """Base of architectures: a subclass declares its parts in ``__init__(config)`` and runs them in ``forward``.

    Call it with a list of ids to look at numbers: ``model([1, 5, 7])`` gives logits [3, vocab]. To go on from there,
    make the step yourself: ``step = model.new_step(); model([1, 5], step); model([7], step)``.

    Attributes:
        config: The checkpoint's config.json.
        base_prefix: First part of the tensor names, which some checkpoints leave out.
        ignored_tensors: Regular expressions for tensors that checkpoints may have and the model does not need.
        renames: Regular expressions and replacements that turn a checkpoint's names into attribute paths.
    """

    base_prefix: ClassVar[str] = "model"
    ignored_tensors: ClassVar[tuple[str, ...]] = (r"rotary_emb\.inv_freq$",)
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()

    config: Config
    _kv_layers: dict[int, KvLayer] | None = None

    def __init__(self, config: Config) -> None:
        self.config = config

    def forward(self, ids: A, step: Step) -> A:
        """Ids [T] int32 -> logits [T, vocab]."""
        raise InvalidRequest(f"[nn] {type(self).__name__} has no forward.", hint="Define forward(self, ids, step).")

    def unembed(self, x: A) -> A:
        """The logits [T, vocab] that a state of the residual stream [T, hidden] stands for: last norm and output table.

        Architectures that define it can be looked at with the logit lens.
        """
        raise InvalidRequest(
            f"[nn] {type(self).__name__} does not say how its residual stream becomes logits.",
            hint="Define unembed(self, x): usually self.lm_head(self.model.norm(x)).",
        )

    def __call__(self, ids: Any, step: Step | None = None, /) -> Any:
        """Logits [T, vocab] of token ids: numbers for a list of ids, a Symbol while recording.

        Args:
            ids: Token ids, behind those that ``step`` already holds.
            step: Where to go on; a new sequence if None.
        """
        if isinstance(ids, Symbol):
            return super().__call__(ids, step)
        tokens = [int(token) for token in (ids.tolist() if isinstance(ids, Array) else ids)]  # type: ignore[attr-defined]
        if step is None:
            step = self.new_step(capacity=max(len(tokens), 1))
        if not isinstance(step, EagerStep):
            raise InvalidRequest(f"[nn] ids need a step made by new_step(), not {type(step).__name__}.")
        return super().__call__(step.begin(tokens), step)

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of logits of a token."""
        return self.config.integer("vocab_size")

    @property
    def context_length(self) -> int:
        """Most positions the model is made for, stretched ropes included."""
        positions = self.config.integer("max_position_embeddings", "n_positions", "max_seq_len", default=2048)
        entries = self.config.get("rope_scaling") or self.config.get("rope_parameters") or {}
        if not isinstance(entries, Mapping) or not any(key in entries for key in ("type", "rope_type")):
            return positions
        rope = self.config.rope()
        if rope.type in ("linear", "dynamic"):
            return int(positions * rope.factor)
        if rope.type == "yarn":
            return max(positions, int((rope.original_max_position or 0) * rope.factor))
        return positions

    @property
    def position_limit(self) -> int | None:
        """Positions beyond which the model cannot go at all (a table of positions), or None."""
        return None

    @property
    def dtype(self) -> DType:
        """The dtype of most weights."""
        counts: dict[DType, int] = {}
        for _, parameter in self.named_parameters():
            if parameter.data is not None:
                counts[parameter.data.dtype] = counts.get(parameter.data.dtype, 0) + parameter.numel
        return max(counts, key=lambda dtype: counts[dtype]) if counts else float32

    @property
    def parameter_count(self) -> int:
        """Number of weights, tied ones once."""
        return sum(parameter.numel for _, parameter in self.named_parameters())

    # --- weights -----------------------------------------------------------------------------------------------------

    def load_parameters(self, tensors: Mapping[str, Any], *, strict: bool = True) -> None:
        """Fills the parameters from tensors (or numpy arrays) under the names of a checkpoint.

        Args:
            tensors: Tensors by name. Views are kept, not copied, except for weights stored the other way round.
            strict: Whether tensors that the model does not know are an error.

        Raises:
            MissingTensor: Parameters without a tensor; names them.
            ShapeError: A tensor of another shape; names both shapes.
            UnsupportedFormat: A tensor of integers, or (with ``strict``) tensors nobody asked for.
        """
        values = {
            name: tensor if isinstance(tensor, Tensor) else Tensor.from_numpy(tensor)
            for name, tensor in tensors.items()
        }
        for parameter, name in match(self, values, strict=strict):
            fill(parameter, values[name])

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def kv_layers(self) -> dict[int, KvLayer]:
        """What each attention layer keeps of a token, found by recording the forward once."""
        if self._kv_layers is None:
            self._kv_layers = record(self).kv_layers
        return self._kv_layers

    def new_step(self, *, capacity: int = 256, kv_dtype: str = "auto") -> EagerStep:
        """An empty sequence with a cache of its own, for calling the model by hand.

        Args:
            capacity: Most tokens the sequence can have.
            kv_dtype: Element type of the cache, as in ``EngineConfig``; by default that of the weights.
        """
        dtype = self.dtype if kv_dtype == "auto" else as_dtype(kv_dtype)
        device = next((item.data.device for _, item in self.named_parameters() if item.data is not None), "cpu")
        return EagerStep(device_named(device), self.kv_layers, capacity=capacity, kv_dtype=dtype)

    def tie(self, first: Module, second: Module, /) -> None:
        """Makes two modules share one weight, under the first one's name: ``self.tie(embed_tokens, lm_head)``."""
        shared, other = first._parameters["weight"], second._parameters["weight"]
        if shared.shape != other.shape:
            fact = f"[nn] {list(shared.shape)} and {list(other.shape)} cannot share one weight"
            raise ShapeError(f"{fact}.", expected=shared.shape, actual=other.shape)
        second._parameters["weight"] = shared

    def extra_repr(self) -> str:
        """Number of weights."""
        count = self.parameter_count
        return f"{count / 1e9:.2f} B weights" if count >= 1e9 else f"{count / 1e6:.2f} M weights"


def record(model: Model) -> Recorder:
    """Records a model's forward, for any number of tokens, into a native graph.

    Raises:
        MissingTensor: A weight is not loaded.
        ShapeError: The forward does not give [tokens, vocab], or an op inside does not fit; names both shapes.
        InvalidRequest: The forward looked at numbers, which are not there yet.
    """
    unfilled = [path for path, parameter in model.named_parameters() if parameter.data is None]
    if unfilled:
        shown = ", ".join(unfilled[:5]) + (f" and {len(unfilled) - 5} more" if len(unfilled) > 5 else "")
        raise MissingTensor(f"[record] {type(model).__name__} has no numbers yet for {shown}.", names=unfilled)
    recorder = Recorder()
    logits = model(recorder.token_ids(), SymbolicStep(recorder))
    if not isinstance(logits, Symbol) or logits.recorder is not recorder:
        raise InvalidRequest(f"[record] the forward of {type(model).__name__} gave {logits!r} instead of logits.")
    if len(logits.shape) != 2 or logits.shape[1] != model.vocab_size:
        fact = f"[record] the forward gave shape {list(logits.shape)} instead of [tokens, {model.vocab_size}]"
        raise ShapeError(f"{fact}.", hint="It must end in the product with the output table.")
    recorder.graph.set_output(logits.value)
    return recorder
