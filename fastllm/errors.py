# ruff: noqa: N818 - the names are public API; a tree of them reads better without the suffix

"""Every error fastllm raises, as one tree.

Each class has a stable ``code`` (the same string in C++, in Python and in the server's HTTP answers), a ``hint`` that
says what to do next, and its facts as attributes. Messages read ``[where] fact, with both values.``; ``str(error)``
appends the hint. Cancellation is never an error of this module: the event loop's own exception passes through.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BatchError",
    "CaptureTooLarge",
    "ConstraintError",
    "ContextTooLong",
    "CorruptFile",
    "DeviceError",
    "DeviceLost",
    "DeviceNotAvailable",
    "DtypeError",
    "EngineClosed",
    "EngineDead",
    "EngineError",
    "FastLLMError",
    "ForkedProcess",
    "InternalError",
    "InvalidConfig",
    "InvalidRequest",
    "InvalidSchema",
    "LoadError",
    "LoopBlocked",
    "MissingTensor",
    "OutOfMemory",
    "QueueFull",
    "ShapeError",
    "StreamBusy",
    "StreamConsumed",
    "StreamError",
    "TemplateError",
    "UnknownAdapter",
    "UnknownNode",
    "UnsupportedArchitecture",
    "UnsupportedFormat",
    "WrongLoop",
    "from_code",
]


class FastLLMError(Exception):
    """Base of every error of this library.

    Attributes:
        code: Stable snake_case name of the class, equal to the C++ code and to ``error.code`` of the HTTP server.
        message: The fact alone, without the hint.
        hint: What the reader can do about it, or "".
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        text = self.message.rstrip()
        return f"{text}{'' if text.endswith(('.', '!', '?', ':')) else '.'} {self.hint}"

    def __repr__(self) -> str:
        facts = "".join(
            f", {name}={value!r}"
            for name, value in vars(self).items()
            if name != "message" and not name.startswith("_") and value not in (None, "", ())
        )
        return f"{type(self).__name__}({self.message!r}{facts})"


class InternalError(FastLLMError):
    """A promise inside fastllm was broken: a bug of ours, never of the caller."""

    code = "internal"


# --- loading -----------------------------------------------------------------------------------------------------


class LoadError(FastLLMError):
    """A model, tokenizer or file could not be loaded.

    Attributes:
        path: File or directory concerned, or None.
    """

    code = "load_error"

    def __init__(self, message: str = "", *, hint: str = "", path: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class CorruptFile(LoadError):
    """A file contradicts its own format: cut short, overwritten, or not what its name says."""

    code = "corrupt_file"


class UnsupportedArchitecture(LoadError):
    """No model file is registered for the checkpoint's architecture.

    Attributes:
        architecture: The name in the checkpoint.
        known: Names that would have loaded.
    """

    code = "unsupported_architecture"

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        path: str | None = None,
        architecture: str | None = None,
        known: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint, path=path)
        self.architecture = architecture
        self.known = tuple(known)


class UnsupportedFormat(LoadError):
    """The file is sound, but of a format, version or dtype that fastllm does not read."""

    code = "unsupported_format"


class MissingTensor(LoadError):
    """Tensors that the architecture needs are not in the checkpoint.

    Attributes:
        names: The missing names.
    """

    code = "missing_tensor"

    def __init__(
        self, message: str = "", *, hint: str = "", path: str | None = None, names: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint, path=path)
        self.names = tuple(names)


class OutOfMemory(LoadError):
    """Weights, activations or the KV cache do not fit.

    Attributes:
        needed_bytes: Bytes asked for, or None if unknown.
        available_bytes: Bytes there were, or None if unknown.
    """

    code = "out_of_memory"

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        path: str | None = None,
        needed_bytes: int | None = None,
        available_bytes: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, path=path)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


# --- devices -----------------------------------------------------------------------------------------------------


class DeviceError(FastLLMError):
    """A device is missing or has failed.

    Attributes:
        device: Its name, such as "cuda:0", or None.
    """

    code = "device_error"

    def __init__(self, message: str = "", *, hint: str = "", device: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.device = device


class DeviceNotAvailable(DeviceError):
    """The device cannot be used here.

    Attributes:
        why: One of "not_built", "no_driver", "no_device", "arch", or None.
    """

    code = "device_not_available"

    def __init__(self, message: str = "", *, hint: str = "", device: str | None = None, why: str | None = None) -> None:
        super().__init__(message, hint=hint, device=device)
        self.why = why


class DeviceLost(DeviceError):
    """The device failed while in use; engines on it are dead."""

    code = "device_lost"


# --- requests ----------------------------------------------------------------------------------------------------


class InvalidRequest(FastLLMError, ValueError):
    """The arguments of a call cannot be served as they are."""

    code = "invalid_request"


class InvalidConfig(InvalidRequest):
    """A configuration value is out of range, or two of them contradict each other.

    Attributes:
        fields: Names of the fields concerned.
    """

    code = "invalid_config"

    def __init__(self, message: str = "", *, hint: str = "", fields: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.fields = tuple(fields)


class ContextTooLong(InvalidRequest):
    """The prompt does not fit into the model's context.

    Attributes:
        prompt_tokens: Tokens in the prompt, or None.
        limit: Most tokens that would have fitted, or None.
    """

    code = "context_too_long"

    def __init__(
        self, message: str = "", *, hint: str = "", prompt_tokens: int | None = None, limit: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class CaptureTooLarge(InvalidRequest):
    """What a request was to capture takes more memory than it may.

    Attributes:
        needed_bytes: Bytes it takes, as far as known, or None.
        max_bytes: Bytes it may take, or None.
    """

    code = "capture_too_large"

    def __init__(
        self, message: str = "", *, hint: str = "", needed_bytes: int | None = None, max_bytes: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.max_bytes = max_bytes


class UnknownNode(InvalidRequest):
    """A name means no value inside the model.

    Attributes:
        name: The name asked for.
        matches: Names like it.
    """

    code = "unknown_node"

    def __init__(
        self, message: str = "", *, hint: str = "", name: str | None = None, matches: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.matches = tuple(matches)


class UnknownAdapter(InvalidRequest):
    """A request names an adapter that is not loaded.

    Attributes:
        adapter: The name asked for.
        known: The names that are loaded.
    """

    code = "unknown_adapter"

    def __init__(
        self, message: str = "", *, hint: str = "", adapter: str | None = None, known: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.adapter = adapter
        self.known = tuple(known)


class TemplateError(InvalidRequest):
    """A chat template is missing, broken, forbidden, or refuses the conversation.

    Attributes:
        line: Line of the template, counted from 1, or None.
    """

    code = "template_error"

    def __init__(self, message: str = "", *, hint: str = "", line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


class InvalidSchema(InvalidRequest):
    """A JSON schema, regular expression or grammar cannot be used as a constraint.

    Attributes:
        pointer: JSON pointer or position of the offending part, or None.
    """

    code = "invalid_schema"

    def __init__(self, message: str = "", *, hint: str = "", pointer: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pointer = pointer


class ShapeError(InvalidRequest):
    """Shapes of tensors do not fit together.

    Attributes:
        expected: The shape that was needed, or None.
        actual: The shape that was given, or None.
    """

    code = "shape_error"

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        expected: Sequence[int] | None = None,
        actual: Sequence[int] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.expected = None if expected is None else tuple(expected)
        self.actual = None if actual is None else tuple(actual)


class DtypeError(InvalidRequest):
    """Element types of tensors do not fit together, or an op does not take this one.

    Attributes:
        expected: The dtype that was needed, or None.
        actual: The dtype that was given, or None.
    """

    code = "dtype_error"

    def __init__(
        self, message: str = "", *, hint: str = "", expected: str | None = None, actual: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


# --- engine ------------------------------------------------------------------------------------------------------


class EngineError(FastLLMError):
    """The engine cannot take or finish a request."""

    code = "engine_error"


class QueueFull(EngineError):
    """Too many requests are waiting.

    Attributes:
        retry_after_s: A fair time to wait before trying again, in seconds, or None.
    """

    code = "queue_full"

    def __init__(self, message: str = "", *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class EngineClosed(EngineError):
    """The model was closed before or during the request."""

    code = "engine_closed"


class EngineDead(EngineError):
    """The engine failed and cannot go on; every open and later request gets this error.

    Attributes:
        cause: What killed it: an exception, its text, or None.
    """

    code = "engine_dead"

    def __init__(self, message: str = "", *, hint: str = "", cause: BaseException | str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        if isinstance(cause, BaseException):
            self.__cause__ = cause


class ForkedProcess(EngineError):
    """The model belongs to the parent process; threads and devices do not survive a fork."""

    code = "forked_process"


# --- streams -----------------------------------------------------------------------------------------------------


class StreamError(FastLLMError, RuntimeError):
    """A stream is used in a way it cannot serve."""

    code = "stream_error"


class StreamBusy(StreamError):
    """Two consumers wait for the same stream at once."""

    code = "stream_busy"


class StreamConsumed(StreamError):
    """The stream was already read to its end or closed."""

    code = "stream_consumed"


class WrongLoop(StreamError):
    """The stream is bound to another event loop or thread."""

    code = "wrong_loop"


class ConstraintError(FastLLMError):
    """A constrained generation reached a state from which the grammar cannot continue."""

    code = "constraint_error"


class BatchError(FastLLMError, ExceptionGroup[Exception]):
    """Some requests of a batch failed; the others are finished and kept.

    Attributes:
        results: One entry for each request, in input order: its Completion or its exception.
    """

    code = "batch_error"

    def __new__(
        cls, message: str, exceptions: Sequence[Exception], /, *, results: Sequence[object] = (), hint: str = ""
    ) -> Self:
        """Makes the group; ``exceptions`` must not be empty."""
        return super().__new__(cls, message, exceptions)

    def __init__(
        self, message: str, exceptions: Sequence[Exception], /, *, results: Sequence[object] = (), hint: str = ""
    ) -> None:
        ExceptionGroup.__init__(self, message, exceptions)
        self.hint = hint
        self.results = list(results) if results else list(exceptions)

    def derive(self, excs: Sequence[Any], /) -> Any:
        """Keeps ``results`` and ``hint`` in the groups made by ``split`` and ``except*``."""
        return BatchError(self.message, list(excs), results=self.results, hint=self.hint)

    def __str__(self) -> str:
        count = len(self.exceptions)
        text = f"{self.message} ({count} sub-exception{'' if count == 1 else 's'})"
        return f"{text} {self.hint}" if self.hint else text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, {list(self.exceptions)!r})"


class LoopBlocked(RuntimeWarning):
    """A blocking call runs in a thread whose event loop it stops meanwhile."""


def _all_classes(root: type[FastLLMError]) -> dict[str, type[FastLLMError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_all_classes(child))
    return found


_BY_CODE = _all_classes(FastLLMError)


def from_code(code: str, message: str, hint: str = "", **attrs: Any) -> FastLLMError:
    """Builds the error of a code, as the native module reports it.

    Args:
        code: Stable code, such as "corrupt_file". An unknown code gives an ``InternalError`` that names it.
        message: The fact.
        hint: What to do about it.
        **attrs: The class's attributes; names it does not take are set on the error all the same.
    """
    cls = _BY_CODE.get(code)
    if cls is None:
        cls, message = InternalError, f"{message} (unknown error code {code!r})"
    if issubclass(cls, BatchError):
        exceptions = attrs.pop("exceptions", None) or [FastLLMError(message, hint=hint)]
        batch_error = BatchError(message, exceptions, results=attrs.pop("results", ()), hint=hint)
        batch_error.__dict__.update(attrs)
        return batch_error
    accepted = inspect.signature(cls.__init__).parameters
    error = cls(message, hint=hint, **{name: value for name, value in attrs.items() if name in accepted})
    for name, value in attrs.items():
        if name not in accepted:
            setattr(error, name, value)
    return error
