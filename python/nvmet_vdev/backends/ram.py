"""A drive of memory.

May know: pages. Must not know: other backends.
"""

from __future__ import annotations

import mmap

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import Backend
from nvmet_vdev.sizes import Size

__all__ = ["Ram"]

_PAGE = mmap.PAGESIZE


class Ram(Backend):
    """Memory that is gone with the process; it takes up room where it was written.

    `size` is in bytes, a multiple of `block_size`.

        >>> drive = Ram(64 << 20)
        >>> drive.write(4096, memoryview(b"hello".ljust(512)), False)
        >>> data = bytearray(512)
        >>> drive.read(4096, memoryview(data))
        >>> bytes(data[:5])
        b'hello'
    """

    thread_safe = True

    def __init__(self, size: Size, *, block_size: int = 512) -> None:
        if size <= 0 or size % block_size:
            raise ConfigError(f"Ram: the size of {size} bytes is no positive multiple of {block_size}")
        self.size = size
        self.block_size = block_size
        try:
            self._pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Ram: {size} bytes of memory cannot be had: {error}") from None
        self._data = memoryview(self._pages)

    def close(self) -> None:
        """Gives the memory back."""
        self._data.release()
        self._pages.close()

    def read(self, offset: int, buf: memoryview) -> None:
        buf[:] = self._data[offset : offset + len(buf)]

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:  # noqa: ARG002
        self._data[offset : offset + len(buf)] = buf

    def discard(self, offset: int, length: int) -> None:
        """Gives whole pages back to the kernel; everything in the range reads as zeroes."""
        end = offset + length
        first, last = -(-offset // _PAGE) * _PAGE, end // _PAGE * _PAGE
        if first >= last:
            self._data[offset:end] = bytes(length)
            return
        self._data[offset:first] = bytes(first - offset)
        self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)
        self._data[last:end] = bytes(end - last)

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:  # noqa: ARG002
        self.discard(offset, length)

    def compare(self, offset: int, buf: memoryview) -> bool:
        return self._data[offset : offset + len(buf)] == buf
