"""SentencePiece models without the sentencepiece library.

Reads the protobuf of a ``.model`` file, does the normalization itself (bit for bit as the library does, including the
compiled character map), and lets ``tokenizers`` do the search: its BPE merges pairs in the order of the pieces' scores,
its Unigram runs the same Viterbi.

Sources: sentencepiece_model.proto and the normalizer's documentation in google/sentencepiece; the double-array trie of
s-yata/darts-clone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fastllm._tokenizer_bytes import SPACE
from fastllm.errors import CorruptFile, UnsupportedFormat

__all__ = ["SpmBackend", "SpmModel", "parse_model"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2

_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_AGAIN = "The file is damaged or was cut short: download it again."


@dataclass(slots=True)
class Piece:
    """One entry of the vocabulary."""

    text: str = ""
    score: float = 0.0
    kind: int = NORMAL


@dataclass(slots=True)
class SpmModel:
    """The parts of a ModelProto that encoding needs, with the format's defaults."""

    pieces: list[Piece] = field(default_factory=list)
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    whitespace_suffix: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


# --- protobuf ----------------------------------------------------------------------------------------------------


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("a number takes more than ten bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: (number, integer or bytes). Numbers of 4 and 8 bytes come as bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {position} ends after byte {len(data)}")
        yield number, data[position : position + size]
        position += size


def _int(value: int | memoryview) -> int:
    """An int32 or enum; negative numbers come as 64 bits in two's complement."""
    if not isinstance(value, int):
        raise ValueError("bytes where a number is expected")
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _piece(data: memoryview) -> Piece:
    piece = Piece()
    for number, value in _fields(data):
        if number == 1:
            piece.text = str(_bytes(value), "utf-8")
        elif number == 2:
            piece.score = struct.unpack("<f", _bytes(value))[0]
        elif number == 3:
            piece.kind = _int(value)
    return piece


def parse_model(data: bytes, path: str) -> SpmModel:
    """Decodes and checks a SentencePiece ModelProto.

    Raises:
        CorruptFile: Not a ModelProto, or its parts contradict each other.
        UnsupportedFormat: A model of whole words or characters, or with spaces as suffixes.
    """
    model = SpmModel()
    try:
        for number, value in _fields(memoryview(data)):
            if number == 1:
                model.pieces.append(_piece(_bytes(value)))
            elif number == 2:
                _trainer_spec(model, _bytes(value))
            elif number == 3:
                _normalizer_spec(model, _bytes(value))
    except (ValueError, IndexError, struct.error) as error:
        fact = f"{path} is not a SentencePiece model ({error})"
        raise CorruptFile(f"[tokenizer] {fact}.", path=path, hint=_AGAIN) from error
    if not model.pieces:
        raise CorruptFile(f"[tokenizer] {path} has no pieces.", path=path, hint=_AGAIN)
    if model.model_type not in (UNIGRAM, BPE) or model.whitespace_suffix or not model.escape_whitespaces:
        fact = f"{path} is a SentencePiece model of type {model.model_type}"
        if model.whitespace_suffix or not model.escape_whitespaces:
            fact += " that does not put U+2581 in front of words"
        hint = "Only BPE and Unigram models with U+2581 as a prefix are read."
        raise UnsupportedFormat(f"[tokenizer] {fact}.", path=path, hint=hint)
    unknown = [index for index, piece in enumerate(model.pieces) if piece.kind == UNKNOWN]
    if len(unknown) != 1:
        fact = f"{path} has {len(unknown)} unknown pieces instead of one"
        raise CorruptFile(f"[tokenizer] {fact}.", path=path, hint=_AGAIN)
    model.unk_id = unknown[0]
    spelled = [piece.text for piece in model.pieces if piece.kind == BYTE]
    count = len({text.upper() for text in spelled if _BYTE_PIECE.fullmatch(text)})
    if len(spelled) != count or (model.byte_fallback and count != 256):
        fact = f"{path} has {len(spelled)} byte pieces, {count} of them different bytes, instead of 256"
        raise CorruptFile(f"[tokenizer] {fact}.", path=path, hint=_AGAIN)
    return model


def _trainer_spec(model: SpmModel, data: memoryview) -> None:
    names = {3: "model_type", 24: "whitespace_suffix", 35: "byte_fallback", 41: "bos_id", 42: "eos_id", 43: "pad_id"}
    for number, value in _fields(data):
        if number in names:
            old = getattr(model, names[number])
            setattr(model, names[number], type(old)(_int(value)))


def _normalizer_spec(model: SpmModel, data: memoryview) -> None:
    names = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}
    for number, value in _fields(data):
        if number == 2:
            model.charsmap = bytes(_bytes(value))
        elif number in names:
            setattr(model, names[number], bool(_int(value)))


# --- normalization -----------------------------------------------------------------------------------------------


class CharsMap:
    """The compiled rewriting rules: longest key first, at each position, from a double-array trie.

    Layout: 4 bytes size of the trie, the trie as uint32 units, then the replacements, each ended by a zero byte.
    """

    def __init__(self, blob: bytes) -> None:
        size = int.from_bytes(blob[:4], "little") if len(blob) >= 4 else -1
        if size < 4 or size % 4 or 4 + size > len(blob):
            raise ValueError(f"character map of {len(blob)} bytes claims a trie of {size}")
        self._units = memoryview(blob)[4 : 4 + size].cast("I") if _LITTLE else _swap(blob[4 : 4 + size])
        self._texts = blob[4 + size :]
        self._known: dict[str, tuple[bool, bool, bool]] = {}

    def _step(self, position: int, byte: int) -> tuple[int, int | None]:
        """Follows one byte: (next position or -1, value if a key ends here)."""
        position ^= byte
        if position >= len(self._units):
            return -1, None
        unit = self._units[position]
        if unit & 0x800000FF != byte:
            return -1, None
        position ^= (unit >> 10) << ((unit & 0x200) >> 6)
        if not unit & 0x100:
            return position, None
        return position, self._units[position] & 0x7FFFFFFF if position < len(self._units) else None

    @property
    def _root(self) -> int:
        unit = self._units[0]
        return (unit >> 10) << ((unit & 0x200) >> 6)

    def _kind(self, char: str) -> tuple[bool, bool, bool]:
        """For a first character: (is a key itself, may go on, may go on with ASCII)."""
        kind = self._known.get(char)
        if kind is None:
            position, value = self._root, None
            for byte in char.encode("utf-8"):
                position, value = self._step(position, byte)
                if position < 0:
                    break
            following = [byte for byte in range(256) if position >= 0 and self._step(position, byte)[0] >= 0]
            kind = (value is not None and position >= 0, bool(following), any(byte < 0x80 for byte in following))
            self._known[char] = kind
        return kind

    def _longest(self, text: str, start: int) -> tuple[int, str]:
        """The longest key at a position: (characters it takes, replacement); no key takes one character as it is."""
        position, found, length = self._root, -1, 1
        for index in range(start, len(text)):
            value = None
            for byte in text[index].encode("utf-8"):
                position, value = self._step(position, byte)
                if position < 0:
                    break
            if position < 0:
                break
            if value is not None:
                found, length = value, index - start + 1
        if found < 0:
            return 1, text[start]
        end = self._texts.find(b"\0", found)
        return length, self._texts[found : end if end >= 0 else None].decode("utf-8", "replace")

    def apply(self, text: str) -> str:
        """Rewrites a text; only places where a key may begin are looked up."""
        always, maybe = [], []
        for char in set(text):
            key, longer, ascii_next = self._kind(char)
            if key or ascii_next:
                always.append(re.escape(char))
            elif longer:
                maybe.append(re.escape(char))
        patterns = [f"[{''.join(always)}]"] if always else []
        if maybe and not text.isascii():
            patterns.append(f"[{''.join(maybe)}](?=[^\\x00-\\x7f])")
        if not patterns:
            return text
        trigger = re.compile("|".join(patterns))
        result: list[str] = []
        position = 0
        while match := trigger.search(text, position):
            start = match.start()
            length, replacement = self._longest(text, start)
            result += (text[position:start], replacement)
            position = start + length
        return "".join([*result, text[position:]])


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def _swap(data: bytes) -> memoryview:
    return memoryview(struct.pack(f"={len(data) // 4}I", *struct.unpack(f"<{len(data) // 4}I", data))).cast("I")


# --- encoding ----------------------------------------------------------------------------------------------------


class SpmBackend:
    """Encodes text without special tokens, as ``SentencePieceProcessor.encode`` does."""

    def __init__(self, model: SpmModel, path: str) -> None:
        self.model = model
        self.path = path
        try:
            self._charsmap = CharsMap(model.charsmap) if model.charsmap else None
        except ValueError as error:
            raise CorruptFile(f"[tokenizer] {path}: {error}.", path=path, hint=_AGAIN) from error
        self._byte_ids = {
            int(piece.text[3:5], 16): index for index, piece in enumerate(model.pieces) if piece.kind == BYTE
        }
        self._size = len(model.pieces)

    def normalize(self, text: str, *, prefix: bool = True, start: bool = True, end: bool = True) -> str:
        """The text as the model sees it: rewritten, spaces as U+2581, with the dummy prefix where asked for.

        Args:
            text: A text or a part of one.
            prefix: Whether to put the dummy space in front, if the model has one.
            start: Whether the text begins here: then spaces in front go, if the model removes extra ones.
            end: Whether the text ends here: likewise.
        """
        if not text:
            return ""
        model = self.model
        text = self._rewrite(text)
        if model.remove_extra_whitespaces:
            text = re.sub(" {2,}", " ", text.lstrip(" ") if start else text)
        text = text.replace(" ", SPACE)
        if model.remove_extra_whitespaces and end:
            text = text.rstrip(SPACE)
        if model.remove_extra_whitespaces and not text:
            return ""
        return SPACE + text if model.add_dummy_prefix and prefix else text

    def _rewrite(self, text: str) -> str:
        """Applies the character map outside of user-defined symbols."""
        charsmap = self._charsmap
        if charsmap is None:
            return text
        if self._symbols is None:
            return charsmap.apply(text)
        parts = self._symbols.split(text)  # odd entries are the symbols
        parts[::2] = [charsmap.apply(part) for part in parts[::2]]
        return "".join(parts)

    @cached_property
    def _symbols(self) -> re.Pattern[str] | None:
        symbols = [piece.text for piece in self.model.pieces if piece.kind == USER_DEFINED and piece.text]
        if not symbols:
            return None
        return re.compile(f"({'|'.join(map(re.escape, sorted(symbols, key=len, reverse=True)))})")

    def encode(self, text: str, *, prefix: bool = True, start: bool = True, end: bool = True) -> list[int]:
        """Token ids of a text, which is taken literally: no control piece is recognised in it; see ``normalize``."""
        normalized = self.normalize(text, prefix=prefix, start=start, end=end)
        if not normalized:
            return []
        encoding = self._search.encode(normalized, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if max(ids, default=0) < self._size and self.model.unk_id not in ids:
            return ids
        return self._resolve(ids, encoding.offsets, normalized)

    def _resolve(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
        """Replaces unknown parts by byte pieces, or by one unknown piece for each run of them."""
        result: list[int] = []
        unk = self.model.unk_id
        for index, (start, end) in zip(ids, offsets, strict=True):
            if index < self._size and index != unk:
                result.append(index)
            elif self.model.byte_fallback:
                result += [self._byte_ids[byte] for byte in text[start:end].encode("utf-8")]
            elif not result or result[-1] != unk:
                result.append(unk)
        return result

    @cached_property
    def _search(self) -> Any:
        import tokenizers

        names = self._names()
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CorruptFile(f"[tokenizer] {self.path} has the piece {twice!r} twice.", path=self.path, hint=_AGAIN)
        try:
            algorithm = self._bpe(names) if self.model.model_type == BPE else self._unigram(names)
            search = tokenizers.Tokenizer(algorithm)
        except Exception as error:
            fact = f"{self.path} has an unusable vocabulary ({error})"
            raise CorruptFile(f"[tokenizer] {fact}.", path=self.path, hint=_AGAIN) from error
        symbols = [piece.text for piece in self.model.pieces if piece.kind == USER_DEFINED and piece.text]
        search.add_tokens([tokenizers.AddedToken(symbol, normalized=False, special=False) for symbol in symbols])
        return search

    def _names(self) -> list[str]:
        """Pieces under which text may be found; the others get a name with a space, which no normalized text has."""
        matchable = (NORMAL, USER_DEFINED) if self.model.model_type == UNIGRAM else (NORMAL, USER_DEFINED, UNUSED)
        return [
            piece.text if piece.kind in matchable and piece.text else f" {index}"
            for index, piece in enumerate(self.model.pieces)
        ]

    def _bpe(self, names: list[str]) -> Any:
        from tokenizers import models

        vocab = {name: index for index, name in enumerate(names)}
        joined = [(piece.score, index) for index, piece in enumerate(self.model.pieces) if piece.text == names[index]]
        joined = [(score, index) for score, index in joined if len(names[index]) > 1]
        # A character that only occurs inside longer pieces still has to be a symbol that can be merged.
        for _, index in joined:
            for char in names[index]:
                vocab.setdefault(char, len(vocab))
        merges = []
        for _, index in sorted(joined, key=lambda entry: (-entry[0], entry[1])):
            name = names[index]
            pairs = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
            merges += sorted((pair for pair in pairs if pair[0] in vocab and pair[1] in vocab), key=_by_id(vocab))
        return models.BPE(vocab, merges, unk_token=names[self.model.unk_id], fuse_unk=False)

    def _unigram(self, names: list[str]) -> Any:
        from tokenizers import models

        scores = [piece.score for piece in self.model.pieces if piece.kind == NORMAL]
        lowest = min(scores, default=0.0)
        entries = [
            (name, piece.score if piece.kind == NORMAL else lowest)
            for name, piece in zip(names, self.model.pieces, strict=True)
        ]
        return models.Unigram(entries, self.model.unk_id, False)


def _by_id(vocab: dict[str, int]) -> Any:
    return lambda pair: (vocab[pair[0]], vocab[pair[1]])
