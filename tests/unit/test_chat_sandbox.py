"""Broken and hostile chat templates: every one ends in a TemplateError, in bounded time and memory."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastllm.chat_template import ChatTemplate
from fastllm.errors import TemplateError

Shared = Callable[[str], Path]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]


# --- errors and hostile templates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("ok\n{% if %}", 2, "cannot be parsed"),
        ("{% for x in y %}", 1, "cannot be parsed"),
        ("a\nb\n{{ nope.x }}", 3, "'nope' is undefined"),
        ("a\n{{ messages[0]['x']['y'] }}", 2, "has no attribute 'x'"),
        ("\n\n\n{{ 1 / 0 }}", 4, "division by zero"),
        ("{% include 'x' %}", 1, "no loader"),
        ("{{ messages | nofilter }}", 1, "nofilter"),
        ("\n{{ raise_exception('Not this.') }}", 2, "refuses this conversation: Not this"),
        ("{% do x %}", 1, "unknown tag 'do'"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", None, "recursion"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, None, "recursion"),
    ],
)
def test_faults_name_the_line(source: str, line: int | None, words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        ChatTemplate(source).render(HELLO)
    assert caught.value.line == line and caught.value.hint
    if line is not None and "refuses" not in words:
        assert f"line {line} of the template" in caught.value.message


FORBIDDEN = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "base": "{{ ().__class__.__base__ }}",
    "class_of_global": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "namespace_init": "{% set ns = namespace(__class__=1) %}",
    "namespace_set": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'a': 1}) }}",
    "import": "{% import 'os' as os %}",
    "big_range": "{% for i in range(10**9) %}{% endfor %}",
    "repeat": "{{ 'a' * 10**10 }}",
    "repeat_left": "{{ 10000000000 * 'a' }}",
    "repeat_list": "{{ ([[1] * 1000] * 100000) | string }}",
    "power": "{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x ** 9 %}{% endfor %}",
    "product": "{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "double_concat": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "double_add": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "double_list": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "double_block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "nest": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
    "{{ ns.x }}",
    "center": "{{ 'a' | center(10**9) }}",
    "center_folded": "{{ 'a' | center(9999999999) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "to_bytes": "{{ (5).to_bytes(10**10, 'big') }}",
    "expandtabs": "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
    "replace_filter": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replace_method": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "join_filter": "{{ (['a' * 1000] * 100000) | join }}",
    "join_method": "{{ ''.join(['a' * 1000] * 100000) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent_star": "{{ '%*d' % (9999999999, 1) }}",
    "format_width": "{{ '{:9999999999}'.format(1) }}",
    "format_nested": "{{ '{:{}}'.format(1, 9999999999) }}",
    "percent_many": "{{ ('%s' * 1000) % ((('a' * 1000000),) * 1000) }}",
    "indent": "{{ ('\\n' * 1000000) | indent(1000000) }}",
    "tojson_indent": "{{ messages | tojson(indent=10**9) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) }}",
    "sum": "{{ ([[1] * 100000] * 100000) | sum(start=[]) }}",
    "wordwrap": "{{ ('a' * 1000000) | wordwrap(1, wrapstring='b' * 1000000) }}",
    "map": "{{ range(99999) | map('center', 999999) | list | length }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "macro": "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(40) }}",
    "macro_tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "recursive": "{% for x in [[1], [1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops_filtered": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "loops_shadowing": "{% set tick = 1 %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "work": "{% for i in range(99999) %}{% set x = ('a b ' * 100000) | title %}{% endfor %}",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_hostile_templates_are_stopped(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTemplate(FORBIDDEN[name], max_seconds=0.5).render(HELLO)
    assert time.monotonic() - start < 15  # unbounded, each of these takes minutes or all memory


HARMLESS = {
    "attr_filter": "{{ '' | attr('__class__') }}",
    "format": "{{ '{0.__class__}'.format(messages) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "self": "{{ self._TemplateReference__context }}",
    "frame": "{{ (messages | map('upper')).gi_frame }}",
    "context": "{{ self.__init__ }}",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_escapes_that_the_sandbox_answers_with_nothing(name: str) -> None:
    try:
        assert ChatTemplate(HARMLESS[name]).render(HELLO) == ""
    except TemplateError:
        pass


def test_memory_stays_small_under_attack() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("repeat", "double_concat", "double_block", "replace_method", "join_filter", "format_width", "batch"):
        with pytest.raises(TemplateError):
            ChatTemplate(FORBIDDEN[name], max_seconds=0.5).render(HELLO)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 700e6


def test_long_conversations_are_no_attack(shared: Shared) -> None:
    messages = [
        {"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} " + "word " * 400} for i in range(1001)
    ]
    source = (shared("chat/templates") / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    text = ChatTemplate(source).render(messages)
    assert text.count("<|im_start|>") == 1003 and len(text) > 2_000_000


def test_limits_do_not_leak_between_renders_or_threads() -> None:
    slow = ChatTemplate(FORBIDDEN["loops"], max_seconds=0.3)
    fine = ChatTemplate(CHATML)
    expected = fine.render(HELLO)
    results: list[str] = []

    def work() -> None:
        for _ in range(20):
            results.append(fine.render(HELLO))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    with pytest.raises(TemplateError, match=r"longer than 0\.3 s"):
        slow.render(HELLO)
    for thread in threads:
        thread.join()
    assert results == [expected] * 60 and fine.render(HELLO) == expected


def test_importing_the_module_imports_no_jinja() -> None:
    import subprocess

    code = (
        "import sys, fastllm.chat_template, fastllm.tokenizer, fastllm.formats, fastllm.hub, fastllm.errors\n"
        "print([name for name in ('jinja2', 'tokenizers', 'huggingface_hub', 'numpy') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(process.stdout.replace("'", '"'))) <= {"numpy"}
