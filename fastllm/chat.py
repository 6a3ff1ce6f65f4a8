"""`Chat`: a conversation as a tree of messages that only grows.

Every message is a node; the conversation is the path from the root to the cursor. Asking again or rewording adds a
branch beside the old one, so nothing that was said is lost. An answer's node is there from the moment it is asked for
and fills as it is read; one that was cut short keeps its text and says so.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from fastllm.blocking import BlockingStream
from fastllm.config import GenerationConfig
from fastllm.errors import CorruptFile, FastLLMError, InvalidRequest, LoadError
from fastllm.stream import RequestHandle, Ticket, TokenStream
from fastllm.types import FinishReason, Message, Token

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from fastllm._delivery import Mailbox
    from fastllm.config import GenerationFields
    from fastllm.model import Model

__all__ = ["BlockingChat", "BlockingChatStream", "Chat", "ChatNode", "ChatStream", "Conversation"]

_FORMAT = "fastllm-chat"
_VERSION = 1


@dataclass(eq=False)
class ChatNode:
    """One message in the tree.

    Attributes:
        index: Its number; parents have lower ones.
        parent: Number of the message before it, or None.
        message: What was said; grows while an answer is read.
        finish_reason: Of answers: why they ended; None while they are being read. Of other messages None.
        seed: Of answers: the seed in use.
    """

    index: int
    parent: int | None
    message: Message
    finish_reason: FinishReason | None = None
    seed: int | None = None

    @property
    def is_partial(self) -> bool:
        """Whether the answer was cut short (cancelled, timed out or failed) or is still being read."""
        return self.message.role == "assistant" and self.seed is not None and (
            self.finish_reason not in ("stop", "length", "tool_calls")
        )  # fmt: skip


class _Answer(RequestHandle):
    """Writes what is read of an answer into its node. Mixed into both kinds of streams."""

    _node: ChatNode

    def cancel(self) -> None:
        """Stops the answer; what was read of it stays in the chat, marked as cancelled."""
        super().cancel()
        self._settle()

    def _settle(self) -> None:
        """Nobody reads on: the answer stays as it is."""
        if self._node.finish_reason is None:
            self._node.finish_reason = "cancelled"

    def _keep(self, token: Token) -> Token:
        token = super()._keep(token)
        if token.text:
            self._node.message = Message("assistant", self._joined())
        return token

    def _pop(self) -> Token | None:
        try:
            token = super()._pop()
        except FastLLMError:
            self._node.finish_reason = "error"
            raise
        if token is not None and token.finish_reason is not None:
            self._node.finish_reason = token.finish_reason
        elif token is None and (completion := self.completion) is not None:
            self._node.message = Message("assistant", completion.text)
            self._node.finish_reason = completion.finish_reason
        return token

    def _read_ready(self) -> Sequence[tuple[Any, ...]]:
        rows = super()._read_ready()
        if len(rows):
            self._node.message = Message("assistant", self._joined())
        if self._exhausted and not self._cut and (ending := self._ending) is not None:
            self._node.finish_reason = ending.finish_reason
            if ending.finish_reason != "error":
                self._node.message = Message("assistant", self._joined())
        return rows


class ChatStream(_Answer, TokenStream):
    """The stream of an answer, for ``async for``."""

    def __init__(self, ticket: Ticket, mailbox: Mailbox, node: ChatNode) -> None:
        self._node = node
        super().__init__(ticket, mailbox)

    def __del__(self) -> None:
        super().__del__()
        self._settle()


class BlockingChatStream(_Answer, BlockingStream):
    """The stream of an answer, for ``for``."""

    def __init__(self, ticket: Ticket, node: ChatNode) -> None:
        self._node = node
        super().__init__(ticket)

    def __del__(self) -> None:
        super().__del__()
        self._settle()


_StreamT = TypeVar("_StreamT", bound=_Answer)


class Conversation(Generic[_StreamT]):
    """What `Chat` and `BlockingChat` share.

    A turn costs only its new tokens, because the engine still has the keys and values of those before it
    (``stream.usage.cached_tokens``).

    Args:
        model: Answers; needs a chat template.
        system: System message, or None.
        config: For every answer, laid over the model's defaults.
        tools: Functions or JSON schemas that the model may call.
        template_kwargs: Extra variables for the template.
        **overrides: Fields of `GenerationConfig`, laid over ``config``.

    Attributes:
        model: Answers.
        config: For every answer.
        tools: Shown to the model.
        template_kwargs: Extra variables for the template.
    """

    def __init__(
        self,
        model: Model,
        system: str | None = None,
        config: GenerationConfig | None = None,
        /,
        *,
        tools: Sequence[Any] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        **overrides: Unpack[GenerationFields],
    ) -> None:
        self.model = model
        self.config = (config or GenerationConfig()).merged(None, **overrides)
        self.tools = None if tools is None else list(tools)
        self.template_kwargs = dict(template_kwargs or {})
        self._nodes: list[ChatNode] = []
        self._cursor: int | None = None
        self._active: weakref.ref[_StreamT] | None = None
        if system is not None:
            self.add(Message("system", system))

    # --- looking

    @property
    def messages(self) -> list[Message]:
        """The conversation, first message first."""
        return [node.message for node in self.path]

    @property
    def path(self) -> list[ChatNode]:
        """The conversation's nodes, which also tell how answers ended."""
        found = []
        index = self._cursor
        while index is not None:
            found.append(self._nodes[index])
            index = self._nodes[index].parent
        return found[::-1]

    @property
    def nodes(self) -> tuple[ChatNode, ...]:
        """Every message of every branch."""
        return tuple(self._nodes)

    def branches(self, index: int) -> list[ChatNode]:
        """The alternatives to the message at a position of `messages`, itself included, oldest first."""
        node = self.path[self._position(index)]
        return [other for other in self._nodes if other.parent == node.parent]

    def __len__(self) -> int:
        return len(self.path)

    def __repr__(self) -> str:
        last = self.path[-1].message if self._cursor is not None else None
        shown = "" if last is None else f" · {last.role}: {_short(last.content)}"
        return f"<Chat with {self.model.info.name} · {len(self)} messages, {len(self._nodes)} in the tree{shown}>"

    def _repr_html_(self) -> str:
        from fastllm import _shown

        return _shown.html(self)

    def show(self, **options: Any) -> Any:
        """Shows the conversation as a panel: say something, stop, ask again, reword, fork.

        Args:
            **options: Of `fastllm.widgets.ChatPanel`.

        Returns:
            The panel, already on the page.
        """
        from fastllm import _shown

        return _shown.show(self, **options)

    # --- saying

    def add(self, message: Message | Mapping[str, Any]) -> ChatNode:
        """Puts a message behind the conversation without asking for an answer, such as a tool's result."""
        if not isinstance(message, Message):
            message = _message(message)
        return self._append(self._cursor, message)

    def send(self, content: str | Message | Mapping[str, Any], /, **overrides: Unpack[GenerationFields]) -> _StreamT:
        """Says something and starts the answer. An answer that is still being read is cancelled first.

        Args:
            content: What the user says, or any message.
            **overrides: Fields of `GenerationConfig` for this answer.

        Returns:
            The answer's stream, as from `Model.stream_chat`.

        Raises:
            InvalidRequest: The conversation does not fit (`ContextTooLong`), or its template refuses it
                (`TemplateError`); it is then left as it was.
        """
        message = Message("user", content) if isinstance(content, str) else content
        return self._ask(self._cursor, message if isinstance(message, Message) else _message(message), overrides)

    def answer(self, **overrides: Unpack[GenerationFields]) -> _StreamT:
        """Starts an answer to the conversation as it stands, say after `add` of a tool's result."""
        return self._ask(self._cursor, None, overrides)

    def regenerate(self, **overrides: Unpack[GenerationFields]) -> _StreamT:
        """Starts another answer beside the last one.

        Args:
            **overrides: Fields of `GenerationConfig` for this answer.

        Raises:
            InvalidRequest: The conversation does not end with an answer.
        """
        if self._cursor is None or self._nodes[self._cursor].message.role != "assistant":
            raise InvalidRequest("[chat] there is no answer to make anew.", hint="send() asks for the first one.")
        return self._ask(self._nodes[self._cursor].parent, None, overrides)

    def edit(self, index: int, text: str, /, **overrides: Unpack[GenerationFields]) -> _StreamT:
        """Rewords something the user said, in a new branch, and starts the answer to it.

        Args:
            index: Position in `messages`; negative ones count from the end.
            text: What is said instead.
            **overrides: Fields of `GenerationConfig` for this answer.

        Raises:
            InvalidRequest: There is no such message, or the user did not write it.
        """
        node = self.path[self._position(index)]
        if node.message.role != "user":
            raise InvalidRequest(
                f"[chat] message {index} was written by {node.message.role!r}, not by the user.",
                hint="fork() a chat to go on from other words of the model.",
            )
        return self._ask(node.parent, Message("user", text), overrides)

    def switch(self, node: ChatNode | int) -> None:
        """Moves the cursor to a node of the tree (see `branches`), so that the conversation ends there."""
        index = node if isinstance(node, int) else node.index
        if not 0 <= index < len(self._nodes):
            raise InvalidRequest(f"[chat] there is no node {index} among {len(self._nodes)}.")
        self._cursor = index

    def fork(self, *, at: int | None = None) -> Self:
        """A second conversation that goes on by itself; what was said so far is copied.

        Args:
            at: Messages 0 ... at - 1 are kept; all of them by default. The others stay in the tree.

        Raises:
            InvalidRequest: There are not so many.
        """
        path = self.path
        if at is not None and not 0 <= at <= len(path):
            raise InvalidRequest(
                f"[chat] at is {at}, but there are {len(path)} messages.", hint="A fork keeps messages 0 ... at - 1."
            )
        other = type(self)(self.model, None, self.config, tools=self.tools, template_kwargs=self.template_kwargs)
        other._nodes = [
            ChatNode(node.index, node.parent, node.message, _settled(node), node.seed) for node in self._nodes
        ]
        kept = path if at is None else path[:at]
        other._cursor = kept[-1].index if kept else None
        return other

    # --- keeping

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON values."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "model": self.model.info.name,
            "cursor": self._cursor,
            "config": {name: self.config.to_dict()[name] for name in sorted(self.config.given - {"constraint"})},
            "nodes": [
                {
                    "parent": node.parent,
                    **node.message.to_dict(),
                    **({"finish_reason": reason} if (reason := _settled(node)) is not None else {}),
                    **({"seed": node.seed} if node.seed is not None else {}),
                }
                for node in self._nodes
            ],
        }

    def save(self, path: str | os.PathLike[str], /) -> None:
        """Writes the whole tree as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model, /) -> Self:
        """Reads what `save` wrote.

        Args:
            path: The file.
            model: Goes on with the conversation; it need not be the one that began it.

        Raises:
            LoadError: The file is not there.
            CorruptFile: It is not such a file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise LoadError(f"[chat] {os.fspath(path)!r} cannot be read: {error.strerror}.", path=str(path)) from error
        except ValueError as error:
            raise CorruptFile(f"[chat] {os.fspath(path)!r} is not JSON: {error}.", path=str(path)) from error
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise CorruptFile(f"[chat] {os.fspath(path)!r} is no saved chat.", path=str(path))
        if data.get("version") != _VERSION:
            raise CorruptFile(
                f"[chat] {os.fspath(path)!r} has version {data.get('version')!r}, but {_VERSION} is read here.",
                hint="A newer fastllm may have written it.",
                path=str(path),
            )
        try:
            return cls._from_dict(data, model)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptFile(f"[chat] {os.fspath(path)!r} contradicts its format: {error}.", path=str(path)) from error

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any], model: Model) -> Self:
        chat = cls(model, None, GenerationConfig(**data.get("config", {})))
        for index, entry in enumerate(data["nodes"]):
            entry = dict(entry)
            parent, reason, seed = entry.pop("parent"), entry.pop("finish_reason", None), entry.pop("seed", None)
            if parent is not None and not 0 <= parent < index:
                raise ValueError(f"node {index} has parent {parent}")
            chat._nodes.append(ChatNode(index, parent, _message(entry), reason, seed))
        cursor = data["cursor"]
        if cursor is not None and not 0 <= cursor < len(chat._nodes):
            raise ValueError(f"cursor {cursor} with {len(chat._nodes)} nodes")
        chat._cursor = cursor
        return chat

    # --- inside

    def _position(self, index: int) -> int:
        count = len(self.path)
        if not -count <= index < count:
            raise InvalidRequest(f"[chat] there is no message {index} among {count}.")
        return index % count

    def _append(self, parent: int | None, message: Message, seed: int | None = None) -> ChatNode:
        node = ChatNode(len(self._nodes), parent, message, seed=seed)
        self._nodes.append(node)
        self._cursor = node.index
        return node

    def _ask(self, parent: int | None, message: Message | None, overrides: GenerationFields) -> _StreamT:
        """A new branch behind ``parent``: the message, if any, and the answer. Fails before it changes anything."""
        active = self._active() if self._active is not None else None
        if active is not None:
            active.cancel()
        cursor, self._cursor = self._cursor, parent
        try:
            messages = self.messages + ([] if message is None else [message])
            config = self.model._merge(self.config, overrides, single=True)
            ids = self.model.render(messages, tools=self.tools, template_kwargs=self.template_kwargs).token_ids
            ticket, mailbox = self._submit(ids, config)
        except BaseException:
            self._cursor = cursor
            raise
        if message is not None:
            parent = self._append(parent, message).index
        stream = self._stream(ticket, mailbox, self._append(parent, Message("assistant", ""), seed=ticket.seed))
        self._active = weakref.ref(stream)
        return stream

    def _submit(self, ids: Sequence[int], config: GenerationConfig) -> tuple[Ticket, Mailbox | None]:
        raise NotImplementedError

    def _stream(self, ticket: Ticket, mailbox: Mailbox | None, node: ChatNode) -> _StreamT:
        raise NotImplementedError


class Chat(Conversation[ChatStream]):
    """A conversation with a model: ``async for token in chat.send("Hello!")`` says something and reads the answer.

    For plain scripts there is `BlockingChat`.
    """

    def _submit(self, ids: Sequence[int], config: GenerationConfig) -> tuple[Ticket, Mailbox | None]:
        return self.model._submit_with_mailbox(ids, config, chat=True)

    def _stream(self, ticket: Ticket, mailbox: Mailbox | None, node: ChatNode) -> ChatStream:
        return ChatStream(ticket, cast("Mailbox", mailbox), node)


class BlockingChat(Conversation[BlockingChatStream]):
    """A conversation for plain scripts: ``for token in chat.send("Hello!")`` says something and reads the answer."""

    def _submit(self, ids: Sequence[int], config: GenerationConfig) -> tuple[Ticket, Mailbox | None]:
        return self.model._submit(ids, config, chat=True), None

    def _stream(self, ticket: Ticket, mailbox: Mailbox | None, node: ChatNode) -> BlockingChatStream:
        return BlockingChatStream(ticket, node)


def _settled(node: ChatNode) -> FinishReason | None:
    """How an answer ended; one that is still being read counts as cancelled in a copy."""
    return "cancelled" if node.finish_reason is None and node.is_partial else node.finish_reason


def _message(data: Mapping[str, Any]) -> Message:
    known = {"role", "content", "name", "tool_calls", "tool_call_id"}
    if "role" not in data or set(data) - known:
        raise InvalidRequest(
            f"[chat] {_short(repr(data))} is no message.", hint=f"Its keys are role and, if needed, {sorted(known)}."
        )
    content = data.get("content") or ""
    if not isinstance(content, str):
        raise InvalidRequest(f"[chat] a message's content is {type(content).__name__}, not str.")
    return Message(
        role=str(data["role"]),
        content=content,
        name=data.get("name"),
        tool_calls=tuple(data.get("tool_calls") or ()),
        tool_call_id=data.get("tool_call_id"),
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 50 else text[:49] + "…")
