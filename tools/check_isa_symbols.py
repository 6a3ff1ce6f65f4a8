"""Guard of the one trap of compiling a file once per instruction set (see cmake/CpuIsa.cmake).

Reads object files with nm and fails for every defined symbol that another object could end up using although it lies
outside the namespace of its instruction set: weak symbols (inline functions, templates) and global ones. Standard
library only; used by ctest as `isa_symbols_<isa>`.

    python tools/check_isa_symbols.py --nm nm --namespace fastllm::cpu::isa_avx2 a.o b.o
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# nm's letters: lower case is private to the object, except for these two kinds of weak symbol; U is undefined.
_WEAK = frozenset("VvWwu")


def mangled_namespace(namespace: str) -> str:
    """The Itanium-mangled form of a namespace, e.g. ``7fastllm3cpu8isa_avx2`` for ``fastllm::cpu::isa_avx2``."""
    return "".join(f"{len(part)}{part}" for part in namespace.split("::"))


def offenders(nm_output: str, namespace: str) -> list[tuple[str, str]]:
    """The (kind, symbol) pairs that the linker may share with other objects.

    Args:
        nm_output: What ``nm --defined-only --format=posix`` printed: name, kind, value, size on each line.
        namespace: The namespace that symbols may be shared in.
    """
    inside = mangled_namespace(namespace)
    found = []
    for line in nm_output.splitlines():
        fields = line.split()
        if len(fields) < 2 or line.endswith(":"):
            continue
        name, kind = fields[0], fields[1]
        # C: common data without an initialiser, which is how -fno-weak emits the empty function objects of std::ranges.
        # It holds no instructions, so whoever's copy is used does not matter.
        shared = kind in _WEAK or (kind.isupper() and kind != "C")
        if shared and inside not in name and not name.startswith("DW.ref."):
            found.append((kind, name))
    return found


def _demangled(names: Iterable[str]) -> dict[str, str]:
    names = list(names)
    try:
        text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {name: name for name in names}
    return dict(zip(names, text.splitlines(), strict=False))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check that kernel objects share no symbol across instruction sets.")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("objects", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    bad = 0
    for path in options.objects:
        listing = subprocess.run(
            [options.nm, "--defined-only", "--format=posix", str(path)], capture_output=True, text=True, check=True
        ).stdout
        found = offenders(listing, options.namespace)
        readable = _demangled(name for _, name in found)
        for kind, name in found:
            print(f"{path.name}: {kind} {readable.get(name, name)}")
        bad += len(found)
    if bad:
        print(
            f"[isa_symbols] {bad} symbols lie outside {options.namespace}: code for other CPUs could get these. "
            f"Make them static, put them into the namespace, or move them out of kernel files (cmake/CpuIsa.cmake)."
        )
        return 1
    print(f"[isa_symbols] {len(options.objects)} objects, nothing shared outside {options.namespace}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
