"""The shared libraries that a 64-bit little-endian ELF program names, and where they are in a tree."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.vm.rig.errors import RigError

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
# Below the root of an unpacked tree; fio's RADOS libraries keep one in a directory of their own.
LIBRARY_DIRS = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph", "usr/lib")
LOADER = "usr/lib64/ld-linux-x86-64.so.2"


def needed(image: bytes) -> list[str]:
    """The DT_NEEDED names of an ELF file; none for a static one."""
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (phoff,) = struct.unpack_from("<Q", image, 0x20)
    phentsize, phnum = struct.unpack_from("<HH", image, 0x36)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for index in range(phnum):
        kind, _, offset, vaddr, _, filesz = struct.unpack_from("<IIQQQQ", image, phoff + index * phentsize)
        if kind == _PT_LOAD:
            loads.append((vaddr, filesz, offset))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, filesz)
    if dynamic is None:
        return []
    names: list[int] = []
    strings = 0
    for tag, value in struct.iter_unpack("<qQ", image[dynamic[0] : dynamic[0] + dynamic[1]]):
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            names.append(value)
        elif tag == _DT_STRTAB:
            strings = next(off + value - va for va, size, off in loads if va <= value < va + size)
    return [image[strings + name : image.index(b"\0", strings + name)].decode() for name in names]


def libraries(root: Path, program: Path) -> dict[str, Path]:
    """Every library that `program` loads, by name, found below `root`."""
    found: dict[str, Path] = {}
    todo = [program]
    while todo:
        for name in needed(todo.pop().read_bytes()):
            if name not in found:
                found[name] = _locate(root, name)
                todo.append(found[name])
    return found


def _locate(root: Path, name: str) -> Path:
    for directory in LIBRARY_DIRS:
        path = root / directory / name
        if path.exists():
            return path.resolve()
    raise RigError(f"library {name} is not among the unpacked packages: has the archive changed?")
