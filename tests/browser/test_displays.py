"""Every other display in a real browser: sliders, tabs, buttons, themes, accessibility; Notebook 7 and Voila, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

BARS = "() => [...document.querySelectorAll('.flm1-live svg rect.b')].map((e) => e.getAttribute('width')).join()"
CHANGED = f"(before) => ({BARS})() !== before"
DEMO = "import fastllm, numpy as np\nmodel = fastllm.load('demo')"
TENSOR = """
values = np.random.default_rng(0).standard_normal((3, 24, 48)).astype(np.float32)
values[0, 5] *= 6
values[0, 3, 7] = np.nan
tensor = fastllm.Tensor(values, name="example")
view = tensor.inspect(reference=np.nan_to_num(values).round(1))
"""
LAB = """
from fastllm.widgets import SamplingLab
lab = SamplingLab(model, (await model.logits("Once upon a time there was a"))[-1], top=12)
lab
"""
ATTENTION = """
from fastllm.widgets import AttentionView
labels = [model.tokenizer.decode([i]) for i in model.tokenize("The fox and the owl met, and the fox")]
heads = np.tril(np.random.default_rng(1).random((4, 6, len(labels), len(labels))) ** 6) + 1e-9
heads /= heads.sum(-1, keepdims=True)
AttentionView(lambda layer: heads[layer], labels, layers=4)
"""


def _settled(page: Any) -> None:
    page.wait_for_timeout(400)


def test_the_sampling_lab_moves_its_bars(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    notebook = open_notebook([DEMO, LAB], "ipykernel7")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    page.locator(".flm1-live svg rect.b").first.wait_for()

    def widths() -> list[float]:
        return [
            float(width)
            for width in page.locator(".flm1-live svg rect.b").evaluate_all(
                "(all) => all.map((e) => e.getAttribute('width'))"
            )
        ]

    before = widths()
    bars = page.evaluate(BARS)
    slider = page.locator(".jupyter-widgets .noUi-handle").first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(CHANGED, arg=bars)
    _settled(page)
    after = widths()
    assert after[1] < before[1], "colder: the second token loses against the best, whose bar is the full length"
    expected = notebook.ask("[lab.settings['temperature'], float(np.sort(lab.distribution())[-1])]")
    assert expected[0] == pytest.approx(0.5)
    assert (
        f"{expected[1] * 100:.1f} %" in page.inner_text(".flm1-live details table", timeout=5000)
        or f"{expected[1] * 100:.1f} %" in page.locator(".flm1-live details table").text_content()
    )
    page.get_by_role("button", name="Draw 1000").click()
    page.locator(".flm1-live svg text", has_text="drawn").first.wait_for()
    shot(page.locator(".jp-OutputArea-child").first, "sampling-lab")
    assert axe(page, ".jp-OutputArea-output .flm1") == []


def test_the_tensor_inspector(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    notebook = open_notebook([DEMO + TENSOR, "tensor"], "ipykernel7")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    output = page.locator(".jp-OutputArea-child").first
    output.locator("img").wait_for()
    assert "1 NaN (×)" in output.inner_text()
    picture = output.locator("img").get_attribute("src")
    shot(output, "tensor-heatmap")
    for tab, words in (("Histogram", "median"), ("Values", "NaN"), ("Channels", "row 5"), ("Quantisation", "SQNR")):
        output.get_by_role("button", name=tab, exact=True).click()
        page.wait_for_function("(w) => document.querySelector('.jp-OutputArea-child').innerText.includes(w)", arg=words)
        shot(output, f"tensor-{tab.lower()}")
        assert axe(page, ".jp-OutputArea-output .flm1") == []
    output.get_by_role("button", name="Heat-map", exact=True).click()
    output.locator("img").wait_for()
    handle = output.locator(".noUi-handle:visible").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(old) => document.querySelector('.jp-OutputArea-child img')?.src !== old", arg=picture)
    shot(page.locator(".jp-OutputArea-child").last, "tensor-static")


def test_the_chat_panel_talks_and_stops(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    notebook = open_notebook(
        [DEMO, "chat = fastllm.Chat(model, max_new_tokens=60, seed=1)\npanel = chat.show()"], "ipykernel7"
    )
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    say = page.get_by_role("textbox", name="Say")
    say.fill("Hello! Who are you?")
    say.press("Tab")  # the value travels when the field is left
    page.get_by_role("button", name="Send").click()
    page.locator(".flm1-live .flm1-msg.assistant", has_text="fastllm").wait_for(timeout=20_000)
    _settled(page)
    assert notebook.ask("[m.role for m in chat.messages]") == ["user", "assistant"]
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2 of 2").wait_for(timeout=20_000)
    say.fill("What is 17 + 25?")
    say.press("Tab")
    page.get_by_role("button", name="Send").click()
    page.wait_for_function("() => document.querySelectorAll('.flm1-live .flm1-msg').length === 4")
    _settled(page)
    page.locator(".jp-OutputArea select").last.select_option(index=1)  # behind the first answer
    page.get_by_role("button", name="Fork", exact=True).click()
    page.get_by_role("button", name="fork 2, of 1 after 2 messages").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.flm1-live .flm1-msg').length === 2")
    assert "17 + 25" not in page.locator(".flm1-live .flm1-msg").all_inner_texts()[-1]
    say = page.get_by_role("textbox", name="Say")
    say.fill("Tell me a story.")
    say.press("Tab")
    page.get_by_role("button", name="Send").click()
    page.wait_for_function("() => document.querySelectorAll('.flm1-live .flm1-msg').length === 4")
    page.wait_for_function("() => document.querySelectorAll('.flm1-caret').length === 0", timeout=20_000)
    assert axe(page, ".jp-OutputArea-output .flm1") == []
    shot(page.locator(".jp-OutputArea-child").first, "chat")
    page.get_by_role("button", name="conversation 1").click()
    page.locator(".flm1-live .flm1-msg", has_text="17 + 25").first.wait_for()
    assert (
        notebook.ask("[m.content for m in panel.forks[0].chat.messages if m.role == 'user'][-1]") == "Tell me a story."
    )
    assert notebook.ask("[m.content for m in chat.messages if m.role == 'user'][-1]") == "What is 17 + 25?"


def test_a_token_is_exchanged_by_mouse_and_by_keyboard(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    cells = [
        DEMO,
        "stream = model.stream('Why is the sky blue?', seed=3, logprobs=5, max_new_tokens=40)\n"
        "view = fastllm.show(stream, exchange=True)\n_ = await view",
    ]
    notebook = open_notebook(cells, "ipykernel7")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    tokens, others = page.get_by_role("listbox").all()
    page.wait_for_function("() => document.querySelectorAll('select[size] option').length > 10")
    first = page.inner_text(".flm1-text")
    tokens.locator("option").nth(4).click()  # the mouse
    picked = notebook.ask("stream.tokens[4].text").strip()
    page.wait_for_function("(t) => document.querySelector('mark')?.innerText.trim() === t", arg=picked)
    assert others.locator("option").count() == 5
    shot(page.locator(".jp-OutputArea-child").first, "exchange")
    others.locator("option").nth(1).click()
    page.get_by_role("button", name="Exchange, and go on").click()
    page.wait_for_function("() => document.querySelectorAll('.flm1-caret').length === 0", timeout=20_000)
    page.locator("option", has_text="2: token 4").wait_for(state="attached")
    second = notebook.ask("[t.id for t in view.branches[1].stream.tokens[:5]]")
    assert second[:4] == notebook.ask("[t.id for t in stream.tokens[:4]]")
    assert second[4] == notebook.ask("stream.tokens[4].top[1].id")
    assert page.inner_text(".flm1-text") != first
    numbers = page.get_by_role("spinbutton").all()
    start = int(numbers[0].input_value())
    numbers[0].focus()  # the keyboard
    for _ in range(start - 1):
        page.keyboard.press("ArrowDown")
    picked = notebook.ask("view.branches[1].stream.tokens[1].text").strip()
    page.wait_for_function("(t) => document.querySelector('mark')?.innerText.trim() === t", arg=picked)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    page.wait_for_function("() => document.querySelectorAll('select[size]')[1].selectedIndex === 2")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("option", has_text="3: token 1").wait_for(state="attached", timeout=20_000)
    page.wait_for_function("() => document.querySelectorAll('.flm1-caret').length === 0", timeout=20_000)
    third = notebook.ask("[view.branches[2].parent is view.branches[1], view.branches[2].stream.tokens[1].id]")
    assert third == [True, notebook.ask("view.branches[1].stream.tokens[1].top[2].id")]
    assert axe(page, ".jp-OutputArea-output .flm1") == []
    shot(page.locator(".jp-OutputArea-child").first, "exchange-branches")


def test_a_panel_that_is_never_over_is_saved_with_its_copy(
    open_notebook: Callable[..., Any], shot: Callable[..., None]
) -> None:
    cells = [
        DEMO,
        "stream = model.stream('Why is the sky blue?', seed=3, logprobs=5, max_new_tokens=40)\n"
        "view = fastllm.show(stream, exchange=True)\n_ = await view",
        LAB,
    ]
    notebook = open_notebook(cells, "ipykernel7")
    for _ in cells:
        notebook.run_next()
    page = notebook.page
    page.locator(".flm1-live select[size]").first.wait_for()
    page.locator(".flm1-live svg rect.b").first.wait_for()
    assert not any(copy.is_visible() for copy in page.locator(".flm1-copy").all()), "beside the widget"
    page.locator(".flm1-live .noUi-handle").first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelectorAll('.flm1-copy')[1].innerHTML.includes('temperature 0.5')")
    saved = notebook.save()
    assert "widgets" not in saved["metadata"]
    notebook.jupyter.end_kernels()
    page.reload()
    page.locator(".flm1-copy").first.wait_for(timeout=60_000)
    gone = "() => !/loading widget|model not found/i.test(document.querySelector('.jp-Notebook').innerText)"
    page.wait_for_function(gone, timeout=20_000)
    said = " ".join(page.locator(".jp-Notebook").inner_text().split())
    assert "The sky is blue" in said
    assert "temperature 0.5" in said
    shot(page, "copies-reloaded")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_gallery_in_both_themes(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None], theme: str
) -> None:
    cells = [
        DEMO,
        "model",
        "asked = ['Hello', 'What is 17 + 25?', 'Tell me a story.']\n"
        "batch = await fastllm.show(model.stream_batch(asked, max_new_tokens=40), labels=asked)",
        "model.memory()",
        "watch = model.monitor(for_s=1.0)\n"
        "await fastllm.show([model.stream('Tell me a story.', max_new_tokens=150) for _ in range(4)])\n"
        "await watch._wait(watch.stop)",
        ATTENTION,
        "fastllm.Tensor(np.random.default_rng(2).standard_normal((64, 96)).astype(np.float32))",
        "await model.generate('Why is the sky blue?', logprobs=5, seed=3)",
        "%load_ext fastllm",
        "%%ask --seed 3 --max-new-tokens 40\nWhy is the sky blue?",
    ]
    notebook = open_notebook(cells, "ipykernel7", theme=theme)
    for _ in cells:
        notebook.run_next()
    page = notebook.page
    _settled(page)
    assert notebook.errors() == []
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    found = axe(page, ".jp-OutputArea-output .flm1")
    dark = "-dark" if "Dark" in theme else ""
    names = ["model", "batch", "memory", "monitor", "batch2", "attention", "tensor", "completion", "ask"]
    for name, output in zip(names, page.locator(".jp-OutputArea-child:visible").all(), strict=False):
        shot(output, f"{name}{dark}")
    assert found == []
    if not dark:
        page.get_by_role("button", name="all heads").click()
        page.locator(".flm1-live figcaption", has_text="head 5").wait_for()
        shot(page.locator(".jp-OutputArea-child", has=page.get_by_role("button", name="all heads")), "attention-heads")
        page.get_by_role("button", name="lines").click()
        page.get_by_text("lines of layer 0").first.wait_for()


def test_notebook_7(open_notebook: Callable[..., Any], shot: Callable[..., None]) -> None:
    cells = [DEMO, "_ = await fastllm.show(model.stream('Why is the sky blue?', seed=3, logprobs=5))"]
    notebook = open_notebook(cells, "ipykernel7", "notebook")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    page.wait_for_function("() => !document.querySelector('.jp-OutputArea .widget-button')")
    assert "sky" in page.inner_text(".flm1-text")
    notebook.point_at(page.locator(".flm1-k").nth(3))
    assert page.locator(".flm1-k").nth(3).evaluate("(e) => getComputedStyle(e, '::after').display") == "block"
    shot(page, "notebook7")


def test_voila(jupyter: Any, browser: Any, shot: Callable[..., None], point: Callable[[Any, Any], None]) -> None:
    cells = [
        DEMO,
        "_ = await fastllm.show(model.stream('Why is the sky blue?', seed=3, logprobs=5))",
        LAB.replace("\nlab\n", "\ndisplay(lab)\n"),
    ]
    name = jupyter.notebook("voila.ipynb", cells, "ipykernel7")
    context = browser.new_context(viewport={"width": 1100, "height": 1400})
    page = context.new_page()
    try:
        page.goto(f"{jupyter.address}/voila/render/{name}", timeout=120_000)
        page.wait_for_selector(".flm1-text", timeout=120_000)
        assert "sky" in page.inner_text(".flm1-text")
        page.locator(".flm1-live svg rect.b").first.wait_for(timeout=60_000)
        point(page, page.locator(".flm1-k").nth(1))
        assert page.locator(".flm1-k").nth(1).evaluate("(e) => getComputedStyle(e, '::after').display") == "block"
        bars = page.evaluate(BARS)
        page.locator(".noUi-handle").first.focus()
        for _ in range(8):
            page.keyboard.press("ArrowLeft")
        page.wait_for_function(CHANGED, arg=bars)
        shot(page, "voila")
    finally:
        context.close()
        jupyter.end_kernels()
