"""A writer of newc cpio archives, the format of an initramfs; several can be put one after another."""

from __future__ import annotations

import stat
from pathlib import PurePosixPath


class Cpio:
    """Collects files, links and device nodes; parents are made as needed and names are taken once."""

    def __init__(self, present: frozenset[str] = frozenset()) -> None:
        self._data = bytearray()
        self._inode = 1
        self._names: set[str] = set(present)

    @property
    def names(self) -> frozenset[str]:
        """What the archive holds, for an archive that continues this one."""
        return frozenset(self._names)

    def directory(self, name: str, mode: int = 0o755) -> None:
        if self._new(name):
            self._entry(name, stat.S_IFDIR | mode)

    def file(self, name: str, data: bytes, mode: int = 0o755) -> None:
        if self._new(name):
            self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        if self._new(name):
            self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character(self, name: str, major: int, minor: int) -> None:
        if self._new(name):
            self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        """The archive, padded so that another may follow."""
        self._entry("TRAILER!!!", 0)
        self._data += b"\0" * (-len(self._data) % 512)
        return bytes(self._data)

    def _new(self, name: str) -> bool:
        if name in self._names:
            return False
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.directory(parent)
        self._names.add(name)
        return True

    def _entry(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        raw = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        self._inode += 1
        for part in (b"070701" + b"".join(b"%08x" % field for field in fields) + raw, data):
            self._data += part
            self._data += b"\0" * (-len(self._data) % 4)
