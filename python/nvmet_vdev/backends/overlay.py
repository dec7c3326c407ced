"""Copy on write: a drive that can be written, over one that stays as it is.

The file has three parts, each at a multiple of 4096 bytes:

    header   4096 bytes: `_HEADER`, its CRC-32, zeroes
    map      a byte for each cluster of the drive: 0, it is the base's; 1, it is in this file
    data     the drive, each byte at its offset from here; what is the base's is a hole

A cluster that is in the file is never given back, so the map only changes from 0 to 1, and in this order: the
cluster's data is written; a flush makes it durable (fdatasync); then the byte of the map is written and made
durable. A process that is killed, or a machine that loses power, leaves some of the bytes that were under way
set and others not. Either is right: a byte that is set has its data behind it, and one that is not was never
acknowledged by a flush. That is also why the map has no checksum: a page of it that was written in part is a
valid one.

May know: the backend below, `Storage`. Must not know: what kind of backend it is.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import ClassVar

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backends._storage import Storage
from nvmet_vdev.backends.filter import Filter, Readable, size_of
from nvmet_vdev.sizes import Size

__all__ = ["Overlay"]

_MAGIC = b"NVMETCOW"
_VERSION = 1
# Magic, version, cluster in bytes, size of the base in bytes.
_HEADER = struct.Struct("<8sIIQ")
_CRC = struct.Struct("<I")
_PAGE = 4096
_BASE, _HERE = b"\0", b"\1"
_DEFAULT_CLUSTER = 64 << 10
# So many bytes of memory the map may have.
_MOST_CLUSTERS = 1 << 28


class Overlay(Filter):
    """Copy-on-write over any other drive: what is written stays in a sparse file.

    `file` is made if it is not there (or is empty); otherwise it must be an overlay over a base of the same
    size. The base must not change meanwhile: the overlay cannot notice. `cluster` is the unit of copying in
    bytes, a power of two from 4 KiB to 2 MiB, 64 KiB unless the file has another: a small write copies the
    rest of its cluster from the base.

    A write is on the medium after `flush` or with `fua`, whatever happens then. Discarded blocks read as
    zeroes. The size is that of the base for good. The file is locked.

        >>> base = File("disk.img", create=1 << 20)
        >>> drive = Overlay(base, "cow.img")
        >>> drive.open()
        >>> drive.write(4096, memoryview(b"x" * 512), True)
        >>> drive.close()
        >>> any(Path("disk.img").read_bytes())
        False
        >>> again = Overlay(File("disk.img", read_only=True), "cow.img")
        >>> again.open()
        >>> data = bytearray(512)
        >>> again.read(4096, memoryview(data))
        >>> data == b"x" * 512
        True
        >>> again.close()
    """

    opens_read_only: ClassVar[bool] = True
    passes: ClassVar[tuple[str, ...]] = ()
    inherits: ClassVar[tuple[str, ...]] = ("block_size", "max_inflight", "thread_safe", "timeout")

    # The target does without: it reads and compares. And the size stays that of the base.
    compare = None  # type: ignore[assignment]
    resize = None  # type: ignore[assignment]

    def __init__(self, inner: Readable, file: str, *, cluster: Size | None = None) -> None:
        super().__init__(inner)
        self.file = file
        if cluster is not None and not _is_cluster(cluster):
            raise ConfigError(
                f"overlay {file}: a cluster is a power of two from 4 KiB to 2 MiB, not {cluster} bytes"
            )
        self._wanted = cluster
        # Whoever lets clusters in, so that two writes to one cluster do not both copy the rest of it.
        self._growing = threading.Lock()
        # One flush at a time: the second may rely on what the first has taken.
        self._flushing = threading.Lock()

    def open(self) -> None:
        """Opens the base and the file; ConfigError says why they do not belong together."""
        super().open()
        with ExitStack() as undo:
            undo.callback(super().close)
            self._size = size_of(self.inner)
            self._storage = Storage(self.file, create=True)
            undo.callback(self._storage.close)
            try:
                self._load()
            except OSError as error:
                raise self._refuse(f"cannot be prepared: {error.strerror}") from None
            undo.pop_all()

    def close(self) -> None:
        """Flushes and closes the file, then the base."""
        try:
            self.flush()
        finally:
            self._storage.close()
            super().close()

    @property
    def size(self) -> int:
        """That of the base when it was opened, in bytes."""
        return self._size

    def read(self, offset: int, buf: memoryview) -> None:
        for start, end, here in self._runs(offset, offset + len(buf)):
            with buf[start - offset : end - offset] as part:
                if here:
                    self._storage.read(self._data + start, part)
                else:
                    self.inner.read(start, part)

    def write(self, offset: int, buf: memoryview, fua: bool) -> None:
        self._store(offset, len(buf), lambda: self._storage.write(self._data + offset, buf))
        if fua:
            self.flush()

    def discard(self, offset: int, length: int) -> None:
        """Hides the base's blocks: the range reads as zeroes, and takes up no room in the file."""
        self._store(offset, length, lambda: self._storage.zero(self._data + offset, length))

    def write_zeroes(self, offset: int, length: int, *, may_discard: bool, fua: bool) -> None:  # noqa: ARG002
        self.discard(offset, length)
        if fua:
            self.flush()

    def flush(self) -> None:
        """Makes durable what was written before: the data first, then the map that makes it count."""
        with self._flushing:
            with self._growing:
                pages = {page: bytes(self._map[page * _PAGE : (page + 1) * _PAGE]) for page in self._changed}
                self._changed.clear()
            try:
                self._storage.sync()
                for page, content in sorted(pages.items()):
                    self._storage.write(_PAGE + page * _PAGE, memoryview(content))
                if pages:
                    self._storage.sync()
            except BaseException:
                with self._growing:
                    self._changed |= pages.keys()
                raise

    def _store(self, offset: int, length: int, put: Callable[[], None]) -> None:
        """Puts something to a range of the file, and lets the clusters in that it lies in."""
        end = offset + length
        first, last = offset // self._cluster, -(-end // self._cluster)
        if self._map.find(_BASE, first, last) < 0:
            put()
            return
        with self._growing:
            # What is around the range in its first and last cluster; they may be one and the same.
            self._copy_up(first, first * self._cluster, offset)
            self._copy_up(last - 1, end, min(last * self._cluster, self._size))
            put()
            self._map[first:last] = _HERE * (last - first)
            self._changed.update(range(first // _PAGE, -(-last // _PAGE)))

    def _copy_up(self, cluster: int, start: int, end: int) -> None:
        """Copies what the base has there to the file, unless that cluster is in the file already."""
        if start < end and not self._map[cluster]:
            copy = memoryview(bytearray(end - start))
            self.inner.read(start, copy)
            self._storage.write(self._data + start, copy)

    def _runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cuts a range where file and base meet: start, end, whether it is in the file."""
        last = -(-end // self._cluster)
        while start < end:
            cluster = start // self._cluster
            here = bool(self._map[cluster])
            turn = self._map.find(_BASE if here else _HERE, cluster, last)
            stop = end if turn < 0 else min(turn * self._cluster, end)
            yield start, stop, here
            start = stop

    def _load(self) -> None:
        """Reads header and map, or makes them."""
        if self._storage.is_device:
            raise self._refuse("is a block device: name a file")
        length = self._storage.size()
        head = bytearray(_PAGE)
        with memoryview(head)[:length] as there:
            self._storage.read(0, there)
        # Of a maker that was killed before there was a header, nothing but the length is left.
        new = self._storage.is_blank()
        self._cluster = self._wanted or _DEFAULT_CLUSTER if new else self._read_header(head)
        clusters = -(-self._size // self._cluster)
        if clusters > _MOST_CLUSTERS:
            raise self._refuse(
                f"{clusters} clusters of {self._cluster} bytes are too many: use larger ones (cluster)"
            )
        self._map = bytearray(-(-clusters // _PAGE) * _PAGE)
        self._changed: set[int] = set()
        self._data = -(-(_PAGE + len(self._map)) // self._cluster) * self._cluster
        whole = self._data + self._size
        if new and length in (0, whole):
            self._make(whole)
        elif new:
            raise self._refuse("is blank and has a size, so it is no overlay: name another file")
        elif length != whole:
            raise self._refuse(f"has {length} bytes instead of {whole}: restore it from a copy")
        with memoryview(self._map) as content:
            self._storage.read(_PAGE, content)
        if self._map.translate(None, _BASE + _HERE) or self._map.find(_HERE, clusters) >= 0:
            raise self._refuse("its map is damaged: restore it from a copy, or start with a new file")

    def _make(self, whole: int) -> None:
        """Makes an overlay of an empty file; the header comes last, so who has one has all of its length."""
        self._storage.truncate(whole)
        self._storage.sync()
        fields = _HEADER.pack(_MAGIC, _VERSION, self._cluster, self._size)
        header = (fields + _CRC.pack(zlib.crc32(fields))).ljust(_PAGE, b"\0")
        self._storage.write(0, memoryview(header))
        self._storage.sync()
        self._storage.sync_name()

    def _read_header(self, head: bytearray) -> int:
        """The cluster size of a file that belongs to this base."""
        if not head.startswith(_MAGIC):
            raise self._refuse("is no overlay: name another file, or one that does not exist yet")
        version: int
        cluster: int
        _, version, cluster, size = _HEADER.unpack_from(head)
        if version != _VERSION:
            raise self._refuse(f"is of version {version}, and this program knows {_VERSION}: use a newer one")
        (crc,) = _CRC.unpack_from(head, _HEADER.size)
        if crc != zlib.crc32(head[: _HEADER.size]) or not _is_cluster(cluster):
            raise self._refuse("its header is damaged: restore it from a copy, or start with a new file")
        if size != self._size:
            raise self._refuse(
                f"was made over {size} bytes, and the base has {self._size}: give it its own base"
            )
        if self._wanted not in (None, cluster):
            raise self._refuse(f"has clusters of {cluster} bytes, not {self._wanted}: leave cluster out")
        return cluster

    def _refuse(self, why: str) -> ConfigError:
        return ConfigError(f"overlay {self.file}: {why}")


def _is_cluster(size: int) -> bool:
    return 4096 <= size <= 2 << 20 and size & (size - 1) == 0
