"""The callbacks of requests, in the two forms that nbdkit's API for Python has had.

Both look alike from outside: buffers, and nbdkit's flags, where the form has them.
"""

from __future__ import annotations

from typing import Any

from nvmet_vdev.nbdkit import constants
from nvmet_vdev.nbdkit.plugin import Plugin


class Calls:
    """API_VERSION 2: `pread` fills a buffer, and everything takes flags."""

    has_flags = True

    def __init__(self, plugin: Plugin, handle: Any) -> None:
        self._callback = plugin.callback
        self._handle = handle

    def pread(self, buf: memoryview, offset: int) -> None:
        self._callback("pread")(self._handle, buf, offset, 0)

    def pwrite(self, buf: memoryview, offset: int, flags: int) -> None:
        self._callback("pwrite")(self._handle, buf, offset, flags)

    def flush(self) -> None:
        self._callback("flush")(self._handle, 0)

    def trim(self, count: int, offset: int, flags: int) -> None:
        self._callback("trim")(self._handle, count, offset, flags)

    def zero(self, count: int, offset: int, flags: int) -> None:
        self._callback("zero")(self._handle, count, offset, flags)

    def cache(self, count: int, offset: int) -> None:
        self._callback("cache")(self._handle, count, offset, 0)

    def extents(self, count: int, offset: int, flags: int) -> Any:
        return self._callback("extents")(self._handle, count, offset, flags)


class CallsV1(Calls):
    """API_VERSION 1: `pread` returns the data, and only `zero`, `cache` and `extents` have flags."""

    has_flags = False

    def pread(self, buf: memoryview, offset: int) -> None:
        data = self._callback("pread")(self._handle, len(buf), offset)
        with memoryview(data) as view, view.cast("B") as octets:
            if len(octets) < len(buf):
                raise ValueError(f"pread() returned {len(octets)} bytes of {len(buf)}")
            buf[:] = octets[: len(buf)]

    def pwrite(self, buf: memoryview, offset: int, flags: int) -> None:  # noqa: ARG002 - has none
        self._callback("pwrite")(self._handle, buf, offset)

    def flush(self) -> None:
        self._callback("flush")(self._handle)

    def trim(self, count: int, offset: int, flags: int) -> None:  # noqa: ARG002 - has none
        self._callback("trim")(self._handle, count, offset)

    def zero(self, count: int, offset: int, flags: int) -> None:
        self._callback("zero")(self._handle, count, offset, bool(flags & constants.FLAG_MAY_TRIM))
