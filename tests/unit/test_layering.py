"""The five layering rules of the architecture, read from the #include and import lines.

1. Nothing outside src/device/<x>/ includes that folder's headers.
2. src/bind is the only C++ that includes pybind11 or Python.h, or touches the GIL.
3. engine/ never sees a file format, a model name or Python; models/*.py never names a device.
4. Importing fastllm imports no IPython, ipywidgets, fastapi, jinja2, torch or transformers.
5. Only fastllm/_loops.py names asyncio or trio.

And the arrows: a folder or module includes and imports only what lies below it. Each rule is also shown a tree that
breaks it, so a rule that has stopped looking fails here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# folder -> folders whose headers it may include, besides its own
CPP_LAYERS = {
    "core": set(),
    "quant": {"core"},
    "device": {"core", "quant"},
    "device/*": {"core", "quant", "device"},
    "graph": {"core", "quant", "device"},
    "sampling": {"core", "device"},
    "kv": {"core", "device"},
    "engine": {"core", "quant", "device", "graph", "sampling", "kv"},
    "bind": {"core", "quant", "device", "graph", "sampling", "kv", "engine"},
}
# Contracts that an upper layer states and a lower one fulfils (graph::Program is an engine::StepModel). Such a header
# counts as part of the layer given here: that one's dependents may include it, and it includes only what that one may.
SEAMS = {"engine/step_model.h": "device"}
ENGINE_WORDS = re.compile(
    r"safetensors|gguf|sentencepiece|hugging|llama|qwen|mistral|gemma|chatglm|baichuan|moss|gpt2|phi3|pybind|python",
    re.IGNORECASE,
)
GIL = re.compile(r"\bPy[A-Z]\w*_\w+|\bPyObject\b|\bpy(?:bind11)?::|\bgil_scoped_\w+|\bPY_VERSION_HEX\b")

# name of a module below fastllm (a package stands for all in it) -> rank; it may import what ranks no higher
PYTHON_RANKS = {
    **dict.fromkeys(["errors", "types", "config", "_core"], 0),
    **dict.fromkeys(["tensor", "ops", "nn", "formats", "tokenizer", "chat_template", "hub"], 1),
    **dict.fromkeys(["models"], 2),
    **dict.fromkeys(["_loops", "_delivery", "_warmup", "stream", "batch", "blocking"], 2),
    **dict.fromkeys(["display", "server", "legacy", "widgets"], 4),
    **dict.fromkeys(["cli", "__main__"], 5),
}
PRIVATE_PREFIXES = {"_ops": 1, "_tokenizer": 1, "_chat": 1, "_shown": 0}
# Calls upwards, never at load time: the registry looks for an architecture by name; an object asked for its display
# goes through _shown.
LATE = {
    ("fastllm.nn.registry", "fastllm.models"),
    ("fastllm._shown", "fastllm.display"),
    ("fastllm._shown", "fastllm.widgets"),
}
RANK_OF_OTHERS = 3  # model, chat and what stands beside them
HEAVY = {"IPython", "ipywidgets", "anywidget", "fastapi", "uvicorn", "jinja2", "torch", "transformers", "tokenizers"}
LOOPS = {"asyncio", "trio", "uvloop", "sniffio"}


# --- C++ ----------------------------------------------------------------------------------------------------------


def strip_comments(code: str) -> str:
    """C++ without its comments, with string literals kept; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
    return pattern.sub(lambda m: m[0] if m[0][0] in "\"'" else "\n" * m[0].count("\n"), code)


def includes(code: str) -> list[tuple[int, str]]:
    """(line, path) of each #include."""
    pattern = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
    code = strip_comments(code)
    return [(code.count("\n", 0, match.start()) + 1, match[1]) for match in pattern.finditer(code)]


def cpp_folder(path: Path) -> str:
    """The layer of a path relative to src: "core", ..., "device", "device/cpu"."""
    if path.as_posix() in SEAMS:
        return SEAMS[path.as_posix()]
    parts = path.parts
    return "/".join(parts[:2]) if parts[0] == "device" and len(parts) > 2 else parts[0]


def cpp_violations(root: Path) -> Iterator[str]:
    """Rules 1, 2, 3 (first half) and the arrows, for the sources below ``root/src``."""
    src = root / "src"
    files = [path for path in sorted(src.rglob("*")) if path.suffix in {".h", ".hpp", ".cpp", ".cu", ".cuh", ".inc"}]
    for path in files:
        relative = path.relative_to(src)
        if len(relative.parts) < 2:
            continue
        folder, code = cpp_folder(relative), path.read_text(encoding="utf-8")
        layer = "device/*" if folder.startswith("device/") else folder
        if layer not in CPP_LAYERS:
            yield f"{relative}: folder {folder} has no place in the layers"
            continue
        for line, included in includes(code):
            where = f"{relative}:{line}"
            if re.match(r"pybind11/|Python\.h$|structmember\.h$", included):
                if folder != "bind":
                    yield f"{where}: rule 2: only src/bind includes {included}"
                continue
            beside = path.parent / included
            if beside.is_file():
                target = Path(beside.resolve()).relative_to(src.resolve())
            elif (src / included).is_file() or included.split("/")[0] in CPP_LAYERS:
                target = Path(included)
            else:
                continue  # of the standard library or the system
            other = cpp_folder(target)
            if other == folder:
                continue
            if other.startswith("device/"):
                yield f"{where}: rule 1: {target} is private to src/{other}; go through device/backend.h"
            elif other not in CPP_LAYERS[layer]:
                yield f"{where}: arrows: {folder} may not include {other} ({included})"
        bare = strip_comments(code)
        if folder != "bind" and (match := GIL.search(bare)):
            yield f"{relative}:{bare.count(chr(10), 0, match.start()) + 1}: rule 2: {match[0]} belongs in src/bind"
        if folder == "engine" and (match := ENGINE_WORDS.search(bare)):
            yield f"{relative}:{bare.count(chr(10), 0, match.start()) + 1}: rule 3: the engine names '{match[0]}'"


# --- Python -------------------------------------------------------------------------------------------------------


def module_name(path: Path, root: Path) -> str:
    """ "fastllm.nn.layers" for root/fastllm/nn/layers.py."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(test: ast.expr) -> bool:
    """Is this the condition `TYPE_CHECKING` or `typing.TYPE_CHECKING`?"""
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports(path: Path, root: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, when) of each import; when is "load", "call" (inside a function) or "types" (TYPE_CHECKING only).

    `from a import b` gives both a and a.b, for b may be a module.
    """
    name = module_name(path, root)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, when: str) -> Iterator[tuple[int, str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, when
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            yield node.lineno, base, when
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", when
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            for guarded in node.body:
                yield from visit(guarded, "types")
            for other in node.orelse:
                yield from visit(other, when)
        else:
            inside = "call" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else when
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside if when != "types" else when)

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), "load")


def python_files(root: Path) -> list[Path]:
    """All modules of the package."""
    return sorted((root / "fastllm").rglob("*.py"))


def rank(module: str) -> int:
    """Where a module of fastllm stands; see PYTHON_RANKS."""
    head = module.split(".")[1]
    for prefix, value in PRIVATE_PREFIXES.items():
        if head.startswith(prefix):
            return value
    return PYTHON_RANKS.get(head, RANK_OF_OTHERS)


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the constant nodes that are docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(id(first.value))
    return found


def device_names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each device that a model file names: an identifier, or a string such as "cuda:0"."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    prose = docstrings(tree)
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            name = node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            name = node.value if re.fullmatch(r"(?i)(cpu|cuda|gpu|mps)(:\d+)?", node.value) else None
        if name and re.fullmatch(r"(?i)devices?|(cpu|cuda|gpu|mps)(:\d+)?|to_device", name):
            yield getattr(node, "lineno", 0), name


def python_violations(root: Path) -> Iterator[str]:
    """Rules 3 (second half), 5 and the arrows, for the modules below ``root/fastllm``."""
    known = {module_name(path, root) for path in python_files(root)} | {"fastllm._core"}
    for path in python_files(root):
        name, relative = module_name(path, root), path.relative_to(root)
        for line, imported, when in imports(path, root):
            if imported.split(".")[0] in LOOPS and name != "fastllm._loops":
                yield f"{relative}:{line}: rule 5: only fastllm/_loops.py names {imported.split('.')[0]}"
            if when == "types" or imported not in known or imported == "fastllm" or name == "fastllm":
                continue
            if when == "call" and (name, imported) in LATE:
                continue
            if rank(imported) > rank(name):
                yield f"{relative}:{line}: arrows: {name} may not import {imported}"
        if name != "fastllm._loops":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and node.value in LOOPS:
                    yield f"{relative}:{node.lineno}: rule 5: only fastllm/_loops.py names {node.value}"
        if name.startswith("fastllm.models."):
            for line, text in device_names(path):
                yield f"{relative}:{line}: rule 3: a model file names a device: {text}"


def heavy_imports(root: Path) -> Iterator[str]:
    """Rule 4: heavy packages that are reached from fastllm/__init__.py by imports that run at load time."""
    by_name = {module_name(path, root): path for path in python_files(root)}
    todo, seen = ["fastllm"], {"fastllm"}
    while todo:
        name = todo.pop()
        if name not in by_name:
            continue
        for line, imported, when in imports(by_name[name], root):
            if when != "load":
                continue
            if imported.split(".")[0] in HEAVY and "." not in imported:
                yield f"{by_name[name].relative_to(root)}:{line}: rule 4: importing fastllm imports {imported}"
            parts = imported.split(".")
            for prefix in (".".join(parts[: i + 1]) for i in range(len(parts))):
                if prefix in by_name and prefix not in seen:
                    seen.add(prefix)
                    todo.append(prefix)


# --- the checkout -------------------------------------------------------------------------------------------------


def test_native_layers_hold() -> None:
    assert (ROOT / "src" / "core").is_dir(), f"no sources at {ROOT}"
    assert list(cpp_violations(ROOT)) == []


def test_python_layers_hold() -> None:
    assert python_files(ROOT), f"no package at {ROOT}"
    assert list(python_violations(ROOT)) == []


def test_importing_fastllm_reaches_nothing_heavy() -> None:
    assert list(heavy_imports(ROOT)) == []


# --- each rule, broken --------------------------------------------------------------------------------------------


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write a small checkout."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("src/graph/plan.cpp", '#include "device/cpu/pool.h"\n', "rule 1"),
        ("src/bind/engine.cpp", '  #  include "device/cpu/pool.h"\n', "rule 1"),
        ("src/device/null/backend.cpp", '#include "../cpu/pool.h"\n', "rule 1"),
        ("src/core/error.cpp", "#include <pybind11/pybind11.h>\n", "rule 2"),
        ("src/engine/step.cpp", "#include <Python.h>\n", "rule 2"),
        ("src/kv/blocks.cpp", "void f() { auto s = PyGILState_Ensure(); }\n", "rule 2"),
        ("src/engine/a.cpp", 'const char* kind = "llama";\n', "rule 3"),
        ("src/engine/b.cpp", "struct GgufReader {};\n", "rule 3"),
        ("src/core/tensor.cpp", '#include "quant/format.h"\n', "arrows"),
        ("src/kv/blocks.cpp", '#include "engine/engine.h"\n', "arrows"),
        ("src/sampling/chain.cpp", '#include "graph/ir.h"\n', "arrows"),
        ("src/graph/plan.h", '#include "engine/queue.h"\n', "arrows"),
        ("src/engine/step_model.h", '#include "kv/blocks.h"\n', "arrows"),
        ("src/misc/odd.cpp", "", "no place"),
    ],
)
def test_a_native_violation_is_found(tmp_path: Path, name: str, code: str, says: str) -> None:
    tree(tmp_path, {"src/device/cpu/pool.h": "", "src/device/cpu/ok.cpp": '#include "pool.h"\n', name: code})
    found = list(cpp_violations(tmp_path))
    assert any(says in line for line in found)
    assert all(name.removeprefix("src/") in line for line in found)


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("fastllm/stream.py", "import asyncio\n", "rule 5"),
        ("fastllm/stream.py", "def f():\n    from trio.lowlevel import current_task\n", "rule 5"),
        ("fastllm/stream.py", "import sys\nbusy = 'asyncio' in sys.modules\n", "rule 5"),
        ("fastllm/models/llama.py", "def build(device):\n    pass\n", "rule 3"),
        ("fastllm/models/llama.py", "x = make('cuda:0')\n", "rule 3"),
        ("fastllm/models/llama.py", "x = y.cuda()\n", "rule 3"),
        ("fastllm/nn/layers.py", "from fastllm import model\n", "arrows"),
        ("fastllm/nn/layers.py", "def f():\n    from ..model import Model\n", "arrows"),
        ("fastllm/errors.py", "from .stream import x\n", "arrows"),
        ("fastllm/model.py", "from fastllm.cli import main\n", "arrows"),
    ],
)
def test_a_python_violation_is_found(tmp_path: Path, name: str, code: str, says: str) -> None:
    files = ["__init__", "_loops", "model", "stream", "errors", "nn/__init__", "cli/__init__", "models/__init__"]
    tree(tmp_path, {**{f"fastllm/{file}.py": "" for file in files}, "fastllm/_loops.py": "import asyncio, trio\n"})
    assert list(python_violations(tmp_path)) == []
    tree(tmp_path, {name: code})
    found = list(python_violations(tmp_path))
    assert any(says in line for line in found)
    assert all(name in line for line in found)


@pytest.mark.parametrize(
    "files",
    [
        {"fastllm/__init__.py": "import jinja2\n"},
        {"fastllm/__init__.py": "from .model import Model\n", "fastllm/model.py": "from torch import nn\n"},
        {
            "fastllm/__init__.py": "from . import nn\n",
            "fastllm/nn/__init__.py": "try:\n    import IPython\nexcept ImportError:\n    pass\n",
        },
    ],
)
def test_a_heavy_import_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    found = list(heavy_imports(tree(tmp_path, files)))
    assert len(found) == 1
    assert "rule 4" in found[0]


def test_lazy_imports_types_comments_and_prose_are_no_violations(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "src/engine/engine.cpp": "// Python, llama: #include <Python.h>\n/* gguf */ int x;\n",
            "src/graph/program.h": '#include "engine/step_model.h"\n',
            "src/engine/step_model.h": '#include "device/backend.h"\n',
            "fastllm/__init__.py": "from .tensor import t\ndef f():\n    import torch\n",
            "fastllm/tensor.py": (
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n    from .model import M\n"
            ),
            "fastllm/model.py": '"""Runs on asyncio and trio."""\n',
            "fastllm/models/llama.py": '"""Runs on any device, cpu or cuda."""\n',
        },
    )
    assert list(cpp_violations(tmp_path)) == []
    assert list(python_violations(tmp_path)) == []
    assert list(heavy_imports(tmp_path)) == []
