"""SentencePiece models and tiktoken ranks, each against its own library."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import CHAT_TEXTS, TRICKY, Shared, random_texts, same_bytes, token, train_spm, write_ranks

from fastllm import Tokenizer
from fastllm._tokenizer_bytes import BYTE_TO_CHAR
from fastllm._tokenizer_tiktoken import CL100K, GPT2, KIMI, O200K, QWEN, onig_pattern

# --- SentencePiece against its library -------------------------------------------------------------------------------

SPM_MODELS = [
    ("bpe", True, "identity", True, False),
    ("bpe", False, "nmt_nfkc", True, True),
    ("bpe", True, "nmt_nfkc_cf", False, True),
    ("unigram", True, "nmt_nfkc", True, False),
    ("unigram", False, "nfkc", True, True),
    ("unigram", True, "identity", False, False),
]


@pytest.mark.parametrize("options", SPM_MODELS, ids=lambda options: "-".join(map(str, options)))
def test_sentencepiece_models_equal_the_library(options: tuple[Any, ...], tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    data = train_spm(*options)
    (tmp_path / "tokenizer.model").write_bytes(data)
    theirs = library.SentencePieceProcessor(model_proto=data)
    ours = Tokenizer.load(tmp_path / "tokenizer.model")
    assert ours.vocab_size == theirs.vocab_size() and ours.strip_leading_space == options[3]
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (theirs.bos_id(), theirs.eos_id(), theirs.unk_id())
    for index in range(ours.vocab_size):
        assert ours.id_to_piece(index) == theirs.id_to_piece(index)
        control = theirs.is_control(index) or theirs.is_unknown(index)
        assert ours.is_special(index) == control

    def score(ids: list[int]) -> float:
        return sum(float(theirs.get_score(index)) for index in ids)

    unknown = ties = 0
    for text in [*TRICKY, *random_texts(600)]:
        ids = ours.encode(text, add_special=False, parse_special=False)
        expected = theirs.encode(text)
        if ids != expected:  # two ways of the same probability, which the library tells apart by rounding
            assert options[0] == "unigram" and abs(score(ids) - score(expected)) < 1e-6, text
            ties += 1
        if ours.unk_id in ids:
            unknown += 1
        elif not (text.startswith(("▁", " ")) or (options[4] and ours.decode(ids)[:1] == " ")):
            assert ours.decode(ids) == theirs.decode(ids)
    assert ties < 5
    assert (unknown > 0) == (not options[1])  # both paths were taken: unknown pieces, and byte pieces


def test_sentencepiece_merge_order_on_repeats(tmp_path: Path) -> None:
    """Strings of two letters, where one piece can be merged in many ways."""
    library = pytest.importorskip("sentencepiece")
    generator = random.Random(2)
    lines = ["".join(generator.choice("ab") for _ in range(60)) for _ in range(200)]
    buffer = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=buffer,
        vocab_size=120,
        model_type="bpe",
        split_by_whitespace=False,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    (tmp_path / "m.model").write_bytes(buffer.getvalue())
    ours = Tokenizer.load(tmp_path / "m.model")
    theirs = library.SentencePieceProcessor(model_proto=buffer.getvalue())
    for _ in range(800):
        text = "".join(generator.choice("ab") for _ in range(generator.randint(1, 50)))
        assert ours.encode(text, add_special=False) == theirs.encode(text)


# --- tiktoken against its library ------------------------------------------------------------------------------------

PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "qwen": QWEN, "o200k": O200K, "kimi": KIMI}


@pytest.fixture(scope="module")
def gpt2_ranks(shared: Shared) -> dict[bytes, int]:
    """GPT-2's vocabulary as ranks: its ids are in the order of its merges."""
    vocab = json.loads((shared("tokenizers/gpt2_hf") / "vocab.json").read_text())
    chars = {char: byte for byte, char in BYTE_TO_CHAR.items()}
    del vocab["<|endoftext|>"]
    return {bytes(chars[char] for char in piece): rank for piece, rank in vocab.items()}


@pytest.mark.parametrize("name", PATTERNS)
def test_ranks_equal_tiktoken(name: str, gpt2_ranks: dict[bytes, int], tmp_path: Path, shared: Shared) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    few = {data: rank for data, rank in gpt2_ranks.items() if rank < 8000}
    specials = {"<|im_start|>": 8000, "<|im_end|>": 8001}
    write_ranks(tmp_path / "x.tiktoken", few)
    added = {str(index): token(content) for content, index in specials.items()}
    settings = {"pat_str": PATTERNS[name], "added_tokens_decoder": added, "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.load(tmp_path)
    theirs = tiktoken.Encoding("x", pat_str=PATTERNS[name], mergeable_ranks=few, special_tokens=specials)
    assert ours.vocab_size == theirs.n_vocab == 8002 and ours.eos_ids == (8001,)
    blns = json.loads((shared("text/blns.json")).read_text())
    for text in [*TRICKY, *CHAT_TEXTS, *random_texts(300), *blns]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, allowed_special="all"), text
        assert ours.encode(text, parse_special=False) == theirs.encode_ordinary(text)
        assert ours.decode(ids) == theirs.decode(ids) == text
        same_bytes(ours, ids, text)
    for index in (0, 300, 7999, 8001):
        assert ours.token_bytes(index) == theirs.decode_single_token_bytes(index)


def test_patterns_in_tiktokens_own_spelling() -> None:
    """Possessive intervals and ``$`` mean other things to the engine inside tokenizers; they are translated."""
    public = pytest.importorskip("tiktoken_ext.openai_public")
    from tokenizers import Regex, pre_tokenizers

    def pieces(pattern: str, text: str) -> list[str]:
        split = pre_tokenizers.Split(Regex(onig_pattern(pattern)), "isolated")
        return [piece for piece, _ in split.pre_tokenize_str(text)]

    import inspect

    source = inspect.getsource(public.cl100k_base)
    published = source.split('r"""')[1].split('"""')[0]
    assert "{1,3}+" in published and "$" in published
    for text in [*TRICKY, *random_texts(500), "12345678", "a \n", "x   ", "x \n  \n y  "]:
        assert pieces(published, text) == pieces(CL100K, text)
        assert pieces(public.r50k_pat_str, text) == pieces(GPT2, text)


@pytest.mark.slow
def test_llama3_ranks_bring_their_special_tokens(gpt2_ranks: dict[bytes, int], tmp_path: Path) -> None:
    """The number of ranks gives the family away; tokens are made up to reach Llama 3's number."""
    ranks = dict(list(gpt2_ranks.items())[:1000])
    index = 0
    while len(ranks) < 128000:
        ranks[b"\xff\xfe" + index.to_bytes(3, "big")] = len(ranks)
        index += 1
    tokenizer = Tokenizer.load(write_ranks(tmp_path / "tokenizer.model", ranks))
    assert tokenizer.vocab_size == 128256 and tokenizer.bos_id == 128000 and tokenizer.add_bos
    assert tokenizer.id_to_piece(128009) == "<|eot_id|>" and tokenizer.id_to_piece(128006) == "<|start_header_id|>"
    assert tokenizer.id_to_piece(128255) == "<|reserved_special_token_247|>"
    assert tokenizer.encode("<|eot_id|>") == [128000, 128009]
