"""A read-only image from wherever fsspec reaches: HTTP, object stores, archives.

May know: fsspec's interface, chunks. Must not know: protocols.
"""

from __future__ import annotations

import errno
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backend import Backend
from nvmet_vdev.errors import one_line
from nvmet_vdev.sizes import Size

__all__ = ["Fsspec"]


class Fsspec(Backend):
    """A read-only image from any fsspec URL, through a cache in memory.

    Needs the package fsspec (`pip install 'nvmet-vdev[fsspec]'`), and for some URLs another one, as s3fs for
    `s3:`. What a file system is opened with (credentials, endpoints) comes from `storage_options`, as text
    JSON, or from fsspec's own configuration files and environment.

    The image is fetched in chunks of `chunk` bytes, 1 MiB unless said otherwise, when they are first read,
    and `read_ahead` more of them in the same request. `cache` bytes of them are kept, the least recently used
    go first. A chunk is fetched once, however many wait for it. What cannot be fetched is a media error for
    those who wait, and the next read tries again. The image must not change while it is served.

        >>> import fsspec
        >>> with fsspec.open("memory://image.raw", "wb") as file:
        ...     written = file.write(b"x" * (1 << 20))
        >>> drive = Fsspec("memory://image.raw", chunk=64 << 10)
        >>> drive.open()
        >>> data = bytearray(512)
        >>> drive.read(4096, memoryview(data))
        >>> data == b"x" * 512
        True

    With an overlay on top a guest boots from it: `overlay?file=cow.img:fsspec:https://host/image.raw`.
    """

    read_only: bool = True
    thread_safe = True

    def __init__(
        self,
        url: str,
        *,
        chunk: Size = 1 << 20,
        cache: Size = 256 << 20,
        read_ahead: int = 0,
        block_size: int = 512,
        storage_options: Mapping[str, object] | str | None = None,
    ) -> None:
        if chunk < block_size or chunk % block_size:
            raise ConfigError(f"fsspec {url}: a chunk of {chunk} bytes is not whole blocks of {block_size}")
        if cache < chunk or read_ahead < 0:
            raise ConfigError(
                f"fsspec {url}: the cache has room for a chunk at least, and read_ahead is not negative"
            )
        self.url = url
        self.block_size = block_size
        self._chunk = chunk
        self._most = cache // chunk
        # What is fetched in one request must not push itself out of the cache.
        self._ahead = min(read_ahead, self._most - 1)
        self._options = _mapping(storage_options or {}, url)
        self._size = 0
        # Chunks that are there or on their way, the least recently used first.
        self._chunks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._turn = threading.Lock()

    def open(self) -> None:
        """Asks for the size, and reads the image's last block, to find out whether parts of it can be had."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ConfigError("fsspec is not installed: pip install 'nvmet-vdev[fsspec]'") from None
        try:
            self._fs: Any
            self._fs, self._path = url_to_fs(self.url, **self._options)
            size = self._fs.info(self._path)["size"]
            if size is not None and size >= self.block_size:
                # `open` gives up where a server sends all of it, `cat_file` would take it.
                with self._fs.open(self._path, "rb") as file:
                    file.seek(size - self.block_size)
                    last = file.read(self.block_size)
        except FileNotFoundError:
            raise ConfigError(f"fsspec {self.url}: there is no such file, or it cannot be reached") from None
        except Exception as error:
            raise ConfigError(f"fsspec {self.url}: {one_line(str(error)) or type(error).__name__}") from error
        if size is None:
            raise ConfigError(
                f"fsspec {self.url}: the server does not tell its size, so it cannot be a drive"
            )
        if size <= 0 or size % self.block_size:
            raise ConfigError(
                f"fsspec {self.url}: its {size} bytes are not whole blocks of {self.block_size}"
            )
        if len(last) != self.block_size:
            raise ConfigError(f"fsspec {self.url}: its last block cannot be read: the server has no ranges")
        self._size = size

    def close(self) -> None:
        """Forgets what was fetched."""
        with self._turn:
            self._chunks.clear()

    @property
    def size(self) -> int:
        """That of the image when it was opened, in bytes."""
        return self._size

    def read(self, offset: int, buf: memoryview) -> None:
        done = 0
        last = (offset + len(buf) - 1) // self._chunk
        while done < len(buf):
            number, begin = divmod(offset + done, self._chunk)
            data = self._get(number, last)
            with memoryview(data)[begin : begin + len(buf) - done] as part:
                buf[done : done + len(part)] = part
                done += len(part)

    def _get(self, number: int, last: int) -> bytes:
        """A chunk. Those up to `last` are needed as well, so they come in the same request."""
        with self._turn:
            chunk = self._chunks.get(number)
            if chunk is not None:
                self._chunks.move_to_end(number)
                mine = []
            else:
                mine = self._claim(number, last)
                chunk = mine[0]
        if mine:
            self._fetch(number, mine)
        return chunk.result()

    def _claim(self, number: int, last: int) -> list[Future[bytes]]:
        """Takes on to fetch a chunk, and those behind it that are wanted and not there."""
        end = min(last + self._ahead, number + self._most - 1, (self._size - 1) // self._chunk) + 1
        claimed: list[Future[bytes]] = []
        for wanted in range(number, end):
            if wanted in self._chunks:
                break
            claimed.append(Future())
            self._chunks[wanted] = claimed[-1]
        while len(self._chunks) > self._most:
            self._chunks.popitem(last=False)
        return claimed

    def _fetch(self, number: int, claimed: list[Future[bytes]]) -> None:
        """One request for all that was claimed. Nobody waits for ever: an error is everybody's."""
        begin = number * self._chunk
        end = min(begin + len(claimed) * self._chunk, self._size)
        try:
            data = self._request(begin, end)
        except BaseException as error:
            with self._turn:
                for wanted, future in enumerate(claimed, start=number):
                    if self._chunks.get(wanted) is future:
                        del self._chunks[wanted]
            for future in claimed:
                future.set_exception(error)
            return
        for index, future in enumerate(claimed):
            future.set_result(data[index * self._chunk : (index + 1) * self._chunk])

    def _request(self, begin: int, end: int) -> bytes:
        try:
            data: Any = self._fs.cat_file(self._path, begin, end)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"no answer in time: {error}", self.url) from error
        except Exception as error:
            raise OSError(errno.EIO, one_line(str(error)) or type(error).__name__, self.url) from error
        if len(data) != end - begin:
            raise OSError(errno.EIO, f"{len(data)} bytes came instead of {end - begin}", self.url)
        return bytes(data)


def _mapping(options: Mapping[str, object] | str, url: str) -> dict[str, object]:
    try:
        return dict(json.loads(options) if isinstance(options, str) else options)
    except (ValueError, TypeError):
        raise ConfigError(
            f'fsspec {url}: storage_options={options}: as text it is JSON, such as {{"anon": true}}'
        ) from None
