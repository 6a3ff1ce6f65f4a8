"""Every display with fixed data, and a strict reader of HTML, for the tests of displays."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np

from fastllm import Completion, EngineStats, Message, Tensor, Timing, Token, TopToken, Usage
from fastllm.chat import ChatNode
from fastllm.display.attention import attention_grid_html, attention_html, attention_lines_html
from fastllm.display.batch import BatchRow, batch_html
from fastllm.display.chat import conversation_html
from fastllm.display.lens import lens_html
from fastllm.display.memory import MemoryReport
from fastllm.display.monitor import MonitorRow, monitor_html
from fastllm.display.quant import quant_html
from fastllm.display.sampling import sampling_html, softmax
from fastllm.display.style import wrap
from fastllm.display.tensor import tensor_html
from fastllm.display.tokens import completion_html

VOID = {"br", "img", "input", "hr", "rect", "path", "polyline", "image"}


class Reader(HTMLParser):
    """Checks that tags close in order, and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(html: str) -> Reader:
    """Reads HTML; fails where it is not well-formed."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [], f"left open: {reader.open}"
    return reader


def sanitised(html: str) -> str:
    """What is left on a page that trusts nobody: no script or style elements, no style, event or data attributes."""
    html = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    html = re.sub(r"</?(?:input|label|svg|rect|path|polyline|image|text)\b[^>]*>", "", html)
    return re.sub(r'\s(?:style|class|on\w+|data-[\w-]+|hidden|tabindex)(?:="[^"]*")?', "", html)


def token(index: int, text: str, logprob: float = -0.5, **more: Any) -> Token:
    """A token with three alternatives, of which it is the first."""
    top = (TopToken(index + 10, text, logprob), TopToken(1, " other", -1.5), TopToken(2, "\n", -3.0))
    fields: dict[str, Any] = {"logprob": logprob, "top": top, "time_s": 0.1 + index * 0.02, **more}
    return Token(index + 10, text, text.encode("utf-8", "replace"), index, **fields)


def completion(texts: list[str], **more: Any) -> Completion:
    """A completion of these tokens."""
    tokens = tuple(token(i, text, -0.1 * (i % 30)) for i, text in enumerate(texts))
    fields: dict[str, Any] = {
        "finish_reason": "stop", "stop": "END", "usage": Usage(7, len(texts), 4),
        "timing": Timing(ttft_s=0.084, decode_tps=58.34, prefill_tps=900.0, decode_s=1.0, steps=9), "seed": 7,
        "model": "demo", "request_id": "req-1", **more,
    }  # fmt: skip
    return Completion("".join(texts), tokens, **fields)


STATS = EngineStats(1, 2, 3, 0, 100, 75, 5, 16, 1 << 20, 2 << 20, 7, 40, 2, 8, 0, 0, 4, 12.5, 1.0, 2.0, None, False)


def every_display(text: str = "sky") -> dict[str, Callable[[], str]]:
    """Every renderer by name, showing a text wherever it shows texts."""
    random = np.random.default_rng(0)
    pattern = np.tril(random.random((2, 5, 5))) + 1e-3
    pattern /= pattern.sum(-1, keepdims=True)
    labels = [text, " is", "\n", " blue", "."]
    logits = random.standard_normal(40).astype(np.float32)
    after = softmax(np.where(logits > 0.8, logits, -np.inf))
    nodes = [
        ChatNode(0, None, Message("user", text)),
        ChatNode(1, 0, Message("assistant", text + " yes"), "cancelled", 3),
    ]
    row = BatchRow(label=text, state="stop", text=text * 3, tokens=3, limit=9, tps=10.0, ttft_s=0.1, done=True)
    bad = BatchRow(label=text, state="failed", text="", tokens=0, error=f"InvalidRequest: {text}", done=True)
    live = BatchRow(label="c", state="running", text=text, tokens=3, limit=9)
    texts = [[[text, "b"]] * 5] * 3
    return {
        "completion": lambda: completion_html(completion([text, " is", " blue", "\n\tend"])),
        "tensor": lambda: tensor_html(Tensor(random.standard_normal((9, 12)).astype(np.float32), name=text)),
        "quant": lambda: wrap(
            quant_html(logits.reshape(5, 8), logits.reshape(5, 8).round(1), bits_per_weight=4.25, format_name=text)
        ),
        "attention": lambda: attention_html(pattern[0], labels, layer=1, head=0),
        "attention_grid": lambda: attention_grid_html(pattern, labels, layer=1),
        "attention_lines": lambda: attention_lines_html(pattern[0], labels, layer=1, head=0),
        "lens": lambda: lens_html(
            ["l0", "l1", text], labels, texts, np.full((3, 5, 2), -0.7), target_rank=np.ones((3, 5), int),
            target_logprob=np.full((3, 5), -1.0),
        ),
        "batch": lambda: batch_html([row, bad, live]),
        "chat": lambda: conversation_html(nodes, alternatives={1: (1, 2)}),
        "monitor": lambda: monitor_html(
            STATS, rows=[MonitorRow(name=text, state="running", progress=(3, 9), unread=2)], speeds=[1, 5, 3], name=text
        ),
        "memory": lambda: MemoryReport(
            device=text, weight_bytes=2000, kv_bytes=1000, kv_used_bytes=300, kv_cached_bytes=100,
            biggest=[(text, "f32 [2, 2]", 16)],
        )._repr_html_(),
        "sampling": lambda: sampling_html(
            softmax(logits), after, dict.fromkeys(range(40), text), settings=[("top_p", 0.9)], draws={3: 5, 4: 1}
        ),
    }  # fmt: skip
