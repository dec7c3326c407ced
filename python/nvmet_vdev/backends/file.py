"""A drive in a file or on a block device.

May know: `Storage`. Must not know: other backends.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import Backend
from nvmet_vdev.backends._storage import Storage
from nvmet_vdev.sizes import Size

__all__ = ["File"]


class File(Backend):
    """A regular file or a block device, through the page cache.

    Served by itself a path is faster (`nvmet-vdev run PATH`): this one is for filters to have something below
    them. `create` makes a new file of so many bytes, and refuses one that exists. The file is locked as QEMU
    locks its images: one user who writes, or any number who only read.

        >>> drive = File("disk.img", create=1 << 20)
        >>> drive.open()
        >>> drive.write(0, memoryview(b"x" * 512), True)
        >>> drive.close()
        >>> Path("disk.img").stat().st_size
        1048576
    """

    thread_safe = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        create: Size | None = None,
        block_size: int = 512,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.block_size = block_size
        self._create = create
        self._size = 0
        if create is not None:
            if read_only:
                raise ConfigError(f"{path}: a new file is of no use read-only: leave one of the two out")
            self._check_size(create)
        if read_only:
            for name in ("write", "flush", "discard", "write_zeroes", "resize"):
                setattr(self, name, None)

    def open(self) -> None:
        """Creates the file if that was asked for, opens, locks and measures it."""
        if self._create is not None:
            self._make(self._create)
        self._storage = Storage(self.path, read_only=self.read_only)
        try:
            self._size = self._storage.size()
            self._check_size(self._size)
        except BaseException:
            self._storage.close()
            raise
        if self._storage.is_device:
            setattr(self, "resize", None)  # noqa: B010

    def close(self) -> None:
        self._storage.close()

    @property
    def size(self) -> int:
        """Bytes, as measured when it was opened."""
        return self._size

    def read(self, offset: int, buf: memoryview) -> None:
        self._storage.read(offset, buf)

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self._storage.write(offset, buf, durable=fua)

    def flush(self) -> None:
        self._storage.sync()

    def discard(self, offset: int, length: int) -> None:
        self._storage.zero(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:
        self._storage.zero(offset, length, keep=not may_discard)
        if fua:
            self._storage.sync()

    def resize(self, size: int) -> None:
        """Makes a regular file longer or shorter; EINVAL unless `size` is whole blocks."""
        if size <= 0 or size % self.block_size:
            raise OSError(errno.EINVAL, f"{size} bytes are no whole blocks of {self.block_size}")
        self._storage.truncate(size)
        self._size = size

    def _make(self, size: int) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigError(
                f"{self.path}: exists already: use it as it is, or choose another name"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be created: {error.strerror}") from None
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            # It was ours alone: nobody else can have put anything into it.
            self.path.unlink()
            raise ConfigError(f"{self.path}: cannot be {size} bytes long: {error.strerror}") from None
        finally:
            os.close(fd)

    def _check_size(self, size: int) -> None:
        if size <= 0:
            raise ConfigError(f"{self.path}: is empty: give it a size first (truncate -s 10G FILE)")
        if size % self.block_size:
            raise ConfigError(f"{self.path}: its {size} bytes are not whole blocks of {self.block_size}")
