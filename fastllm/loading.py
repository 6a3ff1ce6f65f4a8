"""From a checkpoint to a program that runs: find the architecture, map the weights, record the forward, compile it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastllm import _core
from fastllm._ops_dtype import DType, as_dtype, float8_e4m3
from fastllm.errors import CorruptFile, DtypeError, InvalidConfig, LoadError, UnsupportedFormat
from fastllm.formats.checkpoint import Checkpoint, check_vocabulary
from fastllm.formats.source import TensorSource
from fastllm.nn.config import Config
from fastllm.nn.model import Model, record
from fastllm.nn.registry import architecture_class
from fastllm.nn.weights import fill, match, weight_dtype
from fastllm.tensor import Tensor
from fastllm.tokenizer import Tokenizer

__all__ = ["LoadCancelled", "LoadInfo", "LoadProgress", "LoadedModel", "load_module", "load_program"]

_LONGEST = 2**31 - 1  # positions are int32
_WEIGHT_DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json", "*.tiktoken", "spiece.model")


class LoadCancelled(LoadError):  # noqa: N818 - named as the event
    """Loading stopped because ``cancelled`` said so."""

    code = "load_cancelled"


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is.

    Attributes:
        tensors: Tensors in place.
        total_tensors: Tensors there will be.
        nbytes: Bytes of those in place, as they are in the file.
        total_nbytes: Bytes of all.
        stage: "weights", then "compile", then "done".
    """

    tensors: int
    total_tensors: int
    nbytes: int
    total_nbytes: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadInfo:
    """Facts about a loaded model.

    Attributes:
        architecture: Name in config.json.
        path: The checkpoint's directory.
        parameters: Number of weights, tied ones once.
        dtype: Dtype of most weights.
        context_length: Most tokens of a sequence.
        vocab_size: Logits of a token.
        weight_bytes: Memory of the weights on the device.
        device: Name of the device.
        layers: Attention layers.
        load_s: Seconds from the opened checkpoint to the program.
        notes: Things that were done to the weights and cost memory or precision.
        quant: Format that the weights of products were converted to, or None.
    """

    architecture: str
    path: str
    parameters: int
    dtype: str
    context_length: int
    vocab_size: int
    weight_bytes: int
    device: str
    layers: int
    load_s: float
    notes: tuple[str, ...] = ()
    quant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A model ready for an engine.

    Attributes:
        program: The compiled forward.
        module: The same model as Python modules, on the same weights, for looking inside.
        tokenizer: Its tokenizer, or None if the directory has none.
        config: config.json; for nested ones, the language model's part.
        generation_config: Sampling values that the checkpoint suggests.
        info: Facts.
    """

    program: _core.Program
    module: Model
    tokenizer: Tokenizer | None
    config: dict[str, Any]
    generation_config: dict[str, Any]
    info: LoadInfo


def load_program(
    checkpoint: Checkpoint,
    /,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
    context_length: int | None = None,
    kv_dtype: str = "auto",
    quant: str | None = None,
    progress: Callable[[LoadProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> LoadedModel:
    """Loads a checkpoint for running.

    Args:
        checkpoint: From ``open_checkpoint``. Its weights are mapped, not copied, where their dtype stays.
        device: Where to run.
        dtype: Dtype of the weights: "float32", "bfloat16", "float16", or "auto" for what the file has.
        threads: CPU threads; 0 for one a core.
        context_length: Most tokens of a sequence; by default what the model is made for.
        kv_dtype: Dtype of keys and values, "fp8" among them; "auto" for that of the weights.
        quant: Format to convert the weights of products to, such as "int4"; None to leave them.
        progress: Called after each tensor, from the calling thread.
        cancelled: Asked before each tensor; true stops the load.

    Raises:
        UnsupportedArchitecture: No model file for it; lists those there are.
        MissingTensor: The file lacks tensors; names them.
        CorruptFile: A tensor has another shape than the config says, or the tokenizer more tokens than the embedding.
        UnsupportedFormat: Tensors of a dtype that is not read, or tensors that the architecture does not know.
        InvalidConfig: An argument is out of range.
        LoadCancelled: ``cancelled`` said so.
    """
    started = time.monotonic()
    if quant is not None:
        quant = weight_format(quant)
    tokenizer = _tokenizer(checkpoint)
    core_device = _core.Device(device, threads)
    module, notes = load_module(checkpoint, dtype=dtype, progress=progress, cancelled=cancelled)
    if tokenizer is not None:
        notes += _check_vocabulary(tokenizer, module.vocab_size, checkpoint)
    length = _context_length(module, context_length)
    if kv_dtype != "auto":
        kv_dtype = _wanted_dtype(kv_dtype, "kv_dtype", (*_WEIGHT_DTYPES, float8_e4m3))
    _report(progress, checkpoint, "compile")
    recorder = record(module)
    program = _core.Program(recorder.graph, core_device, context_length=length, kv_dtype=kv_dtype, quant=quant)
    if quant is not None:
        notes += _say_rounded(quant, program, core_device.name)
    module._kv_layers = recorder.kv_layers
    info = LoadInfo(
        architecture=checkpoint.architecture,
        path=str(checkpoint.path),
        parameters=module.parameter_count,
        dtype=str(module.dtype),
        context_length=length,
        vocab_size=program.vocab_size,
        weight_bytes=program.weight_bytes,
        device=core_device.name,
        layers=len(recorder.kv_layers),
        load_s=time.monotonic() - started,
        notes=tuple(notes),
        quant=quant,
    )
    _report(progress, checkpoint, "done")
    return LoadedModel(
        program=program,
        module=module,
        tokenizer=tokenizer,
        config=checkpoint.text_config,
        generation_config=checkpoint.generation_config,
        info=info,
    )


def load_module(
    checkpoint: Checkpoint,
    /,
    *,
    dtype: str = "auto",
    progress: Callable[[LoadProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Model, list[str]]:
    """The checkpoint's network as Python modules with its weights in place; see ``load_program``.

    Returns:
        The model, and notes on what was copied or converted.
    """
    wanted = None if dtype == "auto" else _wanted_dtype(dtype, "dtype")
    _refuse_quantized(checkpoint)
    path = str(checkpoint.path)
    model_class = architecture_class(checkpoint.architecture, path=path)
    config = Config(checkpoint.text_config)
    _check_layers(config, checkpoint)
    model = model_class(config)
    pairs = match(model, checkpoint.tensors, path=path)
    done, turned = _Tally(), _Tally()
    converted: dict[str, _Tally] = {}
    total = sum(checkpoint.tensors[name].nbytes for _, name in pairs)
    for parameter, name in pairs:
        if cancelled is not None and cancelled():
            fact = f"loading {path} was stopped after {done.count} of {len(pairs)} tensors"
            raise LoadCancelled(f"[load] {fact}.", path=path)
        source = checkpoint.tensors[name]
        tensor, became = _weight(source, wanted)
        if became is not None:
            converted.setdefault(became, _Tally()).add(source.nbytes)
        if parameter.transposed:
            turned.add(source.nbytes)
        fill(parameter, tensor)
        done.add(source.nbytes)
        if progress is not None:
            progress(LoadProgress(done.count, len(pairs), done.nbytes, total, "weights"))
    notes = [f"{tally} converted {how}" for how, tally in converted.items()]
    if turned.count:
        notes.append(f"{turned} stored as [in, out] and turned round in memory")
    return model, notes


@dataclass(slots=True)
class _Tally:
    """Counts tensors and their bytes."""

    count: int = 0
    nbytes: int = 0

    def add(self, nbytes: int) -> None:
        self.count += 1
        self.nbytes += nbytes

    def __str__(self) -> str:
        return f"{self.count} tensors ({self.nbytes / 1e6:.1f} MB)"


def _weight(source: TensorSource, wanted: DType | None) -> tuple[Tensor, str | None]:
    """A mapped tensor, in the wanted dtype; and what was done to it, if anything."""
    dtype = weight_dtype(source.name, source.dtype)
    buffer = source.buffer()
    if source.offset % dtype.itemsize:  # kernels read aligned elements
        buffer = memoryview(bytes(buffer))
    tensor = Tensor.from_buffer(buffer, dtype, source.shape, name=source.name)
    target = wanted or (as_dtype("float32") if dtype == "float64" else dtype)
    if target == dtype:
        return tensor, None
    return tensor.astype(target), f"from {dtype} to {target}"


def _wanted_dtype(name: str, field_name: str, among: tuple[str, ...] = _WEIGHT_DTYPES) -> DType:
    dtype: DType | None = None
    with suppress(DtypeError):
        dtype = as_dtype(name)
    if dtype is None or dtype not in among:
        known = ", ".join(("auto", *among))
        fact = f"[load] {field_name} is {str(name)[:40]!r}"
        raise InvalidConfig(f"{fact}.", hint=f"Use one of {known}.", fields=(field_name,))
    return dtype


def _context_length(module: Model, asked: int | None) -> int:
    if asked is None:
        return min(module.context_length, _LONGEST)
    limit = module.position_limit
    if not 1 <= asked <= (limit or _LONGEST):
        fact = f"[load] context_length is {asked}, but the model has positions for {limit or _LONGEST} tokens"
        if asked < 1:
            fact = f"[load] context_length is {asked}, which is not positive"
        raise InvalidConfig(f"{fact}.", fields=("context_length",))
    return asked


def weight_format(name: object) -> str:
    """The usual name of a weight format.

    Raises:
        InvalidConfig: It is none; the message lists those there are.
    """
    if not isinstance(name, str):
        known = ", ".join(_core.weight_formats())
        fact = f"[load] quant is {type(name).__name__}, not the name of a weight format"
        raise InvalidConfig(f"{fact}.", hint=f"Use one of {known}.", fields=("quant",))
    return _core.weight_format(name)[0]


def _say_rounded(quant: str, program: _core.Program, device: str) -> list[str]:
    """What of a format this device could not do: a note, and one warning."""
    rounded = program.rounded_products
    if not rounded:
        return []
    what = f"{rounded} of {program.quantized_products} products" if rounded < program.quantized_products else "products"
    fact = f"{device} has no kernel for {quant} weights here: {what} compute with numbers rounded to it"
    warnings.warn(f"[load] {fact}, at the speed and memory of the unquantized ones.", UserWarning, stacklevel=2)
    return [fact]


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    if any(next(checkpoint.path.glob(pattern), None) is not None for pattern in _TOKENIZER_FILES):
        return Tokenizer.load(checkpoint.path)
    return None


def _check_vocabulary(tokenizer: Tokenizer, rows: int, checkpoint: Checkpoint) -> list[str]:
    """Refuses a tokenizer whose text can give ids without a row.

    Special tokens beyond the table are let through with a note: Gemma 3 shares its tokenizer with models that see, and
    has a row less than that needs. A prompt with such an id is refused when it is submitted.
    """
    beyond = range(rows, tokenizer.vocab_size)
    if not all(token in tokenizer.special_ids for token in beyond):
        check_vocabulary(tokenizer.vocab_size, rows, path=str(checkpoint.path))
    return [f"{len(beyond)} special tokens of the tokenizer have no row in the embedding"] if beyond else []


def _check_layers(config: Config, checkpoint: Checkpoint) -> None:
    """Refuses a count of layers that no file of this many tensors can have, before modules are made for them."""
    names = ("num_hidden_layers", "n_layer")
    layers = 0 if config.get_any(names) is None else config.integer(*names)
    if layers > len(checkpoint.tensors):
        fact = f"config.json says {layers} layers but the file has {len(checkpoint.tensors)} tensors"
        hint = "Config and weights do not belong together."
        raise CorruptFile(f"[load] {fact}.", hint=hint, path=str(checkpoint.path))


def _refuse_quantized(checkpoint: Checkpoint) -> None:
    entry = checkpoint.config.get("quantization_config") or checkpoint.text_config.get("quantization_config")
    if not entry:
        return
    method = entry.get("quant_method", "unnamed") if isinstance(entry, dict) else entry
    raise UnsupportedFormat(
        f"[load] {checkpoint.path} is quantized ({str(method)[:40]}), which is not read yet.",
        hint="Use the unquantized checkpoint.",
        path=str(checkpoint.path),
    )


def _report(progress: Callable[[LoadProgress], None] | None, checkpoint: Checkpoint, stage: str) -> None:
    if progress is not None:
        count = len(checkpoint.tensors)
        progress(LoadProgress(count, count, checkpoint.nbytes, checkpoint.nbytes, stage))
