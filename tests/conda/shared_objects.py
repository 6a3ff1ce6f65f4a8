"""What a shared object asks of the machine: its dynamic section and symbol versions, read without any tool.

Layout: System V ABI, chapters 4 and 5 (the ELF header, section headers, the dynamic section); the version needs as in
the Linux Standard Base, "Symbol Versioning". 64-bit little-endian files only, which is all that fastllm is built for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

_SHT_DYNAMIC = 6
_SHT_GNU_VERNEED = 0x6FFFFFFE
_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 14, 15, 29


@dataclass
class SharedObject:
    """What the loader reads of a file.

    Attributes:
        needed: Names of the libraries that must be there, e.g. "libc.so.6".
        search_paths: Entries of RPATH and RUNPATH.
        versions: For each of the libraries, the symbol versions asked for, e.g. {"libc.so.6": {"GLIBC_2.17"}}.
    """

    needed: list[str] = field(default_factory=list)
    search_paths: list[str] = field(default_factory=list)
    versions: dict[str, set[str]] = field(default_factory=dict)

    def newest(self, family: str) -> tuple[int, ...]:
        """The highest version of a family ("GLIBC", "GLIBCXX") that is asked for, as numbers; () for none."""
        found = [
            tuple(int(part) for part in version[len(family) + 1 :].split("."))
            for versions in self.versions.values()
            for version in versions
            if version.startswith(family + "_") and version[len(family) + 1 :].replace(".", "").isdigit()
        ]
        return max(found, default=())


def read(path: Path) -> SharedObject:
    """Read one file.

    Raises:
        ValueError: It is no 64-bit little-endian ELF file.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"[elf] {path} begins with {data[:6]!r}, not with a 64-bit little-endian ELF header.")
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * size) for i in range(count)]

    def text(table: int, offset: int) -> str:
        start = sections[table][4] + offset
        return data[start : data.index(b"\0", start)].decode()

    found = SharedObject()
    for _, kind, _, _, offset, length, link, info, _, _ in sections:
        if kind == _SHT_DYNAMIC:
            for at in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<qQ", data, at)
                if tag == _DT_NEEDED:
                    found.needed.append(text(link, value))
                elif tag in (_DT_RPATH, _DT_RUNPATH):
                    found.search_paths += [entry for entry in text(link, value).split(":") if entry]
        elif kind == _SHT_GNU_VERNEED:
            at = offset
            for _ in range(info):
                _, entries, file, first, following = struct.unpack_from("<HHIII", data, at)
                library = found.versions.setdefault(text(link, file), set())
                entry = at + first
                for _ in range(entries):
                    _, _, _, name, next_entry = struct.unpack_from("<IHHII", data, entry)
                    library.add(text(link, name))
                    entry += next_entry
                at += following
    return found
