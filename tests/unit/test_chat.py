"""Chat: the tree of messages, its branches, what happens to answers that are cut short, JSON."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

from nullmodel import null_model

from fastllm import BlockingChat, Chat, CorruptFile, GenerationConfig, InvalidRequest, LoadError, Message, Model
from fastllm.errors import ContextTooLong, TemplateError


@pytest.fixture
def model() -> Iterator[Model]:
    """What it answers begins behind the ">" of the template: "?@ABC..."."""
    with null_model(step_us=200) as made:
        yield made


def roles(chat: Chat | BlockingChat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in chat.messages]


def test_turns(model: Model) -> None:
    chat = BlockingChat(model, "be brief", max_new_tokens=3)
    assert "".join(token.text for token in chat.send("hello")) == "?@A"
    stream = chat.send("more", max_new_tokens=2)
    assert model.detokenize(stream.prompt_token_ids) == (
        "<system>be brief\n<user>hello\n<assistant>?@A\n<user>more\n<assistant>"
    )
    assert stream.result().text == "?@"
    assert roles(chat) == [
        ("system", "be brief"), ("user", "hello"), ("assistant", "?@A"), ("user", "more"), ("assistant", "?@"),
    ]  # fmt: skip
    assert [node.finish_reason for node in chat.path] == [None, None, "length", None, "length"]
    assert not any(node.is_partial for node in chat.path)
    assert len(chat) == 5
    assert "5 messages" in repr(chat)


def test_a_turn_costs_only_its_new_tokens(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=40)
    first = chat.send("x" * 400).result()
    assert first.usage.cached_tokens == 0
    second = chat.send("y").result()
    blocks = (first.usage.prompt_tokens + first.usage.completion_tokens - 1) // 16 * 16
    assert second.usage.cached_tokens >= blocks - 16
    assert second.usage.prompt_tokens - second.usage.cached_tokens < 64


def test_regenerate_and_edit_make_branches(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=3)
    chat.send("one").result()
    chat.send("two").result()
    again = chat.regenerate(max_new_tokens=5).result()
    assert again.text == "?@ABC"
    assert [node.message.content for node in chat.branches(-1)] == ["?@A", "?@ABC"]
    edited = chat.edit(0, "uno", max_new_tokens=1)
    assert model.detokenize(edited.prompt_token_ids) == "<user>uno\n<assistant>"
    edited.result()
    assert roles(chat) == [("user", "uno"), ("assistant", "?")]
    assert [node.message.content for node in chat.branches(0)] == ["one", "uno"]
    assert len(chat.nodes) == 7, "nothing was lost"
    chat.switch(4)
    assert roles(chat)[-1] == ("assistant", "?@ABC")
    with pytest.raises(InvalidRequest, match="not by the user"):
        chat.edit(1, "x")
    with pytest.raises(InvalidRequest, match="no message 9"):
        chat.edit(9, "x")
    with pytest.raises(InvalidRequest):
        chat.switch(99)
    with pytest.raises(InvalidRequest, match="no answer"):
        BlockingChat(model).regenerate()


def test_forks_go_their_own_ways(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=2)
    chat.send("one").result()
    other = chat.fork()
    other.send("left").result()
    chat.send("right").result()
    assert roles(chat)[2] == ("user", "right")
    assert roles(other)[2] == ("user", "left")
    assert roles(chat)[:2] == roles(other)[:2]


def test_answers_cut_short_are_kept_and_marked(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=None)
    for token in chat.send("one"):
        if token.index == 2:
            break
    gc.collect()
    assert roles(chat) == [("user", "one"), ("assistant", "?@A")]
    assert chat.path[-1].finish_reason == "cancelled"
    assert chat.path[-1].is_partial
    stream = chat.send("two")
    next(stream)
    stream.cancel()
    assert roles(chat)[-1] == ("assistant", "?")
    running = chat.send("three")
    next(running)
    after = chat.send("four", max_new_tokens=1)  # cancels the answer that is still being read
    assert running.cancelled
    assert [node.finish_reason for node in chat.path if node.message.role == "assistant"][:3] == ["cancelled"] * 3
    assert "<assistant>?\n<user>four" in model.detokenize(after.prompt_token_ids), "the model sees what was said"
    after.result()
    html = chat._repr_html_()
    assert html.count("assistant · cancelled</b>") == 3


def test_a_refused_turn_changes_nothing(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=1)
    chat.send("one").result()
    before = roles(chat)
    with pytest.raises(ContextTooLong):
        chat.send("x" * 200_000)
    with pytest.raises(InvalidRequest):
        chat.send({"content": "no role"})
    with pytest.raises(InvalidRequest):
        chat.send("x", temperature=-1)
    assert roles(chat) == before
    assert len(chat.nodes) == 2
    assert model.delivery.open_count == 0


def test_messages_of_other_roles(model: Model) -> None:
    chat = BlockingChat(model, max_new_tokens=1)
    chat.send("weather?").result()
    chat.add({"role": "tool", "content": "sunny", "tool_call_id": "1"})
    stream = chat.answer()
    assert model.detokenize(stream.prompt_token_ids).endswith("<tool>sunny\n<assistant>")
    assert BlockingChat(model, tools=[{"name": "f"}]).send("x", max_new_tokens=1).prompt_token_ids[-1] == ord(">")


def test_saved_and_loaded(model: Model, tmp_path: Path) -> None:
    chat = BlockingChat(model, "be brief", GenerationConfig(max_new_tokens=3, stop="Q"))
    chat.send("one").result()
    chat.regenerate().result()
    stream = chat.send("<b>&")
    next(stream)
    file = tmp_path / "chat.json"
    chat.save(file)
    stream.cancel()
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["nodes"][-1]["finish_reason"] == "cancelled", "a running answer is saved as cut short"
    other = BlockingChat.load(file, model)
    assert roles(other) == roles(chat)
    assert [(node.parent, node.seed) for node in other.nodes] == [(node.parent, node.seed) for node in chat.nodes]
    assert other.config == chat.config
    assert other.send("next").result().text == "?@A"
    assert isinstance(Chat.load(file, model), Chat)
    assert "&lt;b&gt;&amp;" in other._repr_html_()


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"format": "fastllm-chat", "version": 99}',
        '{"format": "fastllm-chat", "version": 1}',
        '{"format": "fastllm-chat", "version": 1, "cursor": 5, "nodes": []}',
        '{"format": "fastllm-chat", "version": 1, "cursor": null, "nodes": [{"parent": 3, "role": "user"}]}',
        '{"format": "fastllm-chat", "version": 1, "cursor": null, "nodes": [{"parent": null}]}',
        '{"format": "fastllm-chat", "version": 1, "cursor": null, "nodes": 7}',
        '{"format": "fastllm-chat", "version": 1, "cursor": null, "nodes": [], "config": {"temprature": 1}}',
    ],
)  # fmt: skip
def test_broken_files_are_refused(model: Model, tmp_path: Path, content: str) -> None:
    file = tmp_path / "chat.json"
    file.write_text(content)
    with pytest.raises(CorruptFile, match="chat.json"):
        Chat.load(file, model)


def test_absent_files_and_templates(model: Model, tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        Chat.load(tmp_path / "nothing.json", model)
    model.tokenizer.chat_template = None  # type: ignore[misc]
    with pytest.raises(TemplateError, match="no chat template"):
        Chat(model).send("x")


def test_the_async_chat(model: Model) -> None:
    async def main() -> None:
        chat = Chat(model, max_new_tokens=3)
        assert "".join([token.text async for token in chat.send("hello")]) == "?@A"
        completion = await chat.send(Message("user", "again")).result()
        assert completion.message == Message("assistant", "?@A")
        async for _ in chat.send("long", max_new_tokens=None):
            break
        assert chat.path[-1].finish_reason == "cancelled"
        assert roles(chat)[-1] == ("assistant", "?")
        with anyio.move_on_after(0.02):
            async for _ in chat.regenerate(max_new_tokens=None):
                pass
        assert chat.path[-1].finish_reason == "cancelled"
        assert len(chat.messages[-1].content) > 1
        assert [text async for text in chat.edit(0, "hi").texts()] == ["?", "@", "A"]

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
