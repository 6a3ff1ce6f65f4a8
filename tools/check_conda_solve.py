"""Which build the solver takes on which machine, and whether the environment files can be solved against a channel.

Run with an environment that has py-rattler and PyYAML: ``check_conda_solve.py --recipe SOURCES --channel URL ...``.
Exit code 1, and one line for each thing that is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import urllib.parse
from pathlib import Path

import rattler
import yaml
from rattler.exceptions import SolverError

PLATFORMS = ["linux-64", "noarch"]
# Not in the local channel: compilers, packages of gigabytes, and one that needs something without a wheel.
NOT_CARRIED = {"blockbuster", "cxx-compiler", "make", "pytorch", "transformers"}


def machine(cuda: str | None) -> list[rattler.GenericVirtualPackage]:
    """The virtual packages of this machine, with a GPU driver for that CUDA version or without one."""
    packages = [package.into_generic() for package in rattler.VirtualPackage.detect()]
    packages = [package for package in packages if package.name.normalized != "__cuda"]
    if cuda is not None:
        name, version = rattler.PackageName("__cuda"), rattler.Version(cuda)
        packages.append(rattler.GenericVirtualPackage(name, version, rattler.BuildString("0")))
    return packages


async def solve(channels: list[str], specs: list[str], cuda: str | None) -> dict[str, rattler.RepoDataRecord]:
    records = await rattler.solve(
        channels,
        specs,
        gateway=rattler.Gateway(),
        platforms=PLATFORMS,
        virtual_packages=machine(cuda),
        channel_priority=rattler.ChannelPriority.Disabled,
    )
    return {record.name.normalized: record for record in records}


async def choices(channels: list[str], cuda: str | None) -> list[str]:
    """The builds taken without a GPU, with one, with an older driver, and when asked for by name."""
    cases: list[tuple[str, str, str | None, str]] = [("no GPU", "fastllm", None, "cpu_")]
    if cuda is not None:
        major, _, minor = cuda.partition(".")
        built = f"cuda{major}{minor}_"
        cases += [
            (f"a driver for CUDA {cuda}", "fastllm", cuda, built),
            (f"a driver for CUDA {major}.{int(minor) + 1}", "fastllm", f"{major}.{int(minor) + 1}", built),
            (f"a driver for CUDA {int(major) - 1}.4", "fastllm", f"{int(major) - 1}.4", "cpu_"),
            (f"a driver for CUDA {cuda}, and =*=cpu*", "fastllm * cpu*", cuda, "cpu_"),
        ]
    wrong = []
    for machine_name, spec, driver, expected in cases:
        record = (await solve(channels, [spec], driver))["fastllm"]
        build = str(record.build)  # a class of its own in newer versions of rattler
        ok = build.startswith(expected)
        print(f"    {'ok ' if ok else 'NOT'}  {machine_name}: {record.name.normalized} {record.version} {build}")
        if not ok:
            wrong.append(f"with {machine_name} the solver takes {build}, not {expected}*")
    return wrong


async def environments(channels: list[str], sources: Path) -> list[str]:
    """Whether both environment files have a solution, less what the channel does not carry."""
    wrong = []
    for name in ("environment.yml", "environment-dev.yml"):
        lines = yaml.safe_load((sources / name).read_text(encoding="utf-8"))["dependencies"]
        specs = [line for line in lines if re.split(r"[ <>=]", line)[0] not in NOT_CARRIED]
        left_out = sorted({re.split(r"[ <>=]", line)[0] for line in lines} & NOT_CARRIED)
        try:
            records = await solve(channels, specs, None)
        except SolverError as error:
            wrong.append(f"{name} has no solution: {error}")
            continue
        python = records["python"].version
        print(f"    ok   {name}: {len(records)} packages, Python {python}; not asked for here: {', '.join(left_out)}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True, help="the folder with the environment files")
    parser.add_argument("--channel", action="append", required=True, help="URL of a channel (repeatable)")
    parser.add_argument("--cuda", help="the CUDA version that a package was built for, e.g. 13.0")
    options = parser.parse_args()
    for channel in options.channel:
        folder = Path(urllib.parse.urlparse(channel).path)
        if channel.startswith("file:") and not folder.is_dir():
            print(f"[solve] {folder} is no folder.", file=sys.stderr)
            return 1

    async def run() -> list[str]:
        return await choices(options.channel, options.cuda) + await environments(options.channel, options.recipe)

    wrong = asyncio.run(run())
    for line in wrong:
        print(f"[solve] {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
