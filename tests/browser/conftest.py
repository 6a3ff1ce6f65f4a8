"""A Jupyter server and a real browser: JupyterLab, Notebook 7 and Voila in headless Chromium, on ipykernel 6 and 7.

Needs the extra ``browser`` and a Chromium (``FASTLLM_CHROMIUM`` names one; else the system's, else playwright's own).
What is missing skips, loudly. Screenshots go to ``FASTLLM_SHOTS`` if that is set.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NEEDED = ("playwright", "jupyterlab", "notebook", "voila", "ipywidgets", "ipykernel", "nbformat", "jupyter_client")
_TESTS = Path(__file__).resolve().parents[1]
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(300))


def _missing() -> str:
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return f"browser tests need {', '.join(absent)}: pip install 'fastllm[browser]'" if absent else ""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    if reason := _missing():
        pytest.skip(reason)
    from playwright.sync_api import Error, sync_playwright

    named = os.environ.get("FASTLLM_CHROMIUM") or next(filter(None, map(shutil.which, _CHROMIUM)), None)
    with sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(
                executable_path=named, args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
            )
        except Error as error:
            pytest.skip(f"no Chromium to test with (apt-get install chromium): {str(error).splitlines()[0]}")
        yield made
        made.close()


# --- the server ---------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kernel_6(folder: Path) -> str:
    """A folder that puts ipykernel 6 before the installed one; why not, if that cannot be had."""
    if importlib.metadata.version("ipykernel").startswith("6."):
        return ""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        "ipykernel>=6.29,<7",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip()[-300:] if done.returncode else ""


@dataclass
class Jupyter:
    """A running server.

    Attributes:
        root: Where its notebooks are.
        address: Its address, without a slash at the end.
        kernels: Names of the kernels that can be used: "ipykernel6", "ipykernel7".
        problems: Why a kernel cannot be used, by name.
    """

    root: Path
    address: str
    runtime: Path
    settings: Path
    kernels: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def notebook(self, name: str, cells: list[str], kernel: str) -> str:
        """Writes a notebook of code cells; returns its name."""
        import nbformat

        if kernel not in self.kernels:
            pytest.skip(f"{kernel} cannot be had here: {self.problems.get(kernel, '')}")
        made = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        )
        nbformat.write(made, str(self.root / name))
        return name

    def theme(self, name: str) -> None:
        """Chooses the theme of pages that are opened from now on."""
        folder = self.settings / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": name}), encoding="utf-8")

    def ask(self, kernel_id: str, expression: str) -> Any:
        """The value of a Python expression in a kernel, by a connection of its own."""
        from jupyter_client.blocking import BlockingKernelClient

        client = BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{kernel_id}.json"))
        client.load_connection_file()
        client.start_channels()
        try:
            reply = client.execute(
                "", user_expressions={"x": f"__import__('json').dumps({expression})"}, reply=True, timeout=60
            )
            value = reply["content"]["user_expressions"]["x"]
            assert value["status"] == "ok", value
            return json.loads(eval(value["data"]["text/plain"], {}))
        finally:
            client.stop_channels()

    def sessions(self) -> list[dict[str, Any]]:
        """What the server runs."""
        with urllib.request.urlopen(f"{self.address}/api/sessions", timeout=10) as reply:
            found: list[dict[str, Any]] = json.loads(reply.read())
            return found

    def kernel_of(self, name: str) -> str:
        """The id of a notebook's kernel."""
        end = time.monotonic() + 60
        while True:
            found = [str(session["kernel"]["id"]) for session in self.sessions() if session["path"] == name]
            if found:
                return found[0]
            assert time.monotonic() < end, f"{name} has no kernel"
            time.sleep(0.2)

    def end_kernels(self) -> None:
        """Ends all kernels, so that the next test has the machine."""
        for session in self.sessions():
            request = urllib.request.Request(f"{self.address}/api/sessions/{session['id']}", method="DELETE")
            urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def _serving(base: Path, kernel: str) -> Iterator[Jupyter]:
    """A server with JupyterLab, Notebook and Voila that knows one kernel alone, so that no page can choose another."""
    import fastllm

    folders = {name: base / name for name in ("root", "data", "runtime", "config", "settings", "kernel6", "ipython")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    path = [str(_TESTS), str(Path(fastllm.__file__).resolve().parents[1])]
    server = Jupyter(folders["root"], f"http://127.0.0.1:{_free_port()}", folders["runtime"], folders["settings"])
    newest = "ipykernel" + importlib.metadata.version("ipykernel").split(".")[0]
    if kernel != newest:
        if why_not := _kernel_6(folders["kernel6"]) if kernel == "ipykernel6" else f"{newest} is installed":
            server.problems[kernel] = why_not
        path.insert(0, str(folders["kernel6"]))
    if not server.problems:
        folder = folders["data"] / "kernels" / kernel
        folder.mkdir(parents=True)
        spec = {
            "argv": [sys.executable, "-W", "ignore", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": kernel, "language": "python",
            "env": {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        }  # fmt: skip
        (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        server.kernels.append(kernel)
    quiet = folders["settings"] / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    tracker = folders["settings"] / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    (tracker / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none", "autoStartDefaultKernel": true}')
    environment = dict(
        os.environ, JUPYTER_DATA_DIR=str(folders["data"]), JUPYTER_RUNTIME_DIR=str(folders["runtime"]),
        JUPYTER_CONFIG_DIR=str(folders["config"]), IPYTHONDIR=str(folders["ipython"]), JUPYTER_PLATFORM_DIRS="1",
    )  # fmt: skip
    environment.pop("PYTHONPATH", None)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--port={server.address.rsplit(':', 1)[1]}", "--IdentityProvider.token=", "--ServerApp.password=",
        "--ServerApp.disable_check_xsrf=True", f"--MultiKernelManager.default_kernel_name={kernel}",
        "--KernelSpecManager.ensure_native_kernel=False", f"--KernelSpecManager.allowed_kernelspecs={kernel}",
        f"--ServerApp.root_dir={folders['root']}", f"--LabApp.user_settings_dir={folders['settings']}",
        "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
        "--LabServerApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]  # fmt: skip
    log = (base / "server.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folders["root"])
    try:
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{server.address}/api/status", timeout=5).close()
                break
            except OSError:
                text = (base / "server.log").read_text()[-3000:]
                assert process.poll() is None, text
                assert time.monotonic() < end, text
                time.sleep(0.3)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


class Servers:
    """Servers by the kernel that they know; each is started when first asked for."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._stack = contextlib.ExitStack()
        self._known: dict[str, Jupyter] = {}

    def of(self, kernel: str) -> Jupyter:
        """The server for a kernel: "ipykernel6" or "ipykernel7"."""
        if kernel not in self._known:
            self._known[kernel] = self._stack.enter_context(_serving(self._base / kernel, kernel))
        return self._known[kernel]

    def close(self) -> None:
        """Ends all."""
        self._stack.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers with JupyterLab, Notebook and Voila."""
    if reason := _missing():
        pytest.skip(reason)
    found = Servers(tmp_path_factory.mktemp("jupyter"))
    yield found
    found.close()


@pytest.fixture
def jupyter(servers: Servers) -> Jupyter:
    """The server with ipykernel 7."""
    return servers.of("ipykernel7")


# --- pages --------------------------------------------------------------------------------------------------------

# Notes how long the page's main thread was blocked, and reads the prompts beside the cells.
_WATCH = r"""
window.prompts = () => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((e) => e.textContent);
window.runs = () => window.prompts().some((text) => text.includes('[*]'));
window.ran = () => window.prompts().filter((text) => /\[\d+\]/.test(text)).join();
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longTasks.push([entry.startTime, entry.duration]);
}).observe({type: 'longtask', buffered: true});
"""


def point_at(page: Any, locator: Any) -> None:
    """Moves the mouse onto the first line of an element, which a line break may have cut in two."""
    locator.scroll_into_view_if_needed()
    x, y = locator.evaluate(
        "(e) => { const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; }"
    )
    page.mouse.move(x, y)


@pytest.fixture
def point() -> Callable[[Any, Any], None]:
    """`point(page, locator)`: moves the mouse there."""
    return point_at


class Notebook:
    """A notebook that is open in a page.

    Attributes:
        page: playwright's page.
        frames: (seconds, bytes) of each message that came from the server.
    """

    def __init__(self, jupyter: Jupyter, page: Any, name: str) -> None:
        from playwright.sync_api import TimeoutError as PlaywrightTimeout

        self.jupyter, self.page, self.name = jupyter, page, name
        self._timeout = PlaywrightTimeout
        self._at = 0
        self.frames: list[tuple[float, int]] = []
        page.on("websocket", lambda socket: socket.on("framereceived", self._note))

    def _note(self, payload: Any) -> None:
        self.frames.append((time.monotonic(), len(payload) if isinstance(payload, bytes | str) else 0))

    def open(self, interface: str = "lab") -> Notebook:
        """Opens it in "lab" or "notebook" and waits until its kernel is idle."""
        where = {"lab": f"doc/tree/{self.name}?reset", "notebook": f"notebooks/{self.name}"}[interface]
        self.page.goto(f"{self.jupyter.address}/{where}")
        self.page.wait_for_function("() => window.jupyterapp && document.querySelector('.jp-Notebook')", timeout=90_000)
        self.jupyter.kernel_of(self.name)
        idle = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
        self.page.wait_for_selector(idle, timeout=90_000, state="attached")
        self.page.wait_for_function("() => !document.querySelector('.jp-Dialog')", timeout=10_000)
        return self

    def command(self, name: str) -> None:
        """Runs a command of the interface without waiting for what it starts."""
        self.page.evaluate("(name) => { window.jupyterapp.commands.execute(name); }", name)

    def run_next(self, *, wait: bool = True) -> None:
        """Runs the next cell of the notebook; waits until the kernel is idle, or not."""
        before = self.page.evaluate("() => window.ran()")
        run = "(i) => { const a = window.jupyterapp; a.shell.currentWidget.content.activeCellIndex = i;"
        run += " a.commands.execute('notebook:run-cell'); }"
        for _ in range(5):  # a kernel that has only just connected may not take the first
            self.page.evaluate(run, self._at)
            try:
                started = "(before) => window.ran() !== before || window.runs()"
                self.page.wait_for_function(started, arg=before, timeout=10_000)
                break
            except self._timeout:
                continue
        self._at += 1
        if wait:
            finished = "(before) => window.ran() !== before && !window.runs()"
            self.page.wait_for_function(finished, arg=before, timeout=90_000)

    def select(self, index: int) -> None:
        """Makes a cell the next to run."""
        self._at = index

    def busy(self) -> bool:
        """Whether a cell runs."""
        return bool(self.page.evaluate("() => window.runs()"))

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Waits until no cell runs."""
        self.page.wait_for_function("() => !window.runs()", timeout=timeout_s * 1000)

    def point_at(self, locator: Any) -> None:
        """Moves the mouse onto an element."""
        point_at(self.page, locator)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the notebook's kernel."""
        return self.jupyter.ask(self.jupyter.kernel_of(self.name), expression)

    def save(self) -> dict[str, Any]:
        """Saves; returns the file's content."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        found: dict[str, Any] = json.loads((self.jupyter.root / self.name).read_text(encoding="utf-8"))
        return found

    def errors(self) -> list[str]:
        """Texts of outputs that are errors."""
        return list(self.page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts())


@pytest.fixture
def open_notebook(servers: Servers, browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Notebook]]:
    """`open_notebook(cells, kernel, interface)`: a page with a notebook of these cells, its kernel ready."""
    contexts: list[Any] = []
    used: list[Jupyter] = []
    count = iter(range(100))

    def make(
        cells: list[str], kernel: str = "ipykernel7", interface: str = "lab", *, theme: str = "JupyterLab Light",
        reduced_motion: str | None = None, height: int = 1000,
    ) -> Notebook:  # fmt: skip
        jupyter = servers.of(kernel)
        used.append(jupyter)
        jupyter.theme(theme)
        name = jupyter.notebook(f"nb{os.urandom(3).hex()}{next(count)}.ipynb", cells, kernel)
        context = browser.new_context(viewport={"width": 1100, "height": height}, reduced_motion=reduced_motion)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(_WATCH)
        opened = Notebook(jupyter, page, name).open(interface)
        version = opened.ask("__import__('ipykernel').__version__")
        assert f"ipykernel{version.split('.')[0]}" == kernel, "the page runs another kernel"
        return opened

    yield make
    if (folder := os.environ.get("FASTLLM_SHOTS")) and contexts and contexts[-1].pages:
        contexts[-1].pages[-1].screenshot(path=str(Path(folder) / f"last-{request.node.name}.png"))
    for context in contexts:
        context.close()
    for jupyter in used:
        jupyter.end_kernels()


@pytest.fixture
def shot() -> Callable[..., None]:
    """`shot(page_or_locator, "name")`: keeps a screenshot in the folder FASTLLM_SHOTS, if there is one."""

    def take(target: Any, name: str, **options: Any) -> None:
        folder = os.environ.get("FASTLLM_SHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            target.screenshot(path=str(Path(folder) / f"{name}.png"), **options)

    return take


_AXE_OPTIONS = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture
def axe() -> Callable[..., list[str]]:
    """`axe(page, selector)`: what axe-core finds wrong there, a line each."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed: pip install 'fastllm[browser]'")
    source = Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")

    def check(page: Any, selector: str) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("([s, o]) => axe.run(s, o)", [selector, _AXE_OPTIONS])
        return [
            f"{violation['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    return check
