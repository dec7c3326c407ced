"""What the tests of the backends share: a drive as a bytearray, and calls without memoryviews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nvmet_vdev import Backend
from nvmet_vdev.backends.filter import call_if_there

BLOCK = 512


@contextmanager
def opened(backend: Any) -> Iterator[Any]:
    """An open backend, closed at the end."""
    call_if_there(backend, "open")
    try:
        yield backend
    finally:
        call_if_there(backend, "close")


def read(backend: Any, offset: int, length: int) -> bytes:
    """What a read gives; the buffer is released afterwards, as the target does."""
    data = bytearray(b"?" * length)
    with memoryview(data) as buf:
        backend.read(offset, buf)
    return bytes(data)


def write(backend: Any, offset: int, data: bytes, *, fua: bool = False) -> None:
    """A write from a buffer that is read-only and released afterwards."""
    with memoryview(data) as buf:
        backend.write(offset, buf, fua)


def pattern(size: int) -> bytes:
    """Bytes that say where they are: every block is different, and none is zero."""
    return b"".join(
        (b"%07d" % number).ljust(BLOCK, bytes([number % 255 + 1])) for number in range(size // BLOCK)
    )


class Plain(Backend):
    """The least that a backend may be: content that can only be read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads: list[tuple[int, int]] = []

    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, buf: memoryview) -> None:
        self.reads.append((offset, len(buf)))
        buf[:] = self.content[offset : offset + len(buf)]
