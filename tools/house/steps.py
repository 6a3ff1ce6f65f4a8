"""The steps that the goals of `make` are made of: environments, the wheel, C++ builds, torch for the parity tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import gpu, stamps
from .stamps import ROOT

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
BUILD_TOOLS = ("cmake>=3.25", "ninja>=1.11", "scikit-build-core>=0.11", "pybind11>=3.0")
# The CUDA compiler as wheels, for a machine with a GPU and without a toolkit: pyproject.toml's extra [cuda].
CUDA_WHEELS = (
    *("nvidia-cuda-cccl>=13", "nvidia-cuda-crt>=13", "nvidia-cuda-nvcc>=13", "nvidia-cuda-runtime>=13"),
    "nvidia-nvvm>=13",
)

# What the parity tests compare with: one known version, so that a difference is ours.
PARITY_TORCH = "torch==2.13.*"
PARITY_TRANSFORMERS = "transformers>=5,<6"
_GPU_LIBRARIES = ("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cuda-runtime", "cuda-toolkit", "triton")


class StepError(Exception):
    """A step did not work; the message says which and what to do."""


def say(text: str) -> None:
    """Print a headline of progress, with the time since the start."""
    print(f"\n==> [{time.monotonic() - _START:5.0f} s] {text}", flush=True)


_START = time.monotonic()


def run(
    command: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, hint: str = ""
) -> None:
    """Run a command with its output shown.

    Raises:
        StepError: It ended with another exit code than 0, or could not be started.
    """
    words = [str(word) for word in command]
    try:
        code = subprocess.run(words, cwd=cwd, env=dict(os.environ, **(env or {})), check=False).returncode
    except OSError as error:
        raise StepError(f"[run] {words[0]} could not be started: {error}.") from error
    if code != 0:
        raise StepError(f"[run] `{' '.join(words)[:200]}` ended with {code}. {hint}".rstrip())


def jobs() -> int:
    """Parallel compile jobs: the cores this process may use, and 1.5 GiB of memory for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 4 << 30
    return max(1, min(cores, memory // (3 << 29)))


def interpreter(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return folder / "bin" / "python"


def pip(folder: Path, *arguments: str | Path, hint: str = "") -> None:
    """Run pip of an environment; its progress bars only on a terminal."""
    bar = [] if sys.stdout.isatty() else ["--progress-bar", "off"]
    run(
        [interpreter(folder), "-m", "pip", "--disable-pip-version-check", *arguments, *bar],
        hint=hint or "Is the package index reachable?",
    )


def environment(name: str, key: str) -> tuple[Path, bool]:
    """A virtual environment of this Python below the repository.

    Args:
        name: Its folder, e.g. ".venv-test".
        key: What it should hold; another key, or another Python, makes a fresh one.

    Returns:
        The folder, and whether it is as the key says already. If not, it is fresh and empty; call
        `environment_ready` once it is filled.
    """
    folder = ROOT / name
    wanted = {"key": key, "python": f"{sys.executable} {sys.version}"}
    if stamps.read(f"env{name}") == wanted and interpreter(folder).exists():
        return folder, True
    stamps.forget(f"env{name}")
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder], hint="The venv module of this Python does not work.")
    return folder, False


def environment_ready(name: str, key: str) -> None:
    """Note that the environment holds what its key says."""
    stamps.write(f"env{name}", key=key, python=f"{sys.executable} {sys.version}")


def build_environment() -> Path:
    """An environment with CMake, ninja, scikit-build-core and pybind11 (`.venv-build`)."""
    name, key = ".venv-build", stamps.digest([], *BUILD_TOOLS)
    folder, ready = environment(name, key)
    if not ready:
        say("getting the build tools: CMake, ninja, scikit-build-core, pybind11")
        pip(folder, "install", *BUILD_TOOLS)
        environment_ready(name, key)
    return folder


def _compiler_environment(tools: Path, compiler: str) -> dict[str, str]:
    return {
        "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "CXX": compiler,
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs()),
    }


def cuda_settings() -> dict[str, str]:
    """What to set for a build that uses this machine's GPU.

    FASTLLM_CUDA=OFF in the environment says not to, and ON to build the CUDA backend without a GPU, too.

    A GPU without a CUDA toolkit gets the compiler from the package index, into the environment of the build tools.

    Returns:
        Environment variables; empty without a GPU that fastllm can use, or when no compiler can be had (it says so).
    """
    architectures, asked = gpu.architectures(), os.environ.get("FASTLLM_CUDA", "").upper()
    if asked in ("OFF", "0", "NO", "FALSE") or not (architectures or asked):
        return {}
    settings = {"FASTLLM_CUDA": "ON", "CUDAARCHS": os.environ.get("CUDAARCHS") or architectures or "80-real;90a-real"}
    if gpu.compiler() is None:
        say("there is no CUDA toolkit here: getting the CUDA compiler as wheels")
        try:
            pip(build_environment(), "install", "--quiet", *CUDA_WHEELS)
        except StepError as error:
            print(f"\n!!! THE GPU WILL NOT BE USED: {error}", flush=True)
            return {}
    return settings


def wheel(compiler: str, *, with_tests: bool, for_gpu: bool = False) -> Path:
    """Build the wheel for this Python, and the C++ tests with it when asked; both share one build folder.

    Args:
        compiler: The C++ compiler.
        with_tests: Whether to build the C++ tests, too.
        for_gpu: Whether to build the CUDA backend, too, where there is a GPU.

    Returns:
        The wheel's path. Nothing is done when no file that it is made of has changed.
    """
    cuda = cuda_settings() if for_gpu else {}
    name = f"wheel-{TAG}" + ("-cuda" if cuda else "")
    inputs = [*stamps.PACKAGE_INPUTS, "tests/cpp"] if with_tests else list(stamps.PACKAGE_INPUTS)
    key = stamps.digest(inputs, compiler, sys.version, *cuda.values())
    noted = stamps.read(name + ("-tests" if with_tests else ""))
    if noted.get("key") == key and Path(noted["wheel"]).exists():
        say(f"the native engine is built already: {Path(noted['wheel']).name}")
        return Path(noted["wheel"])
    tools = build_environment()
    what = "the native engine" + (" and the C++ tests" if with_tests else "")
    what += f" with CUDA for {cuda['CUDAARCHS']}" if cuda else ""
    say(f"building {what} with {compiler}, {jobs()} files at a time")
    out = ROOT / "dist" / TAG
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings: dict[str, str | list[str]] = {}
    if with_tests:
        settings = {"cmake.define.FASTLLM_TESTS": "ON", "build.targets": "_core;fastllm_tests"}
    # The standard build hook, called in this process's child so that the compiler's progress is seen as it happens.
    program = (
        "import json, sys, scikit_build_core.build as backend\n"
        "backend.build_wheel(sys.argv[1], json.loads(sys.argv[2]))\n"
    )
    run(
        [interpreter(tools), "-c", program, out, json.dumps(settings)],
        env={**_compiler_environment(tools, compiler), "FASTLLM_CUDA": "OFF", **cuda},
        hint="The lines above hold the compiler's message.",
    )
    built = next(out.glob("fastllm-*.whl"))
    key_without_tests = stamps.digest(stamps.PACKAGE_INPUTS, compiler, sys.version, *cuda.values())
    stamps.write(name, key=key_without_tests, wheel=str(built))
    if with_tests:
        stamps.write(name + "-tests", key=key, wheel=str(built))
    return built


def wheel_build_folder() -> Path:
    """Where the C++ tests of the last `wheel(with_tests=True)` are."""
    return next((ROOT / "build").glob(f"{TAG}-{TAG}*"))


def sanitized_build(compiler: str, sanitize: str) -> Path:
    """Build the C++ tests with sanitizers ("address,undefined" or "thread"), without Python."""
    tools = build_environment()
    folder = ROOT / "build" / ("san-" + sanitize.replace(",", "-"))
    say(f"building the C++ tests with -fsanitize={sanitize}")
    env = _compiler_environment(tools, compiler)
    run(
        [
            tools / "bin" / "cmake",
            *("-S", ROOT, "-B", folder),
            *("-DFASTLLM_PYTHON=OFF", "-DFASTLLM_TESTS=ON", f"-DFASTLLM_SANITIZE={sanitize}"),
        ],
        env=env,
    )
    run([tools / "bin" / "cmake", "--build", folder, "--target", "fastllm_tests"], env=env)
    return folder


def cuda_build(compiler: str) -> Path | None:
    """Compile and link the CUDA backend and its tests for one architecture, without Python.

    Returns:
        The build folder, or None on a machine without nvcc.
    """
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not nvcc:
        return None
    tools = build_environment()
    folder = ROOT / "build" / "cuda"
    say(f"compiling the CUDA backend for one architecture with {nvcc}")
    env = _compiler_environment(tools, compiler) | {"CUDACXX": nvcc, "CUDAHOSTCXX": compiler}
    run(
        [
            tools / "bin" / "cmake",
            *("-S", ROOT, "-B", folder, "-DFASTLLM_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90a-real"),
            *("-DFASTLLM_PYTHON=OFF", "-DFASTLLM_TESTS=ON"),
        ],
        env=env,
    )
    tests = [f"test_cuda_{file.stem}" for file in sorted((ROOT / "tests" / "cpp" / "cuda").glob("*.cpp"))]
    run([tools / "bin" / "cmake", "--build", folder, "--target", *tests], env=env)
    return folder


def install_wheel(name: str, built: Path, extras: str = "") -> tuple[Path, bool]:
    """An environment that holds the wheel and nothing of the working tree.

    When only the wheel changed, it alone is replaced, so that a one-line change does not fetch everything anew.

    Returns:
        The environment, and whether its dependencies were installed afresh.
    """
    requirements = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("\n[tool.")[0]
    key = stamps.digest([], requirements, extras)
    folder, ready = environment(name, key)
    content = stamps.digest([str(built.relative_to(ROOT))])
    if ready and stamps.read(f"wheel{name}").get("content") == content:
        return folder, False
    if ready:
        say(f"putting the new build into {name}")
        pip(folder, "install", "--quiet", "--no-deps", "--force-reinstall", built)
    else:
        say(f"making a fresh environment, {name}, and installing {built.name}{extras} into it")
        pip(folder, "install", f"{built}{extras}")
        environment_ready(name, key)
    stamps.write(f"wheel{name}", content=content)
    return folder, not ready


def parity_packages(folder: Path) -> str:
    """Install torch (CPU) and transformers, which the parity tests compare with, if that can be had at a decent size.

    The package index decides which build of torch it serves. One that drags in NVIDIA's libraries is gigabytes for
    nothing here, so a constraint forbids those and pip then takes a CPU build or none. FASTLLM_TORCH_INDEX names an
    index of CPU builds to take torch from; FASTLLM_TORCH=any takes whatever comes. Without torch the parity tests skip,
    and say so.

    Returns:
        The empty string when both can be imported, else the reason why not.
    """
    check = [str(interpreter(folder)), "-c", "import torch, transformers"]
    if subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return ""
    say("getting torch (a CPU build) and transformers, which the parity tests compare with")
    index = os.environ.get("FASTLLM_TORCH_INDEX")
    source = ["--index-url", index] if index else []
    with tempfile.TemporaryDirectory(prefix="fastllm-torch-") as scratch:
        constraints = Path(scratch) / "no-gpu-libraries.txt"
        anything = os.environ.get("FASTLLM_TORCH") == "any"
        constraints.write_text("" if anything else "".join(f"{name}<0\n" for name in _GPU_LIBRARIES), encoding="utf-8")
        try:
            pip(folder, "install", "--constraint", constraints, *source, PARITY_TORCH)
        except StepError:
            return (
                f"pip finds no CPU build of {PARITY_TORCH} for {TAG} here (one that needs NVIDIA's is not taken; "
                "FASTLLM_TORCH_INDEX=<an index of CPU builds> or FASTLLM_TORCH=any changes that)"
            )
    try:
        pip(folder, "install", PARITY_TRANSFORMERS)
    except StepError as error:
        return str(error)
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "torch was installed but does not import: " + done.stderr.strip()[-200:]
