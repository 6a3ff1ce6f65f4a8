"""Text to token ids and back, for every tokenizer format a Hugging Face checkpoint may have.

Reads tokenizer.json, SentencePiece tokenizer.model (BPE and Unigram), tiktoken ranks, and vocab.json with merges.txt.
Works without a model: ``Tokenizer.load("path")``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm import hub
from fastllm.errors import InvalidRequest

if TYPE_CHECKING:
    from fastllm._tokenizer_backends import Backend
    from fastllm.chat_template import ChatTemplate

__all__ = ["Tokenizer"]


class Tokenizer:
    """A vocabulary with everything that goes in and out of it. Immutable and safe to use from several threads.

    Every id stands for exact bytes (``token_bytes``), and the text of some ids is those bytes joined and read as UTF-8.

    Attributes:
        path: File or directory it was loaded from.
        vocab_size: Number of ids: the largest one plus one, added tokens included.
        bos_id: Id that begins a text, or None.
        eos_ids: Ids that end a text, the tokenizer's own first; () if it has none.
        pad_id: Id that fills up batches, or None.
        unk_id: Id of unknown text, or None.
        special_ids: Ids that are control, not text.
        strip_leading_space: Whether a decoded text loses the one space that encoding puts in front.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        path: str = "",
        bos: str | int | None = None,
        eos: Iterable[str | int] = (),
        pad: str | int | None = None,
        unk: str | int | None = None,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> None:
        vocabulary = backend.vocabulary
        self.path = path
        self._backend = backend
        self._pieces = vocabulary.pieces
        self._bytes = vocabulary.token_bytes
        self._special = vocabulary.special
        self._ids = {piece: index for index, piece in enumerate(self._pieces) if piece}
        self.vocab_size = len(self._pieces)
        self.strip_leading_space = vocabulary.strip_leading_space
        self.special_ids = frozenset(index for index, flag in enumerate(self._special) if flag)
        self.bos_id = self._find(bos)
        self.eos_ids = tuple(dict.fromkeys(index for index in map(self._find, eos) if index is not None))
        self.pad_id = self._find(pad)
        self.unk_id = self._find(unk)
        # A post-processor in tokenizer.json is what its authors ran; flags only speak where there is none.
        self._process = backend.has_processor
        self._add_bos, self._add_eos = bool(add_bos), bool(add_eos)
        self._template_lock = threading.Lock()
        self._template: ChatTemplate | None = None
        self._template_read = False

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, revision: str | None = None) -> Tokenizer:
        """Loads a tokenizer.

        Args:
            path: A checkpoint directory, one of the files named above, "demo", or a repository name ("org/name").
            revision: Branch, tag or commit of the repository; only for downloads.

        Raises:
            LoadError: Nothing is there, or the directory holds no tokenizer.
            CorruptFile: A file contradicts its format, or two files contradict each other.
            UnsupportedFormat: A kind of tokenizer that is not read.
        """
        from fastllm._tokenizer_load import load

        return load(hub.resolve(path, revision))

    # --- text to ids -----------------------------------------------------------------------------------------------

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any text; "" gives no ids but those that ``add_special`` adds.
            add_special: Whether to add what the model expects around a text: usually BOS in front.
            parse_special: Whether special tokens spelled out in the text ("<|im_end|>") become their ids. Set it to
                False for text from strangers, which then cannot leave its place in a prompt.

        Raises:
            InvalidRequest: ``text`` is not a str, or holds half of a surrogate pair.
        """
        _check_text(text)
        process = add_special and self._process
        ids = self._backend.encode(text, parse_special=parse_special, process=process)
        return self._surround(ids) if add_special and not process else ids

    def encode_batch(
        self, texts: Sequence[str], *, add_special: bool = True, parse_special: bool = True
    ) -> list[list[int]]:
        """Token ids of several texts; the same as ``encode`` of each, on several threads where the format allows."""
        if isinstance(texts, str):
            raise InvalidRequest("[tokenize] texts is a str, not a sequence of them.", hint="Use encode for one text.")
        for text in texts:
            _check_text(text)
        process = add_special and self._process
        batch = self._backend.encode_batch(texts, parse_special=parse_special, process=process)
        return [self._surround(ids) for ids in batch] if add_special and not process else batch

    def _surround(self, ids: list[int]) -> list[int]:
        if self._add_bos and self.bos_id is not None:
            ids = [self.bos_id, *ids]
        if self._add_eos and self.eos_ids:
            ids = [*ids, self.eos_ids[0]]
        return ids

    # --- ids to text -----------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], *, skip_special: bool = False, at_start: bool = True) -> str:
        """Text of some ids; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: Token ids.
            skip_special: Whether special tokens are left out.
            at_start: Whether the ids begin a text, so that the space which encoding put in front is dropped
                (``strip_leading_space``); False for a continuation.

        Raises:
            InvalidRequest: An id is not in the vocabulary.
        """
        parts = []
        for index in ids:
            self._check_id(index)
            if not (skip_special and self._special[index]):
                parts.append(self._bytes[index])
        data = b"".join(parts)
        if at_start and self.strip_leading_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def decode_batch(self, batch: Iterable[Sequence[int]], *, skip_special: bool = False) -> list[str]:
        """Texts of several lists of ids."""
        return [self.decode(ids, skip_special=skip_special) for ids in batch]

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one id; b"" for an id without a token.

        Raises:
            InvalidRequest: The id is not in the vocabulary.
        """
        self._check_id(token_id)
        return self._bytes[token_id]

    def token_table(self) -> tuple[list[bytes], list[bool]]:
        """Bytes and special flag of every id, [vocab_size] each: what the native detokenizer needs."""
        return list(self._bytes), list(self._special)

    def id_to_piece(self, token_id: int) -> str:
        """An id's text in the vocabulary ("Ġthe", "▁the", "<0x0A>"), or "" for an id without a token.

        Raises:
            InvalidRequest: The id is not in the vocabulary.
        """
        self._check_id(token_id)
        return self._pieces[token_id]

    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece of the vocabulary, or None."""
        return self._ids.get(piece)

    def is_special(self, token_id: int) -> bool:
        """Whether an id is control, not text."""
        return token_id in self.special_ids

    # --- facts -----------------------------------------------------------------------------------------------------

    @property
    def eos_id(self) -> int | None:
        """The first of ``eos_ids``, or None."""
        return self.eos_ids[0] if self.eos_ids else None

    @property
    def add_bos(self) -> bool:
        """Whether ``encode`` puts BOS in front."""
        return self.bos_id is not None and self.encode("")[:1] == [self.bos_id]

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The checkpoint's chat template, or None. It is read when first asked for.

        Raises:
            TemplateError: The template cannot be compiled.
        """
        with self._template_lock:
            if not self._template_read:
                from fastllm.chat_template import ChatTemplate

                bos, eos = self._name(self.bos_id), self._name(self.eos_id)
                directory = Path(self.path) if Path(self.path).is_dir() else Path(self.path).parent
                self._template = ChatTemplate.load(directory, bos=bos, eos=eos)
                self._template_read = True
            return self._template

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        parts = [repr(self.path), self._backend.kind, f"vocab_size={self.vocab_size}"]
        for name, index in (("bos", self.bos_id), ("eos", self.eos_id), ("pad", self.pad_id)):
            if index is not None:
                parts.append(f"{name}={self._pieces[index]!r}")
        return f"Tokenizer({', '.join(parts)})"

    def _find(self, token: str | int | None) -> int | None:
        if isinstance(token, str):
            return self._ids.get(token)
        return token if token is not None and 0 <= token < self.vocab_size else None

    def _name(self, index: int | None) -> str:
        return "" if index is None else self._pieces[index]

    def _check_id(self, index: int) -> None:
        if not 0 <= index < self.vocab_size:
            raise InvalidRequest(f"[detokenize] id {index} is not in the vocabulary of {self.vocab_size} tokens.")


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        fact = f"[tokenize] text is {type(text).__name__}, not str."
        raise InvalidRequest(fact, hint="Decode bytes first; for several texts use encode_batch.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        fact = f"[tokenize] character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a pair"
        raise InvalidRequest(f"{fact}.", hint="Decode the text as UTF-8 with errors='replace'.") from error
