"""The stream in a real JupyterLab: it appears while it runs, stops, explains its tokens, stays when reloaded."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

KERNELS = ["ipykernel6", "ipykernel7"]
# 150 words of its own, 100 tokens a second, without an end
SLOW = """
import fastllm
from nullmodel import null_model
model = null_model([f" w{i:03}".encode() for i in range(150)], step_us=9000)
"""
ASK = "done = await fastllm.show(model.stream(' w000', max_new_tokens={tokens}, logprobs=3))"
TEXT = ".flm1-text"


@pytest.mark.parametrize("kernel", KERNELS)
def test_text_appears_while_the_cell_runs_and_stop_frees_the_slot(
    open_notebook: Callable[..., Any], kernel: str, shot: Callable[..., None]
) -> None:
    notebook = open_notebook([SLOW, ASK.format(tokens=50_000), "done.finish_reason, model.stats().running"], kernel)
    page = notebook.page
    notebook.run_next()
    notebook.run_next(wait=False)
    page.wait_for_function(
        f"() => (document.querySelector('{TEXT}')?.innerText ?? '').includes('w020')", timeout=30_000
    )
    assert notebook.busy()
    first = len(page.inner_text(TEXT))
    page.wait_for_function(f"(n) => document.querySelector('{TEXT}').innerText.length > n + 50", arg=first)
    shot(page, f"stream-running-{kernel}")
    page.get_by_role("button", name="Stop").click()
    notebook.wait_idle(20)
    notebook.run_next()
    page.get_by_text("('cancelled', 0)").wait_for(timeout=20_000)
    stats = notebook.ask("[model.stats().running, model.stats().kv_blocks_free - model.stats().kv_blocks_total]")
    assert stats == [0, 0]
    assert "cancelled" in page.inner_text(".flm1-use")
    assert notebook.errors() == []


BLOCKING = "view = fastllm.show(model.blocking.stream(' w000', max_new_tokens=50_000))"


@pytest.mark.parametrize("interface", ["lab", "notebook"])
def test_stop_reaches_a_synchronous_cell_that_blocks(
    open_notebook: Callable[..., Any], interface: str, shot: Callable[..., None]
) -> None:
    """ipykernel 7 gives buttons a thread of their own (a subshell), so Stop works while the cell blocks."""
    notebook = open_notebook([SLOW, BLOCKING, "view.completion.finish_reason"], "ipykernel7", interface)
    notebook.run_next()
    notebook.run_next(wait=False)
    page = notebook.page
    page.wait_for_function(
        f"() => (document.querySelector('{TEXT}')?.innerText ?? '').includes('w030')", timeout=30_000
    )
    assert notebook.busy()
    assert "press I twice" not in page.inner_text(".jp-Notebook")
    page.get_by_role("button", name="Stop").click()
    notebook.wait_idle(20)
    page.wait_for_function("() => document.querySelector('.flm1-use').innerText.includes('cancelled')", timeout=20_000)
    assert notebook.ask("model.stats().running") == 0
    notebook.run_next()
    page.get_by_text("'cancelled'").wait_for(timeout=20_000)


def test_an_older_kernel_says_how_to_interrupt_a_cell_that_blocks(
    open_notebook: Callable[..., Any], shot: Callable[..., None]
) -> None:
    notebook = open_notebook([SLOW, BLOCKING, "1 + 1"], "ipykernel6")
    notebook.run_next()
    notebook.run_next(wait=False)
    page = notebook.page
    page.wait_for_function(
        f"() => (document.querySelector('{TEXT}')?.innerText ?? '').includes('w030')", timeout=30_000
    )
    assert notebook.busy()
    assert "press I twice to interrupt" in page.inner_text(".jp-Notebook")
    shot(page, "stream-blocking-ipykernel6")
    page.locator(".jp-Notebook").click(position={"x": 5, "y": 600})
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    notebook.wait_idle(20)
    page.wait_for_function("() => document.querySelector('.flm1-use').innerText.includes('cancelled')", timeout=20_000)
    assert notebook.ask("model.stats().running") == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_interrupting_the_kernel_cancels_and_keeps_the_text(open_notebook: Callable[..., Any], kernel: str) -> None:
    notebook = open_notebook([SLOW, ASK.format(tokens=50_000), "1 + 1"], kernel)
    notebook.run_next()
    notebook.run_next(wait=False)
    page = notebook.page
    page.wait_for_function(
        f"() => (document.querySelector('{TEXT}')?.innerText ?? '').includes('w020')", timeout=30_000
    )
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_idle(20)
    page.wait_for_function("() => document.querySelector('.flm1-use').innerText.includes('cancelled')", timeout=20_000)
    assert "w020" in page.inner_text(TEXT)
    assert notebook.ask("model.stats().running") == 0


def _tip(page: Any, locator: Any) -> str:
    return str(locator.evaluate("(e) => getComputedStyle(e, '::after').display === 'none' ? '' : e.dataset.tip"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_pointing_and_arrow_keys_show_the_alternatives(
    open_notebook: Callable[..., Any], kernel: str, axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    cells = [
        "import fastllm\nmodel = fastllm.load('demo')",
        "_ = await fastllm.show(model.stream('Why is the sky blue?', seed=3, logprobs=5))",
    ]
    notebook = open_notebook(cells, kernel)
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    tokens = page.locator(".flm1-k")
    page.wait_for_function("() => !document.querySelector('.jp-OutputArea .widget-button')")  # frozen
    assert tokens.count() > 10
    third = tokens.nth(3)
    assert _tip(page, third) == ""
    notebook.point_at(third)
    said = _tip(page, third)
    assert re.search(r"id \d+ +p [\d.]+ %", said)
    assert said.count("%") >= 6, "the token's own and five alternatives"
    box = third.evaluate(
        "(e) => { const s = getComputedStyle(e, '::after'); return [s.position, s.height, s.zIndex]; }"
    )
    assert box[0] == "absolute"
    shot(page.locator(".jp-OutputArea-child").first, f"stream-tip-{kernel}")
    page.mouse.move(5, 5)
    page.locator(".flm1-k input").first.focus()
    assert _tip(page, tokens.nth(0)) != ""
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert _tip(page, tokens.nth(4)) != ""
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert _tip(page, tokens.nth(0)) == ""
    page.keyboard.press("ArrowDown")
    assert page.evaluate("() => document.activeElement.closest('.flm1-k') !== null"), "the notebook took the key"
    assert _tip(page, tokens.nth(5)) != ""
    assert axe(page, ".jp-OutputArea-output .flm1") == []


def test_reloading_shows_the_frozen_copy(open_notebook: Callable[..., Any], shot: Callable[..., None]) -> None:
    notebook = open_notebook([SLOW, ASK.format(tokens=300)], "ipykernel7")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    text = page.inner_text(TEXT)
    assert " w140" in text
    saved = notebook.save()
    bundle = saved["cells"][1]["outputs"][0]["data"]
    assert set(bundle) == {"text/plain", "text/html"}
    assert "widgets" not in saved["metadata"]
    notebook.jupyter.end_kernels()
    page.reload()
    page.wait_for_selector(TEXT, timeout=60_000)
    assert "model not found" not in page.inner_text("body").lower()
    assert "w140" in page.inner_text(TEXT)
    assert "300 tok" in page.inner_text(".flm1-use")
    notebook.point_at(page.locator(".flm1-k").nth(2))
    assert _tip(page, page.locator(".flm1-k").nth(2)) != ""
    shot(page.locator(".jp-OutputArea-child").first, "stream-reloaded")


def _longest_task_ms(trace: dict[str, Any]) -> float:
    """The longest task of a page's main thread, in processor time: a busy machine does not make it longer."""
    events = trace["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    spent = [event["tdur"] for event in events if (event["pid"], event["tid"]) in mains and event.get("tdur")]
    assert len(spent) > 100, "the trace has no processor times"
    return max(spent) / 1000


def test_a_long_stream_stays_smooth(open_notebook: Callable[..., Any], browser: Any) -> None:
    """2000 tokens: bounded messages and bytes, and a page that answers."""
    cells = [
        SLOW.replace("step_us=9000", "step_us=2500"),
        ASK.format(tokens=2000),
    ]
    notebook = open_notebook(cells, "ipykernel7")
    notebook.run_next()
    page = notebook.page
    notebook.frames.clear()
    browser.start_tracing(page=page, categories=["toplevel"])
    start = time.monotonic()
    notebook.run_next()
    span = time.monotonic() - start
    trace = json.loads(browser.stop_tracing())
    count, size = len(notebook.frames), sum(size for _, size in notebook.frames)
    assert count <= 16 * span + 60, f"{count} messages in {span:.1f} s"
    assert size <= 2_500_000, f"{size} bytes"
    assert (worst := _longest_task_ms(trace)) <= 100, f"one task took {worst:.0f} ms of the page's main thread"
    assert notebook.ask("len(done.tokens)") == 2000


def test_dark_theme_has_contrast(
    open_notebook: Callable[..., Any], axe: Callable[..., list[str]], shot: Callable[..., None]
) -> None:
    cells = [
        "import fastllm\nmodel = fastllm.load('demo')",
        "_ = await fastllm.show(model.stream('Tell me a story about a fox.', seed=5, logprobs=5, max_new_tokens=60))",
    ]
    notebook = open_notebook(cells, "ipykernel7", theme="JupyterLab Dark")
    notebook.run_next()
    notebook.run_next()
    page = notebook.page
    page.wait_for_function("() => !document.querySelector('.jp-OutputArea .widget-button')")
    assert page.evaluate("() => document.body.dataset.jpThemeLight") == "false"
    color = page.evaluate("() => getComputedStyle(document.querySelector('.flm1-text')).color")
    assert min(int(part) for part in re.findall(r"\d+", color)[:3]) > 180
    assert axe(page, ".jp-OutputArea-output .flm1") == []
    notebook.point_at(page.locator(".flm1-k").nth(5))
    shot(page.locator(".jp-OutputArea-child").first, "stream-dark")
