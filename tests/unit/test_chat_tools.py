"""Tools' JSON schemas from functions, against transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal, Optional, Union

import pytest

from fastllm.chat_template import ChatTemplate, tool_schema
from fastllm.errors import TemplateError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]


# --- tools -----------------------------------------------------------------------------------------------------------


def weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius", days: int = 1) -> str:
    """
    The weather of a city.

    Looks it up far away.

    Args:
        city: Name of the city,
            with its country
        unit: What to measure in
        days: How many days (choices: [1, 3, 7])

    Returns:
        A sentence.
    """
    return f"{city} {unit} {days}"


class Size(Enum):
    SMALL = 1
    LARGE = "large"


def everything(
    a: int,
    b: float,
    c: bool,
    d: list[int],
    e: dict[str, float],
    f: Optional[str],  # noqa: UP045 - both spellings
    g: Union[int, str],  # noqa: UP007
    h: list[str] | None = None,
    i: tuple[int, str] = (1, "a"),
    j: Size = Size.SMALL,
    k: Any = None,
    m: dict = {},  # type: ignore[type-arg]  # noqa: B006
    n: int | list[str] = 3,
) -> None:
    """Takes all kinds.

    Args:
        a: an int
        b: a float
        c: a bool
        d: ints
        e: floats by name
        f: perhaps text
        g: int or text
        h: perhaps texts
        i: a pair
        j: a size
        k: whatever
        m: a dict
        n: a mix
    """


def no_arguments() -> int:
    """Just a number."""
    return 4


class Kit:
    def measure(self, length: float) -> float:
        """Measures.

        Args:
            length: In metres: one colon more.
        """
        return length


@pytest.mark.parametrize("tool", [weather, everything, no_arguments, Kit().measure], ids=lambda tool: tool.__name__)
def test_schema_equals_transformers(tool: Callable[..., Any]) -> None:
    utils = pytest.importorskip("transformers.utils")
    assert tool_schema(tool) == utils.get_json_schema(tool)


def test_schema_of_less_documented_functions() -> None:
    def add(x: int, y: int = 2, *rest: int, **more: int) -> int:
        return x + y

    assert tool_schema(add) == {
        "type": "function",
        "function": {
            "name": "add",
            "description": None,
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                "required": ["x"],
            },
            "return": {"type": "integer"},
        },
    }

    def free(x, many: Sequence[int]):  # type: ignore[no-untyped-def]
        """Free."""

    assert tool_schema(free)["function"]["parameters"]["properties"] == {
        "x": {},
        "many": {"type": "array", "items": {"type": "integer"}},
    }
    ready = {"type": "function", "function": {"name": "f"}}
    assert tool_schema(ready) == ready


def test_tools_that_have_no_schema() -> None:
    def odd(x: complex) -> None:
        """Odd."""

    def literal(x: Literal[b"a"]) -> None:
        """Odd."""

    def choices(x: str) -> None:
        """Odd.

        Args:
            x: a letter (choices: a, b)
        """

    for tool in (odd, literal, choices, "text", 3):
        with pytest.raises(TemplateError) as caught:
            tool_schema(tool)  # type: ignore[arg-type]
        assert caught.value.hint
    with pytest.raises(TemplateError, match=r"odd\(x\) has the type"):
        ChatTemplate(CHATML).render(HELLO, tools=[odd])


def test_functions_as_tools_reach_the_template() -> None:
    template = ChatTemplate("{{ tools[0].function.name }} {{ tools[0] | tojson }}")
    assert template.render(HELLO, tools=[weather]) == f"weather {json.dumps(tool_schema(weather))}"
