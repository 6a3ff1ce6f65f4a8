"""What the browser tests need: JupyterLab, Notebook, Voila and playwright in the test environment, and a Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import stamps, steps
from .stamps import ROOT

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def requirements() -> list[str]:
    """The extra ``browser`` of pyproject.toml (read without a TOML parser, which Python 3.10 does not have)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^browser = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise steps.StepError("[browser] pyproject.toml has no extra named browser.")
    return re.findall(r'"([^"]+)"', block[1])


def _has_chromium(folder: Path) -> bool:
    if os.environ.get("FASTLLM_CHROMIUM") or any(map(shutil.which, _CHROMIUM)):
        return True
    program = (
        "import os\nfrom playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as p: assert os.path.exists(p.chromium.executable_path)\n"
    )
    command = [str(steps.interpreter(folder)), "-c", program]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def prepare(folder: Path) -> str:
    """Gets what the browser tests need into an environment.

    Chromium comes from the system's packages, and only where this is root on a machine with apt-get.

    Returns:
        The empty string, or what is missing and how to get it.
    """
    wanted = requirements()
    key = stamps.digest([], *wanted, str(folder.stat().st_ino))
    if stamps.read("browser").get("key") != key:
        steps.say("getting JupyterLab, Notebook, Voila and playwright for the browser tests")
        try:
            steps.pip(folder, "install", *wanted)
        except steps.StepError as error:
            return str(error)
        stamps.write("browser", key=key)
    if _has_chromium(folder):
        return ""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        steps.say("getting Chromium from the system's packages")
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        for words in (["apt-get", "update", "-qq"], command):
            environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
            if subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
                break
        if _has_chromium(folder):
            return ""
    return "there is no Chromium: sudo apt-get install chromium, or FASTLLM_CHROMIUM=<its path>"
