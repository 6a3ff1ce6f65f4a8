"""What all tests share: the repository, the external test data, the event loops, the detector of blocking calls.

Tests run against the installed package (an environment made by `make test`, or an editable install), never against the
working tree by accident: the folder that holds `fastllm/` is not on the path.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(os.environ.get("FASTLLM_ROOT", Path(__file__).resolve().parents[1]))

_missing_data: dict[str, int] = {}


def shared_folder() -> Path | None:
    """The folder of external test data: FASTLLM_SHARED, else ``../shared/data`` beside the repository."""
    named = os.environ.get("FASTLLM_SHARED")
    for base in [Path(named)] if named else [ROOT.parent / "shared"]:
        for folder in (base / "data", base):
            if (folder / "MANIFEST.sha256").is_file():
                return folder
    return None


def shared_path(relative: str) -> Path:
    """A file or folder of the external test data; skips the test, loudly, when it is not there."""
    folder = shared_folder()
    if folder is not None and (folder / relative).exists():
        return folder / relative
    _missing_data[relative] = _missing_data.get(relative, 0) + 1
    pytest.skip(f"needs {relative} of the external test data (FASTLLM_SHARED names its folder)")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("models/stories260K/hf")`: a path in the external test data, or a loud skip."""
    return shared_path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the external test data, or a loud skip."""
    return shared_path(".")


# --- event loops --------------------------------------------------------------------------------------------------


def eager_loop() -> asyncio.AbstractEventLoop:
    """An asyncio loop whose tasks start running at once, without a first turn of the loop (Python 3.12 and newer)."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    return loop


def backends() -> list[Any]:
    """Every event loop the async tests run on, as anyio's (name, options)."""
    found = [
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"debug": True}), id="asyncio-debug"),
    ]
    if importlib.util.find_spec("uvloop") is not None:
        found.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))
    if sys.version_info >= (3, 12):
        found.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager"))
    found.append(pytest.param(("trio", {"restrict_keyboard_interrupt_to_checkpoints": False}), id="trio"))
    return found


@pytest.fixture(scope="module", params=backends())
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """A test marked `anyio` runs once on each event loop."""
    return request.param


# --- blocking calls -----------------------------------------------------------------------------------------------


@contextmanager
def no_blocking_calls() -> Iterator[None]:
    """Inside, a call that blocks an asyncio loop from code of fastllm (sleep, file or socket I/O, a contended lock)
    raises ``blockbuster.BlockingError``.

    trio has no such detector; there it does nothing. It patches the interpreter, so keep it around the code under test.
    """
    import blockbuster

    with blockbuster.blockbuster_ctx(scanned_modules=["fastllm"]):
        yield


@pytest.fixture
def blocking_calls_fail() -> Iterator[None]:
    """The detector of blocking calls, for a whole test."""
    with no_blocking_calls():
        yield


@pytest.fixture
def blocking_detector() -> Callable[[], AbstractContextManager[None]]:
    """The detector of blocking calls, for a part of a test: `with blocking_detector(): ...`."""
    return no_blocking_calls


# --- the right package --------------------------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Leave a checkout that is not what is tested: `python -c` in a test's child would import its fastllm/ instead."""
    here = Path.cwd()
    spec = importlib.util.find_spec("fastllm")
    origin = Path(spec.origin) if spec is not None and spec.origin is not None else here
    if (here / "fastllm" / "__init__.py").is_file() and origin.parent != here / "fastllm":
        folder = tempfile.TemporaryDirectory(prefix="fastllm-tests-")
        session.config.add_cleanup(folder.cleanup)
        session.config.add_cleanup(functools.partial(os.chdir, here))
        os.chdir(folder.name)


# --- reports ------------------------------------------------------------------------------------------------------


def pytest_report_header() -> list[str]:
    """Say what is tested: a run against the wrong build should be seen at the first line."""
    spec = importlib.util.find_spec("fastllm")
    where = spec.origin if spec is not None and spec.origin is not None else "NOT INSTALLED"
    try:
        version = importlib.metadata.version("fastllm")
    except importlib.metadata.PackageNotFoundError:
        version = "?"
    return [f"fastllm: {version} at {where}", f"shared data: {shared_folder() or 'ABSENT, its tests skip'}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A skip for want of data or of a package to compare with is no pass, so it is said where everybody looks."""
    if _missing_data:
        count = sum(_missing_data.values())
        terminalreporter.write_line(f"!!! {count} tests skipped for want of external test data", red=True, bold=True)
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            terminalreporter.write_line(
                f"!!! {package} is not installed: parity with it was NOT tested", red=True, bold=True
            )
