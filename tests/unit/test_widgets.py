"""Live displays without a browser: how many messages they send, how they stop, end, fail and freeze."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")
pytest.importorskip("ipywidgets", reason="pip install 'fastllm[notebook]'")
pytest.importorskip("IPython")

from nullmodel import ASCII, null_model
from wire import Wire, until

import fastllm
from fastllm import BatchError, Chat, Tensor, widgets
from fastllm.blocking import BlockingModel
from fastllm.errors import InvalidRequest, ShapeError, StreamBusy
from fastllm.model import Model
from fastllm.widgets import _ticker, _view

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::fastllm.errors.LoopBlocked"),
]


@pytest.fixture
def model() -> Iterator[Model]:
    """1000 tokens a second, without an end."""
    with null_model(step_us=900) as made:
        yield made


# --- a stream -----------------------------------------------------------------------------------------------------


def test_updates_are_few_and_bytes_grow_with_the_tokens(wire: Wire, model: Model) -> None:
    def run(tokens: int, model: Model) -> tuple[int, int, float]:
        wire.messages.clear()
        stream = model.stream("a", max_new_tokens=tokens, logprobs=5)
        view = fastllm.show(stream)
        built = len(wire.messages)
        done = view.result()
        assert len(done.tokens) == tokens
        live = wire.messages[built:]
        span = live[-1][0] - live[0][0]
        return len(live), wire.bytes, span

    count, size, span = run(1000, model)
    assert count <= 12 * span + 8, f"{count} messages in {span:.2f} s"
    assert size <= 1000 * 150
    with null_model(step_us=200) as fast:
        for tokens in (4000, 16_000):  # each token once, and with every update one open chunk again
            count, size, span = run(tokens, fast)
            assert count <= 12 * span + 8, f"{count} messages in {span:.2f} s"
            assert size <= 60 * tokens + 32_000 * count, f"{size} bytes for {tokens} tokens in {count} messages"


def test_first_and_last_are_drawn_at_once(wire: Wire) -> None:
    with null_model(step_us=30_000) as slow:
        stream = slow.stream("a", max_new_tokens=12)
        view = fastllm.show(stream)
        until(lambda: len(view.tokens) >= 1)
        until(lambda: ">b<" in wire.text(), 0.5)
        done = view.result()
        assert done.text == "bcdefghijklm"
        assert "bcdefghijklm" in re.sub(r"<[^>]*>", "", wire.final_html())
        assert view.frozen


def test_everything_said_is_on_the_page_once(wire: Wire, model: Model) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=700), tips=False)
    done = view.result()
    values = "".join(child.value for box in view._pane._boxes for child in box.children) + view._pane._tail.value
    import html

    assert (
        html.unescape(re.sub(r"<[^>]+>", "", values)).translate(
            {0x2400 + code: code for code in range(32)} | {0x2421: 127}
        )
        == done.text
    )


def test_stop_from_another_thread_frees_the_slot(wire: Wire, model: Model) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=50_000))
    until(lambda: len(view.tokens) > 20)
    assert model.stats().running == 1
    worker = threading.Thread(target=view._stop.click)
    worker.start()
    worker.join()
    until(lambda: model.stats().running == 0, 1.0)
    done = view.result()
    assert done.finish_reason == "cancelled"
    assert view._stop.disabled
    assert view._stop.description == "Stopped"
    assert "cancelled" in wire.final_html()


def test_a_place_is_frozen_exactly_once_and_says_all(wire: Wire, model: Model) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=30, logprobs=3, seed=5))
    done = view.result()
    shown = [entry for entry in wire.displays if not entry[2]]
    frozen = [entry for entry in wire.displays if entry[2]]
    assert len(shown) == len(frozen) == 1
    assert shown[0][0] == frozen[0][0] != ""
    assert "application/vnd.jupyter.widget-view+json" in shown[0][1]
    assert set(frozen[0][1]) == {"text/plain", "text/html"}
    text = frozen[0][1]["text/plain"]
    assert done.text[:5] in text
    assert "30 tok" in text
    for fact in ("seed 5", "30 tok", "length", "null", fastllm.__version__):
        assert fact in frozen[0][1]["text/html"], fact
    view.freeze()
    assert len([entry for entry in wire.displays if entry[2]]) == 1


def test_shown_after_the_end_it_is_static(wire: Wire, model: Model) -> None:
    view = widgets.TokenStreamView(model.stream("a", max_new_tokens=3))
    view.result()
    view._ipython_display_()
    assert "application/vnd.jupyter.widget-view+json" not in wire.displays[-1][1]
    assert "text/html" in wire.displays[-1][1]


def test_one_that_ends_while_it_is_put_on_the_page_is_shown_as_ended(wire: Wire, model: Model) -> None:
    view = widgets.TokenStreamView(model.stream("a", max_new_tokens=30))
    look = view._words

    def slow_look() -> str:
        found = look()
        until(lambda: view.done)
        return found

    view._words = slow_look  # type: ignore[method-assign]
    view.show()
    assert "not ended" not in wire.displays[-1][1]["text/html"]
    assert "30 tok" in wire.displays[-1][1]["text/html"]


def test_a_view_is_the_one_reader(wire: Wire, model: Model) -> None:
    stream = model.stream("a", max_new_tokens=5000)
    view = fastllm.show(stream)
    with pytest.raises(StreamBusy):
        widgets.TokenStreamView(stream)
    view.cancel()
    view.result()


def test_failures_surface_in_the_view_and_in_the_result(wire: Wire, model: Model) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=50_000))
    until(lambda: len(view.tokens) > 5)
    model._engine.inject_fault("broken <wire>")
    with pytest.raises(fastllm.EngineDead):
        view.result()
    assert 'role="alert"' in wire.final_html()
    assert "broken &lt;wire&gt;" in wire.final_html()


def test_closing_a_view_cancels_only_if_asked(wire: Wire, model: Model) -> None:
    kept = fastllm.show(model.stream("a", max_new_tokens=200))
    kept.close()
    assert kept.result().finish_reason == "length"
    dropped = fastllm.show(model.stream("a", max_new_tokens=50_000), cancel_on_close=True)
    dropped.close()
    assert dropped.result().finish_reason == "cancelled"


def test_the_thread_ends_when_nothing_is_live(wire: Wire, model: Model) -> None:
    fastllm.show(model.stream("a", max_new_tokens=10)).result()
    until(lambda: not any(thread.name == "fastllm-display" for thread in threading.enumerate()))
    assert _ticker.live() == 0
    fastllm.show(model.stream("a", max_new_tokens=10)).result()


def test_many_views_at_once(wire: Wire, model: Model) -> None:
    views = [fastllm.show(model.stream("a", max_new_tokens=300)) for _ in range(20)]
    assert {len(view.result().tokens) for view in views} == {300}


def test_a_blocking_stream_comes_back_at_its_end(wire: Wire, model: Model) -> None:
    view = fastllm.show(BlockingModel(model).stream("a", max_new_tokens=20))
    assert view.done
    assert view.completion is not None
    assert len(view.completion.tokens) == 20


def test_shade_that_is_none(wire: Wire, model: Model) -> None:
    with pytest.raises(InvalidRequest, match="rainbow"):
        fastllm.show(model.stream("a", max_new_tokens=3), shade="rainbow")


def test_plain_output_without_a_notebook(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=5))
    view.result()
    until(lambda: "tok/s" in capsys.readouterr().out or view.done)
    view2 = fastllm.show(model.stream("a", max_new_tokens=5))
    view2.result()
    out = capsys.readouterr().out
    assert out.startswith("bcdef\n5 tok")
    assert "\x1b" not in out


def test_one_step_for_each_look_without_lookahead(wire: Wire, model: Model) -> None:
    view = fastllm.show(model.stream("a", max_new_tokens=6, lookahead=0))
    assert view.result().text == "bcdefg"


@pytest.mark.anyio
async def test_awaiting_gives_the_completion_on_any_loop(wire: Wire, model: Model) -> None:
    done = await fastllm.show(model.stream("a", max_new_tokens=40))
    assert len(done.tokens) == 40
    assert wire.displays[-1][2], "frozen before the await returns"


@pytest.mark.anyio
async def test_cancelling_the_await_cancels_the_request(wire: Wire, model: Model) -> None:
    import anyio

    view = fastllm.show(model.stream("a", max_new_tokens=50_000))
    with anyio.move_on_after(0.1):
        await view
    assert view.stream.cancelled
    until(lambda: model.stats().running == 0, 2.0)
    until(lambda: view.done, 2.0)


@pytest.mark.anyio
async def test_a_batch_stream_is_read_on_the_loop(wire: Wire, model: Model) -> None:
    results = await fastllm.show(model.stream_batch(["a", "b"], max_new_tokens=30), labels=["first", "second"])
    assert [result.text[0] for result in results] == ["b", "c"]
    html = wire.final_html()
    assert "first" in html
    assert "2 of 2 done" in html


# --- the others ---------------------------------------------------------------------------------------------------


def test_a_batch_of_streams_with_a_failure(wire: Wire, model: Model) -> None:
    good, bad = (model.stream("a", max_new_tokens=n) for n in (20, 100_000 - 2))
    view = fastllm.show([good, bad], labels=["good", "bad"])
    until(lambda: len(bad.tokens) > 5 and good.completion is not None)
    model._engine.inject_fault("boom")
    view.wait()
    assert view.results[0].finish_reason == "length"
    assert isinstance(view.results[1], fastllm.EngineDead)
    assert 'role="alert"' in wire.final_html()
    import anyio

    async def ask() -> None:
        await view

    with pytest.raises(BatchError):
        anyio.run(ask)


def test_the_inspector_draws_each_tab(wire: Wire) -> None:
    array = np.random.default_rng(0).standard_normal((3, 12, 30)).astype(np.float32)
    view = fastllm.show(Tensor(array), reference=array + 0.5, labels={2: [f"tok{i}" for i in range(30)]})
    said = {"Heat-map": "heat-map", "Histogram": "median", "Values": "tok3", "Channels": "of the median"}
    said |= {"Quantisation": "SQNR", "Memory": "dtype"}
    for tab, words in said.items():
        view._tab.value = tab
        assert words in view._out.value, tab
        assert view.error is None
    view._tab.value = "Values"
    view._sliders[0].value = 2
    assert f"{array[2, 0, 0]:.4g}" in view._out.value
    view._row_page.value = 5
    assert f"{array[2, 5, 3]:.4g}" in view._out.value
    view._rows.value, view._columns.value = 2, 0
    assert view.error is None
    view._tab.value = "Heat-map"
    before = view._out.value
    view._scale.value = "sequential"
    assert view._out.value != before
    view.freeze()
    assert "application/vnd.jupyter.widget-view+json" not in wire.displays[-1][1]
    with pytest.raises(ShapeError, match=r"\[2\]"):
        fastllm.show(Tensor(array), reference=np.zeros(2))


def test_the_lab_draws_what_the_engine_would(wire: Wire, model: Model) -> None:
    logits = np.random.default_rng(0).standard_normal(128).astype(np.float32)
    lab = widgets.SamplingLab(model, logits)
    lab.show()
    before = lab._out.value
    lab._sliders["temperature"].value = 0.5
    assert lab._out.value != before
    lab._sliders["top_k"].value = 5
    kept = lab.distribution()
    best = np.argsort(-logits)[:5]
    expected = np.exp(logits[best].astype(float) / 0.5)
    np.testing.assert_allclose(kept[best], expected / expected.sum(), rtol=1e-5)
    assert (kept > 0).sum() == 5
    counts = lab.draw(4000)
    assert set(counts) <= set(best.tolist())
    for index in best:
        assert abs(counts[int(index)] / 4000 - kept[index]) < 0.05
    assert "drawn" in lab._out.value
    lab.settings = {"temperature": 0.0}
    assert lab.distribution()[logits.argmax()] == 1.0
    with pytest.raises(KeyError, match="beam"):
        lab.settings = {"beam": 1.0}


def test_the_monitor_follows_the_engine_and_lets_the_model_go(wire: Wire) -> None:
    model = null_model(step_us=900)
    stream = model.stream("a", max_new_tokens=50_000, lookahead=None)
    view = model.monitor(every_s=0.1)
    until(lambda: "running" in view._out.value and "req-" in view._out.value)
    stream.cancel()
    until(lambda: "req-" not in view._out.value, 5)
    view._button.click()
    until(lambda: view.done, 2)
    assert "Engine null" in wire.final_html()
    model.close()
    report = model.memory()
    assert report.kv_bytes == model.stats().kv_bytes > 0


def test_attention_and_lens(wire: Wire) -> None:
    random = np.random.default_rng(0)
    pattern = np.tril(random.random((3, 4, 6, 6))) + 1e-6
    labels = list("abcdef")
    view = widgets.AttentionView(lambda layer: pattern[layer], labels, layers=3, layer=1)
    view.show()
    layer, head, form = (child for child in view.widget.children[1:-1])
    out = view.widget.children[-1]
    layer.value, head.value = 2, 3
    assert "layer 2, head 3" in out.value
    form.value = "lines"
    assert "lines of layer 2, head 3" in out.value
    form.value = "grid"
    assert out.value.count("<figure>") == 4

    class Lens:
        names, labels_, positions = ("l0", "l1"), labels, tuple(range(6))
        texts = [[["x", "y"]] * 6] * 2
        logprobs = np.full((2, 6, 2), -0.5)
        target_rank = np.arange(12).reshape(2, 6)
        target_logprob = np.full((2, 6), -1.0)

    Lens.labels = labels  # type: ignore[attr-defined]
    lens = widgets.LensView(Lens)
    lens.show()
    assert "rank 12" in lens.widget.children[-1].value
    lens.widget.children[1].value = 2
    assert "rank 1<" not in lens.widget.children[-1].value
    assert "The last" not in lens.widget.children[-1].value


def test_a_capture_shows_its_attention_and_its_lens(wire: Wire) -> None:
    with fastllm.load("demo") as demo:
        names = ("blocks.*.attn.pattern", "blocks.*.resid_post")
        capture = demo.blocking.capture("The fox and the owl met, and the fox", *names)
        view = fastllm.show(capture, layer=2, head=1)
        pattern = capture.attention(2, 1).numpy()
        strongest = int(pattern[-1].argmax())
        row = view.widget.children[-1].value.split("<tr>")[-1]
        assert f"{pattern[-1, strongest] * 100:.1f} %" in row
        lens = capture.logit_lens()
        shown = fastllm.show(lens).widget.children[-1].value
        assert str(lens.texts[-1][-1][0]).strip() in shown
        assert f"rank {int(lens.target_rank[0, -1]) + 1}" in shown


def chat_model() -> Model:
    return null_model([*ASCII], eos=[ord("~")], step_us=500)


def test_the_chat_panel(wire: Wire) -> None:
    with chat_model() as model:
        chat = Chat(model, max_new_tokens=12)
        panel = fastllm.show(chat)
        panel._text.value = "hello"
        panel._buttons["send"].click()
        until(lambda: not panel.answering)
        assert [message.role for message in chat.messages] == ["user", "assistant"]
        first = chat.messages[1].content
        assert len(first) == 12
        assert "hello" in panel._history.value
        assert panel._text.value == ""
        panel._buttons["regenerate"].click()
        until(lambda: not panel.answering)
        assert len(chat.branches(-1)) == 2
        assert "2 of 2" in panel._history.value
        panel._buttons["other"].click()
        assert "1 of 2" in panel._history.value
        fork = panel.fork()
        panel._target.value = 0
        assert panel._text.value == "hello"
        panel._text.value = "other"
        panel._buttons["send"].click()
        until(lambda: not panel.answering)
        assert chat.messages[0].content == "other"
        assert fork.chat.messages[0].content == "hello"
        panel._text.value = "   "
        panel._buttons["send"].click()
        assert not panel.answering


def test_the_chat_panel_stops_and_tells_errors(wire: Wire) -> None:
    with chat_model() as model:
        chat = Chat(model, max_new_tokens=50_000, ignore_eos=True)
        panel = fastllm.show(chat)
        panel.send("go")
        until(lambda: len(chat.messages[-1].content) > 10)
        panel._buttons["stop"].click()
        until(lambda: not panel.answering)
        until(lambda: model.stats().running == 0)
        assert chat.path[-1].is_partial
        assert "cancelled" in panel._history.value
        panel.send("x" * 200_000)
        assert 'role="alert"' in panel._error.value
        assert "ContextTooLong" in panel._error.value


def test_the_magic(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastllm.widgets import magic

    with chat_model() as model:
        names: dict[str, Any] = {"one": 1, "llm": model}
        magic.ask("--max-new-tokens 9 --seed 4", "Why?\n", names)
        assert len(names["_answer"].tokens) == 9
        assert names["_answer"].seed == 4
        assert names["_answer"].message is not None
        magic.ask("--to later --raw --max-new-tokens 3 abc", None, names)
        assert names["later"].text == "def"
        for line, cell, words in (
            ("--model one x", None, "'one' is no model"),
            ("--beam 3", "x", "unrecognized"),
            ("", "  ", "nothing was asked"),
            ("'", "x", "cannot be read"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                magic.ask(line, cell, names)


def test_a_display_asked_for_twice_in_a_cell_is_shown_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = [1]
    monkeypatch.setattr(_view, "_cell", lambda: cell[0])
    view = fastllm.show(Tensor(np.eye(3, dtype=np.float32)))
    view._ipython_display_()  # what IPython does with the value of a cell's last line
    live = "application/vnd.jupyter.widget-view+json"
    assert sum(live in bundle for _, bundle, _ in wire.displays) == 1
    cell[0] = 2
    view._ipython_display_()
    assert sum(live in bundle for _, bundle, _ in wire.displays) == 2
    assert len(wire.displays) == 4, "each with its copy"
    widgets.freeze_all()
    shown = {place for place, _, update in wire.displays if not update}
    assert sorted(place for place, _, update in wire.displays if update and place in shown) == sorted(shown)
