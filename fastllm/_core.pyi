"""The native engine. Private: the public names live in `fastllm`. Every failure raises a `fastllm.errors.FastLLMError` subclass."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

__version__: str

# --- process ------------------------------------------------------------------------------------------------------------------------

def build_info() -> dict[str, Any]:
    """version, compiler, cuda (bool), isas (compiled kernel sets), isa (chosen), sanitizer."""

def list_devices() -> list[tuple[str, bool, str]]:
    """(name, available, description or reason)."""

def after_fork_in_child() -> None:
    """Marks every engine of this process as forked: their calls raise ForkedProcess, nothing waits on a thread that is gone."""

# --- tensors (src/bind/tensor.cpp) ---------------------------------------------------------------------------------------------------

class Tensor:
    """A strided window on memory of one device. Immutable handle; `fastllm.Tensor` adds operators and displays."""

    @staticmethod
    def from_buffer(buffer: Any, dtype: str, shape: Sequence[int]) -> Tensor:
        """A contiguous tensor on the memory of `buffer` (bytes-like), which stays alive with it; not copied."""
    @staticmethod
    def from_numpy(array: npt.NDArray[Any], *, copy: bool) -> Tensor: ...
    @staticmethod
    def empty(dtype: str, shape: Sequence[int]) -> Tensor: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def writable(self) -> bool: ...
    @property
    def contiguous(self) -> bool: ...
    @property
    def data_ptr(self) -> int: ...
    def reshape(self, shape: Sequence[int]) -> Tensor: ...
    def slice(self, axis: int, start: int, stop: int) -> Tensor: ...
    def permute(self, axes: Sequence[int]) -> Tensor: ...
    def numpy(self) -> npt.NDArray[Any]:
        """A view where numpy has the dtype (host memory); bfloat16 and float8 raise DTypeError: cast first."""
    def to_device(self, device: Device) -> Tensor: ...

class Device:
    """A backend: where eager ops run and programs live. One per (name, threads)."""

    def __init__(self, name: str = "auto", threads: int = 0) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def info(self) -> dict[str, Any]: ...

# --- ops and graphs (src/bind/op.cpp, graph.cpp) -----------------------------------------------------------------------------------------

class EagerStep:
    """Sequence state for eager attention: positions and a private cache that grows with it. One sequence."""

    def __init__(self, device: Device, layers: Sequence[dict[str, Any]], capacity: int) -> None:
        """layers: dicts kv_heads, head_dim, v_head_dim, dtype. capacity: tokens."""
    def begin(self, token_ids: Sequence[int], *, rope_len: int = 0) -> None:
        """Starts a step over these tokens, behind those of earlier steps."""
    @property
    def length(self) -> int: ...
    @property
    def token_ids(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...

def run_op(
    device: Device, kind: str, inputs: Sequence[Tensor], attrs: dict[str, Any], step: EagerStep | None = None
) -> list[Tensor]:
    """Runs one op of device/op.h now. kind: "rms_norm" ...; attrs: the struct's fields by name (enums as strings).
    linear: inputs x, weight, and if present bias, residual (attrs has_bias, add_residual). copy: attrs dtype."""

class Value:
    """A node's output in a recorded graph."""

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The first axis may be symbolic: "tokens" or "rows"."""
    @property
    def dtype(self) -> str: ...
    @property
    def name(self) -> str: ...

class Graph:
    """A recorded forward. Nodes are kept in recording order; names are the paths capture() will use."""

    def __init__(self) -> None: ...
    def token_ids(self) -> Value: ...
    def positions(self) -> Value: ...
    def constant(self, name: str, tensor: Tensor) -> Value:
        """A weight or table. Recording the same name twice gives the same Value (tied weights)."""
    def op(self, kind: str, inputs: Sequence[Value], attrs: dict[str, Any], name: str) -> list[Value]: ...
    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Axes after the symbolic first one; -1 once for the first axis itself."""
    def slice(self, value: Value, start: int, stop: int) -> Value:
        """Of the last axis."""
    def set_output(self, logits: Value) -> None: ...
    def tap(self, name: str, value: Value, *, pattern: bool = False) -> None:
        """Names a value for looking inside; pattern: the weights of the attention that made it."""
    @property
    def taps(self) -> list[tuple[str, tuple[int | str, ...], bool]]:
        """(name, shape of the value, pattern), in the order of the forward."""
    def dump(self) -> str:
        """One line a node: `%12 [tokens, 896] f32 = rms_norm(%11, model.norm.weight) eps=1e-06  # model.norm`."""

def weight_formats() -> list[str]:
    """Names of the formats that weights of products can be converted to."""

def weight_format(name: str) -> tuple[str, float]:
    """The usual name of a format; how far a number may come back from itself, as a share of the largest size in its group
    (of the span, with a zero point)."""

def rounded_to(rows: Tensor, name: str) -> Tensor:
    """A matrix as a format can say it, in its own dtype."""

class Program:
    """A compiled graph: passes run, memory planned, weights packed for its device."""

    def __init__(
        self,
        graph: Graph,
        device: Device,
        *,
        context_length: int,
        kv_dtype: str = "auto",
        passes: Sequence[str] | None = None,
        probes: bool = False,
        share: Program | None = None,
        quant: str | None = None,
    ) -> None:
        """probes: keep what the graph's taps name in being, for a Probe. share: a program of the same graph whose weights
        on the device are used instead of copied. quant: a weight format for the weights of products."""
    @property
    def taps(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """With probes: (name, shape of one token's row, pattern). A Probe names taps by their index; the index behind the
        last means the logits."""
    @property
    def quantized_products(self) -> int:
        """Products whose weights were to become ``quant``."""
    @property
    def rounded_products(self) -> int:
        """Those of them that the device computes with rounded numbers, for want of a kernel."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def memory(self) -> dict[str, int]:
        """Bytes besides weights and cache, 0 before an Engine has reserved them: activation_bytes (the arena of all intermediate
        results), unshared_activation_bytes (what they would take side by side), logits_bytes (of the host, where it has its own
        copy); and of the largest step, for which these are: step_tokens, step_rows."""
    @property
    def device(self) -> Device: ...
    @property
    def kv_bytes_per_token(self) -> int: ...
    @property
    def kv_layers(self) -> list[dict[str, Any]]:
        """kv_heads, head_dim, v_head_dim, dtype of each attention layer's cache: what EagerStep takes."""
    def dump(self) -> str:
        """The plan: nodes after the passes, buffers and their offsets."""
    def logits(self, step: EagerStep, rows: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """Runs one eager step through the compiled graph: [rows, vocab], of all its tokens by default. Not while an Engine has the program."""
    @staticmethod
    def null(vocab_size: int, context_length: int, step_us: int = 0, asynchronous: bool = False) -> Program:
        """A model without weights for scheduler and API tests: after token t it gives token (t + 1) % vocab_size, taking step_us a step.

        ``asynchronous``: as on a device that samples by itself, the next step is launched before the last one's tokens are read.
        """

# --- engine (src/bind/engine.cpp, request.cpp, vocab.cpp) --------------------------------------------------------------------------------

class Vocab:
    """Bytes of every token id, for the native detokenizer."""

    def __init__(
        self, token_bytes: Sequence[bytes], special: Sequence[bool], *, strip_leading_space: bool = False
    ) -> None: ...
    def __len__(self) -> int: ...

class Detokenizer:
    """The engine's incremental detokenizer, usable alone (tests, Tokenizer.stream_decoder)."""

    def __init__(
        self, vocab: Vocab, *, stop: Sequence[str] = (), include_stop: bool = False, skip_special: bool = True
    ) -> None: ...
    def push(self, token_id: int, *, hold: bool = True) -> tuple[str, bytes, bool]:
        """(text, bytes, stopped) released by this token."""
    def finish(self) -> tuple[str, bytes]: ...

def sample_logits(
    logits: npt.NDArray[np.float32],
    token_ids: Sequence[int] | npt.NDArray[np.int32],
    params: dict[str, Any],
    *,
    prompt_tokens: int = 0,
    draws: int = 1,
) -> dict[str, Any]:
    """The engine's sampling chain on one row of logits [vocab], for tests and for looking at what a setting does. params as in
    Engine.submit; draws: how many, with seeds seed, seed + 1 ... Gives ids [draws], and of the last draw logprob, top ((id, logprob)
    pairs) and logits [vocab]: what was chosen from, -inf where a stage dropped the token."""

class Probe:
    """What one request looks at and changes while it runs; for Engine.submit, once."""

    def __init__(
        self,
        program: Program,
        *,
        reads: Sequence[int],
        edits: Sequence[tuple[int, tuple[int, int], tuple[int, int], float, npt.NDArray[np.float32]]],
        max_bytes: int,
        group: int = 0,
    ) -> None:
        """program: made with probes. reads: taps, ascending. edits: (tap, positions, elements of a row, scale, add): x = x * scale +
        add, add empty, one row, or a row for each position. group: requests of one group share cached prefixes with each other alone;
        0 for probes that edit nothing."""
    @property
    def positions(self) -> int:
        """How many positions are complete."""
    @property
    def token_ids(self) -> list[int]:
        """The tokens at these positions."""
    @property
    def nbytes(self) -> int: ...
    def read(self, index: int, row: Sequence[int]) -> npt.NDArray[np.float32]:
        """A copy of what the index-th of `reads` has so far: [positions, *row], of a pattern [heads, positions, positions]."""

class Engine:
    """Scheduler, KV pool and step thread around a Program. Thread-safe."""

    def __init__(
        self,
        program: Program,
        vocab: Vocab,
        *,
        max_running: int,
        kv_memory_bytes: int,
        block_tokens: int,
        max_batch_tokens: int,
        prefill_chunk: int,
        max_queue: int,
        deterministic: bool,
        prefix_cache: bool,
        asynchronous: bool = True,
        cuda_graphs: bool = True,
    ) -> None:
        """kv_memory_bytes 0: sized for the context length times min(max_running, 8), at most a quarter of the free memory."""
    def submit(
        self,
        token_ids: Sequence[int] | npt.NDArray[np.int32],
        params: dict[str, Any],
        *,
        channel: int = 0,
        tag: int = 0,
        priority: int = 0,
        lookahead: int = 256,
        keep_logits: bool = False,
        continued: int = 0,
        probe: Probe | None = None,
    ) -> Request:
        """Queues a request (never blocks). params: fields of sampling/params.h. lookahead -1: no limit. tag comes back from drain().
        continued: the last so many of token_ids are output that exists already (a fork). probe: looks inside.
        keep_logits: the raw float32 logits of every prompt position are kept for Request.logits(), nothing is generated when
        max_new_tokens is 0. Raises InvalidRequest (empty prompt, id outside the vocabulary), InvalidConfig, ContextTooLong (prompt
        tokens, limit), QueueFull (retry_after_s), EngineClosed, EngineDead, ForkedProcess."""
    def open_channel(self) -> int:
        """A delivery group: one per event loop. Channel 0 is for blocking readers and is never reported by wait_events."""
    def close_channel(self, channel: int) -> None:
        """Cancels the channel's requests (its loop is gone)."""
    def wait_events(self, timeout_s: float) -> list[int]:
        """Channels with news, each once; [] on timeout or wake(). Waits without the GIL. One caller: the delivery thread."""
    def wake(self) -> None: ...
    def drain(self, channel: int) -> list[int]:
        """Tags of the channel's requests that have unread tokens or have ended since the last drain. Re-arms the channel."""
    def stats(self) -> dict[str, Any]:
        """running, queued, parked, prefilling, kv_blocks_total, kv_blocks_free, kv_blocks_cached, block_tokens, kv_bytes, weight_bytes, steps,
        prompt_tokens, generated_tokens, cached_tokens, preemptions, cancelled, finished, decode_tps (1 s window), step_ms (mean of the last 64),
        uptime_s, dead (str or None), forked (bool). running includes prefilling; kv_blocks_free includes kv_blocks_cached, the blocks
        of earlier prompts that nobody holds."""
    def close(self, *, drain: bool, timeout_s: float = -1.0) -> None:
        """Idempotent. drain: running and queued requests finish first. Otherwise they end with finish reason "cancelled". Joins the step thread
        (without the GIL)."""
    @property
    def closed(self) -> bool: ...
    @property
    def program(self) -> Program: ...
    def inject_fault(self, message: str) -> None:
        """Tests: the next step fails as if the device did."""

class TokenRecords:
    """Tokens taken from a request and kept native: a sequence of the rows that Request.take() gives, each made when asked for."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def text(self, start: int = 0, stop: int = -1) -> str:
        """Their texts as one; stop -1: to the end."""
    def runs(self, start: int = 0, stop: int = -1, *, shaded: bool = True) -> list[tuple[int, str, int]]:
        """(step, text, tokens) of neighbours of one step of probability, 0 (90 % and more) to 9, at most 32 tokens each; without
        shaded all steps are 0. A special token without text is a run of its own: (-1 - id, "", 1)."""

class Request:
    """One sequence inside the engine. Dropping the last reference cancels it. All methods are thread-safe and none waits but wait()."""

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str:
        """queued, prefill, running, parked, done."""
    @property
    def progress(self) -> tuple[int, int]:
        """Prompt tokens done, total."""
    @property
    def ahead(self) -> int | None:
        """While it is queued: how many requests go before it. None when it is not, or not known yet."""
    def cancel(self) -> None: ...
    def want(self, count: int) -> None:
        """The reader has asked for `count` tokens so far: the engine may run to count + lookahead."""
    def take(self, limit: int = -1) -> list[tuple[Any, ...]]:
        """Unread tokens, oldest first: (id, text, bytes, index, logprob | None, top, special, time_s). top: tuple of (id, text, logprob).
        time_s: seconds since submit."""
    def take_records(self) -> TokenRecords:
        """All unread tokens, as take(), but each row is made when asked for."""
    def wait(self, timeout_s: float) -> bool:
        """Until there is an unread token or the end, without the GIL. True if so."""
    @property
    def unread(self) -> int: ...
    @property
    def finish(self) -> dict[str, Any] | None:
        """None until the end. reason (stop, length, cancelled, timeout, error), stop (str, int or None: what matched), tail_text and tail_bytes
        (held-back text released by the end when no token carried it), error (a dict code, message, hint and if known cause) or None, usage (prompt_tokens,
        completion_tokens, cached_tokens), timing (queue_s, prefill_s, ttft_s, decode_s, total_s, steps, preemptions). Tokens may still be unread."""
    def prompt_logprobs(self) -> list[tuple[Any, ...] | None]:
        """Per prompt position (None for the first): (id, logprob, rank, top). After the end or once prefill is done."""
    def logits(self) -> npt.NDArray[np.float32]:
        """[prompt tokens, vocab], with keep_logits, once prefill is done."""
