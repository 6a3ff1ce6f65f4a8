"""fastllm: stream tokens from language models, from a notebook, a script or a server.

    import fastllm

    model = fastllm.load("demo")
    async for token in model.stream("Why is the sky blue?"):
        print(token, end="", flush=True)

`Model` has the verbs: stream, generate, batch, chat, score, logits. Without an event loop, `model.blocking` has the
same ones. Settings are `EngineConfig` (at load) and `GenerationConfig` (for each request); what comes back is in
`fastllm.types`; every error is a `FastLLMError` with a code and a hint.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from fastllm.config import AliasNotice, EngineConfig, GenerationConfig
from fastllm.errors import (
    BatchError,
    CaptureTooLarge,
    ConstraintError,
    ContextTooLong,
    CorruptFile,
    DeviceError,
    DeviceLost,
    DeviceNotAvailable,
    DtypeError,
    EngineClosed,
    EngineDead,
    EngineError,
    FastLLMError,
    ForkedProcess,
    InternalError,
    InvalidConfig,
    InvalidRequest,
    InvalidSchema,
    LoadError,
    LoopBlocked,
    MissingTensor,
    OutOfMemory,
    QueueFull,
    ShapeError,
    StreamBusy,
    StreamConsumed,
    StreamError,
    TemplateError,
    UnknownAdapter,
    UnknownNode,
    UnsupportedArchitecture,
    UnsupportedFormat,
    WrongLoop,
)
from fastllm.types import (
    Completion,
    EngineStats,
    FinishReason,
    Message,
    ModelInfo,
    Prompt,
    RenderedPrompt,
    Request,
    Scores,
    Timing,
    Token,
    TopToken,
    Usage,
)

if TYPE_CHECKING:
    from fastllm import nn, ops
    from fastllm._inside import Node
    from fastllm._opening import load, load_async
    from fastllm._ops_dtype import (
        DType,
        bfloat16,
        bool_,
        float8_e4m3,
        float8_e5m2,
        float16,
        float32,
        float64,
        int8,
        int16,
        int32,
        int64,
        uint8,
    )
    from fastllm._shown import show
    from fastllm.batch import AsCompleted, BatchStream
    from fastllm.blocking import BlockingModel, BlockingStream
    from fastllm.capture import Capture, LogitLens
    from fastllm.chat import BlockingChat, Chat
    from fastllm.chat_template import ChatTemplate
    from fastllm.model import Model
    from fastllm.nn import register
    from fastllm.steer import Ablate, Add, Replace, Scale, Steering
    from fastllm.stream import TokenStream
    from fastllm.tensor import Tensor, arange, cat, full, ones, zeros
    from fastllm.tokenizer import Tokenizer

    __version__: str

# Names that need the native module or more: imported when first used, so that `import fastllm` stays quick.
_LAZY = {
    "Ablate": "fastllm.steer",
    "Add": "fastllm.steer",
    "AsCompleted": "fastllm.batch",
    "BatchStream": "fastllm.batch",
    "BlockingChat": "fastllm.chat",
    "BlockingModel": "fastllm.blocking",
    "BlockingStream": "fastllm.blocking",
    "Capture": "fastllm.capture",
    "Chat": "fastllm.chat",
    "ChatTemplate": "fastllm.chat_template",
    "DType": "fastllm._ops_dtype",
    "LogitLens": "fastllm.capture",
    "Model": "fastllm.model",
    "Node": "fastllm._inside",
    "Replace": "fastllm.steer",
    "Scale": "fastllm.steer",
    "Steering": "fastllm.steer",
    "Tensor": "fastllm.tensor",
    "TokenStream": "fastllm.stream",
    "Tokenizer": "fastllm.tokenizer",
    "__version__": "fastllm._core",
    "arange": "fastllm.tensor",
    "bfloat16": "fastllm._ops_dtype",
    "bool_": "fastllm._ops_dtype",
    "cat": "fastllm.tensor",
    "float16": "fastllm._ops_dtype",
    "float32": "fastllm._ops_dtype",
    "float64": "fastllm._ops_dtype",
    "float8_e4m3": "fastllm._ops_dtype",
    "float8_e5m2": "fastllm._ops_dtype",
    "full": "fastllm.tensor",
    "int16": "fastllm._ops_dtype",
    "int32": "fastllm._ops_dtype",
    "int64": "fastllm._ops_dtype",
    "int8": "fastllm._ops_dtype",
    "load": "fastllm._opening",
    "load_async": "fastllm._opening",
    "nn": "",
    "ones": "fastllm.tensor",
    "ops": "",
    "register": "fastllm.nn",
    "show": "fastllm._shown",
    "uint8": "fastllm._ops_dtype",
    "zeros": "fastllm.tensor",
}

__all__ = [
    "Ablate",
    "Add",
    "AliasNotice",
    "AsCompleted",
    "BatchError",
    "BatchStream",
    "BlockingChat",
    "BlockingModel",
    "BlockingStream",
    "Capture",
    "CaptureTooLarge",
    "Chat",
    "ChatTemplate",
    "Completion",
    "ConstraintError",
    "ContextTooLong",
    "CorruptFile",
    "DType",
    "DeviceError",
    "DeviceLost",
    "DeviceNotAvailable",
    "DtypeError",
    "EngineClosed",
    "EngineConfig",
    "EngineDead",
    "EngineError",
    "EngineStats",
    "FastLLMError",
    "FinishReason",
    "ForkedProcess",
    "GenerationConfig",
    "InternalError",
    "InvalidConfig",
    "InvalidRequest",
    "InvalidSchema",
    "LoadError",
    "LogitLens",
    "LoopBlocked",
    "Message",
    "MissingTensor",
    "Model",
    "ModelInfo",
    "Node",
    "OutOfMemory",
    "Prompt",
    "QueueFull",
    "RenderedPrompt",
    "Replace",
    "Request",
    "Scale",
    "Scores",
    "ShapeError",
    "Steering",
    "StreamBusy",
    "StreamConsumed",
    "StreamError",
    "TemplateError",
    "Tensor",
    "Timing",
    "Token",
    "TokenStream",
    "Tokenizer",
    "TopToken",
    "UnknownAdapter",
    "UnknownNode",
    "UnsupportedArchitecture",
    "UnsupportedFormat",
    "Usage",
    "WrongLoop",
    "__version__",
    "arange",
    "bfloat16",
    "bool_",
    "cat",
    "float8_e4m3",
    "float8_e5m2",
    "float16",
    "float32",
    "float64",
    "full",
    "int8",
    "int16",
    "int32",
    "int64",
    "load",
    "load_async",
    "nn",
    "ones",
    "ops",
    "register",
    "show",
    "uint8",
    "zeros",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastllm' has no attribute {name!r}")
    module = _LAZY[name]
    try:
        value = getattr(importlib.import_module(module), name) if module else importlib.import_module(f"fastllm.{name}")
    except ImportError as error:
        if importlib.util.find_spec("fastllm._core") is None:
            raise ImportError(
                f"fastllm.{name} needs the native module, which is not built here ({__path__[0]}). "
                "Install the package with `pip install .`, and start Python outside the source tree.",
                name="fastllm._core",
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext fastllm``: the magics ``%ask`` and ``%%ask``."""
    importlib.import_module("fastllm.widgets.magic").register(ipython)
