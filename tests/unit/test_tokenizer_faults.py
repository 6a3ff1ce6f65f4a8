"""Damaged tokenizer files: every one is a typed error that names file and fact, never a crash."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_cases import Shared, copy, token, train_spm, write_ranks

from fastllm import Tokenizer
from fastllm.errors import CorruptFile, FastLLMError, LoadError, UnsupportedFormat

# --- faults ----------------------------------------------------------------------------------------------------------


def refused(path: Path, kind: type[FastLLMError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        Tokenizer.load(path)
    for word in words:
        assert word in str(caught.value)


def test_nothing_to_load(tmp_path: Path) -> None:
    refused(tmp_path / "none", LoadError, "does not exist")
    refused(tmp_path, LoadError, "has no tokenizer, only nothing")
    (tmp_path / "vocab.json").write_text("{}")
    refused(tmp_path, LoadError, "has no tokenizer, only vocab.json")
    refused(tmp_path / "vocab.json", LoadError, "merges.txt is missing")
    (tmp_path / "x.gguf").write_bytes(b"GGUF\3\0\0\0")
    refused(tmp_path / "x.gguf", UnsupportedFormat, "GGUF")


def test_corrupt_tokenizer_json(tmp_path: Path, shared: Shared) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text('{"version": "1.0",\n "model": oops}')
    refused(tmp_path, CorruptFile, "tokenizer.json, line 2, column 11")
    for text in ("", "[]", "{}", '{"model": {}}', '{"model": {"type": "BPE"}}', "\ufeff"):
        file.write_text(text)
        refused(tmp_path, CorruptFile, "tokenizer.json")
    file.write_bytes(b"\xff\xfe{}")
    refused(tmp_path, CorruptFile, "not UTF-8")
    whole = (shared("tokenizers/gpt2_hf") / "tokenizer.json").read_bytes()
    for size in (10, 1000, len(whole) // 2, len(whole) - 2):
        file.write_bytes(whole[:size])
        refused(tmp_path, CorruptFile, "tokenizer.json")


def test_corrupt_companions(tmp_path: Path, shared: Shared) -> None:
    path = copy(shared("models/stories260K/hf"), tmp_path / "t")
    (path / "tokenizer_config.json").write_text('{"a": ')
    refused(path, CorruptFile, "tokenizer_config.json", "line 1")
    for decoder in ({"9": token("<s>")}, {"1": token("</s>")}):
        settings = {"added_tokens_decoder": decoder}
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
        refused(path, CorruptFile, "should have id")
    gpt2 = copy(shared("tokenizers/gpt2_hf"), tmp_path / "g", added_tokens_decoder={"60000": token("<far>")})
    refused(gpt2, CorruptFile, "'<far>' should have id 60000 but the vocabulary gives it 50257")
    odd = {"added_tokens_decoder": [1], "additional_special_tokens": 3, "bos_token": 5, "eos_token": {"content": 1}}
    (path / "tokenizer_config.json").write_text(json.dumps(odd))
    assert Tokenizer.load(path).vocab_size == 512


def test_ids_beyond_any_vocabulary(tmp_path: Path, shared: Shared) -> None:
    decoder = {"999999999999": token("<far>")}
    path = copy(shared("models/stories260K/hf"), tmp_path / "t", added_tokens_decoder=decoder)
    refused(path, CorruptFile, "has the id 999999999999 but at most")
    ranks = {bytes([byte]): byte for byte in range(255)} | {b"\xff": 999_999_999}
    refused(write_ranks(tmp_path / "q.tiktoken", ranks), CorruptFile, "has the id 999999999 but at most")


def test_corrupt_merges(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    refused(tmp_path, CorruptFile, "cannot be used")
    (tmp_path / "merges.txt").write_text("one-word\n")
    refused(tmp_path, CorruptFile, "cannot be used")
    (tmp_path / "vocab.json").write_text('{"a": ')
    refused(tmp_path, CorruptFile, "vocab.json, line 1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"!!!! 300", "line 257 is not base64 and a rank"),
        (b"QUI= 0", "line 257 repeats"),
        (b"QQ== 300", "line 257 repeats"),
        (b"QUI 300", "line 257 is not base64"),
        (b"QUI= x", "line 257 is not base64"),
        (b"QUI= -3", "line 257 is not base64"),
    ],
)
def test_corrupt_ranks(line: bytes, words: str, tmp_path: Path) -> None:
    file = write_ranks(tmp_path / "q.tiktoken", {bytes([byte]): byte for byte in range(256)})
    assert Tokenizer.load(file).encode("é") == [195, 169]
    file.write_bytes(file.read_bytes() + line + b"\n")
    refused(file, CorruptFile, words)
    file.write_bytes(b"".join(file.read_bytes().splitlines(True)[:200]))
    refused(file, CorruptFile, "56 of the 256 single bytes have no rank")


def _loads_or_refuses(file: Path, data: bytes) -> bool:
    file.write_bytes(data)
    try:
        tokenizer = Tokenizer.load(file)
        tokenizer.encode("Once upon a time, é 🦙 \n")
        tokenizer.decode(list(range(tokenizer.vocab_size)))
    except FastLLMError:
        return False
    return True


def test_truncated_and_mutated_sentencepiece(tmp_path: Path, shared: Shared) -> None:
    data = shared("tokenizers/tok512_spm/tokenizer.model").read_bytes()
    file = tmp_path / "tokenizer.model"
    generator = random.Random(11)
    assert _loads_or_refuses(file, data)
    for size in [*range(60), *generator.sample(range(60, len(data)), 60)]:
        _loads_or_refuses(file, data[:size])
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            position = generator.randrange(len(mutant))
            mutant[position] = generator.randrange(256)
        _loads_or_refuses(file, bytes(mutant))


def test_mutated_character_map(tmp_path: Path) -> None:
    data = train_spm("unigram", True, "nmt_nfkc", True, True)
    start = data.index(b"nmt_nfkc") + 20
    generator = random.Random(12)
    for _ in range(25):
        mutant = bytearray(data)
        for _ in range(2000):
            mutant[generator.randrange(start, len(mutant))] = generator.randrange(256)
        _loads_or_refuses(tmp_path / "tokenizer.model", bytes(mutant))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=120))
def test_any_bytes_as_a_model(data: bytes, tmp_path: Path) -> None:
    _loads_or_refuses(tmp_path / "tokenizer.model", data)
    _loads_or_refuses(tmp_path / "tokenizer.json", data)


def test_mutated_tokenizer_json(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    library = Library(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel()
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<x>"])
    data = library.to_str().encode()
    generator = random.Random(13)
    assert _loads_or_refuses(tmp_path / "tokenizer.json", data)
    for _ in range(250):
        mutant = bytearray(data)
        position = generator.randrange(len(mutant))
        mutant[position : position + generator.randint(0, 5)] = generator.choice(
            [b"", b"9", b'"', b"null", b"[", b"-1"]
        )
        _loads_or_refuses(tmp_path / "tokenizer.json", bytes(mutant))
