"""Settings: `EngineConfig` for a loaded model, `GenerationConfig` for a request.

Both are frozen and checked when made. A generation config remembers which fields were given, so that layers can be
laid over each other: the checkpoint's ``generation_config.json``, then a call's config, then its keyword arguments.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from fastllm.errors import InvalidConfig, LoadError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["AliasNotice", "EngineConfig", "GenerationConfig", "GenerationFields"]


class AliasNotice(UserWarning):
    """A field was given under the name another library uses; said once per name."""


class UnknownField(InvalidConfig, TypeError):  # noqa: N818 - a fact, as in the rest of the tree
    """A keyword that no field has; also a `TypeError`, as for any unknown keyword argument."""


_noticed: set[str] = set()


def _notice(alias: str, meaning: str) -> None:
    if alias not in _noticed:
        _noticed.add(alias)
        warnings.warn(f"{alias} is understood as {meaning}", AliasNotice, stacklevel=4)


def _unknown(owner: str, name: str, known: Iterable[str]) -> UnknownField:
    import difflib

    if name in ("prompt", "config", "messages", "prompts"):  # positional-only in the verbs
        hint = f"Give it by position: stream({name}, ...)."
        return UnknownField(f"[{owner}] {name!r} is no field of the configuration.", hint=hint, fields=(name,))
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]!r}?" if close else f"help(fastllm.{owner}) lists the fields."
    return UnknownField(f"[{owner}] unknown field {name!r}.", hint=hint, fields=(name,))


def _invalid(owner: str, name: str, value: object, allowed: str, hint: str = "") -> InvalidConfig:
    return InvalidConfig(f"[{owner}] {name} is {value!r} but must be {allowed}.", hint=hint, fields=(name,))


def _check_int(owner: str, name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"an integer of {low} or more" if high is None else f"an integer from {low} to {high}"
        raise _invalid(owner, name, value, allowed)


def _check_float(
    owner: str, name: str, value: object, low: float, high: float | None = None, *, open_low: bool = False
) -> None:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool)
    if ok:
        number = float(value)  # type: ignore[arg-type]
        ok = number == number and (number > low if open_low else number >= low)
        ok = ok and number != float("inf") and (high is None or number <= high)
    if not ok:
        start = f"a number {'above' if open_low else 'of'} {low:g}"
        upper = " or more" if high is None and not open_low else "" if high is None else f" up to {high:g}"
        raise _invalid(owner, name, value, start + upper)


def _check_bool(owner: str, name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _invalid(owner, name, value, "True or False")


# --- engine ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model runs; fixed at load.

    Attributes:
        max_running: Most requests in a step.
        kv_memory: Bytes for keys and values, or "auto" (a fair share of the free memory).
        block_tokens: Tokens in a block of the key/value pool.
        max_batch_tokens: Most tokens in a step, prompts and decoding together.
        prefill_chunk: Most prompt tokens of one request in a step.
        max_queue: Most requests that may wait; beyond it `QueueFull`.
        lookahead: How many tokens a request may run ahead of its reader before it is parked; None: to its end.
        threads: Threads of the CPU backend; None: one for each core this process may use.
        deterministic: A request's logits do not depend, bit for bit, on what else is in its steps.
        cuda_graphs: Capture decode steps: "auto" (each number of requests as it comes), True (all of them while
            loading, as `Model.warmup` does) or False. No effect on the CPU.
        prefix_cache: Keep finished prompts' keys and values for requests that begin alike.
        context_length: Most tokens of prompt and completion; None: what the checkpoint allows.
        kv_dtype: Element type of keys and values: "auto" (that of the weights), "float32", "float16", "bfloat16", or
            "fp8" (also "fp8_e4m3"): one byte a number, rounded to e4m3, which has 4 significant bits and ends at 448.
            Twice as many tokens as with bfloat16 fit into the same memory.
    """

    max_running: int = 64
    kv_memory: int | Literal["auto"] = "auto"
    block_tokens: int = 16
    max_batch_tokens: int = 2048
    prefill_chunk: int = 512
    max_queue: int = 1024
    lookahead: int | None = 256
    threads: int | None = None
    deterministic: bool = False
    cuda_graphs: bool | Literal["auto"] = "auto"
    prefix_cache: bool = True
    context_length: int | None = None
    kv_dtype: str = "auto"

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Refuses unknown names with a suggestion, before the generated ``__init__`` does without one."""
        names = [item.name for item in fields(cls)]
        for name in kwargs:
            if name not in names:
                raise _unknown(cls.__name__, name, names)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        owner = "EngineConfig"
        _check_int(owner, "max_running", self.max_running, 1)
        if self.kv_memory != "auto":
            _check_int(owner, "kv_memory", self.kv_memory, 1)
        _check_int(owner, "block_tokens", self.block_tokens, 1)
        _check_int(owner, "max_batch_tokens", self.max_batch_tokens, 1)
        _check_int(owner, "prefill_chunk", self.prefill_chunk, 1)
        _check_int(owner, "max_queue", self.max_queue, 1)
        for name in ("lookahead",):
            if getattr(self, name) is not None:
                _check_int(owner, name, getattr(self, name), 0)
        for name in ("threads", "context_length"):
            if getattr(self, name) is not None:
                _check_int(owner, name, getattr(self, name), 1)
        for name in ("deterministic", "prefix_cache"):
            _check_bool(owner, name, getattr(self, name))
        if self.cuda_graphs != "auto":
            _check_bool(owner, "cuda_graphs", self.cuda_graphs)
        if self.kv_dtype not in ("auto", "float32", "float16", "bfloat16", "fp8", "fp8_e4m3"):
            raise _invalid(owner, "kv_dtype", self.kv_dtype, '"auto", "float32", "float16", "bfloat16" or "fp8"')
        if self.max_running > self.max_batch_tokens:
            raise InvalidConfig(
                f"[EngineConfig] max_running is {self.max_running} but max_batch_tokens only {self.max_batch_tokens}.",
                hint="Every running request needs a token in the step: lower one or raise the other.",
                fields=("max_running", "max_batch_tokens"),
            )

    def replace(self, **changes: Any) -> EngineConfig:
        """A copy with some fields changed; checked like a new one."""
        return EngineConfig(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


# --- generation -----------------------------------------------------------------------------------------------------


class GenerationFields(TypedDict, total=False):
    """The keyword arguments that `GenerationConfig` and every verb of `Model` take, aliases included."""

    max_new_tokens: int | None
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_window: int
    no_repeat_ngram: int
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: int | Sequence[int] | None
    include_stop: bool
    ignore_eos: bool
    logit_bias: Mapping[int, float] | None
    bad_words: str | Sequence[str] | None
    logprobs: int | None
    logprobs_mode: Literal["raw", "sampled"]
    prompt_logprobs: int | None
    n: int
    constraint: Any
    max_time_s: float | None
    skip_special_tokens: bool
    echo: bool
    lookahead: int | Literal["engine"] | None
    max_length: int | None
    max_tokens: int | None
    repeat_penalty: float
    do_sample: bool


_ALIASES = {"max_tokens": "max_new_tokens", "repeat_penalty": "repetition_penalty"}
_HF_NAMES = {"no_repeat_ngram_size": "no_repeat_ngram", "stop_strings": "stop"}  # in generation_config.json only


@dataclass(frozen=True, init=False)
class GenerationConfig:
    """How a request is generated. Keyword-only; unknown names raise with a suggestion.

    Attributes:
        max_new_tokens: Most tokens to generate; None: until the context is full.
        min_new_tokens: End-of-sequence and stop strings are held off until then.
        temperature: 0: always the most probable token (greedy); above 1 flatter, below 1 sharper.
        top_k: Sample among the k most probable tokens only; 0: off.
        top_p: Sample among the smallest set whose probability reaches this (Holtzman et al. 2019).
        min_p: Leave out tokens less probable than this share of the best one's probability.
        typical_p: Locally typical sampling (Meister et al. 2022); 1: off.
        repetition_penalty: Divides (multiplies, if negative) logits of tokens seen in prompt or output (Keskar et al.
            2019); 1: off.
        presence_penalty: Subtracted once from the logits of tokens already in the output (as in the OpenAI API).
        frequency_penalty: Subtracted as many times as a token is already in the output.
        penalty_window: Penalties look at the last so many tokens only; 0: at all.
        no_repeat_ngram: No sequence of so many tokens appears twice; 0: off.
        seed: Makes sampling repeatable, alone or in a batch; None: a fresh one, told in `Completion.seed`.
        stop: Strings that end the output. They are not part of it unless `include_stop`.
        stop_token_ids: Token ids that end the output.
        include_stop: Keep what matched in the output.
        ignore_eos: Do not end at the model's own end-of-sequence tokens.
        logit_bias: Added to the logits of token ids.
        bad_words: Strings that must not be generated, with or without a space before them.
        logprobs: Give each token's log-probability and so many alternatives; None: neither.
        logprobs_mode: "raw": of the model's own distribution at temperature 1; "sampled": of the one sampled from.
        prompt_logprobs: The same for the prompt's tokens.
        n: Completions for each prompt; only verbs that give lists take more than 1. The j-th uses seed + j.
        constraint: A schema, regular expression or grammar that the output must follow.
        max_time_s: End with "timeout" after so many seconds, keeping what there is; None: no limit.
        skip_special_tokens: Leave the text of control tokens out of the output.
        echo: Give the prompt's tokens first.
        lookahead: Tokens the request may run ahead of its reader; None: to its end; 0: one step for each read;
            "engine": what `EngineConfig.lookahead` says.
        max_length: As in transformers: most tokens of prompt and completion together, in place of `max_new_tokens`.

    Aliases, each told once: ``max_tokens`` (max_new_tokens), ``repeat_penalty`` (repetition_penalty), ``do_sample``
    (False: temperature 0).
    """

    max_new_tokens: int | None = 256
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 0
    no_repeat_ngram: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    bad_words: tuple[str, ...] = ()
    logprobs: int | None = None
    logprobs_mode: Literal["raw", "sampled"] = "raw"
    prompt_logprobs: int | None = None
    n: int = 1
    constraint: Any = field(default=None, hash=False)
    max_time_s: float | None = None
    skip_special_tokens: bool = True
    echo: bool = False
    lookahead: int | Literal["engine"] | None = "engine"
    max_length: int | None = None

    _NAMES: ClassVar[frozenset[str]]
    _given: ClassVar[frozenset[str]] = frozenset()  # an instance attribute, kept out of the fields

    def __init__(self, **given: Unpack[GenerationFields]) -> None:
        values = _translate(dict(given), notice=True)
        for item in fields(self):
            object.__setattr__(self, item.name, values.get(item.name, item.default))
        object.__setattr__(self, "_given", frozenset(values))
        self._check()

    # --- layers

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that were set rather than left at their defaults."""
        return self._given

    def merged(self, over: GenerationConfig | None = None, /, **overrides: Unpack[GenerationFields]) -> Self:
        """This config with the given fields of another, then keyword arguments, laid over it.

        Args:
            over: Its `given` fields win over this config's.
            **overrides: Fields that win over both.

        Raises:
            InvalidConfig: The result contradicts itself, or a value is out of range.
        """
        if not overrides and (over is None or not self._given):
            return self if over is None else type(self)._build(over._values())
        values = self._values()
        if over is not None:
            _lay(values, over._values())
        if overrides:
            _lay(values, _translate(dict(overrides), notice=True))
        return type(self)._build(values)

    def replace(self, **changes: Unpack[GenerationFields]) -> Self:
        """A copy with some fields changed; checked like a new one."""
        return self.merged(None, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON-compatible values where the field has one."""
        out: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in out.items()}

    @classmethod
    def greedy(cls, **changes: Unpack[GenerationFields]) -> Self:
        """Always the most probable token.

        Args:
            **changes: Other fields.
        """
        changes.setdefault("temperature", 0.0)
        return cls(**changes)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], /) -> Self:
        """Reads ``generation_config.json`` of a checkpoint directory, or the file itself.

        Names of transformers are translated; entries that mean nothing to fastllm are left out. A directory without
        the file gives the defaults.

        Raises:
            LoadError: The path does not exist or the file is not a JSON object.
            InvalidConfig: A value is out of range.
        """
        import json
        from pathlib import Path

        place = Path(path)
        file = place / "generation_config.json" if place.is_dir() else place
        if not file.exists():
            if place.is_dir():
                return cls()
            raise LoadError(f"[GenerationConfig] {str(place)!r} does not exist.", path=str(place))
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LoadError(f"[GenerationConfig] {str(file)!r} is not JSON: {error}.", path=str(file)) from error
        if not isinstance(data, dict):
            raise LoadError(
                f"[GenerationConfig] {str(file)!r} holds {type(data).__name__}, not an object.", path=str(file)
            )
        return cls.from_checkpoint(data)

    @classmethod
    def from_checkpoint(cls, data: Mapping[str, Any], /) -> Self:
        """A config from the entries of a ``generation_config.json``; those without a meaning here are left out."""
        values: dict[str, Any] = {}
        for key, value in data.items():
            name = _HF_NAMES.get(key, key)
            if value is not None and name in cls._NAMES and name not in ("seed", "n", "constraint"):
                values[name] = value
        if values.get("max_new_tokens") is not None:
            values.pop("max_length", None)
        if data.get("do_sample") is False:
            values["temperature"] = 0.0
        return cls._build(_translate(values, notice=False))

    @classmethod
    def _build(cls, values: Mapping[str, Any]) -> Self:
        """From translated values, without notices."""
        self = object.__new__(cls)
        for item in fields(cls):
            object.__setattr__(self, item.name, values.get(item.name, item.default))
        object.__setattr__(self, "_given", frozenset(values))
        self._check()
        return self

    def _values(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self._given if name != "do_sample"}
        if "do_sample" in self._given:
            values["do_sample"] = True
        return values

    # --- checks

    def _check(self) -> None:
        owner = "GenerationConfig"
        if self.max_new_tokens is not None:
            _check_int(owner, "max_new_tokens", self.max_new_tokens, 1)
        if self.max_length is not None:
            _check_int(owner, "max_length", self.max_length, 1)
        for name in ("min_new_tokens", "top_k", "penalty_window", "no_repeat_ngram"):
            _check_int(owner, name, getattr(self, name), 0)
        _check_float(owner, "temperature", self.temperature, 0.0)
        for name in ("top_p", "typical_p"):
            _check_float(owner, name, getattr(self, name), 0.0, 1.0, open_low=True)
        _check_float(owner, "min_p", self.min_p, 0.0, 1.0)
        _check_float(owner, "repetition_penalty", self.repetition_penalty, 0.0, open_low=True)
        for name in ("presence_penalty", "frequency_penalty"):
            _check_float(owner, name, getattr(self, name), -100.0, 100.0)
        for name in ("include_stop", "ignore_eos", "skip_special_tokens", "echo"):
            _check_bool(owner, name, getattr(self, name))
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check_int(owner, name, getattr(self, name), 0)
        if self.seed is not None:
            _check_int(owner, "seed", self.seed, 0, 2**64 - 1)
        _check_int(owner, "n", self.n, 1)
        if self.max_time_s is not None:
            _check_float(owner, "max_time_s", self.max_time_s, 0.0, open_low=True)
        if self.lookahead is not None and self.lookahead != "engine":
            _check_int(owner, "lookahead", self.lookahead, 0)
        if self.logprobs_mode not in ("raw", "sampled"):
            raise _invalid(owner, "logprobs_mode", self.logprobs_mode, '"raw" or "sampled"')
        for name in ("stop", "bad_words"):
            if any(not isinstance(entry, str) or not entry for entry in getattr(self, name)):
                raise _invalid(owner, name, getattr(self, name), "non-empty strings")
        for entry in self.stop_token_ids:
            _check_int(owner, "stop_token_ids", entry, 0)
        for key, value in (self.logit_bias or {}).items():
            _check_int(owner, "logit_bias", key, 0)
            _check_float(owner, f"logit_bias[{key}]", value, -1e9, 1e9)
        self._check_together()

    def _check_together(self) -> None:
        if self.max_new_tokens is not None and self.max_length is None and self.min_new_tokens > self.max_new_tokens:
            raise _contradiction(
                "min_new_tokens", self.min_new_tokens, "max_new_tokens", self.max_new_tokens, "Raise the latter."
            )

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.name in self._given
        )
        return f"GenerationConfig({shown})"


def _contradiction(one: str, value: object, two: str, other: object, hint: str) -> InvalidConfig:
    return InvalidConfig(
        f"[GenerationConfig] {one}={value!r} contradicts {two}={other!r}.", hint=hint, fields=(one, two)
    )


def _lay(values: dict[str, Any], layer: dict[str, Any]) -> None:
    """Lays translated values over others, in place. The two ways to limit the length displace each other."""
    if "max_new_tokens" in layer:
        values.pop("max_length", None)
    if "max_length" in layer:
        values.pop("max_new_tokens", None)
    if layer.get("do_sample") and "temperature" in values:  # "sample": at the temperature below, unless that is 0
        layer = {**layer, "temperature": values["temperature"] or 1.0}
    values.update(layer)


def _translate(given: dict[str, Any], *, notice: bool) -> dict[str, Any]:
    """Aliases to fields, single values to tuples. Raises for unknown names and for two names that contradict."""
    known = GenerationConfig._NAMES
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known and name not in _ALIASES and name != "do_sample":
            raise _unknown("GenerationConfig", name, [*known, *_ALIASES, "do_sample"])
        if name in known:
            values[name] = value
    for alias, name in _ALIASES.items():
        if alias not in given:
            continue
        if name in values and values[name] != given[alias]:
            raise _contradiction(alias, given[alias], name, values[name], f"They mean the same: keep {name}.")
        values[name] = given[alias]
        if notice:
            _notice(alias, name)
    if values.get("max_length") is None:
        values.pop("max_length", None)
    elif "max_new_tokens" in values:
        raise _contradiction(
            "max_length", values["max_length"], "max_new_tokens", values["max_new_tokens"],
            "max_length counts the prompt too: keep one of them.",
        )  # fmt: skip
    elif notice:
        _notice("max_length", "a limit on prompt and completion together, as in transformers; see max_new_tokens")
    if "do_sample" in given:
        _translate_do_sample(given["do_sample"], values, notice=notice)
    for name in ("stop", "bad_words"):
        if name in values:
            entry = values[name]
            values[name] = (entry,) if isinstance(entry, str) else tuple(entry or ())
    if "stop_token_ids" in values:
        ids = values["stop_token_ids"]
        values["stop_token_ids"] = (ids,) if isinstance(ids, int) else tuple(ids or ())
    return values


def _translate_do_sample(do_sample: object, values: dict[str, Any], *, notice: bool) -> None:
    if not isinstance(do_sample, bool):
        raise _invalid("GenerationConfig", "do_sample", do_sample, "True or False")
    if notice:
        _notice("do_sample", "temperature above 0 (True) or temperature=0 (False)")
    temperature = values.get("temperature")
    if temperature is None:
        values["temperature"] = 1.0 if do_sample else 0.0
        if do_sample:
            values["do_sample"] = True  # kept, so that a checkpoint's own temperature wins over this 1.0
    elif isinstance(temperature, (int, float)) and (temperature > 0) is not do_sample:
        raise _contradiction("do_sample", do_sample, "temperature", temperature, "temperature alone says it all.")


GenerationConfig._NAMES = frozenset(item.name for item in fields(GenerationConfig))
GenerationConfig.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=item.type)
        for item in fields(GenerationConfig)
    ]
)
