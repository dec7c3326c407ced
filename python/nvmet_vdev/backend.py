"""Backends in Python: what a class has to have to be a drive.

A backend is an object with a `size` and a `read`; everything else is advertised by being there.
`Backend` is a base class for people who like one: it has the defaults, the documentation, and
`notify_resize`. docs/backends.md is the manual.

Knows nothing of the target: `nvmet_vdev.bridge` carries commands here.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backend", "NvmeError"]


class NvmeError(Exception):
    """An exact NVMe status for the guest (NVM Express Base 2.0, 4.2.3).

    `sct` is the Status Code Type, 0 to 7; `sc` the Status Code, 0 to 255; with `dnr` (Do Not Retry)
    the host is told that the same command would fail again. Success (0, 0) is no error: ValueError.
    """

    def __init__(self, sct: int, sc: int, *, dnr: bool = False, message: str | None = None) -> None:
        if not 0 <= sct <= 7 or not 0 <= sc <= 255 or (sct, sc) == (0, 0):
            raise ValueError(f"NvmeError({sct:#x}, {sc:#x}): use sct 0 to 7 and sc 0 to 0xff, and not both 0")
        self.sct = sct
        self.sc = sc
        self.dnr = dnr
        super().__init__(
            message if message is not None else f"status {sct:x}/{sc:02x}h{' DNR' if dnr else ''}"
        )


class Backend:
    """A namespace's storage, in Python.

    A subclass has `size` (an attribute, a property or a method; bytes) and `read(offset, buf)`. The
    rest is optional, and what is there is advertised to the guest; None counts as not there:

    * `write(offset, buf, fua)`: without it the namespace is read-only.
    * `flush()`: with it the guest is told of a volatile write cache.
    * `discard(offset, length)`: with it Deallocate reaches the backend.
    * `write_zeroes(offset, length, *, may_discard, fua)`: without it zeroes are written.
    * `compare(offset, buf)`: True if equal; without it data is read and compared.
    * `open()`, `close()`: once each, before the first command and after the last.
    * `resize(size)`: the operator wants another size; without it that is refused.
    * `submit(batch)`: takes whole batches, instead of the calls above that carry requests out.

    `offset` and `length` are bytes, multiples of `block_size`, and lie within `size`. `buf` is a
    memoryview of bytes, as long as the transfer: `read` fills all of it, `write` and `compare` may
    only look. It is released when the call returns; who kept it gets ValueError from then on.

    The methods that carry requests out may be `async def`: they run on an event loop of the
    target's own, `max_inflight` at once.

    Errors: `OSError` becomes the status that its errno stands for, `NvmeError` is an exact one,
    anything else is Internal Error and is logged once for each place.
    """

    #: Logical block size in bytes: 512 or 4096.
    block_size: int = 512
    #: Calls at once: of `async def` methods (None: 128), of threads where `thread_safe` (8), or
    #: requests in a batch (1024).
    max_inflight: int | None = None
    #: Whether methods may be called from several threads at once.
    thread_safe: bool = False
    #: Seconds that a command may take; then the guest gets Internal Error and may retry. None: no limit.
    timeout: float | None = None

    _on_resize: Callable[[], None] | None = None

    def notify_resize(self) -> None:
        """Tells the target that `size` has changed; guests are told in turn. Nothing while not in service.

        May be called from any thread.
        """
        if (tell := self._on_resize) is not None:
            tell()
