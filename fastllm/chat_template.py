"""Chat templates: a conversation as the exact text its model was trained on.

Templates are jinja2 sources that checkpoints bring along, rendered in a sandbox with limits on time and size. The
results equal those of transformers' ``apply_chat_template``.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm.errors import FastLLMError, TemplateError
from fastllm.formats._files import read_json, read_text

if TYPE_CHECKING:
    import jinja2

__all__ = ["ChatTemplate", "tool_schema"]

MAX_SOURCE_CHARS = 2_000_000
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING = ("reasoning_content", "thinking", "reasoning")
_FILE_HINT = "Give a template: ChatTemplate(source), or put chat_template.jinja beside the tokenizer."


def tool_schema(tool: Callable[..., Any] | Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a tool: a schema is returned as it is, a function's is made from signature and docstring.

    Raises:
        TemplateError: The function's type hints cannot be written as a schema.
    """
    if isinstance(tool, Mapping):
        return dict(tool)
    from fastllm._chat_tools import function_schema

    return function_schema(tool)


class ChatTemplate:
    """One or several named templates of a checkpoint. Immutable and safe to use from several threads.

    Args:
        source: jinja2 text, or texts by name ("default", "tool_use", ...).
        bos: Text of the begin-of-sequence token, for templates that write it.
        eos: Text of the end-of-sequence token.
        special_tokens: More variables of that kind, such as {"pad_token": "<pad>"}.
        clock: Gives the time for templates that write the date.
        max_seconds: Time that one render may take.

    Attributes:
        sources: jinja2 text by name.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        bos: str | None = "",
        eos: str | None = "",
        special_tokens: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = datetime.now,
        max_seconds: float = 10.0,
    ) -> None:
        self.sources = {"default": source} if isinstance(source, str) else dict(source)
        if not self.sources:
            raise TemplateError("[chat] there is no template in the mapping.", hint=_FILE_HINT)
        for name, text in self.sources.items():
            if len(text) > MAX_SOURCE_CHARS:
                fact = f"template {name!r} has {len(text)} characters but at most {MAX_SOURCE_CHARS} are allowed"
                raise TemplateError(f"[chat] {fact}.", hint=_FILE_HINT)
        named = {"bos_token": bos, "eos_token": eos, **(special_tokens or {})}
        self._special = {name: text for name, text in named.items() if text}
        self._clock = clock
        self._max_seconds = max_seconds
        self._compiled: dict[str, tuple[jinja2.Template, frozenset[str]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, directory: Path, *, bos: str | None = "", eos: str | None = "", **options: Any
    ) -> ChatTemplate | None:
        """The templates of a checkpoint directory, or None if it has none.

        Reads chat_template.jinja and additional_chat_templates/*.jinja, then chat_template of tokenizer_config.json (a
        text or a list of named ones), then chat_template.json.

        Raises:
            CorruptFile: A file is not UTF-8 or not JSON.
        """
        sources: dict[str, str] = {}
        for name in ("chat_template.json", "tokenizer_config.json"):
            if (directory / name).is_file():
                sources.update(_named(read_json(directory / name, where="chat").get("chat_template")))
        if (directory / "chat_template.jinja").is_file():
            sources["default"] = read_text(directory / "chat_template.jinja", where="chat")
        for file in sorted((directory / "additional_chat_templates").glob("*.jinja")):
            sources[file.stem] = read_text(file, where="chat")
        return cls(sources, bos=bos, eos=eos, **options) if sources else None

    @property
    def source(self) -> str:
        """jinja2 text of the template that is used without tools."""
        return self.sources[self._choose(None, None)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the templates."""
        return tuple(self.sources)

    def variables(self, name: str | None = None) -> frozenset[str]:
        """Names a template reads from outside, such as "messages", "tools", "enable_thinking".

        Raises:
            TemplateError: It cannot be parsed, or there is none of that name.
        """
        return self._get(self._choose(name, None))[1]

    @property
    def supports_tools(self) -> bool:
        """Whether the template for tools looks at ``tools``."""
        return "tools" in self._get(self._choose(None, ()))[1]

    def render(
        self,
        messages: Sequence[Any] | str,
        *,
        tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool | str = False,
        template: str | None = None,
        **kwargs: Any,
    ) -> str:
        """A conversation as text, special tokens written out.

        Args:
            messages: Dictionaries with "role" and "content" (or objects with such fields); a str is one user message.
            tools: Functions or JSON schemas the model may call.
            add_generation_prompt: Whether to end with the header of the assistant's answer.
            continue_final: Whether to leave the last message open for the model to go on; a field's name continues
                that field instead of "content". It switches ``add_generation_prompt`` off.
            template: Name of a template, where there are several; by default "tool_use" with tools, else "default".
            **kwargs: More variables for the template, such as ``enable_thinking=False``.

        Raises:
            TemplateError: The template cannot be parsed, refuses the conversation, does something forbidden, takes too
                long, or the messages are not messages.
        """
        conversation = _messages(messages)
        schemas = None if tools is None else [_plain(tool_schema(tool)) for tool in tools]
        compiled, _ = self._get(self._choose(template, schemas))
        final = ""
        if continue_final:
            field = continue_final if isinstance(continue_final, str) else "content"
            final = _open_final(conversation, field)
        variables: dict[str, Any] = {"documents": None, **self._special, **_plain(kwargs)}
        variables |= {"messages": conversation, "tools": schemas}
        variables["add_generation_prompt"] = add_generation_prompt and not continue_final
        text = self._run(compiled, variables)
        return _cut_final(text, final) if continue_final else text

    def _run(self, compiled: jinja2.Template, variables: Mapping[str, Any]) -> str:
        from fastllm._chat_sandbox import limits

        try:
            with limits(self._max_seconds):
                return compiled.render(variables)
        except (MemoryError, RecursionError) as error:
            raise TemplateError(
                f"[chat] the template nests or repeats itself too often ({type(error).__name__}).",
                hint="Use another template: ChatTemplate(source).",
            ) from error
        except Exception as error:
            raise _failure(error) from error

    def _choose(self, name: str | None, tools: Sequence[Any] | None) -> str:
        if name is not None and name not in self.sources:
            known = ", ".join(map(repr, self.sources))
            raise TemplateError(f"[chat] there is no template {name!r}.", hint=f"Known templates: {known}.")
        if name is not None:
            return name
        if tools is not None and "tool_use" in self.sources:
            return "tool_use"
        if "default" in self.sources:
            return "default"
        if len(self.sources) == 1:
            return next(iter(self.sources))
        known = ", ".join(map(repr, self.sources))
        raise TemplateError(
            f"[chat] there are several templates ({known}) and none is the default.", hint="Choose one: template=..."
        )

    def _get(self, name: str) -> tuple[jinja2.Template, frozenset[str]]:
        with self._lock:
            found = self._compiled.get(name)
            if found is None:
                from fastllm._chat_sandbox import compile_template

                try:
                    found = compile_template(self.sources[name], self._clock)
                except Exception as error:
                    raise _failure(error) from error
                self._compiled[name] = found
            return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name!r}: {len(text)} characters" for name, text in self.sources.items())
        return f"ChatTemplate({sizes})"


def _named(value: object) -> dict[str, str]:
    """The chat_template of a configuration: a text, or a list of {"name", "template"}."""
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else []
    return {
        str(entry["name"]): entry["template"]
        for entry in entries
        if isinstance(entry, dict) and "name" in entry and isinstance(entry.get("template"), str)
    }


# --- data ------------------------------------------------------------------------------------------------------------


def _plain(value: Any, depth: int = 0) -> Any:
    """The value rebuilt from JSON types alone, so that a template can reach no method of the caller's objects."""
    if depth > 100:
        raise TemplateError("[chat] the messages are nested deeper than 100 levels.", hint="Is there a cycle in them?")
    if value is None or isinstance(value, bool):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return value if type(value) is base else getattr(base, f"__{base.__name__}__")(value)
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain({name: item for name, item in fields.items() if item is not None}, depth + 1)
    for method in ("model_dump", "item", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return _plain(convert(), depth + 1)
    return f"<{type(value).__name__}>"


def _messages(messages: Sequence[Any] | str) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        fact = f"messages is a {type(messages).__name__}, not a list of messages"
        raise TemplateError(f"[chat] {fact}.", hint='Give [{"role": "user", "content": "..."}].')
    result = []
    for index, message in enumerate(messages):
        plain = _plain(message)
        if not isinstance(plain, dict) or not isinstance(plain.get("role"), str):
            fact = f"message {index} is {str(plain)[:60]!r}, which has no role"
            raise TemplateError(f"[chat] {fact}.", hint='Give {"role": "user", "content": "..."}.')
        # Reasoning goes by several names: fill in those that templates read.
        reasoning = next((plain[name] for name in _REASONING if plain.get(name) is not None), None)
        if reasoning is not None:
            plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
        result.append(plain)
    return result


def _open_final(conversation: list[dict[str, Any]], field: str) -> str:
    """Puts a mark at the end of the last message's field; returns the field's text."""
    last = conversation[-1] if conversation else {}
    value = last.get(field)
    if isinstance(value, str):
        same = [name for name in _REASONING if last.get(name) == value] if field in _REASONING else [field]
        for name in same:
            last[name] = value + _TAG
        return value
    if isinstance(value, list):
        for block in reversed(value):
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                text: str = block["text"]
                block["text"] = text + _TAG
                return text
    fact = f"the last message has no text in {field!r} to continue" if conversation else "there is no message"
    raise TemplateError(f"[chat] {fact}.", hint="continue_final needs a last message with text.")


def _cut_final(text: str, final: str) -> str:
    """The text up to the mark; white space that the template trimmed goes too."""
    mark = text.rfind(_TAG.strip())
    if mark < 0 or final.strip() not in text:
        fact = "the template drops or changes the last message, so it cannot be continued"
        raise TemplateError(f"[chat] {fact}.", hint="Use continue_final=False with this template.")
    return text[:mark] if text.startswith(_TAG, mark) else text[:mark].rstrip()


# --- errors ----------------------------------------------------------------------------------------------------------


def _line_of(error: BaseException) -> int | None:
    """The template's line: of the syntax error, or of the innermost frame of the traceback that is template code."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line if isinstance(line, int) else None


def _failure(error: Exception) -> FastLLMError:
    """Any failure of a template as a TemplateError."""
    import jinja2
    from jinja2.exceptions import SecurityError

    from fastllm._chat_sandbox import Refused

    if isinstance(error, FastLLMError):
        return error
    line = _line_of(error)
    where = "the template" if line is None else f"line {line} of the template"
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, Refused):
        hint = "Change the messages: roles, order or tools are not what this model was trained on."
        return TemplateError(f"[chat] the template refuses this conversation: {reason}.", line=line, hint=hint)
    if isinstance(error, (SecurityError, OverflowError)):
        hint = "The template may be hostile: use another one, ChatTemplate(source)."
        return TemplateError(f"[chat] {where} does what templates may not: {reason}.", line=line, hint=hint)
    if isinstance(error, jinja2.TemplateSyntaxError):
        return TemplateError(f"[chat] {where} cannot be parsed: {reason}.", line=line, hint="Correct the template.")
    hint = "Is a field missing in the messages? The template's source is in ChatTemplate.source."
    kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    return TemplateError(f"[chat] {where} failed: {kind}{reason}.", line=line, hint=hint)
