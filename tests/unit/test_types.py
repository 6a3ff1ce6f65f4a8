"""The dataclasses that requests give back: their reprs, HTML, sums."""

from __future__ import annotations

import math
import pickle
from html.parser import HTMLParser

import pytest

from fastllm.types import (
    Completion,
    EngineStats,
    Message,
    ModelInfo,
    RenderedPrompt,
    Scores,
    Timing,
    Token,
    TopToken,
    Usage,
)

NASTY = "<script>alert('x')</script> & \"quotes\" \u202e ]]>"


def completion(text: str = "Hello") -> Completion:
    return Completion(
        text=text,
        tokens=(Token(5, text, text.encode(), 0, logprob=-0.5, top=(TopToken(5, text, -0.5),)),),
        finish_reason="stop",
        stop="END",
        usage=Usage(7, 3, 4),
        timing=Timing(ttft_s=0.084, decode_tps=58.34),
        seed=7,
        model="demo",
    )


class Balanced(HTMLParser):
    """Checks that tags are closed in order, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_token() -> None:
    token = Token(1, "x", b"x", 0)
    assert str(token) == f"{token}" == "x"
    with pytest.raises(AttributeError):
        token.id = 2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(token)) == token
    assert not hasattr(token, "__dict__")


def test_completion_repr_and_html() -> None:
    done = completion()
    assert str(done) == "Hello"
    assert repr(done) == (
        "<Completion 'Hello' · stop:'END' · 7 prompt (4 cached) + 3 tokens, 58.3 tok/s · ttft 84 ms · seed 7>"
    )
    assert len(repr(completion("long " * 100))) < 250
    assert done.token_ids == (5,)
    assert done.usage.total_tokens == 10
    page = read(completion(NASTY)._repr_html_())
    assert NASTY in page.text
    assert not page.tags & {"script", "img"}
    assert "58.3 tok/s" in page.text
    assert pickle.loads(pickle.dumps(done)) == done


def test_echoed_tokens_are_no_output() -> None:
    done = Completion("ab", (Token(1, "a", b"a", -1), Token(2, "b", b"b", 0)), "length")
    assert done.token_ids == (2,)


def test_scores() -> None:
    scores = Scores((1, 2), ("a", "b"), (-1.0, -3.0), (1, 4), 5)
    assert scores.total == -4.0
    assert scores.mean == -2.0
    assert scores.perplexity == pytest.approx(math.exp(2))
    assert not scores.is_greedy
    assert len(scores) == 2
    assert "perplexity 7.389" in repr(scores)
    assert Scores((), (), (), (), 0).mean == 0.0


def test_message_leaves_out_what_is_absent() -> None:
    assert Message("user", "hi").to_dict() == {"role": "user", "content": "hi"}
    call = {"name": "f", "arguments": {}}
    full = Message("assistant", "", name="n", tool_calls=(call,), tool_call_id="1")
    assert full.to_dict() == {
        "role": "assistant", "content": "", "name": "n", "tool_calls": [call], "tool_call_id": "1",
    }  # fmt: skip


def test_model_info_and_stats() -> None:
    info = ModelInfo(
        name=NASTY, path="/x", architecture="Qwen3ForCausalLM", parameters=1_543_714_304, dtype="bfloat16", quant=None,
        context_length=4096, vocab_size=151936, device="cpu", weight_bytes=3 * 1024**3, kv_bytes_per_token=1536,
        layers=28, chat=True, kv_dtype="float8_e4m3",
    )  # fmt: skip
    assert "1.54 B parameters · bfloat16 · 3.0 GiB · context 4096 · cpu" in repr(info)
    page = read(info._repr_html_())
    assert NASTY in page.text
    assert "1543714304" in page.text
    assert "4096 tokens, 1.5 KiB of KV a token (float8_e4m3)" in page.text
    stats = EngineStats(1, 2, 3, 0, 100, 75, 5, 16, 10, 20, 7, 1, 2, 3, 0, 0, 4, 12.5, 1.0, 2.0, None, False)
    assert stats.kv_use == 0.25
    assert repr(stats) == "<EngineStats 1 running, 2 queued, 3 parked · KV 25/100 blocks · 12.5 tok/s · 4 finished>"


def test_rendered_prompt() -> None:
    rendered = RenderedPrompt("<user>hi", (1, 2, 3))
    assert str(rendered) == "<user>hi"
    assert "3 tokens" in repr(rendered)
