"""tiktoken rank files: one line for each token, its bytes in base64 and its rank, which is its id.

The file holds neither the pattern that splits text into words nor the special tokens. Both come from
tokenizer_config.json where it has them, and otherwise from the family that the number of ranks gives away.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastllm._tokenizer_bytes import byte_level_piece
from fastllm.errors import CorruptFile

__all__ = ["CL100K", "GPT2", "KIMI", "O200K", "QWEN", "build", "family_of", "is_ranks", "onig_pattern", "parse_ranks"]

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER, _ENDING = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NOT_HAN = r"&&[^\p{Han}]"
KIMI = (
    rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}{_NOT_HAN}]*[{_LOWER}{_NOT_HAN}]+{_ENDING}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}{_NOT_HAN}]+[{_LOWER}{_NOT_HAN}]*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}")
_AGAIN = "The file is damaged or was cut short: download it again."


@dataclass(frozen=True, slots=True)
class Family:
    """What the rank file leaves out."""

    pattern: str
    specials: tuple[str, ...] = ()
    bos: str | None = None
    eos: str | None = None


def _llama3() -> tuple[str, ...]:
    named = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id"}
    named |= {7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
    free = iter(range(256))
    return tuple(f"<|{named[i] if i in named else f'reserved_special_token_{next(free)}'}|>" for i in range(256))


_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{index}|>" for index in range(205)))
_FAMILIES = {
    50256: Family(GPT2, ("<|endoftext|>",), eos="<|endoftext|>"),
    128000: Family(CL100K, _llama3(), bos="<|begin_of_text|>", eos="<|end_of_text|>"),
    151643: Family(QWEN, _QWEN_SPECIALS, eos="<|endoftext|>"),
    163584: Family(KIMI),
    199998: Family(O200K),
}


def family_of(ranks: Mapping[bytes, int]) -> Family:
    """The family that this many ranks give away; any other number is split as cl100k."""
    return _FAMILIES.get(len(ranks), Family(CL100K))


def is_ranks(data: bytes) -> bool:
    """Whether a file looks like ranks: its first line does."""
    return _LINE.fullmatch(data[:1024].split(b"\n", 1)[0].rstrip()) is not None


def parse_ranks(data: bytes, path: str) -> dict[bytes, int]:
    """Token bytes to rank.

    Raises:
        CorruptFile: A line is malformed, a token or rank occurs twice, or a single byte has no rank.
    """
    ranks: dict[bytes, int] = {}
    seen: set[int] = set()
    for number, line in enumerate(data.splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        if not _LINE.fullmatch(line):
            raise _corrupt(path, f"line {number} is not base64 and a rank: {line[:40]!r}")
        encoded, _, digits = line.partition(b" ")
        try:
            token = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise _corrupt(path, f"line {number} is not base64: {line[:40]!r}") from error
        rank = int(digits)
        if token in ranks or rank in seen:
            raise _corrupt(path, f"line {number} repeats the token {token!r} or the rank {rank}")
        ranks[token] = rank
        seen.add(rank)
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise _corrupt(path, f"{missing} of the 256 single bytes have no rank")
    return ranks


def _corrupt(path: str, fact: str) -> CorruptFile:
    return CorruptFile(f"[tokenizer] {path}: {fact}.", path=path, hint=_AGAIN)


_INTERVAL = re.compile(r"(\\[pP]\{[^}]*\}|\[(?:[^\]\\]|\\.)*\]|\\.|[^\\()\[\]{}|?*+.^$])(\{\d+(?:,\d*)?\})\+")


def onig_pattern(pattern: str) -> str:
    """A tiktoken pattern in the syntax of ``tokenizers``: there ``{1,3}+`` is no possessive and ``$`` ends a line."""
    pattern = _INTERVAL.sub(r"(?>\1\2)", pattern)
    return re.sub(r"(\\.|\[(?:[^\]\\]|\\.)*\])|\$", lambda match: match[1] or r"\z", pattern)


def build(ranks: Mapping[bytes, int], pattern: str) -> Any:
    """A ``tokenizers.Tokenizer`` that splits and merges as tiktoken does; without special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    spelled = {token: byte_level_piece(token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token, _ in sorted(ranks.items(), key=lambda entry: entry[1]):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelled[left], spelled[right]) for left, right in known]
    vocab = {spelled[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(onig_pattern(pattern)), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
