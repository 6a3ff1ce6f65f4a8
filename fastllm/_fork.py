"""What `TokenStream.fork` submits: the tokens that are kept, and the settings in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from fastllm.errors import InvalidRequest
from fastllm.types import Token, TopToken

if TYPE_CHECKING:
    from fastllm.config import GenerationConfig
    from fastllm.model import Model
    from fastllm.stream import Ticket

__all__ = ["TokenLike", "as_output", "fork_arguments", "token_id"]

TokenLike: TypeAlias = "int | str | Token | TopToken"


def fork_arguments(
    ticket: Ticket, tokens: Sequence[Token], at: int, token: TokenLike | None, overrides: Mapping[str, Any]
) -> tuple[tuple[int, ...], GenerationConfig, dict[str, Any]]:
    """Arguments for `Model._submit` of a request that goes on from token ``at`` of another.

    Args:
        ticket: The other request.
        tokens: What was read of it.
        at: Tokens 0 ... at - 1 are kept.
        token: What stands at ``at``; None: nothing yet.
        overrides: Fields of `GenerationConfig`.

    Raises:
        InvalidRequest: There is no such place or token, or nothing is left to be generated.
    """
    model = ticket.model
    read = [entry for entry in tokens if entry.index >= 0]
    if not 0 <= at <= len(read):
        raise InvalidRequest(
            f"[fork] at is {at}, but {len(read)} tokens were read.", hint="A fork keeps tokens 0 ... at - 1."
        )
    ids = [entry.id for entry in read[:at]]
    if token is not None:
        ids.append(token_id(model, token))
    config = ticket.config.merged(None, **overrides)
    if "seed" not in overrides and config.seed is None:
        config = config.replace(seed=ticket.seed)
    if config.max_new_tokens is not None and len(ids) >= config.max_new_tokens:
        raise InvalidRequest(
            f"[fork] {len(ids)} tokens are kept, but max_new_tokens is {config.max_new_tokens}.",
            hint="Give a larger max_new_tokens: it counts the kept ones, too.",
        )
    options = {"kept": as_output(model, ids, read[:at], config), "chat": ticket.chat, **ticket.options}
    return ticket.prompt_ids, config, options


def token_id(model: Model, token: TokenLike) -> int:
    """The id of a token given in any form.

    Raises:
        InvalidRequest: A text is not one token of the model, or an id lies outside its vocabulary.
    """
    if isinstance(token, (Token, TopToken)):
        return token.id
    if isinstance(token, str):
        ids = model.tokenizer.encode(token, add_special=False)
        if len(ids) == 1:
            return ids[0]
        data, table = token.encode(), model.tokenizer.token_table()[0]
        if data and data in table:
            return table.index(data)
        pieces = [model.tokenizer.token_bytes(piece).decode("utf-8", "replace") for piece in ids]
        raise InvalidRequest(
            f"[fork] {token!r} is no single token of this model, but {len(ids)}: {pieces}.",
            hint="Give one of stream.tokens[i].top, or an id.",
        )
    if not 0 <= token < model.info.vocab_size:
        raise InvalidRequest(f"[fork] token {token} lies outside the vocabulary of {model.info.vocab_size} tokens.")
    return int(token)


def as_output(model: Model, ids: Sequence[int], read: Sequence[Token], config: GenerationConfig) -> tuple[Token, ...]:
    """Output that exists already, as the engine would have given it.

    Args:
        model: Whose output.
        ids: Its tokens.
        read: The first of them as they came, for what the ids do not tell.
        config: Settings of the request that goes on from there.

    Raises:
        InvalidRequest: One of the stop strings ends it.
    """
    decoder = model._detokenizer(config)
    tokens = []
    for index, id_ in enumerate(ids):
        text, data, stopped = decoder.push(id_, hold=index + 1 >= config.min_new_tokens)
        if stopped:
            raise InvalidRequest(
                f"[fork] with token {index} the answer ends in one of its stop strings {list(config.stop)}.",
                hint="There is nothing to go on from.",
            )
        old = read[index] if index < len(read) else None
        logprob, top, time_s = (None, (), 0.0) if old is None else (old.logprob, old.top, old.time_s)
        special = id_ in model.tokenizer.special_ids
        tokens.append(Token(id_, text, data, index, logprob, top, special, time_s))
    return tuple(tokens)
