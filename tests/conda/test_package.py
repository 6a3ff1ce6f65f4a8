"""Is what was installed whole, light and portable, and does it answer? Run by the conda recipe in a fresh environment.

Nothing of the repository is needed but this folder: pytest, the installed fastllm, and its bundled model.
FASTLLM_EXPECT_CUDA=yes|no says which build it should be.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import shared_objects

import fastllm
from fastllm import _core

PACKAGE = Path(fastllm.__file__).resolve().parent
# Part of the C library, or of the machine: no package brings them.
SYSTEM = re.compile(r"(lib(c|m|dl|rt|pthread)\.so\.\d+|ld-linux.*\.so\.\d+)$")
COMPILER = {"libstdc++.so.6", "libgcc_s.so.1"}
EXPECTED_CUDA = os.environ.get("FASTLLM_EXPECT_CUDA")
LARGEST_CPU_PACKAGE = 25_000_000  # bytes
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")


def native_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.so"))


def conda_records() -> dict[str, dict[str, Any]]:
    """What is installed in this conda environment, by name; empty where fastllm was installed by pip."""
    folder = Path(sys.prefix) / "conda-meta"
    records = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    named = {record["name"]: record for record in records}
    return named if "fastllm" in named else {}


# --- what was installed -------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    versions = {fastllm.__version__, _core.build_info()["version"], importlib.metadata.version("fastllm")}
    if records := conda_records():
        versions.add(records["fastllm"]["version"])
    assert len(versions) == 1, versions


def test_the_licence_and_the_types_are_there() -> None:
    installed = [str(file) for file in importlib.metadata.files("fastllm") or []]
    assert any(re.search(r"dist-info/licenses/LICENSE$", name) for name in installed)
    for name in ("py.typed", "_core.pyi", "demo/model.safetensors", "demo/tokenizer.json", "demo/config.json"):
        assert (PACKAGE / name).is_file(), name


def test_what_is_declared_is_installed() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    for line in importlib.metadata.requires("fastllm") or []:
        requirement = packaging.Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), line


@pytest.mark.skipif(EXPECTED_CUDA == "yes", reason="GPU code is larger")
def test_the_package_is_small() -> None:
    total = sum(file.stat().st_size for file in PACKAGE.rglob("*") if file.suffix != ".pyc" and file.is_file())
    assert total < LARGEST_CPU_PACKAGE, f"{total} bytes"


# --- what its native code asks for --------------------------------------------------------------------------------


@linux_only
def test_every_library_comes_from_a_declared_dependency() -> None:
    records = conda_records()
    owners = {
        Path(file).name: name
        for name, record in records.items()
        for file in record["files"]
        if file.startswith("lib/") and file.count("/") == 1
    }
    declared = {entry.split()[0] for entry in records["fastllm"]["depends"]} if records else set()
    files = native_files()
    assert files
    for file in files:
        for needed in shared_objects.read(file).needed:
            if SYSTEM.match(needed):
                assert not records or "__glibc" in declared, f"{file.name} needs {needed}, but __glibc is not declared"
            elif records:
                owner = owners.get(needed)
                assert owner is not None, f"{file.name} needs {needed}, which no package of this environment has"
                assert owner in declared, f"{file.name} needs {needed} of {owner}, which is not declared: {declared}"
            else:
                assert needed in COMPILER, f"{file.name} needs {needed}"


@linux_only
def test_libraries_are_searched_relative_to_the_file_only() -> None:
    for file in native_files():
        for path in shared_objects.read(file).search_paths:
            assert path.startswith("$ORIGIN"), f"{file.name} searches {path}"


@linux_only
def test_no_newer_c_library_is_asked_for_than_this_machine_has() -> None:
    have = tuple(int(part) for part in os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))  # type: ignore[union-attr]
    for file in native_files():
        assert shared_objects.read(file).newest("GLIBC") <= have


@linux_only
def test_no_library_of_a_gpu_driver_is_needed_to_import() -> None:
    program = "import pathlib, fastllm._core; maps = pathlib.Path('/proc/self/maps'); print(maps.read_text())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "libcuda" not in done.stdout


# --- what it can do -----------------------------------------------------------------------------------------------


def test_the_build_is_the_expected_one() -> None:
    info = _core.build_info()
    assert "portable" in info["isas"]
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        assert set(info["isas"]) == {"portable", "avx2", "avx512"}
    assert not info["sanitizer"]
    if EXPECTED_CUDA is not None:
        assert info["cuda"] is (EXPECTED_CUDA == "yes")


def test_cuda_works_or_says_why_not() -> None:
    gpus = [device for device in _core.list_devices() if device[0].startswith("cuda")]
    assert gpus
    if any(available for _, available, _ in gpus):
        assert _core.build_info()["cuda"]
        return
    reason = gpus[0][2]
    with pytest.raises(fastllm.DeviceNotAvailable) as caught:
        fastllm.load("demo", device="cuda")
    if _core.build_info()["cuda"]:
        assert re.search("driver|GPU", reason), reason
        assert "no CUDA backend" not in reason
    else:
        assert "no CUDA backend" in reason
        assert "no CUDA backend" in str(caught.value)


def answers(*questions: str) -> list[str]:
    async def run() -> list[str]:
        model = await fastllm.load_async("demo", device="cpu")
        try:
            return [str(completion) for completion in await model.batch(list(questions), temperature=0.0)]
        finally:
            model.close()

    return asyncio.run(run())


@pytest.mark.parametrize(("left", "right"), [(17, 25), (40, 38), (9, 8)])
def test_the_demo_model_adds(left: int, right: int) -> None:
    (answer,) = answers(f"What is {left} + {right}?")
    assert str(left + right) in re.findall(r"\d+", answer), answer


def test_tokens_come_one_by_one() -> None:
    async def run() -> list[tuple[float, str]]:
        model = await fastllm.load_async("demo", device="cpu")
        try:
            stream = model.stream("Why is the sky blue?", temperature=0.0)
            return [(time.monotonic(), str(token)) async for token in stream]
        finally:
            model.close()

    arrivals = asyncio.run(run())
    assert len(arrivals) > 10
    assert len({moment for moment, _ in arrivals}) > len(arrivals) // 2
    text = "".join(text for _, text in arrivals)
    assert "blue" in text
    assert text == answers("Why is the sky blue?")[0]


def test_every_instruction_set_answers_alike() -> None:
    """The oldest machine of this architecture is served by the same file, with the same greedy answer."""
    program = (
        "import fastllm\n"
        "model = fastllm.load('demo', device='cpu')\n"
        "print(model.blocking.generate('What is 17 + 25?', temperature=0.0))\n"
        "model.close()\n"
    )
    said = {}
    for isa in ("portable", _core.build_info()["isa"]):
        environment = dict(os.environ, FASTLLM_ISA=isa)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        said[isa] = done.stdout.strip()
    assert all("42" in text for text in said.values()), said


def test_the_command_line_streams(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("fastllm")
    assert command.exists()
    done = subprocess.run(
        [str(command), "run", "What is 40 + 38?", "--temperature", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "78" in done.stdout
