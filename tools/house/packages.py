"""`make packages`: the source distribution, and a wheel built from it for every Python here, audited and tested."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from . import conda, pythons, source, steps
from .stamps import ROOT
from .steps import StepError, say

LARGEST_CPU_WHEEL = 25_000_000  # bytes
_WORK = ROOT / "build" / "packages"


def _sdist(tools: Path) -> Path:
    """Build the source distribution and unpack it where no git is; returns the folder."""
    say("building the source distribution")
    sources = source.export(_WORK / "tree")
    out = _WORK / "sdist"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    program = "import sys, scikit_build_core.build as backend; backend.build_sdist(sys.argv[1])"
    steps.run([steps.interpreter(tools), "-c", program, out], cwd=sources)
    archive = next(out.glob("fastllm-*.tar.gz"))
    with tarfile.open(archive) as packed:
        if hasattr(tarfile, "data_filter"):  # Python 3.10.12 and newer
            packed.extractall(out, filter="data")
        else:
            packed.extractall(out)
    print(f"    {archive.stat().st_size / 1e6:6.2f} MB  {archive.name}")
    return out / archive.name.removesuffix(".tar.gz")


def _wheel(unpacked: Path, version: str, python: str, compiler: str) -> Path:
    """Build a wheel as pip does it for anyone: from the source distribution, in an isolated environment."""
    say(f"building a wheel for Python {version} from the source distribution")
    out = _WORK / "wheels" / version
    shutil.rmtree(out, ignore_errors=True)
    env = {"CXX": compiler, "CMAKE_BUILD_PARALLEL_LEVEL": str(steps.jobs()), "FASTLLM_CUDA": "OFF", "PIP_NO_INPUT": "1"}
    steps.run(
        [python, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--quiet", "-w", out, unpacked],
        env=env,
        hint="The lines above hold the compiler's message.",
    )
    built = next(out.glob("fastllm-*.whl"))
    if built.stat().st_size >= LARGEST_CPU_WHEEL:
        raise StepError(f"[wheel] {built.name} has {built.stat().st_size} bytes, but {LARGEST_CPU_WHEEL} is the limit.")
    return built


def _audited(tools: Path, built: Path) -> Path:
    """The wheel under the most portable manylinux tag that its symbols allow, which its name then carries."""
    out = built.parent / "audited"
    env = {"PATH": f"{tools / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    steps.run([tools / "bin" / "auditwheel", "repair", "--plat", "auto", "-w", out, built], env=env)
    audited = next(out.glob("fastllm-*.whl"))
    if "manylinux" not in audited.name:
        raise StepError(f"[wheel] auditwheel gives {audited.name}, whose tag is not one of manylinux.")
    return audited


def _test(version: str, python: str, wheel: Path) -> str:
    """Install the wheel into a bare environment, run the package's tests there and let it answer.

    Returns:
        What the last line of pytest says.
    """
    say(f"installing {wheel.name} into a bare Python {version}")
    folder = _WORK / "venvs" / version
    shutil.rmtree(folder, ignore_errors=True)
    steps.run([python, "-m", "venv", folder])
    steps.pip(folder, "install", "--quiet", wheel)
    away = _WORK / "away"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    env = {"PYTHONPATH": "", "LD_LIBRARY_PATH": ""}
    steps.run([folder / "bin" / "fastllm", "info", "--devices"], cwd=away, env=env)
    steps.run([folder / "bin" / "fastllm", "run", "Why is the sky blue?"], cwd=away, env=env)
    steps.pip(folder, "install", "--quiet", "pytest")
    steps.run([steps.interpreter(folder), "-m", "pip", "--disable-pip-version-check", "check"])
    shutil.copytree(ROOT / "tests" / "conda", away / "tests")
    done = subprocess.run(
        [str(steps.interpreter(folder)), "-m", "pytest", "-q", "tests"],
        cwd=away,
        env=dict(os.environ, FASTLLM_EXPECT_CUDA="no", **env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StepError(f"[wheel] the package's tests ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return re.sub(r"=+", "", done.stdout.strip().splitlines()[-1]).strip()


def build_and_test(compiler: str, versions: list[str]) -> None:
    """Everything that `make packages` does.

    Args:
        compiler: The C++ compiler.
        versions: E.g. ["3.12"]; empty for every Python that is here.

    Raises:
        StepError: A Python asked for is not here, or something did not build, install, pass or was too large.
    """
    found = pythons.find()
    if missing := [version for version in versions if version not in found]:
        raise StepError(f"[wheel] no Python {', '.join(missing)} with headers is here; there is {', '.join(found)}.")
    unpacked = _sdist(steps.build_environment())
    audit = conda.environment()
    rows = []
    for version in versions or list(found):
        built = _wheel(unpacked, version, found[version], compiler)
        audited = _audited(audit, built)
        rows.append((audited, _test(version, found[version], audited)))
    print()
    for wheel, said in rows:
        print(f"    {wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}\n               {said}")
    if absent := [version for version in pythons.SUPPORTED if version not in found]:
        print(f"\n!!! NOT BUILT FOR PYTHON {', '.join(absent)}: not on this machine, or without headers.")
