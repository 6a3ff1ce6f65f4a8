"""The committed notebooks: equal to their sources, executed in order, readable without a kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from notebook_tool import NOTEBOOKS, tool

EXERCISES_EACH = 3


def test_the_course_is_there() -> None:
    sources = {path.stem for path in tool().SOURCES.glob("*.py")}
    assert sources == {path.stem for path in NOTEBOOKS}
    assert len(sources) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean_and_equals_its_source(path: Path) -> None:
    assert tool().faults(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem != "I_instructor_notes"], ids=lambda p: p.stem
)
def test_exercises_are_asked_and_not_answered(path: Path) -> None:
    from fastllm.teach import exercises

    numbers = exercises(path.stem.split("_")[0])
    assert len(numbers) == EXERCISES_EACH
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    prose = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    shown = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"], ensure_ascii=False)
    for number in numbers:
        assert f'check("{number}"' in text
        assert f"**{number}**" in prose
        assert f"✓ {number} is right" not in shown, "the committed notebook gives the answer away"
        assert f"○ {number} waits" in shown or f"✗ {number}: not yet" in shown


# --- the check itself can fail ----------------------------------------------------------------------------------------


def broken(tmp_path: Path, change: Any) -> list[str]:
    """What is found in a notebook after a change to it."""
    original = NOTEBOOKS[0]
    notebook = json.loads(original.read_text(encoding="utf-8"))
    change(notebook)
    copy = tmp_path / original.name
    copy.write_text(json.dumps(notebook), encoding="utf-8")
    found: list[str] = tool().faults(copy)
    return found


def first_output(notebook: dict[str, Any]) -> dict[str, Any]:
    """A cell's output that may be replaced."""
    cell = next(cell for cell in notebook["cells"] if cell.get("outputs"))
    cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {"text/plain": "x"}}]
    found: dict[str, Any] = cell["outputs"][0]
    return found


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda n: n["metadata"].update(widgets={}), "metadata.widgets"),
        (lambda n: n["metadata"]["kernelspec"].update(name="my-venv"), "kernelspec"),
        (lambda n: n["cells"][1].update(execution_count=7), "execution count is 7"),
        (lambda n: n["cells"][1].update(source="print(1)"), "differs from"),
        (lambda n: n["cells"].extend([n["cells"][0]] * 30), "more than 30"),
        (lambda n: first_output(n)["data"].update({"text/plain": "/home/me/model"}), "place on one machine"),
        (lambda n: first_output(n)["data"].update({"text/plain": "x" * 300_001}), "more than 300000"),
        (lambda n: first_output(n)["data"].update({"text/html": "<script>1</script>"}), "script"),
        (lambda n: first_output(n)["data"].update({"application/vnd.jupyter.widget-view+json": {}}), "live widget"),
        (lambda n: first_output(n).update({"output_type": "error", "ename": "E"}), "error"),
    ],
    ids=["widgets", "kernel", "count", "source", "cells", "path", "size", "script", "widget", "error"],
)
def test_a_fault_is_found(tmp_path: Path, change: Any, fault: str) -> None:
    assert any(fault in found for found in broken(tmp_path, change))


def test_a_sound_copy_has_no_fault(tmp_path: Path) -> None:
    assert broken(tmp_path, lambda notebook: None) == []


def test_cells_of_a_source() -> None:
    text = '# %% [markdown]\n# # Title\n#\n# two\n\n# %%\nx = 1  # %% not a cell\n\n# %% tags=["optional"]\ngpu()\n'
    cells = tool().parse(text, "A9")
    assert [(cell["cell_type"], cell["source"]) for cell in cells] == [
        ("markdown", "# Title\n\ntwo"),
        ("code", "x = 1  # %% not a cell"),
        ("code", "gpu()"),
    ]
    assert [cell["id"] for cell in cells] == ["a9-00", "a9-01", "a9-02"]
    assert cells[2]["metadata"] == {"tags": ["optional"]}
