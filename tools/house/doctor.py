"""Is everything here that building fastllm needs? If not: what is missing, and the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Exercises what the engine needs of a compiler: C++20 language and library, threads, and new enough intrinsics.
_PROBE = """
#include <atomic>
#include <concepts>
#include <ranges>
#include <span>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
__attribute__((target("avx512f,avx512vnni"))) int dot(const void* p) {
  const __m512i v = _mm512_loadu_si512(p);
  return _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), v, v));
}
#endif
template <std::integral T>
T total(std::span<const T> values) {
  T sum = 0;
  for (T value : values | std::views::filter([](T v) { return v > 1; })) sum += value;
  return sum;
}
int main() {
  std::atomic<int> flag{0};
  std::thread worker([&] { flag = 1; flag.notify_one(); });
  flag.wait(0);
  worker.join();
  const std::vector<int> values{1, 2, 3};
  return total(std::span<const int>(values)) == 5 ? 0 : 1;
}
"""

_INSTALL = {
    "debian": {
        "compiler": "sudo apt-get install g++",
        "make": "sudo apt-get install make",
        "git": "sudo apt-get install git",
        "headers": "sudo apt-get install python3-dev   (for another Python: python3.12-dev)",
    },
    "fedora": {
        "compiler": "sudo dnf install gcc-c++",
        "make": "sudo dnf install make",
        "git": "sudo dnf install git",
        "headers": "sudo dnf install python3-devel",
    },
    "arch": {
        "compiler": "sudo pacman -S gcc",
        "make": "sudo pacman -S make",
        "git": "sudo pacman -S git",
        "headers": "sudo pacman -S python",
    },
    "conda": {
        "compiler": "conda install -c conda-forge cxx-compiler",
        "make": "conda install -c conda-forge make",
        "git": "conda install -c conda-forge git",
        "headers": "conda install -c conda-forge python",
    },
    "macos": {
        "compiler": "xcode-select --install",
        "make": "xcode-select --install",
        "git": "xcode-select --install",
        "headers": "brew install python@3.12",
    },
    "other": {
        "compiler": "install g++ 12 or newer, or clang 15 or newer",
        "make": "install GNU make",
        "git": "install git",
        "headers": "install the development headers of this Python",
    },
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name, as shown.
        found: Where or which version; None when it is missing.
        problem: Why it does not do, when it is missing.
        fix: The command that installs it.
        needed: False for what is only good to have.
    """

    what: str
    found: str | None
    problem: str = ""
    fix: str = ""
    needed: bool = True


def platform() -> str:
    """The key of the table of install commands: debian, fedora, arch, conda, macos or other."""
    if os.environ.get("CONDA_PREFIX"):
        return "conda"
    if sys.platform == "darwin":
        return "macos"
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "other"
    names = " ".join(
        line.split("=", 1)[1].strip("\"'") for line in release.splitlines() if line.startswith(("ID=", "ID_LIKE="))
    ).split()
    for family, members in {
        "debian": ("debian", "ubuntu"),
        "fedora": ("fedora", "rhel", "centos"),
        "arch": ("arch",),
    }.items():
        if any(name in members for name in names):
            return family
    return "other"


def compile_probe(compiler: str) -> str:
    """Compile, link and run a C++20 program; the empty string when that works, else why it does not."""
    with tempfile.TemporaryDirectory(prefix="fastllm-probe-") as folder:
        source, program = Path(folder) / "probe.cpp", Path(folder) / "probe"
        source.write_text(_PROBE, encoding="utf-8")
        command = [*compiler.split(), "-std=c++20", "-O1", "-pthread", str(source), "-o", str(program)]
        try:
            built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if built.returncode != 0:
                errors = [line for line in built.stderr.splitlines() if "error" in line] or built.stderr.splitlines()
                return "does not compile C++20: " + (errors[0].strip() if errors else f"exit code {built.returncode}")
            ran = subprocess.run([str(program)], capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"does not run: {error}"
        return "" if ran.returncode == 0 else f"builds programs that end with {ran.returncode}"


def find_compiler() -> tuple[str | None, str]:
    """The first C++ compiler that compiles the probe, as ``(command, "")``, or ``(None, why not)``."""
    asked = os.environ.get("CXX")
    candidates = [asked] if asked else ["c++", "g++", "g++-14", "g++-13", "g++-12", "clang++", "clang++-18"]
    problems = []
    for candidate in candidates:
        if shutil.which(candidate.split()[0]) is None:
            if asked:
                problems.append(f"CXX={candidate} is not on the PATH")
            continue
        problem = compile_probe(candidate)
        if not problem:
            return candidate, ""
        problems.append(f"{candidate} {problem}")
    return None, "; ".join(problems) or f"none of {', '.join(candidates)} is on the PATH"


def examine() -> list[Finding]:
    """Look for all that is needed to build; takes a second or two, for the compiler is really run."""
    fix = _INSTALL[platform()]
    version = ".".join(str(part) for part in sys.version_info[:3])
    findings = [Finding("Python", f"{version}, {sys.executable}")]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    findings.append(
        Finding("Python.h", str(header))
        if header.exists()
        else Finding("Python.h", None, f"{header} does not exist", fix["headers"])
    )
    compiler, problem = find_compiler()
    findings.append(Finding("C++20 compiler", compiler, problem, fix["compiler"]))
    for tool, needed in (("make", True), ("git", False)):
        path = shutil.which(tool)
        findings.append(Finding(tool, path, "not on the PATH", fix[tool], needed))
    free = shutil.disk_usage(Path(__file__).parent).free
    findings.append(
        Finding("disk", f"{free / 2**30:.1f} GiB free")
        if free > 2 * 2**30
        else Finding("disk", None, f"{free / 2**30:.1f} GiB free, about 2 GiB are needed", "make clean", needed=False)
    )
    return findings


def report(findings: list[Finding], *, quiet: bool = False) -> bool:
    """Print what was found; False when something needed is missing. ``quiet`` prints the missing only."""
    for finding in findings:
        if finding.found is not None:
            if not quiet:
                print(f"  ok       {finding.what:16} {finding.found}")
        else:
            mark = "MISSING" if finding.needed else "absent "
            print(f"  {mark}  {finding.what:16} {finding.problem}\n             install it: {finding.fix}")
    return all(finding.found is not None or not finding.needed for finding in findings)
