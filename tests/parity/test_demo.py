"""The bundled model, through its own template and tokenizer, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.engine import Compiled, compiled
from parity.reference import distance, full_logits, greedy

CHATS = [
    [{"role": "user", "content": "Why is the sky blue?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 17 + 25?"}],
    [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello! How can I help you?"},
        {"role": "user", "content": "Sort 9, 4, 7 and 1."},
    ],
]


@pytest.fixture(scope="module")
def demo() -> Path:
    import fastllm

    folder = Path(str(fastllm.__path__[0])) / "demo"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the bundled model is not in this build")
    return folder


@pytest.fixture(scope="module")
def reference(demo: Path) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@pytest.mark.parametrize("messages", CHATS, ids=lambda chat: str(chat[-1]["content"]))
def test_demo(messages: list[dict[str, str]], demo: Path, reference: Any) -> None:
    import transformers

    loaded = compiled(demo, kv_dtype="float32")
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.chat_template is not None
    text = loaded.tokenizer.chat_template.render(messages)
    theirs = transformers.AutoTokenizer.from_pretrained(demo)
    assert text == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = loaded.tokenizer.encode(text, add_special=False)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    with Compiled(loaded.program) as engine:
        assert distance(engine.logits(ids)[0], full_logits(reference, ids)) < 1e-5
        tokens, found = engine.greedy_logprobs(ids, 16)
    expected, logprobs, _ = greedy(reference, ids, 16)
    assert tokens == expected
    assert np.allclose(found, logprobs, atol=1e-3)
