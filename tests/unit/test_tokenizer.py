"""Tokenizers against the reference ids, against transformers, and their byte tables."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import CHAT_TEXTS, TRICKY, Shared, copy, random_texts, same_bytes, token

import fastllm.tokenizer
from fastllm import Tokenizer
from fastllm._tokenizer_bytes import BYTE_TO_CHAR, byte_level_piece
from fastllm._tokenizer_tiktoken import CL100K
from fastllm.errors import InvalidRequest

# --- the references --------------------------------------------------------------------------------------------------

REFERENCES = [
    ("gpt2_hf", "tokenizers/gpt2_hf", True),
    ("gpt2_hf", "tokenizers/gpt2_hf/tokenizer.json", True),
    ("gpt2_hf", "tokenizers/gpt2_hf/vocab.json", True),
    ("tok512_spm", "tokenizers/tok512_spm", False),
    ("tok512_spm", "tokenizers/tok512_spm/tokenizer.model", False),
    ("tok512_spm", "models/stories260K/hf", False),
]


@pytest.mark.parametrize(("name", "path", "parse_special"), REFERENCES)
def test_reference_ids_and_texts(name: str, path: str, parse_special: bool, shared: Shared) -> None:
    expected = json.loads((shared(f"tokenizers/{name}") / "expected.json").read_text())
    tokenizer = Tokenizer.load(shared(path))
    assert len(expected["cases"]) > 500
    texts = [case["text"] for case in expected["cases"]]
    batch = tokenizer.encode_batch(texts, add_special=False, parse_special=parse_special)
    for case, ids in zip(expected["cases"], batch, strict=True):
        assert ids == case["ids"] == tokenizer.encode(case["text"], add_special=False, parse_special=parse_special)
        assert tokenizer.decode(case["ids"]) == case.get("decoded", case["text"])
        if "decoded" not in case and case["ids"]:
            same_bytes(tokenizer, case["ids"], case["text"])


@pytest.mark.parametrize(("name", "path", "parse_special"), REFERENCES[::3])
def test_reference_ids_of_whole_books(name: str, path: str, parse_special: bool, shared: Shared) -> None:
    expected = json.loads((shared(f"tokenizers/{name}") / "expected.json").read_text())
    tokenizer = Tokenizer.load(shared(path))
    for file, facts in expected["bulk"].items():
        text = (shared("text") / file).read_bytes().decode()
        ids = tokenizer.encode(text, add_special=False, parse_special=parse_special)
        assert len(ids) == facts["tokens"]
        assert hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest() == facts["sha256_int32_le"]


# --- Hugging Face directories against transformers -------------------------------------------------------------------


def reference_tokenizer(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(path))


CHAT_TOKENS = {
    "50257": token("<|im_start|>"),
    "50258": token("<|im_end|>"),
    "50259": token("<think>", special=False),
    "50260": token("<|user|>", rstrip=True),
    "50261": token("<|mask|>", lstrip=True),
}
GPT2_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chat": {"added_tokens_decoder": CHAT_TOKENS},
    "no_bos": {"add_bos_token": False},
    "extra": {"additional_special_tokens": ["<extra>"], "pad_token": "<|endoftext|>"},
}


@pytest.mark.parametrize("variant", GPT2_VARIANTS)
def test_tokenizer_json_equals_transformers(variant: str, shared: Shared, tmp_path: Path) -> None:
    path = copy(shared("tokenizers/gpt2_hf"), tmp_path / "t", **GPT2_VARIANTS[variant])
    ours, theirs = Tokenizer.load(path), reference_tokenizer(path)
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    texts = [*TRICKY, *CHAT_TEXTS, "<extra> <ex"]
    for add_special in (True, False):
        batch = ours.encode_batch(texts, add_special=add_special)
        for text, ids in zip(texts, batch, strict=True):
            expected = theirs(text, add_special_tokens=add_special).input_ids
            assert ids == expected == ours.encode(text, add_special=add_special)
            literal = theirs(text, add_special_tokens=add_special, split_special_tokens=True).input_ids
            assert ours.encode(text, add_special=add_special, parse_special=False) == literal
            assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
            skipped = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special=True) == skipped
    assert ours.special_ids == set(theirs.all_special_ids) | ours.special_ids
    assert not ours.add_bos
    for index in (0, 100, 50256):
        assert ours.id_to_piece(index) == theirs.convert_ids_to_tokens(index)
        assert ours.piece_to_id(ours.id_to_piece(index)) == index


def test_flags_speak_where_the_file_has_no_post_processor(shared: Shared, tmp_path: Path) -> None:
    flags = {"add_bos_token": True, "add_eos_token": True}
    path = copy(shared("tokenizers/gpt2_hf"), tmp_path / "t", **flags)
    assert json.loads((path / "tokenizer.json").read_text())["post_processor"] is None
    tokenizer = Tokenizer.load(path)
    assert tokenizer.add_bos and tokenizer.encode("hi") == [50256, 5303, 50256]
    assert tokenizer.encode_batch(["hi", ""]) == [[50256, 5303, 50256], [50256, 50256]]
    assert tokenizer.encode("hi", add_special=False) == [5303]
    from tokenizers import Tokenizer as Library
    from tokenizers import processors

    library = Library.from_file(str(path / "tokenizer.json"))
    library.post_processor = processors.ByteLevel()
    library.save(str(path / "tokenizer.json"))
    assert Tokenizer.load(path).encode("hi") == [5303]


def test_llama3_like_tokenizer_json(tmp_path: Path) -> None:
    """A BOS template, special tokens and the cl100k pattern, as Llama 3 has them."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Library

    library = Library(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(CL100K), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|begin_of_text|>", "<|eot_id|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    library.train_from_iterator(TRICKY * 20, trainer)
    bos = library.token_to_id("<|begin_of_text|>")
    library.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("<|begin_of_text|> $A", None, [("<|begin_of_text|>", bos)]),
        ]
    )
    library.enable_truncation(5)  # saved by mistake in some checkpoints; a prompt must not be cut
    library.enable_padding(length=64)
    library.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 1]}')
    tokenizer = Tokenizer.load(tmp_path)
    library.no_truncation()
    library.no_padding()
    assert tokenizer.add_bos and tokenizer.bos_id == bos and tokenizer.eos_ids == (1, 7)
    for text in TRICKY:
        assert tokenizer.encode(text) == library.encode(text).ids == [bos, *tokenizer.encode(text, add_special=False)]
        assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == text
    assert tokenizer.encode_batch(TRICKY) == [library.encode(text).ids for text in TRICKY]


def test_qwen_vocab_and_merges_equal_transformers(shared: Shared, tmp_path: Path) -> None:
    source = shared("tokenizers/gpt2_hf")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(source / name, tmp_path / name)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_start|>": 50257, "<|im_end|>": 50258}))
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen2Tokenizer.from_pretrained(str(tmp_path))
    ours = Tokenizer.load(tmp_path)
    assert ours.piece_to_id("<|im_end|>") == 50258
    for text in [*TRICKY, *random_texts(300)]:
        assert ours.encode(text, add_special=False) == theirs(text, add_special_tokens=False).input_ids


def test_llama2_like_tokenizer_json(shared: Shared, tmp_path: Path) -> None:
    """BPE with byte fallback, Metaspace and a chain of decoders, as transformers saves a Llama tokenizer."""
    theirs = reference_tokenizer(shared("models/stories260K/hf"))
    theirs.save_pretrained(str(tmp_path))
    assert not (tmp_path / "tokenizer.model").exists()
    ours = Tokenizer.load(tmp_path)
    data, special = ours.token_table()
    assert (data, special) == Tokenizer.load(shared("models/stories260K/hf")).token_table()
    assert ours.strip_leading_space and ours.add_bos
    for text in [*TRICKY, *random_texts(200)]:
        ids = ours.encode(text)
        assert ids == theirs(text).input_ids
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids[1:]) == theirs.decode(ids[1:])


def test_unigram_tokenizer_json(tmp_path: Path) -> None:
    """Metaspace in front and behind, as T5 and XLM-R have it."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    pieces = [("<unk>", 0.0), ("▁", -3.0), ("▁he", -2.0), ("llo", -2.5), ("▁wor", -2.6), ("ld", -2.7), ("é", -4.0)]
    library = Library(models.Unigram(pieces, 0))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path / "tokenizer.json")
    for text in ("hello world", "world hello é", "hello"):
        ids = ours.encode(text)
        assert ids == library.encode(text).ids and 0 not in ids
        assert ours.decode(ids) == library.decode(ids) == text


def test_the_demo_model(shared: Shared) -> None:
    packaged = Path(fastllm.tokenizer.__file__).parent / "demo" / "tokenizer.json"
    if not packaged.is_file():
        pytest.skip("the demo model is not there")
    from tokenizers import Tokenizer as Library

    ours, library = Tokenizer.load("demo"), Library.from_file(str(packaged))
    for text in [*TRICKY, (shared("text/tinystories_sample.txt")).read_text()]:
        ids = ours.encode(text, add_special=False)
        assert ids == library.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == text
    assert ours.eos_ids and ours.chat_template is not None
    rendered = ours.chat_template.render("Hello!")
    theirs = reference_tokenizer(packaged.parent)
    messages = [{"role": "user", "content": "Hello!"}]
    assert rendered == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert ours.encode(rendered, add_special=False) == expected


def test_sentencepiece_directory_equals_transformers(shared: Shared, tmp_path: Path) -> None:
    """With ChatML tokens on top, as fine-tuned Llama models have them."""
    added = {"512": token("<|im_start|>"), "513": token("<|im_end|>"), "514": token("<plain>", special=False)}
    path = copy(shared("models/stories260K/hf"), tmp_path / "t", added_tokens_decoder=added, pad_token="<|im_end|>")
    ours, theirs = Tokenizer.load(path), reference_tokenizer(path)
    assert ours.vocab_size == len(theirs) == 515
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.unk_id) == (1, 2, 513, 0)
    assert ours.add_bos and ours.encode("Once") == theirs("Once").input_ids == [
        1,
        *ours.encode("Once", add_special=False),
    ]
    texts = ["Once upon a time", "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>a", "one <plain> two</s>", "</s>x<s>y z"]
    for text in texts:
        ids = ours.encode(text, add_special=False)
        assert ids == theirs(text, add_special_tokens=False).input_ids
        assert ours.decode(ids) == theirs.decode(ids)
    literal = ours.encode("a<|im_end|><plain>", add_special=False, parse_special=False)
    assert 513 not in literal and 514 in literal
    assert ours.decode(literal) == "a<|im_end|><plain>"


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"legacy": False}, ["▁a", "</s>", "b"]),
        ({"legacy": True}, ["▁a", "</s>", "▁b"]),
        ({"add_prefix_space": False}, ["a", "</s>", "b"]),
    ],
)
def test_where_the_dummy_space_goes(
    settings: dict[str, Any], pieces: list[str], shared: Shared, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(copy(shared("models/stories260K/hf"), tmp_path / "t", **settings))
    assert [tokenizer.id_to_piece(index) for index in tokenizer.encode("a</s>b", add_special=False)] == pieces


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_byte_alphabet_is_gpt2s() -> None:
    from tokenizers import pre_tokenizers

    assert sorted(BYTE_TO_CHAR.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "é\x00 \n\u00a0你🦙"
    assert byte_level_piece(text.encode()) == "".join(piece for piece, _ in split.pre_tokenize_str(text))
    assert len(set(BYTE_TO_CHAR)) == 256


@pytest.fixture(scope="module")
def gpt2(shared: Shared) -> Tokenizer:
    return Tokenizer.load(shared("tokenizers/gpt2_hf"))


@pytest.fixture(scope="module")
def spm(shared: Shared) -> Tokenizer:
    return Tokenizer.load(shared("models/stories260K/hf"))


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(text=_texts)
def test_byte_level_round_trip(text: str, gpt2: Tokenizer) -> None:
    ids = gpt2.encode(text, add_special=False)
    assert gpt2.decode(ids) == text
    same_bytes(gpt2, ids, text)


@settings(max_examples=200, deadline=None)
@given(text=_texts)
def test_sentencepiece_round_trip(text: str, spm: Tokenizer) -> None:
    ids = spm.encode(text, add_special=False, parse_special=False)
    normal = " ".join(part for part in text.replace("\u2581", " ").split(" ") if part)
    if "\u2581" not in text:  # this model removes extra spaces, and cannot tell U+2581 from a space
        assert spm.decode(ids) == normal
        if normal:
            same_bytes(spm, ids, normal)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 511), max_size=20))
def test_decode_is_the_bytes_joined(ids: list[int], spm: Tokenizer) -> None:
    data = b"".join(map(spm.token_bytes, ids))
    assert spm.decode(ids, at_start=False) == data.decode("utf-8", "replace")
    assert spm.decode(ids) == data.removeprefix(b" ").decode("utf-8", "replace")


def test_token_table(spm: Tokenizer, gpt2: Tokenizer) -> None:
    for tokenizer in (spm, gpt2):
        data, special = tokenizer.token_table()
        assert len(data) == len(special) == tokenizer.vocab_size == len(tokenizer)
        assert data == [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]
        assert {index for index, flag in enumerate(special) if flag} == tokenizer.special_ids
    assert spm.token_table()[0][3:259] == [bytes([byte]) for byte in range(256)]
    assert spm.special_ids == {0, 1, 2} and gpt2.special_ids == {50256}
    single = [data for data in gpt2.token_table()[0] if len(data) == 1]
    assert sorted(single) == [bytes([byte]) for byte in range(256)]


def test_wordpiece_and_end_of_word_marks(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models

    vocab = {"[UNK]": 0, "hug": 1, "##ging": 2, "face": 3}
    library = Library(models.WordPiece(vocab, unk_token="[UNK]"))
    library.decoder = decoders.WordPiece()
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode([1, 2, 3]) == library.decode([1, 2, 3]) == "hugging face"
    library = Library(models.BPE({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")], end_of_word_suffix="</w>"))
    library.decoder = decoders.BPEDecoder("</w>")
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode([2, 2]).rstrip() == library.decode([2, 2]) == "ab ab"


def test_ids_without_tokens_are_empty(tmp_path: Path, shared: Shared) -> None:
    path = copy(shared("models/stories260K/hf"), tmp_path / "t", added_tokens_decoder={"520": token("<|late|>")})
    tokenizer = Tokenizer.load(path)
    assert tokenizer.vocab_size == 521 and tokenizer.token_bytes(515) == b"" and tokenizer.id_to_piece(515) == ""
    assert tokenizer.encode("<|late|>", add_special=False) == [520]


# --- use -------------------------------------------------------------------------------------------------------------


def test_repr_and_chat_template(gpt2: Tokenizer, tmp_path: Path, shared: Shared) -> None:
    assert repr(gpt2).startswith("Tokenizer('") and "BPE, vocab_size=50257" in repr(gpt2)
    assert gpt2.chat_template is None
    template = "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}"
    path = copy(shared("models/stories260K/hf"), tmp_path / "t", chat_template=template)
    tokenizer = Tokenizer.load(path)
    assert tokenizer.chat_template is not None and tokenizer.chat_template is tokenizer.chat_template
    assert tokenizer.chat_template.render([{"role": "user", "content": "hi"}]) == "<s>hi</s>"


def test_threads_agree(spm: Tokenizer, gpt2: Tokenizer) -> None:
    texts = random_texts(60, seed=9)
    expected = [(spm.encode(text), gpt2.encode(text), gpt2.encode(text, parse_special=False)) for text in texts]
    fresh = Tokenizer.load(spm.path), Tokenizer.load(gpt2.path)
    failures: list[str] = []

    def work() -> None:
        for text, (one, two, three) in zip(texts, expected, strict=True):
            got = fresh[0].encode(text), fresh[1].encode(text), fresh[1].encode(text, parse_special=False)
            if got != (one, two, three):
                failures.append(text)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_requests_that_cannot_be_served(spm: Tokenizer, gpt2: Tokenizer) -> None:
    for tokenizer in (spm, gpt2):
        with pytest.raises(InvalidRequest, match="text is bytes, not str"):
            tokenizer.encode(b"x")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match=r"character 1 of the text is U\+D83E"):
            tokenizer.encode("a\ud83e")
        with pytest.raises(InvalidRequest, match="texts is a str"):
            tokenizer.encode_batch("abc")
        with pytest.raises(InvalidRequest, match="U\\+DC00"):
            tokenizer.encode_batch(["fine", "\udc00"])
        for index in (-1, tokenizer.vocab_size, 10**12):
            for call in (tokenizer.token_bytes, tokenizer.id_to_piece, lambda i, t=tokenizer: t.decode([i])):
                with pytest.raises(InvalidRequest, match=f"id {index} is not in the vocabulary"):
                    call(index)
        assert tokenizer.piece_to_id("no such piece") is None
