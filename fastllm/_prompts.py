"""From what a caller gives to what the engine takes: prompts to token ids, a config to native parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastllm.errors import ContextTooLong, InvalidConfig, InvalidRequest, TemplateError, UnknownAdapter
from fastllm.types import Message, Prompt, RenderedPrompt

if TYPE_CHECKING:
    from fastllm.config import GenerationConfig
    from fastllm.tokenizer import Tokenizer

__all__ = [
    "as_messages",
    "encode_prompt",
    "fresh_seed",
    "is_messages",
    "native_params",
    "render",
]


def fresh_seed() -> int:
    """A random seed of 48 bits, which every JSON reader keeps exact."""
    return int.from_bytes(os.urandom(6), "little")


def is_messages(prompt: object) -> bool:
    """Whether a prompt is a conversation rather than text or token ids."""
    if isinstance(prompt, (str, bytes, np.ndarray)) or not isinstance(prompt, Sequence) or not prompt:
        return False
    return isinstance(prompt[0], (Message, Mapping))


def as_messages(messages: str | Sequence[Message | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A conversation as templates take it; a plain text is one user message.

    Raises:
        InvalidRequest: An entry is no message, or lacks role or content.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    out: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if isinstance(message, Message):
            out.append(message.to_dict())
        elif isinstance(message, Mapping):
            if "role" not in message:
                raise InvalidRequest(
                    f"[chat] message {index} has keys {sorted(map(str, message))} but no role.",
                    hint='Write {"role": "user", "content": "..."}.',
                )
            out.append({"content": "", **message})
        else:
            raise InvalidRequest(
                f"[chat] message {index} is {type(message).__name__}.",
                hint='Give fastllm.Message("user", "...") or {"role": "user", "content": "..."}.',
            )
    if not out:
        raise InvalidRequest("[chat] the conversation is empty.", hint="It needs at least one message.")
    return out


def render(
    tokenizer: Tokenizer,
    messages: str | Sequence[Message | Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = True,
    template_kwargs: Mapping[str, Any] | None = None,
) -> RenderedPrompt:
    """Puts a conversation through the model's chat template.

    Raises:
        TemplateError: The model has no template, or it refuses the conversation.
        InvalidRequest: An entry is no message.
    """
    template = tokenizer.chat_template
    if template is None:
        raise TemplateError(
            "[chat] the model has no chat template.",
            hint="It continues text: use stream() or generate() with a plain prompt.",
        )
    text = template.render(
        as_messages(messages), tools=tools, add_generation_prompt=add_generation_prompt, **(template_kwargs or {})
    )
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    return RenderedPrompt(text, tuple(ids))


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt in any of its forms.

    Raises:
        InvalidRequest: It is empty or of no such form.
    """
    if isinstance(prompt, str):
        ids = tuple(tokenizer.encode(prompt))
    elif is_messages(prompt):
        ids = render(tokenizer, cast("Sequence[Message | Mapping[str, Any]]", prompt)).token_ids
    else:
        try:
            ids = tuple(int(item) for item in np.asarray(prompt).tolist())
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f"[prompt] {type(prompt).__name__} is no prompt.",
                hint="Give text, token ids, or messages with role and content.",
            ) from error
    if not ids:
        raise InvalidRequest(
            "[prompt] the prompt has no tokens.", hint="Give some text; this model adds no token of its own in front."
        )
    return ids


def native_params(
    config: GenerationConfig,
    prompt_tokens: int,
    *,
    seed: int,
    context_length: int,
    eos_token_ids: Sequence[int],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """The fields of ``src/sampling/params.h``.

    Raises:
        ContextTooLong: Not one token fits behind the prompt.
        InvalidConfig: ``max_length`` is not above the prompt's length, or a constraint is asked for.
    """
    if config.constraint is not None:
        raise InvalidConfig(
            "[constraint] constrained generation is not part of this version.",
            hint="It is planned for a later release; until then ask for the format in the prompt.",
            fields=("constraint",),
        )
    if prompt_tokens >= context_length:
        raise ContextTooLong(
            f"[prompt] the prompt has {prompt_tokens} tokens but the context holds {context_length}, "
            "with one at least for the answer.",
            hint="Shorten the prompt.",
            prompt_tokens=prompt_tokens,
            limit=context_length - 1,
        )
    most = -1 if config.max_new_tokens is None else config.max_new_tokens
    if config.max_length is not None:
        most = config.max_length - prompt_tokens
        if most < 1:
            raise InvalidConfig(
                f"[max_length] max_length is {config.max_length} but the prompt alone has {prompt_tokens} tokens.",
                hint="max_length counts the prompt; max_new_tokens does not.",
                fields=("max_length",),
            )
    return {
        "max_new_tokens": most,
        "min_new_tokens": config.min_new_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        "min_p": config.min_p,
        "typical_p": config.typical_p,
        "repetition_penalty": config.repetition_penalty,
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
        "penalty_window": config.penalty_window,
        "no_repeat_ngram": config.no_repeat_ngram,
        "seed": seed,
        "stop": list(config.stop),
        "stop_token_ids": list(config.stop_token_ids),
        "eos_token_ids": list(eos_token_ids),
        "include_stop": config.include_stop,
        "ignore_eos": config.ignore_eos,
        "skip_special_tokens": config.skip_special_tokens,
        "logit_bias": list((config.logit_bias or {}).items()),
        "bad_words": _bad_words(tokenizer, config.bad_words),
        "logprobs": -1 if config.logprobs is None else config.logprobs,
        "logprobs_mode": config.logprobs_mode,
        "prompt_logprobs": -1 if config.prompt_logprobs is None else config.prompt_logprobs,
        "max_time_s": config.max_time_s or 0.0,
    }


def _bad_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """Token sequences of each word, at the start of a text and after a space."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word, " " + word.lstrip(" ")):
            ids = tuple(tokenizer.encode(text, add_special=False, parse_special=False))
            if ids:
                found[ids] = None
    return [list(ids) for ids in found]


def check_adapter(adapter: str | None) -> None:
    """Adapters have their place in every call; none can be loaded yet.

    Raises:
        UnknownAdapter: One is named.
    """
    if adapter is not None:
        raise UnknownAdapter(
            f"[adapter] no adapter is called {adapter!r}.",
            hint="This version loads no adapters; they are planned for a later release.",
            adapter=adapter,
        )
