"""Behind `make`: check the machine, build, install, then run the demo, the tests, the linters or the benchmarks.

Standard library only, for it runs before anything is installed. `python tools/bootstrap.py doctor` just looks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from house import browser, conda, doctor, gpu, packages, stamps, steps
from house.stamps import ROOT
from house.steps import StepError, say

QUESTION = "Why is the sky blue?"
LINTERS = ("ruff>=0.9", "mypy>=1.15", "clang-format>=18", "numpy", "anyio", "jinja2", "pytest")
SANITIZED_BY_TSAN = "engine|kv|cpu|device|core"  # the folders of tests/cpp in which threads meet


def _checked_compiler() -> str:
    findings = doctor.examine()
    if not doctor.report(findings, quiet=True):
        raise StepError("[doctor] something that fastllm is built with is missing; see above.")
    compiler = next(finding.found for finding in findings if finding.what == "C++20 compiler")
    assert compiler is not None  # report() said so
    return compiler


def run_doctor(_: list[str]) -> int:
    return 0 if doctor.report(doctor.examine()) else 1


def run_demo(arguments: list[str]) -> int:
    question = " ".join(arguments) or QUESTION
    built = steps.wheel(_checked_compiler(), with_tests=False, for_gpu=True)
    folder, _ = steps.install_wheel(".venv", built)
    say(f'fastllm run "{question}"')
    # Away from the working tree, so that what answers is what was installed.
    with tempfile.TemporaryDirectory(prefix="fastllm-demo-") as elsewhere:
        steps.run([folder / "bin" / "fastllm", "run", question], cwd=Path(elsewhere))
    say("that was the bundled demo model, running on this machine (.venv/bin/fastllm info --devices)")
    print("    ask it something     make demo ARGS='Tell me a story about a fox.'")
    print("    talk with it         .venv/bin/fastllm chat")
    print("    use it from Python   .venv/bin/python -m asyncio   (import fastllm; model = fastllm.load('demo'))")
    return 0


def _ctest(folder: Path, *arguments: str) -> bool:
    say(f"C++ tests in {folder.relative_to(ROOT)}")
    # One at a time: they use all cores themselves, and some measure how well.
    ctest = ROOT / ".venv-build" / "bin" / "ctest"
    command = [str(ctest), "--test-dir", str(folder), "--output-on-failure", *arguments]
    return subprocess.run([*command, "--no-tests=error"], check=False).returncode == 0


def _pytest(folder: Path, *arguments: str) -> bool:
    say("Python tests")
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", FASTLLM_ROOT=str(ROOT))
    environment.pop("PYTHONPATH", None)
    command = [str(folder / "bin" / "pytest"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def _test_environment(*, compiler: str) -> tuple[Path, str]:
    built = steps.wheel(compiler, with_tests=True)
    folder, fresh = steps.install_wheel(".venv-test", built, "[test]")
    noted = {} if fresh else stamps.read("parity")
    if noted.get("why_not") != "":
        noted = {"why_not": steps.parity_packages(folder)}
        stamps.write("parity", **noted)
    return folder, noted["why_not"]


def run_tests(arguments: list[str], *, everything: bool = False) -> int:
    compiler = _checked_compiler()
    folder, why_no_parity = _test_environment(compiler=compiler)
    passed = {"C++ tests": _ctest(steps.wheel_build_folder())}
    if (cuda := steps.cuda_build(compiler)) is not None:
        passed["CUDA: compiled, linked, tested if there is a GPU"] = _ctest(cuda, "-R", "^cuda/", "--verbose")
    else:
        print("\n!!! THE CUDA SOURCES WERE NOT COMPILED: there is no nvcc here.", flush=True)
    if everything:
        passed["C++ tests, ASan and UBSan"] = _ctest(steps.sanitized_build(compiler, "address,undefined"))
        passed["C++ tests, TSan"] = _ctest(steps.sanitized_build(compiler, "thread"), "-L", SANITIZED_BY_TSAN)
        passed["sdist, wheels, environments of every Python here"] = _passes(run_packages)
        passed["conda recipe, built and installed"] = _passes(run_conda)
        if why_no_browser := browser.prepare(folder):
            print(f"\n!!! THE BROWSER TESTS WILL SKIP: {why_no_browser}.", flush=True)
    if why_no_parity:
        print(f"\n!!! THE PARITY TESTS WILL SKIP: {why_no_parity}.", flush=True)
    passed["Python tests"] = _pytest(folder, *([] if everything else ["-m", "not slow"]), *arguments)
    print(flush=True)
    for name, ok in passed.items():
        print(f"    {'passed' if ok else 'FAILED'}  {name}", flush=True)
    return 0 if all(passed.values()) else 1


def _passes(goal: Callable[[list[str]], int]) -> bool:
    """Whether a goal is reached; what stopped it is shown, and the goals after it still run."""
    try:
        return goal([]) == 0
    except StepError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return False


def run_gpu_tests(arguments: list[str]) -> int:
    """Builds for this machine's GPU, tests it, and times it into benchmarks/results."""
    if not gpu.architectures() or gpu.compiler() is None:
        raise StepError("[test-gpu] there is no usable NVIDIA GPU here, or no nvcc (set CUDACXX to name one).")
    compiler = _checked_compiler()
    built = steps.wheel(compiler, with_tests=False, for_gpu=True)
    folder, fresh = steps.install_wheel(".venv-gpu", built, "[test]")
    if fresh and (why_not := steps.parity_packages(folder)):
        print(f"\n!!! THE PARITY TESTS WILL SKIP: {why_not}.", flush=True)
    cuda = steps.cuda_build(compiler)
    passed = {"kernels against the CPU": cuda is not None and _ctest(cuda, "-R", "^cuda/")}
    models = ("tests/parity/test_gpu.py", "tests/parity/test_gpu_deterministic.py")
    passed["models on the GPU"] = _pytest(folder, *models, *arguments)
    say("benchmarks")
    result = ROOT / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-gpu.json"
    shapes = "llama3.2-1b,qwen3-0.6b"
    with tempfile.TemporaryDirectory(prefix="fastllm-bench-") as elsewhere:
        (Path(elsewhere) / "benchmarks").symlink_to(ROOT / "benchmarks")
        command = [folder / "bin" / "python", "-m", "benchmarks.gpu", "--shape", shapes, "--streams", "256"]
        steps.run([*command, "--throughput", "--out", result], cwd=Path(elsewhere))
    for name, ok in passed.items():
        print(f"    {'passed' if ok else 'FAILED'}  {name}", flush=True)
    print(f"    the figures are in {result.relative_to(ROOT)}")
    return 0 if all(passed.values()) else 1


def run_conda(_: list[str]) -> int:
    if why_not := conda.build_and_test():
        print(f"\n!!! THE CONDA RECIPE WAS NOT BUILT: {why_not}.", flush=True)
    return 0


def run_packages(arguments: list[str]) -> int:
    packages.build_and_test(_checked_compiler(), arguments)
    return 0


def run_all_tests(arguments: list[str]) -> int:
    return run_tests(arguments, everything=True)


def _lint_environment() -> Path:
    """The linters and what they must see of other packages; nothing is built."""
    name, key = ".venv-lint", stamps.digest(["pyproject.toml"], *LINTERS)
    folder, ready = steps.environment(name, key)
    if not ready:
        say("getting ruff, mypy and clang-format")
        steps.pip(folder, "install", *LINTERS)
        steps.environment_ready(name, key)
    return folder


def _cpp_files() -> list[str]:
    return [str(path) for folder in ("src", "tests/cpp") for path in sorted((ROOT / folder).rglob("*.[ch]*"))]


def run_lint(_: list[str]) -> int:
    tools = _lint_environment() / "bin"
    passed = {}
    commands = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy --strict": ["mypy"],
        "clang-format": ["clang-format", "--dry-run", "--Werror", *_cpp_files()],
    }
    for name, (program, *arguments) in commands.items():
        say(name)
        passed[name] = subprocess.run([str(tools / program), *arguments], cwd=ROOT, check=False).returncode == 0
    print()
    for name, ok in passed.items():
        print(f"    {'passed' if ok else 'FAILED'}  {name}")
    return 0 if all(passed.values()) else 1


def run_format(_: list[str]) -> int:
    tools = _lint_environment() / "bin"
    steps.run([tools / "ruff", "check", "--fix-only", "--quiet", "."])
    steps.run([tools / "ruff", "format", "."])
    steps.run([tools / "clang-format", "-i", *_cpp_files()])
    return 0


def run_bench(arguments: list[str]) -> int:
    if not (ROOT / "benchmarks" / "cpu.py").exists():
        raise StepError("[bench] this checkout has no benchmarks/cpu.py, so there is nothing to run.")
    built = steps.wheel(_checked_compiler(), with_tests=False)
    folder, fresh = steps.install_wheel(".venv-bench", built)
    if fresh:
        why_not = steps.parity_packages(folder)
        if why_not:
            print(f"!!! transformers is left out of the comparison: {why_not}.")
        try:
            steps.pip(folder, "install", "llama-cpp-python>=0.3", "gguf>=0.10")
        except StepError as error:
            print(f"!!! llama.cpp is left out of the comparison: {error}")
    say("benchmarks")
    # The folder benchmarks/ must be importable, the working tree's fastllm must not.
    with tempfile.TemporaryDirectory(prefix="fastllm-bench-") as elsewhere:
        (Path(elsewhere) / "benchmarks").symlink_to(ROOT / "benchmarks")
        environment = {"FASTLLM_ROOT": str(ROOT)}
        steps.run([folder / "bin" / "python", "-m", "benchmarks.cpu", *arguments], cwd=Path(elsewhere), env=environment)
    return 0


def run_clean(_: list[str]) -> int:
    for name in ("build", "dist", ".stamps", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ROOT.glob(".venv*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in [path for part in ("fastllm", "tests", "tools") for path in (ROOT / part).rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


GOALS: dict[str, Callable[[list[str]], int]] = {
    "doctor": run_doctor,
    "demo": run_demo,
    "test": run_tests,
    "test-all": run_all_tests,
    "test-gpu": run_gpu_tests,
    "lint": run_lint,
    "format": run_format,
    "bench": run_bench,
    "conda": run_conda,
    "packages": run_packages,
    "clean": run_clean,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, try and test fastllm (see `make help`).")
    parser.add_argument("goal", choices=sorted(GOALS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on, e.g. to pytest")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        code = GOALS[options.goal](options.arguments)
    except StepError as error:
        print(f"\n{error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        code = 130
    if options.goal not in ("doctor", "clean"):
        outcome = "done" if code == 0 else "not done"
        print(f"\nmake {options.goal}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
