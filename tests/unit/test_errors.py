"""The error tree: codes, hints, attributes, pickling, and building from native codes."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import pytest

from fastllm import errors
from fastllm.errors import BatchError, FastLLMError, from_code

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

# code -> (class name, its parents), written out from the design: the codes are public API.
TREE = {
    "load_error": ("LoadError", ["FastLLMError"]),
    "corrupt_file": ("CorruptFile", ["LoadError"]),
    "unsupported_architecture": ("UnsupportedArchitecture", ["LoadError"]),
    "unsupported_format": ("UnsupportedFormat", ["LoadError"]),
    "missing_tensor": ("MissingTensor", ["LoadError"]),
    "out_of_memory": ("OutOfMemory", ["LoadError"]),
    "device_error": ("DeviceError", ["FastLLMError"]),
    "device_not_available": ("DeviceNotAvailable", ["DeviceError"]),
    "device_lost": ("DeviceLost", ["DeviceError"]),
    "invalid_request": ("InvalidRequest", ["FastLLMError", "ValueError"]),
    "invalid_config": ("InvalidConfig", ["InvalidRequest"]),
    "context_too_long": ("ContextTooLong", ["InvalidRequest"]),
    "unknown_adapter": ("UnknownAdapter", ["InvalidRequest"]),
    "unknown_node": ("UnknownNode", ["InvalidRequest"]),
    "capture_too_large": ("CaptureTooLarge", ["InvalidRequest"]),
    "template_error": ("TemplateError", ["InvalidRequest"]),
    "invalid_schema": ("InvalidSchema", ["InvalidRequest"]),
    "shape_error": ("ShapeError", ["InvalidRequest"]),
    "dtype_error": ("DtypeError", ["InvalidRequest"]),
    "engine_error": ("EngineError", ["FastLLMError"]),
    "queue_full": ("QueueFull", ["EngineError"]),
    "engine_closed": ("EngineClosed", ["EngineError"]),
    "engine_dead": ("EngineDead", ["EngineError"]),
    "forked_process": ("ForkedProcess", ["EngineError"]),
    "stream_error": ("StreamError", ["FastLLMError", "RuntimeError"]),
    "stream_busy": ("StreamBusy", ["StreamError"]),
    "stream_consumed": ("StreamConsumed", ["StreamError"]),
    "wrong_loop": ("WrongLoop", ["StreamError"]),
    "constraint_error": ("ConstraintError", ["FastLLMError"]),
    "internal": ("InternalError", ["FastLLMError"]),
    "batch_error": ("BatchError", ["FastLLMError", "ExceptionGroup"]),
}

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "corrupt_file": {"path": "/x/model.safetensors"},
    "unsupported_architecture": {"architecture": "Foo", "known": ("llama", "qwen2"), "path": "/x"},
    "missing_tensor": {"names": ("a", "b")},
    "out_of_memory": {"needed_bytes": 10, "available_bytes": 5},
    "device_not_available": {"device": "cuda:0", "why": "no_driver"},
    "device_lost": {"device": "cuda:1"},
    "invalid_config": {"fields": ("top_p", "temperature")},
    "context_too_long": {"prompt_tokens": 2000, "limit": 1024},
    "unknown_adapter": {"adapter": "x", "known": ("y",)},
    "unknown_node": {"name": "blocks.0.atn", "matches": ("blocks.0.attn.z",)},
    "capture_too_large": {"needed_bytes": 10, "max_bytes": 5},
    "template_error": {"line": 3},
    "invalid_schema": {"pointer": "/properties/a"},
    "shape_error": {"expected": (4, 5), "actual": (4, 6)},
    "dtype_error": {"expected": "F32", "actual": "I8"},
    "queue_full": {"retry_after_s": 1.5},
    "engine_dead": {"cause": "boom"},
}


@pytest.mark.parametrize("code", TREE)
def test_tree_and_codes(code: str) -> None:
    name, parents = TREE[code]
    cls = getattr(errors, name)
    assert cls.code == code
    assert issubclass(cls, FastLLMError)
    assert [base.__name__ for base in cls.__mro__ if base.__name__ in parents] == parents
    assert name in errors.__all__


def test_every_class_is_in_the_table() -> None:
    listed = {name for name, _ in TREE.values()} | {"FastLLMError", "LoopBlocked", "from_code"}
    assert set(errors.__all__) == listed
    assert issubclass(errors.LoopBlocked, RuntimeWarning)


@pytest.mark.parametrize("code", TREE)
def test_from_code_pickle_copy_repr(code: str) -> None:
    attrs = ATTRIBUTES.get(code, {})
    error = from_code(code, "[load] a has 3 but b has 4.", "Check b.", **attrs)
    assert type(error).__name__ == TREE[code][0]
    for again in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert again.code == code and again.hint == "Check b." and again.message == "[load] a has 3 but b has 4."
        assert "Check b." in str(again) and "a has 3 but b has 4." in str(again)
        assert TREE[code][0] in repr(again)
        for name, value in attrs.items():
            assert getattr(again, name) == value
            assert code == "batch_error" or repr(value) in repr(again)


def test_message_and_hint_join_as_sentences() -> None:
    assert str(FastLLMError("[x] no dot", hint="Do y.")) == "[x] no dot. Do y."
    assert str(FastLLMError("[x] dot.", hint="Do y.")) == "[x] dot. Do y."
    assert str(FastLLMError("[x] alone.")) == "[x] alone."


def test_unknown_code_and_attribute_are_kept() -> None:
    error = from_code("no_such_code", "m", "h", where="step")
    assert isinstance(error, errors.InternalError)
    assert "no_such_code" in str(error)
    assert error.where == "step"  # type: ignore[attr-defined]


def test_engine_dead_chains_its_cause() -> None:
    cause = OSError("gpu fell off")
    error = errors.EngineDead("[engine] stopped.", cause=cause)
    assert error.__cause__ is cause and error.cause is cause
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again.cause, OSError) and str(again.cause) == "gpu fell off"


def test_batch_error_is_a_group_with_results() -> None:
    bad = errors.ContextTooLong("[batch] too long.", prompt_tokens=9, limit=4)
    error = BatchError("[batch] 1 of 2 requests failed.", [bad], results=["done", bad], hint="See .results.")
    assert {ExceptionGroup, FastLLMError} <= set(BatchError.__mro__)
    assert error.exceptions == (bad,)
    assert error.results == ["done", bad]
    matched, rest = error.split(errors.ContextTooLong)
    assert isinstance(matched, BatchError) and rest is None
    assert matched.results == ["done", bad] and matched.hint == "See .results."
    again = pickle.loads(pickle.dumps(error))
    assert again.results[0] == "done" and again.results[1].limit == 4
    with pytest.raises(ValueError):
        BatchError("empty", [])
