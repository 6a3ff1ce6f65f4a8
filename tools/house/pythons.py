"""The Python interpreters of this machine that fastllm supports and that can build it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")

# Prints the version, and where the interpreter really is: behind a shim or a virtual environment.
_PROBE = (
    "import os, sys, sysconfig, venv, ensurepip\n"
    "assert os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))\n"
    "print('%d.%d' % sys.version_info[:2], os.path.realpath(getattr(sys, '_base_executable', sys.executable)))\n"
)


def _candidates(version: str) -> list[str]:
    """Where a Python of this version may be, best first; some do not exist.

    A Python of its own folder comes before the system's, which a distribution may have rearranged.
    """
    found = []
    roots = [os.environ.get("PYENV_ROOT"), "~/.pyenv"]
    for root in [Path(entry).expanduser() for entry in roots if entry]:
        found += [str(path) for path in sorted((root / "versions").glob(f"{version}.*/bin/python{version}"))]
    if "{}.{}".format(*sys.version_info[:2]) == version:
        found.append(sys.executable)
    # The PATH comes after pyenv's own folders: its shims are on the PATH and run only what was switched on.
    found += [path for path in [shutil.which(f"python{version}")] if path]
    return found


def find() -> dict[str, str]:
    """Interpreters with headers, venv and pip, by version.

    Returns:
        E.g. ``{"3.11": "/usr/bin/python3.11"}``, in the order of `SUPPORTED`; those that are not here are left out.
    """
    found: dict[str, str] = {}
    for version in SUPPORTED:
        for candidate in _candidates(version):
            command = [candidate, "-I", "-c", _PROBE]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = done.stdout.split()
            if done.returncode == 0 and said[:1] == [version]:
                found[version] = said[1]
                break
    return found
