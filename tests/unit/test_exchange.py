"""Exchanged tokens, forks of conversations, places in the queue, memory, and treescope: without a browser."""

from __future__ import annotations

import html
import re
import time

import numpy as np
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")
pytest.importorskip("ipywidgets", reason="pip install 'fastllm[notebook]'")
pytest.importorskip("IPython")

from nullmodel import ASCII, null_model
from wire import Wire, until

import fastllm
from fastllm import Chat, Tensor
from fastllm.errors import InvalidRequest
from fastllm.widgets import ExchangeView

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::fastllm.errors.LoopBlocked"),
]


def plain(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def shown(view: ExchangeView) -> str:
    pane = view._pane
    return plain(
        "".join(child.value for box in pane._boxes for child in box.children)
        + pane._tail.value.removesuffix(pane._hint)
    )


def test_a_token_is_exchanged_and_the_answer_goes_on(wire: Wire) -> None:
    with null_model(step_us=500) as model:  # after a letter comes the next one
        stream = model.stream("a", max_new_tokens=8, logprobs=5, seed=3)
        view = fastllm.show(stream, exchange=True)
        assert view.result().text == "bcdefghi"
        until(lambda: len(view._tokens.options) == 8)
        view._tokens.value = 3
        words = [label for label, _ in view._others.options]
        assert len(words) == 5
        assert words[0].startswith("▸ ")
        assert view._others.value != stream.tokens[3].id, "another one than the present is offered"
        view._own.value = "q"
        view._go.click()
        until(lambda: view.branches[-1].source.ended and len(view.branches) == 2)
        assert view.branches[1].stream.completion.text == "bcdqrstu"
        timing = view.branches[1].stream.completion.timing
        assert 0 < timing.ttft_s < timing.total_s
        assert timing.decode_s > 0
        until(lambda: shown(view) == "bcdqrstu")
        assert view.branches[0].stream.completion.text == "bcdefghi"
        assert "“q” instead of “e”" in view._which.options[1][0]
        until(lambda: len(view._tokens.options) == 8)
        view._tokens.value = 3  # where the exchanged token stands: what its parent had to choose from
        assert [value for _, value in view._others.options] == [other.id for other in stream.tokens[3].top]
        view._which.value = 0
        assert shown(view) == "bcdefghi"
        view._which.value = 1
        view._tokens.value = 0
        view._others.value = next(id_ for _, id_ in view._others.options if id_ != ord("b"))
        picked = chr(view._others.value)
        view._go.click()
        until(lambda: len(view.branches) == 3 and view.branches[2].source.ended)
        assert view.branches[2].stream.completion.text[0] == picked
        view.freeze()
        assert "instead of “b”" in plain(wire.final_html())


def test_a_copy_follows_what_is_shown(wire: Wire) -> None:
    """What a page saves at any time can be read without a kernel."""

    def copies() -> list[tuple[str, str, bool]]:
        found = [(where, bundle.get("text/html", ""), renewed) for where, bundle, renewed in wire.displays]
        return [entry for entry in found if "flm1-copy" in entry[1]]

    with null_model(step_us=500) as model:
        view = fastllm.show(model.stream("a", max_new_tokens=8, logprobs=5), exchange=True)
        place = copies()[0][0]
        live = [bundle for _, bundle, _ in wire.displays if "application/vnd.jupyter.widget-view+json" in bundle]
        assert len(live) == 1
        assert "text/html" not in live[0], "both would be shown by a reader that has no widgets"
        until(lambda: "bcdefghi" in plain(copies()[-1][1]))
        view.exchange(3, "q")
        until(lambda: "bcdqrstu" in plain(copies()[-1][1]))
        assert all(entry == (place, entry[1], True) for entry in copies()[1:]), "one place, renewed"
        assert len(copies()) <= 5
        view.freeze()
        assert wire.displays[-1] == (place, {"text/plain": "", "text/html": ""}, True)
        assert "bcdqrstu" in plain(wire.displays[-2][1]["text/html"])


def test_what_cannot_be_exchanged_is_said(wire: Wire) -> None:
    with null_model(step_us=500) as model:
        view = fastllm.show(model.stream("a", max_new_tokens=4), exchange=True)
        view.result()
        until(lambda: len(view._tokens.options) == 4)
        view._go.click()
        assert "Pick a token" in view._trouble.value
        view._tokens.value = 1
        assert "logprobs=5" in view._where.value
        view._own.value = "two words"
        view._go.click()
        assert "no single token" in view._trouble.value
        assert len(view.branches) == 1
        with pytest.raises(InvalidRequest, match="at is 9"):
            view.exchange(9, "x")


def test_exchange_stops(wire: Wire) -> None:
    with null_model(step_us=900) as model:
        view = fastllm.show(model.stream("a", max_new_tokens=50_000, logprobs=2), exchange=True)
        until(lambda: view.branches[0].source.made > 5)
        view._stop.click()
        until(lambda: model.stats().running == 0, 2.0)
        assert view.result().finish_reason == "cancelled"
        until(lambda: view._stop.disabled)


def test_a_chat_is_forked_from_any_turn_and_one_goes_back_and_forth(wire: Wire) -> None:
    with null_model([*ASCII], eos=[ord("~")], step_us=500) as model:
        panel = fastllm.show(Chat(model, max_new_tokens=6))
        for words in ("one", "two"):
            panel.send(words)
            until(lambda: not panel.answering)
        assert [value for _, value in panel._turn.options] == [0, 2, 4]
        panel._turn.value = 2
        panel._buttons["fork"].click()
        fork = panel.forks[0]
        assert panel._slot.children == (fork._body,)
        assert fork.chat.messages[0].content == "one"
        assert len(fork.chat) == 2
        fork.send("three")
        until(lambda: not fork.answering)
        assert [m.content for m in panel.chat.messages if m.role == "user"] == ["one", "two"]
        assert [m.content for m in fork.chat.messages if m.role == "user"] == ["one", "three"]
        panel._tabs.value = 0
        assert panel._slot.children == (panel._body,)
        assert "two" in panel._history.value
        panel._tabs.value = 1
        assert "three" in panel._slot.children[0].children[1].value
        again = fork.fork()
        assert len(again.chat) == 4
        assert panel._tabs.value == 2
        with pytest.raises(InvalidRequest, match="at is 9"):
            panel.chat.fork(at=9)


def test_places_in_the_queue_are_told(wire: Wire) -> None:
    with null_model(step_us=2000, max_running=1) as model:
        first = model.stream("a", max_new_tokens=50_000, lookahead=None)
        until(lambda: first.state == "running")
        waiting = [model.stream("a", max_new_tokens=3) for _ in range(3)]
        urgent = model.stream("a", max_new_tokens=3, priority=5)
        until(lambda: [stream.queue_position for stream in waiting] == [1, 2, 3])
        assert urgent.queue_position == 0
        assert first.queue_position is None
        view = fastllm.show(waiting[1])
        until(lambda: "2 requests go before this one, 4 in the queue" in view._status.value)
        urgent.cancel()
        until(lambda: "1 request goes before this one" in view._status.value)
        first.cancel()
        view.result()
        until(lambda: "3 tok" in view._status.value)
        assert "before this one" not in view._status.value
        assert waiting[1].queue_position is None


def test_prefill_shows_how_far_it_is(wire: Wire) -> None:
    with null_model(step_us=60_000, prefill_chunk=16) as model:
        view = fastllm.show(model.stream("a" * 400, max_new_tokens=2))
        until(lambda: re.search(r"reading the prompt: [1-9]\d* of 400 tokens", view._status.value) is not None)
        assert 'role="progressbar"' in view._status.value
        view.cancel()
        view.result()


def test_memory_tells_of_a_steps_room() -> None:
    with fastllm.load("demo") as model:
        report = model.memory()
        buffers = sum(int(size) for size in re.findall(r"^buffer .*? (\d+) bytes", model._engine.program.dump(), re.M))
        assert 0 < report.activation_bytes <= report.unshared_activation_bytes
        assert buffers in (0, report.unshared_activation_bytes)
        assert report.step_tokens >= model.engine_config.max_running
        assert report.total_bytes == report.weight_bytes + report.kv_bytes + report.workspace_bytes
        assert "activations of a step" in report._repr_html_()


def test_treescope_shows_tensors() -> None:
    treescope = pytest.importorskip("treescope")
    values = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    tensor = Tensor(values)
    adapter = tensor.__treescope_ndarray_adapter__()
    for edges in ((None, None, None), (None, 4, 5), (1, None, 3), (1, 2, 3)):
        got, mask = adapter.get_array_data_with_truncation(tensor, None, edges)
        for axis, edge in enumerate(edges):
            assert got.shape[axis] == (values.shape[axis] if edge is None else 2 * edge + 1)
        keep = [
            np.arange(n) if edge is None else np.r_[0:edge, n - edge : n]
            for n, edge in zip(values.shape, edges, strict=True)
        ]
        np.testing.assert_array_equal(got[mask].reshape([len(k) for k in keep]), values[np.ix_(*keep)])
    page = treescope.render_array(tensor, truncate=True)
    assert "float32" in repr(page) or "f32" in str(page)
    with treescope.active_autovisualizer.set_scoped(treescope.ArrayAutovisualizer()):
        html = treescope.render_to_html({"weights": tensor})
    assert len(html) > 2000
    half = tensor.astype("bfloat16")
    assert adapter.get_numpy_dtype(half) == np.float32
    assert adapter.get_array_data_with_truncation(half, None, (None, 1, 1))[0].dtype == np.float32


@pytest.mark.anyio
async def test_steer_holds_for_a_whole_batch() -> None:
    with fastllm.load("demo") as model:
        edits = {"blocks.1.attn.z": fastllm.Ablate()}
        prompts = ["Tell me a story about a fox.", "What is 17 + 25?"]
        options = {"max_new_tokens": 12, "temperature": 0.0}
        alone = [(await model.generate(prompt, steer=edits, **options)).text for prompt in prompts]
        free = [(await model.generate(prompt, **options)).text for prompt in prompts]
        assert alone != free
        assert [done.text for done in await model.batch(prompts, steer=edits, **options)] == alone
        found = {index: done.text async for index, done in model.as_completed(prompts, steer=edits, **options)}
        assert [found[0], found[1]] == alone
        pieces = ["", ""]
        async for index, token in model.stream_batch(prompts, steer=edits, **options):
            pieces[index] += token.text
        assert pieces == alone
        assert [done.text for done in model.blocking.batch(prompts, steer=edits, **options)] == alone


def test_a_stream_that_is_too_fast_keeps_its_alternatives_for_the_copy(wire: Wire) -> None:
    with null_model(step_us=100) as model:
        view = fastllm.show(model.stream("a", max_new_tokens=1500, logprobs=5))
        done = view.result()
        assert len(done.tokens[1400].top) == 5
        sealed = "".join(child.value for box in view._pane._boxes for child in box.children)
        live = sealed + view._pane._tail.value
        assert live.count("data-tip") < 200, "what goes by too fast is written plainly"
        assert done.text[600:630] in html.unescape(re.sub(r"<[^>]*>", "", live)).translate(
            {0x2400 + code: code for code in range(32)} | {0x2421: 127}
        )
        frozen = wire.final_html()
        assert frozen.count("data-tip") > 60
        assert len(frozen.encode()) <= 100_000


def test_tokens_of_a_shown_stream_are_there_while_it_runs(wire: Wire) -> None:
    with null_model(step_us=3000) as model:
        stream = model.stream("a", max_new_tokens=60, logprobs=2)
        view = fastllm.show(stream)
        seen = 0
        while not view.done:
            tokens = stream.tokens
            assert [token.index for token in tokens] == list(range(len(tokens)))
            seen = max(seen, len(tokens)) if not view.done else seen
            time.sleep(0.01)
        assert seen > 0
        assert [token.text for token in stream.tokens] == [token.text for token in view.result().tokens]
        assert stream.tokens[-1].finish_reason == "length"
