"""A model without weights, for tests of the SDK: after token t it gives token t + 1, as fast as asked.

So what it "says" is its vocabulary read in order, and every text a test needs can be put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastllm import EngineConfig, GenerationConfig, ModelInfo, _core
from fastllm.chat_template import ChatTemplate
from fastllm.model import Model

ASCII = [bytes([code]) for code in range(128)]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if tools %}T{{ tools | length }}\n{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


class TableTokenizer:
    """Token i stands for ``table[i]``; a text is encoded by the longest entries that match."""

    def __init__(self, table: Sequence[bytes], *, eos: Sequence[int] = (), template: str | None = TEMPLATE) -> None:
        self._table = list(table)
        self._ids = {data: index for index, data in reversed(list(enumerate(table))) if data}
        self._longest = max(map(len, self._ids), default=1)
        self.vocab_size = len(self._table)
        self.eos_ids = tuple(eos)
        self.special_ids = frozenset(eos)
        self.strip_leading_space = False
        self.chat_template = None if template is None else ChatTemplate(template)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        data, ids = text.encode(), []
        while data:
            size = next(size for size in range(min(self._longest, len(data)), 0, -1) if data[:size] in self._ids)
            ids.append(self._ids[data[:size]])
            data = data[size:]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        return b"".join(self._table[index] for index in ids).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self._table[token_id]

    def token_table(self) -> tuple[list[bytes], list[bool]]:
        return list(self._table), [index in self.special_ids for index in range(len(self._table))]


def null_model(
    table: Sequence[bytes] = ASCII,
    *,
    eos: Sequence[int] = (),
    step_us: int = 0,
    context_length: int = 100_000,
    generation_config: GenerationConfig | None = None,
    kv_memory: int = 8 * 1024 * 1024,
    **engine: Any,
) -> Model:
    """A `Model` over `_core.Program.null`. What it says after "a" is "bcd...", by default without an end.

    Args:
        table: Bytes of every token; the model has as many tokens.
        eos: Ids that end an answer.
        step_us: Microseconds that a step takes.
        context_length: Most tokens of a sequence.
        generation_config: As a checkpoint would bring it; by default greedy.
        kv_memory: Bytes of the key/value pool, 64 a token.
        **engine: Fields of `EngineConfig`.
    """
    program = _core.Program.null(len(table), context_length, step_us)
    info = ModelInfo(
        name="null",
        path="",
        architecture="Null",
        parameters=0,
        dtype="float32",
        quant=None,
        context_length=context_length,
        vocab_size=len(table),
        device="null",
        weight_bytes=0,
        kv_bytes_per_token=program.kv_bytes_per_token,
        layers=1,
        chat=True,
    )
    tokenizer: Any = TableTokenizer(table, eos=eos)
    return Model(
        program,
        tokenizer,
        info=info,
        engine_config=EngineConfig(kv_memory=kv_memory, **engine),
        generation_config=generation_config or GenerationConfig(temperature=0.0),
    )


def expected(prompt: str, count: int) -> str:
    """What the ASCII model says after a prompt."""
    return "".join(chr((ord(prompt[-1]) + 1 + step) % 128) for step in range(count))
