"""Is there an NVIDIA GPU here to build for, and a compiler for it?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# What fastllm's kernels need at least.
LEAST_CAPABILITY = 80


def architectures() -> str:
    """CMake's names of the architectures of this machine's GPUs, e.g. "90a-real"; empty without a GPU that will do.

    From Hopper on, the code for exactly this chip is asked for ("a"), since its matrix instructions exist nowhere else.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ""
    command = [smi, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode != 0:
        return ""
    found = {int(major + minor) for major, minor in re.findall(r"^\s*(\d+)\.(\d)\s*$", done.stdout, re.MULTILINE)}
    usable = sorted(number for number in found if number >= LEAST_CAPABILITY)
    return ";".join(f"{number}{'a' if number >= 90 else ''}-real" for number in usable)


def compiler() -> str | None:
    """The CUDA compiler of the environment variable, the PATH or the toolkit's usual place."""
    named = os.environ.get("CUDACXX")
    if named:
        return named
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    usual = [Path(folder) / "bin" / "nvcc" for folder in folders if folder]
    return shutil.which("nvcc") or next((str(path) for path in usual if path.is_file()), None)
