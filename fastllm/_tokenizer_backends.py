"""The two ways text becomes ids: a ``tokenizers.Tokenizer``, or a SentencePiece model with our own front end.

A backend knows every id's piece, bytes and special flag; ``Tokenizer`` puts the rest on top.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastllm._tokenizer_bytes import SPACE, PieceDecoder
from fastllm._tokenizer_spm import BYTE, CONTROL, UNKNOWN, SpmBackend, SpmModel
from fastllm.errors import CorruptFile

__all__ = ["MAX_IDS", "AddedToken", "Backend", "HfBackend", "SpmFrontEnd", "Vocabulary"]

#: More ids than any vocabulary has: a larger one is a damaged file, not a reason to fill the memory.
MAX_IDS = 1 << 24


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is recognised in text before anything else.

    Attributes:
        content: Its text.
        id: Its id, or None for the one the vocabulary has; if it has none, the next free one.
        special: Whether it is control, not text.
        lstrip: Whether white space before it belongs to it.
        rstrip: Whether white space after it belongs to it.
        normalized: Whether it is looked for in the normalized text.
        single_word: Whether it must not touch letters.
    """

    content: str
    id: int | None = None
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False


@dataclass(slots=True)
class Vocabulary:
    """What each id is.

    Attributes:
        pieces: Its text in the vocabulary; "" for an id that no token has.
        token_bytes: The bytes it contributes to the output.
        special: Whether it is control, not text.
        strip_leading_space: Whether the text as a whole loses one space in front.
    """

    pieces: list[str]
    token_bytes: list[bytes]
    special: list[bool]
    strip_leading_space: bool


class Backend(Protocol):
    """What ``Tokenizer`` needs of a vocabulary.

    Attributes:
        kind: Name of the algorithm, such as "BPE".
        vocabulary: What each id is.
        has_processor: Whether the file itself says what to add around a text.
    """

    kind: str
    vocabulary: Vocabulary
    has_processor: bool

    def encode(self, text: str, *, parse_special: bool, process: bool = False) -> list[int]:
        """Ids of a text; with ``process`` what the file's own post-processor makes of them."""

    def encode_batch(self, texts: Sequence[str], *, parse_special: bool, process: bool = False) -> list[list[int]]:
        """The same for several texts."""


class HfBackend:
    """A ``tokenizers.Tokenizer``, from tokenizer.json or built from another format."""

    def __init__(self, tokenizer: Any, added: Iterable[AddedToken], path: str) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._literal: Any = None
        self._lock = threading.Lock()
        self.has_processor = tokenizer.post_processor is not None
        _add_tokens(tokenizer, added, path)
        self.kind = type(tokenizer.model).__name__
        self.vocabulary = _vocabulary(tokenizer, path)

    def _pick(self, parse_special: bool) -> Any:
        """The tokenizer itself, or its twin (made when first needed) that takes special tokens as text."""
        if parse_special:
            return self._tokenizer
        with self._lock:
            if self._literal is None:
                twin = type(self._tokenizer).from_str(self._tokenizer.to_str())
                twin.encode_special_tokens = True
                self._literal = twin
            return self._literal

    def encode(self, text: str, *, parse_special: bool, process: bool = False) -> list[int]:
        """Ids of a text; with ``process`` what the file's own post-processor makes of them."""
        ids: list[int] = self._pick(parse_special).encode(text, add_special_tokens=process).ids
        return ids

    def encode_batch(self, texts: Sequence[str], *, parse_special: bool, process: bool = False) -> list[list[int]]:
        """The same for several texts, on several threads."""
        encodings = self._pick(parse_special).encode_batch(list(texts), add_special_tokens=process)
        return [encoding.ids for encoding in encodings]


def _add_tokens(tokenizer: Any, added: Iterable[AddedToken], path: str) -> None:
    import tokenizers

    known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    for token in sorted(added, key=lambda entry: (entry.id is None, entry.id or 0)):
        if not token.content:
            continue
        old = known.get(token.content)
        if old is None or (token.special and not old.special):
            new = tokenizers.AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized,
                special=token.special,
            )
            if token.special:
                tokenizer.add_special_tokens([new])
            else:
                tokenizer.add_tokens([new])
        got = tokenizer.token_to_id(token.content)
        if token.id is not None and got != token.id:
            raise CorruptFile(
                f"[tokenizer] {path}: {token.content!r} should have id {token.id} but the vocabulary gives it {got}.",
                path=path,
                hint="Its files do not belong together: copy all of them from the same checkpoint.",
            )


def _vocabulary(tokenizer: Any, path: str) -> Vocabulary:
    decoder = PieceDecoder.from_components(tokenizer.decoder, tokenizer.pre_tokenizer)
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    _check_size(size, path)
    pieces, data, special = [""] * size, [b""] * size, [False] * size
    for piece, index in ids.items():
        pieces[index], data[index] = piece, decoder.piece(piece)
    for index, token in tokenizer.get_added_tokens_decoder().items():
        pieces[index], data[index], special[index] = token.content, decoder.added(token.content), token.special
    return Vocabulary(pieces, data, special, decoder.strip_leading_space)


def _check_size(size: int, path: str) -> None:
    if size > MAX_IDS:
        fact = f"{path} has the id {size - 1} but at most {MAX_IDS} ids are possible"
        raise CorruptFile(f"[tokenizer] {fact}.", path=path, hint="The file is damaged: download it again.")


class SpmFrontEnd:
    """A SentencePiece model with the added tokens that Hugging Face puts around it.

    Attributes:
        prefix: Where the dummy space goes: "first" (only at the very start), "always" (also after each special token)
            or "never".
    """

    def __init__(self, model: SpmModel, added: Iterable[AddedToken], path: str, *, prefix: str = "first") -> None:
        self.has_processor = False
        self.kind = "BPE" if model.model_type == 2 else "Unigram"
        self.model = model
        self.prefix = prefix
        self._backend = SpmBackend(model, path)
        tokens = [
            AddedToken(piece.text, index, special=True)
            for index, piece in enumerate(model.pieces)
            if piece.kind in (CONTROL, UNKNOWN)
        ]
        self._tokens = {token.content: token for token in tokens if token.content}
        ids = {piece.text: index for index, piece in enumerate(model.pieces)}
        size = len(model.pieces)
        for token in sorted(added, key=lambda entry: (entry.id is None, entry.id or 0)):
            index = ids.get(token.content)
            if index is None:
                index = size if token.id is None else token.id
            if not token.content or (token.id is not None and index != token.id) or index < 0:
                raise CorruptFile(
                    f"[tokenizer] {path}: {token.content!r} should have id {token.id} but has {index}.",
                    path=path,
                    hint="Its files do not belong together: copy all of them from the same checkpoint.",
                )
            ids[token.content] = index
            size = max(size, index + 1)
            flags = (token.special, token.lstrip, token.rstrip, token.normalized, token.single_word)
            self._tokens[token.content] = AddedToken(token.content, index, *flags)
        self._all = _matcher(self._tokens.values())
        self._literal = _matcher(token for token in self._tokens.values() if not token.special)
        _check_size(size, path)
        self.vocabulary = self._make_vocabulary(size)

    def _make_vocabulary(self, size: int) -> Vocabulary:
        pieces, data, special = [""] * size, [b""] * size, [False] * size
        for index, piece in enumerate(self.model.pieces):
            pieces[index] = piece.text
            special[index] = piece.kind in (CONTROL, UNKNOWN)
            data[index] = piece.text.replace(SPACE, " ").encode("utf-8")
            if piece.kind == BYTE:
                data[index] = bytes([int(piece.text[3:5], 16)])
        for token in self._tokens.values():
            if token.id is not None:
                pieces[token.id], special[token.id] = token.content, token.special
                data[token.id] = token.content.replace(SPACE, " ").encode("utf-8")
        return Vocabulary(pieces, data, special, self.model.add_dummy_prefix)

    def encode(self, text: str, *, parse_special: bool, process: bool = False) -> list[int]:
        """Ids of a text; the format has no post-processor."""
        matcher = self._all if parse_special else self._literal
        result: list[int] = []
        position = 0
        for match in matcher.finditer(text) if matcher else ():
            result += self._segment(text[position : match.start()], position, len(text))
            found = self._tokens.get(match[0]) or self._tokens[match[0].strip()]
            result.append(found.id or 0)
            position = match.end()
        return result + self._segment(text[position:], position, len(text))

    def _segment(self, text: str, position: int, total: int) -> list[int]:
        """Encodes what lies between special tokens; extra spaces are removed at the ends of the whole text only."""
        start, end = position == 0, position + len(text) == total
        prefix = self.prefix == "always" or (self.prefix == "first" and start)
        return self._backend.encode(text, prefix=prefix, start=start, end=end)

    def encode_batch(self, texts: Sequence[str], *, parse_special: bool, process: bool = False) -> list[list[int]]:
        """The same for several texts."""
        return [self.encode(text, parse_special=parse_special) for text in texts]


def _matcher(tokens: Iterable[AddedToken]) -> re.Pattern[str] | None:
    """Finds any of the tokens, the longest first."""
    parts = []
    for token in sorted(tokens, key=lambda entry: -len(entry.content)):
        part = re.escape(token.content)
        if token.single_word:
            part = rf"(?<!\w){part}(?!\w)"
        parts.append(("\\s*" if token.lstrip else "") + part + ("\\s*" if token.rstrip else ""))
    return re.compile("|".join(parts)) if parts else None
