"""The notebooks of the course: made from `notebooks/source/*.py`, executed, and frozen.

    python tools/notebooks.py build            # every notebook, or the ones named: build 01 A1
    python tools/notebooks.py run 02           # execute only; nothing is written
    python tools/notebooks.py check            # does each notebook equal its source, and is it clean?

A source is a Python file of cells: `# %%` opens a code cell, `# %% [markdown]` one of text (each line a comment), and
`# %% tags=["optional"]` one that is shown but not executed, such as one that needs a GPU. What is committed holds the
outputs of a real run, in a form that is read without a kernel: no widgets, no paths of this machine, counts in order.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
SOURCES = FOLDER / "source"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
OPTIONAL = "optional"
CELL_TIMEOUT_S = 60
MOST_CELLS = 30
MOST_OUTPUT_BYTES = 300_000
_WIDGET = "application/vnd.jupyter.widget-view+json"
_HEADER = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?: tags=(?P<tags>\[[^\]]*\]))?\s*$")
_PATH = re.compile(r"(?<![\w.:/])(?:/(?:home|root|tmp|usr|opt|work|mnt|var|Users|private)/|[A-Z]:\\\\?)[\w.]")


def source_of(name: str) -> Path:
    """The source whose file name begins with a number such as "01", "A1" or "I"."""
    found = [path for path in sorted(SOURCES.glob("*.py")) if path.stem.split("_")[0].lower() == name.lower()]
    if not found:
        raise SystemExit(f"[notebooks] there is no source for {name!r} in {SOURCES}.")
    return found[0]


def notebook_of(source: Path) -> Path:
    """Where the notebook made from a source lies."""
    return FOLDER / f"{source.stem}.ipynb"


# --- from source to notebook ------------------------------------------------------------------------------------------


def parse(text: str, number: str) -> list[dict[str, Any]]:
    """The cells of a source, as nbformat has them, without outputs."""
    cells: list[dict[str, Any]] = []
    lines: list[str] = []

    def close() -> None:
        if not cells:
            return
        body = "\n".join(lines).strip("\n")
        if cells[-1]["cell_type"] == "markdown":
            body = "\n".join(line[2:] if line.startswith("# ") else line.lstrip("#") for line in body.splitlines())
        cells[-1]["source"] = body

    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is None:
            lines.append(line)
            continue
        close()
        lines.clear()
        tags = json.loads(header["tags"]) if header["tags"] else []
        cell: dict[str, Any] = {
            "cell_type": "markdown" if header["markdown"] else "code",
            "id": f"{number.lower()}-{len(cells):02d}",
            "metadata": {"tags": tags} if tags else {},
            "source": "",
        }
        if not header["markdown"]:
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    close()
    return cells


def bare(source: Path) -> dict[str, Any]:
    """The notebook of a source before it is executed."""
    return {
        "cells": parse(source.read_text(encoding="utf-8"), source.stem.split("_")[0]),
        "metadata": {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


# --- running ----------------------------------------------------------------------------------------------------------


def execute(source: Path) -> dict[str, Any]:
    """Runs a notebook in a fresh kernel, in an empty folder, and gives it back with its outputs, frozen.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
    """
    import nbformat
    from nbclient import NotebookClient

    for library in ("OMP", "OPENBLAS", "MKL"):  # numpy's threads wait for each other where cores are shared
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    notebook = nbformat.from_dict(bare(source))  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="fastllm-notebook-") as folder:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name=KERNEL["name"],
            resources={"metadata": {"path": folder}},
            skip_cells_with_tag=OPTIONAL,
            store_widget_state=False,
            record_timing=False,
        ).execute()
        return freeze(json.loads(nbformat.writes(notebook)), folder)


def freeze(notebook: dict[str, Any], folder: str) -> dict[str, Any]:
    """Only what can be read without a kernel and on another machine."""
    notebook["metadata"] = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        if cell["cell_type"] != "code":
            continue
        outputs: list[dict[str, Any]] = []
        for output, behind in zip(cell["outputs"], [*cell["outputs"][1:], {}], strict=False):
            output.pop("transient", None)
            if "data" in output:
                live = output["data"].pop(_WIDGET, None)
                output["metadata"] = {}
                if live is not None and "flm1-copy" in _joined(behind.get("data", {}).get("text/html", "")):
                    continue  # its copy follows
                if not output["data"]:
                    continue
            before = outputs[-1] if outputs else {}
            if output["output_type"] == "stream" and before.get("name") == output["name"]:
                before["text"] = _joined(before["text"]) + _joined(output["text"])
            else:
                outputs.append(output)
        cell["outputs"] = json.loads(_without_places(json.dumps(outputs, ensure_ascii=False), folder))
    return notebook


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _without_places(text: str, folder: str) -> str:
    """Folders of this machine, replaced by what they are."""
    import importlib.util

    spec = importlib.util.find_spec("fastllm")
    if spec is not None and spec.origin is not None:
        text = text.replace(str(Path(spec.origin).parent), "fastllm")
    return text.replace(folder, ".").replace(str(ROOT), ".").replace(str(Path.home()) + "/", "~/")


def write(notebook: dict[str, Any], path: Path) -> None:
    """Saves it as Jupyter does: keys in order, one space of indent, texts as lists of lines."""
    import nbformat

    nbformat.write(nbformat.from_dict(notebook), path)  # type: ignore[no-untyped-call]


# --- checking ---------------------------------------------------------------------------------------------------------


def faults(path: Path) -> list[str]:
    """What is wrong with a committed notebook; [] if nothing is."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    found = []
    source = SOURCES / f"{path.stem}.py"
    if not source.exists():
        found.append(f"it has no source {source.name}")
    else:
        wanted = [(cell["cell_type"], cell["source"]) for cell in bare(source)["cells"]]
        if wanted != [(cell["cell_type"], _joined(cell["source"])) for cell in cells]:
            found.append(f"it differs from {source.name}: python tools/notebooks.py build {path.stem.split('_')[0]}")
    if notebook["metadata"].get("kernelspec", {}).get("name") != KERNEL["name"]:
        found.append("its kernelspec is not python3")
    if "widgets" in notebook["metadata"]:
        found.append("it has metadata.widgets")
    if len(cells) > MOST_CELLS:
        found.append(f"it has {len(cells)} cells, more than {MOST_CELLS}")
    count = 0
    for place, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        found += [f"cell {place}: {fault}" for fault in _output_faults(cell)]
        if OPTIONAL in cell["metadata"].get("tags", ()):
            if cell["execution_count"] is not None or cell["outputs"]:
                found.append(f"cell {place}: an optional cell has outputs")
            continue
        count += 1
        if cell["execution_count"] != count:
            found.append(f"cell {place}: its execution count is {cell['execution_count']}, not {count}")
    return found


def _output_faults(cell: dict[str, Any]) -> list[str]:
    found = []
    text = json.dumps(cell["outputs"], ensure_ascii=False)
    if (size := len(text.encode())) > MOST_OUTPUT_BYTES:
        found.append(f"its outputs have {size} bytes, more than {MOST_OUTPUT_BYTES}")
    if _WIDGET in text:
        found.append("an output is a live widget, which a reader sees as an error")
    if "<script" in text.lower():
        found.append("an output holds a script")
    if any(output["output_type"] == "error" for output in cell["outputs"]):
        found.append("it ended with an error")
    for output in cell["outputs"]:
        if output.get("name") == "stderr":
            found.append(f"it wrote to stderr: {_joined(output['text'])[:80]!r}")
    for what in (text, _joined(cell["source"])):
        if place := _PATH.search(what):
            found.append(f"it names a place on one machine: {what[place.start() : place.start() + 40]!r}")
    return found


# --- the command line -------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, run or check the notebooks of the course.")
    parser.add_argument("goal", choices=["build", "run", "check"])
    parser.add_argument("names", nargs="*", help="numbers such as 01 or A1; all if none is given")
    options = parser.parse_args()
    sources = [source_of(name) for name in options.names] or sorted(SOURCES.glob("*.py"))
    bad = 0
    for source in sources:
        path = notebook_of(source)
        if options.goal != "check":
            started = time.monotonic()
            notebook = execute(source)
            print(f"{source.stem}: {len(notebook['cells'])} cells in {time.monotonic() - started:.1f} s", flush=True)
            if options.goal == "run":
                continue
            write(notebook, path)
        if not path.exists():
            print(f"{path.name}: it was not built")
            bad += 1
            continue
        for fault in faults(path):
            print(f"{path.name}: {fault}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
