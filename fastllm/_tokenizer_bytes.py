"""From pieces to exact bytes: what every token id contributes to the output, for the tokenizers' decoder kinds.

Byte-level vocabularies (GPT-2, Llama 3, Qwen) write each byte as one printable character; SentencePiece vocabularies
write a space as U+2581 and a raw byte as ``<0xAB>``; WordPiece marks continuations with ``##``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BYTE_TO_CHAR", "CHAR_TO_BYTE", "SPACE", "PieceDecoder", "byte_level_piece"]

#: SentencePiece's visible space.
SPACE = "\u2581"

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's map: printable Latin-1 bytes are themselves, the others take the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    result = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in result:
            result[byte] = chr(0x100 + len(result) - len(printable))
    return result


BYTE_TO_CHAR = _byte_alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def byte_level_piece(data: bytes) -> str:
    """Bytes in the byte-level alphabet."""
    return "".join(BYTE_TO_CHAR[byte] for byte in data)


@dataclass(slots=True)
class PieceDecoder:
    """How a vocabulary's pieces spell bytes.

    Attributes:
        byte_level: Each character is a byte.
        byte_fallback: Pieces of the form ``<0xAB>`` are raw bytes.
        replacements: Applied to the piece's text, in order.
        word_prefix: WordPiece: pieces with it continue a word, others start one after a space.
        word_suffix: BPE with end-of-word marks, such as ``</w>``, which stand for a space.
        strip_leading_space: The text as a whole loses one space in front.
    """

    byte_level: bool = False
    byte_fallback: bool = False
    replacements: list[tuple[str, str]] = field(default_factory=list)
    word_prefix: str | None = None
    word_suffix: str | None = None
    strip_leading_space: bool = False

    @classmethod
    def from_components(cls, decoder: object, pre_tokenizer: object) -> PieceDecoder:
        """Reads the decoder of a ``tokenizers.Tokenizer``, or guesses it from the pre-tokenizer where there is none."""
        self = cls()
        parts = list(_flatten(_state(decoder)))
        if not parts:
            parts = [part for part in _flatten(_state(pre_tokenizer)) if part.get("type") in ("ByteLevel", "Metaspace")]
        for part in parts:
            self._add(part)
        return self

    def _add(self, part: Mapping[str, Any]) -> None:
        kind = part.get("type")
        if kind == "ByteLevel":
            self.byte_level = True
        elif kind == "ByteFallback":
            self.byte_fallback = True
        elif kind == "Replace":
            pattern = part.get("pattern")
            source = pattern.get("String") if isinstance(pattern, dict) else None
            if source:
                self.replacements.append((source, str(part.get("content", ""))))
        elif kind == "Metaspace":
            self.replacements.append((str(part.get("replacement", SPACE)), " "))
            never = part.get("prepend_scheme") == "never" or part.get("add_prefix_space") is False
            self.strip_leading_space = not never
        elif kind == "Strip":
            self.strip_leading_space = part.get("content") == " " and bool(part.get("start"))
        elif kind == "WordPiece":
            self.word_prefix = str(part.get("prefix", "##"))
            self.strip_leading_space = True
        elif kind == "BPEDecoder":
            self.word_suffix = str(part.get("suffix", "</w>"))

    def added(self, content: str) -> bytes:
        """Bytes of an added token, whose text is not in the byte alphabet."""
        for source, target in self.replacements:
            content = content.replace(source, target)
        return content.encode("utf-8", "surrogatepass")

    def piece(self, piece: str) -> bytes:
        """Bytes of a piece of the base vocabulary."""
        if self.byte_level:
            try:
                return bytes([CHAR_TO_BYTE[char] for char in piece])
            except KeyError:
                return piece.encode("utf-8", "surrogatepass")
        if self.byte_fallback:
            match = _BYTE_PIECE.fullmatch(piece)
            if match:
                return bytes([int(match[1], 16)])
        if self.word_prefix is not None:
            continues = piece.startswith(self.word_prefix)
            piece = piece[len(self.word_prefix) :] if continues else f" {piece}"
        if self.word_suffix and piece.endswith(self.word_suffix):
            piece = f"{piece[: -len(self.word_suffix)]} "
        return self.added(piece)


def _state(component: object) -> dict[str, Any]:
    """The JSON of a component of ``tokenizers``, which is what pickling it gives."""
    if component is None:
        return {}
    state = component.__getstate__()  # type: ignore[attr-defined]
    return dict(json.loads(state)) if isinstance(state, (bytes, str)) else {}


def _flatten(state: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for key in ("decoders", "pretokenizers"):
        if key in state:
            for inner in state[key]:
                yield from _flatten(inner)
            return
    if state:
        yield state
