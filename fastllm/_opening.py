"""`load` and `load_async`: from a path to a running `Model`, with a progress bar for long loads."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from anyio import get_cancelled_exc_class, to_thread

from fastllm._loops import worker_limiter
from fastllm.config import EngineConfig, GenerationConfig
from fastllm.errors import InvalidConfig, LoadError
from fastllm.model import Model
from fastllm.types import ModelInfo

if TYPE_CHECKING:
    from fastllm.loading import LoadedModel, LoadProgress

__all__ = ["load", "load_async"]

_BAR_AFTER_S = 0.7  # a quick load shows no bar
_BAR_EVERY_S = 0.1


def load(
    path: str | os.PathLike[str],
    /,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quant: str | None = None,
    engine: EngineConfig | None = None,
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    progress: bool | Callable[[LoadProgress], None] | None = None,
    revision: str | None = None,
) -> Model:
    """Loads a model.

    Weights are mapped, not copied, where their dtype stays. Ctrl-C works; on an event loop use `load_async`.

    Args:
        path: A Hugging Face directory, "demo" (the bundled model), or a repository name to download ("org/name").
        device: "auto", "cpu", ...; `fastllm info --devices` lists them.
        dtype: "auto" (as in the file), "float32", "bfloat16" or "float16".
        quant: A format to convert the weights of products to while loading: "fp8", "int8", "int4" (groups of 128), or
            one of these with ``_g32``, ``_g64``, ``_g128``; "int4_asym" has a zero point too, "int4_row" one scale
            per row. "fp8_dynamic" multiplies fp8 with fp8: the inputs of a product become codes, too, with a scale per
            token, at a little more error and, on Hopper GPUs, up to twice the speed of prompts. A table that the
            embedding shares keeps its dtype; the output layer keeps 8 bits with int4, its inputs with fp8_dynamic.
            Where a device has no kernel for a format, numbers are rounded to it (the inputs of fp8_dynamic as well) but
            take the memory of ``dtype``, with a warning.
        engine: How to run it.
        adapters: Adapters by name; none can be loaded in this version.
        progress: True or False for a bar on standard error, a function to be called after each tensor, or None: a bar
            if standard error is a terminal and the load takes a while.
        revision: Branch, tag or commit of the repository; only for downloads.

    Raises:
        LoadError: The checkpoint cannot be loaded; subclasses say why.
        DeviceNotAvailable: The device cannot be used here.
        InvalidConfig: An argument is out of range.
    """
    return _load(
        path,
        device=device,
        dtype=dtype,
        quant=quant,
        engine=engine,
        adapters=adapters,
        progress=progress,
        revision=revision,
        cancelled=None,
    )


async def load_async(
    path: str | os.PathLike[str],
    /,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quant: str | None = None,
    engine: EngineConfig | None = None,
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    progress: bool | Callable[[LoadProgress], None] | None = None,
    revision: str | None = None,
) -> Model:
    """`load` in a worker thread, so that the event loop goes on. Cancelling it stops the load at the next tensor.

    Args and errors are those of `load`; a ``progress`` function is called in the worker thread.
    """
    stop = threading.Event()

    def work() -> Model:
        model = _load(
            path,
            device=device,
            dtype=dtype,
            quant=quant,
            engine=engine,
            adapters=adapters,
            progress=progress,
            revision=revision,
            cancelled=stop.is_set,
        )
        if stop.is_set():  # too late to stop, but nobody waits for it any more
            model.close()
        return model

    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=worker_limiter())
    except get_cancelled_exc_class():
        stop.set()
        raise


def _load(
    path: str | os.PathLike[str],
    *,
    device: str,
    dtype: str,
    quant: str | None,
    engine: EngineConfig | None,
    adapters: Mapping[str, str | os.PathLike[str]] | None,
    progress: bool | Callable[[LoadProgress], None] | None,
    revision: str | None,
    cancelled: Callable[[], bool] | None,
) -> Model:
    if adapters:
        raise InvalidConfig(
            f"[load] adapters names {sorted(adapters)}, but this version loads no adapters.",
            hint="Merge them into the checkpoint; adapters are planned for a later release.",
            fields=("adapters",),
        )
    if engine is not None and not isinstance(engine, EngineConfig):
        raise InvalidConfig(f"[load] engine is {type(engine).__name__}, not EngineConfig.", fields=("engine",))
    from fastllm.formats.checkpoint import open_checkpoint
    from fastllm.loading import load_program

    config = engine or EngineConfig()
    checkpoint = open_checkpoint(path, revision=revision)
    bar = _bar(progress, str(path))
    try:
        loaded = load_program(
            checkpoint,
            device=device,
            dtype=dtype,
            threads=config.threads or 0,
            context_length=config.context_length,
            kv_dtype=config.kv_dtype,
            quant=quant,
            progress=bar.update if bar is not None else progress if callable(progress) else None,
            cancelled=cancelled,
        )
    finally:
        if bar is not None:
            bar.close()
    model = model_of(loaded, config, name=_name(path))
    if config.cuda_graphs is True:
        from fastllm._warmup import warm_up

        try:
            warm_up(model, progress=None if callable(progress) else progress, stopped=cancelled or (lambda: False))
        except BaseException:
            model.close()
            raise
    return model


def model_of(loaded: LoadedModel, engine: EngineConfig | None = None, *, name: str = "") -> Model:
    """A running model from a loaded one (`fastllm.loading.load_program`).

    Args:
        loaded: Program, tokenizer and facts.
        engine: How to run it.
        name: Its name in completions.

    Raises:
        LoadError: The checkpoint has no tokenizer.
    """
    facts, tokenizer = loaded.info, loaded.tokenizer
    if tokenizer is None:
        raise LoadError(
            f"[load] {facts.path} has no tokenizer file.",
            hint="tokenizer.json, tokenizer.model or vocab.json belongs beside config.json.",
            path=facts.path,
        )
    generation = loaded.generation_config
    eos = generation.get("eos_token_id")
    info = ModelInfo(
        name=name or os.path.basename(facts.path.rstrip("/")),
        path=facts.path,
        architecture=facts.architecture,
        parameters=facts.parameters,
        dtype=facts.dtype,
        quant=facts.quant,
        context_length=facts.context_length,
        vocab_size=facts.vocab_size,
        device=facts.device,
        weight_bytes=facts.weight_bytes,
        kv_bytes_per_token=loaded.program.kv_bytes_per_token,
        layers=facts.layers,
        chat=tokenizer.chat_template is not None,
        kv_dtype=", ".join(dict.fromkeys(layer["dtype"] for layer in loaded.program.kv_layers)),
    )
    return Model(
        loaded.program,
        tokenizer,
        info=info,
        engine_config=engine,
        generation_config=GenerationConfig.from_checkpoint(generation),
        eos_token_ids=[eos] if isinstance(eos, int) else list(eos or ()),
        module=loaded.module,
        config=loaded.config,
    )


def _name(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if not os.path.exists(text) else os.path.basename(os.path.abspath(text))


def _bar(progress: bool | Callable[[LoadProgress], None] | None, title: str) -> _Bar | None:
    if callable(progress) or progress is False:
        return None
    stream: Any = sys.stderr
    if stream is None or (progress is None and not stream.isatty()):
        return None
    return _Bar(stream, title, after_s=0.0 if progress else _BAR_AFTER_S)


class _Bar:
    """One line that is written over: how far, how much, how fast."""

    def __init__(self, stream: TextIO, title: str, *, after_s: float) -> None:
        self._stream = stream
        self._title = title
        self._began = time.monotonic()
        self._next = self._began + after_s
        self._width = 0

    def update(self, progress: LoadProgress) -> None:
        """Draws, if it is time to."""
        now = time.monotonic()
        last = progress.stage == "done" and self._width > 0
        if now < self._next and not last:
            return
        self._next = now + _BAR_EVERY_S
        share = progress.nbytes / progress.total_nbytes if progress.total_nbytes else 1.0
        filled = round(share * 24)
        seconds = max(now - self._began, 1e-6)
        line = (
            f"{self._title}  {'█' * filled}{'░' * (24 - filled)} {share:4.0%}"
            f"  {progress.nbytes / 1e6:.0f}/{progress.total_nbytes / 1e6:.0f} MB  {seconds:.1f} s"
            f"{'  compiling' if progress.stage == 'compile' else ''}"
        )
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def close(self) -> None:
        """Wipes the line, so that nothing of the bar stays between a program's own lines."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
