"""What the tests of the tokenizers share: texts that have gone wrong before, and makers of small tokenizers."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastllm import Tokenizer

Shared = Callable[[str], Path]

TRICKY = [
    "",
    " ",
    "  ",
    "Hello, world!",
    " leading and trailing ",
    "double  space\tand\ttabs\n\nlines\r\n",
    "I'm, you're, they'LL 1234567 3.14159",
    "naïve café déjà vu — ½ ㌔ ﬁne Ⅷ ＡＢＣ　全角",
    "e\u0301 o\u0308 A\u030a combining",
    "你好，世界。こんにちは 안녕하세요",
    "🦙 👩‍👩‍👧‍👦 🏳️‍🌈",
    "zero\u200bwidth \ufeff bom \u00a0 nbsp \u2028 line",
    "\u2581\u2581 real block \u2581x",
    "<0x0A> <s> </s> <unk> <|endoftext|>",
    "\x00\x01\x7f",
    "def f(x):\n    return x  # comment\n",
]


def random_texts(count: int, seed: int = 1) -> list[str]:
    """Short texts of mixed scripts, spaces and look-alikes of control pieces."""
    generator = random.Random(seed)
    pools = [
        "abcdehilnorst   ",
        "\t\n\r\x00\x0b\u00a0\u3000\u200b\u2028\ufeff ",
        "éàüñÅ½ﬁⅧ㌔ＡＢ",
        "e\u0301\u0308\u030a a",
        "你好世界こんにちは안녕",
        "🦙👩\u200d👧",
        "\u2581<s></s><unk><0x0A>|<ud>★★",
        "0123456789 '.,!?",
    ]
    draw = generator.choice
    return ["".join(draw(draw(pools)) for _ in range(generator.randint(0, 30))) for _ in range(count)]


def same_bytes(tokenizer: Tokenizer, ids: list[int], text: str) -> None:
    """The invariant of the byte table: the bytes of the ids are the bytes of the text."""
    data = b"".join(map(tokenizer.token_bytes, ids))
    if tokenizer.strip_leading_space:
        assert data[:1] in (b" ", b"")
        data = data[1:]
    assert data == text.encode()


CHAT_TEXTS = [
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<think>\n2+2\n</think>4<|im_end|>",
    "x <|user|>  \n y <|mask|> z<|endoftext|>",
    "<|im_start|><|im_end|><|im_star",
]


def copy(source: Path, target: Path, **settings: Any) -> Path:
    """A copy of a tokenizer directory with changes to tokenizer_config.json; None removes a key."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, target / file.name)
            (target / file.name).chmod(0o644)
    file = target / "tokenizer_config.json"
    config = {**(json.loads(file.read_text()) if file.exists() else {}), **settings}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return target


def token(content: str, **flags: bool) -> dict[str, Any]:
    base = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **base, **flags}


def train_spm(algorithm: str, byte_fallback: bool, rule: str, prefix: bool, strip: bool) -> bytes:
    library = pytest.importorskip("sentencepiece")
    generator = random.Random(7)
    words = ["the", "quick", "brown", "foxes", "jumped", "over", "lazy", "dogs", "running", "runner", "walked", "talks"]
    lines = [" ".join(generator.choice(words) for _ in range(9)) for _ in range(300)]
    lines += [text for text in TRICKY if text.strip()] * 20
    buffer = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=buffer,
        vocab_size=600,
        model_type=algorithm,
        byte_fallback=byte_fallback,
        normalization_rule_name=rule,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=strip,
        user_defined_symbols=["<ud>", "★★"],
        control_symbols=["<ctl>"],
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return buffer.getvalue()


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_text("".join(f"{base64.b64encode(data).decode()} {rank}\n" for data, rank in ranks.items()))
    return path
