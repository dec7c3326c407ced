"""One plugin twice: in nbdkit, behind an NBD client, and here; both look alike, to be compared."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from nvmet_vdev import Drive, NvmeStatusError
from nvmet_vdev.nbdkit import PluginBackend
from tests.nbdkit.nbd import Client, Flags, NbdError
from tests.product import PATIENCE, wait_until

PLUGINS = Path(__file__).parent / "plugins"
Options = Sequence[tuple[str, str]]
Extents = list[tuple[int, int, int]]


@functools.cache
def nbdkit() -> str:
    """nbdkit's path. Without it, or its Python plugin, the test is skipped, and fails where CI is set."""
    program = shutil.which("nbdkit")
    if program is None or subprocess.run([program, "python", "--version"], capture_output=True).returncode:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("nbdkit or its Python plugin is missing; apt install nbdkit nbdkit-plugin-python")
    return program


class Side(Protocol):
    """A drive; what fails raises NbdError, with the errno that an NBD client sees."""

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes, *, fua: bool) -> None: ...
    def flush(self) -> None: ...
    def trim(self, offset: int, length: int) -> None: ...
    def zero(self, offset: int, length: int, *, may_trim: bool, fua: bool) -> None: ...
    def extents(self, offset: int, length: int) -> Extents: ...


@contextlib.contextmanager
def served(plugin: Path, options: Options, at: Path, *, flags: Sequence[str] = ()) -> Iterator[Path]:
    """nbdkit with `plugin`; gives its socket."""
    socket, log, pidfile = at / "nbd.sock", at / "nbdkit.log", at / "pid"
    command = [nbdkit(), "--foreground", "--exit-with-parent", "--unix", str(socket)]
    # The socket is there before it listens, the pidfile when it does.
    command += ["--pidfile", str(pidfile), *flags]
    command += ["python", str(plugin), *(f"{key}={value}" for key, value in options)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: pidfile.exists() or process.poll() is not None, "nbdkit listens")
            assert process.poll() is None, f"nbdkit ended: {log.read_text()}"
            yield socket
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert process.returncode == 0, f"nbdkit: {process.returncode}: {log.read_text()}"


class Ours:
    """A plugin here, as the target uses it; what it does not have is made up as the target would."""

    def __init__(self, backend: PluginBackend) -> None:
        self.backend = backend

    def read(self, offset: int, length: int) -> bytes:
        with _nbd_errors(), memoryview(bytearray(b"\xaa" * length)) as buf:
            self.backend.read(offset, buf)
            return bytes(buf)

    def write(self, offset: int, data: bytes, *, fua: bool) -> None:
        assert self.backend.write is not None
        with _nbd_errors(), memoryview(data) as buf:
            self.backend.write(offset, buf, fua)

    def flush(self) -> None:
        assert self.backend.flush is not None
        with _nbd_errors():
            self.backend.flush()

    def trim(self, offset: int, length: int) -> None:
        assert self.backend.discard is not None
        with _nbd_errors():
            self.backend.discard(offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool, fua: bool) -> None:
        if self.backend.write_zeroes is None:
            self.write(offset, bytes(length), fua=fua)
        else:
            with _nbd_errors():
                self.backend.write_zeroes(offset, length, may_discard=may_trim, fua=fua)

    def extents(self, offset: int, length: int) -> Extents:
        with _nbd_errors():
            return self.backend.extents(offset, length)


class Theirs:
    """The same plugin in nbdkit."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.fua = bool(client.flags & Flags.SEND_FUA)

    def read(self, offset: int, length: int) -> bytes:
        return self.client.read(offset, length)

    def write(self, offset: int, data: bytes, *, fua: bool) -> None:
        self.client.write(offset, data, fua=fua and self.fua)

    def flush(self) -> None:
        self.client.flush()

    def trim(self, offset: int, length: int) -> None:
        self.client.trim(offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool, fua: bool) -> None:
        self.client.zero(offset, length, may_trim=may_trim, fua=fua and self.fua)

    def extents(self, offset: int, length: int) -> Extents:
        """Of the whole range and of no more: NBD lets a server stop early, and the last one reach further."""
        found: Extents = []
        at, end = offset, offset + length
        while at < end:
            for first, count, kind in self.client.extents(at, end - at):
                at = min(first + count, end)
                if found and found[-1][2] == kind:
                    first = found.pop()[0]
                found.append((first, at - first, kind))
        return found


class Attached:
    """A plugin behind the target, as a driver sees it; `block` bytes are a logical block.

    An NVMe status says other things than an errno of NBD's: every error is EIO.
    """

    def __init__(self, drive: Drive, block: int) -> None:
        self.drive = drive
        self.block = block

    def read(self, offset: int, length: int) -> bytes:
        with _statuses():
            return self.drive.read(offset // self.block, length // self.block)

    def write(self, offset: int, data: bytes, *, fua: bool) -> None:
        with _statuses():
            self.drive.write(offset // self.block, data, fua=fua)

    def flush(self) -> None:
        with _statuses():
            self.drive.flush()

    def trim(self, offset: int, length: int) -> None:
        with _statuses():
            self.drive.deallocate([(offset // self.block, length // self.block)])

    def zero(self, offset: int, length: int, *, may_trim: bool, fua: bool) -> None:
        with _statuses():
            self.drive.write_zeroes(offset // self.block, length // self.block, deallocate=may_trim, fua=fua)

    def extents(self, offset: int, length: int) -> Extents:
        """A guest is not told."""
        raise NotImplementedError


@contextlib.contextmanager
def _statuses() -> Iterator[None]:
    try:
        yield
    except NvmeStatusError as error:
        raise NbdError(errno.EIO) from error


@contextlib.contextmanager
def _nbd_errors() -> Iterator[None]:
    """An OSError becomes what nbdkit would tell its client (nbd_errno in its server/protocol.c)."""
    known = {
        errno.EPERM: errno.EPERM,
        errno.EROFS: errno.EPERM,
        errno.EIO: errno.EIO,
        errno.ENOMEM: errno.ENOMEM,
        errno.EDQUOT: errno.ENOSPC,
        errno.EFBIG: errno.ENOSPC,
        errno.ENOSPC: errno.ENOSPC,
        errno.ESHUTDOWN: errno.ESHUTDOWN,
    }
    try:
        yield
    except OSError as error:
        raise NbdError(known.get(error.errno or 0, errno.EINVAL)) from error


def advertised(backend: PluginBackend) -> Flags:
    """The NBD transmission flags for a backend's capabilities (nbdkit's server/protocol-handshake.c)."""
    can = backend.capabilities
    return (
        Flags.HAS_FLAGS
        | (Flags(0) if can.can_write else Flags.READ_ONLY)
        | (Flags.SEND_WRITE_ZEROES if can.can_write else Flags(0))
        | (Flags.SEND_FAST_ZERO if can.can_fast_zero else Flags(0))
        | (Flags.SEND_TRIM if can.can_trim else Flags(0))
        | (Flags.SEND_FUA if can.can_fua else Flags(0))
        | (Flags.SEND_FLUSH if can.can_flush else Flags(0))
        | (Flags.ROTATIONAL if can.is_rotational else Flags(0))
        | (Flags.CAN_MULTI_CONN if can.can_multi_conn else Flags(0))
        | (Flags.SEND_CACHE if can.can_cache else Flags(0))
    )
