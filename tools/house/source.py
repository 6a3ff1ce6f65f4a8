"""A clean copy of the sources: what git would commit, without what was built or installed here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .stamps import ROOT
from .steps import StepError


def export(folder: Path) -> Path:
    """Copy tracked files and new ones that git does not ignore into a fresh folder.

    Raises:
        StepError: git does not list the files, for instance because this is no checkout.
    """
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise StepError(f"[export] `{' '.join(command)}` ended with {done.returncode}: {done.stderr.decode().strip()}.")
    for name in sorted({entry for entry in done.stdout.decode().split("\0") if entry}):
        source, target = ROOT / name, folder / name
        if source.is_file():  # else it was deleted and that is not committed yet
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder
