"""A file or block device, locked, and transfers that are whole: what `File` and `Overlay` build on.

May know: descriptors, the kernel's calls. Must not know: what the bytes mean.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import stat
import struct
from pathlib import Path

from nvmet_vdev._nvmet import ConfigError

__all__ = ["Storage"]

_log = logging.getLogger("nvmet_vdev.backends")

_ZEROES = memoryview(bytes(1 << 20))

# linux/falloc.h; neither os nor fcntl has them.
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV)

# QEMU's protocol (block/file-posix.c), which files that are served natively keep to as well: a shared lock of
# the byte 100 + permission says "I use it", one of 200 + permission "I do not share it".
_USED, _UNSHARED = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3
_FLOCK = struct.Struct("hhqqi0q")


class Storage:
    """An open file or block device, locked: there is one user who writes, or any number who only read.

    Transfers are whole or raise OSError. Methods may be called from several threads at once.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, create: bool = False
    ) -> None:
        """Opens `path`; ConfigError says what is in the way. With `create` it may be new, and empty."""
        self.path = Path(path)
        self._unsupported: set[int] = set()
        self._lost = False
        self.fd = _open(self.path, read_only, create)
        try:
            self.is_device = stat.S_ISBLK(os.fstat(self.fd).st_mode)
            _lock(self.path, self.fd, read_only)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file, which unlocks it."""
        os.close(self.fd)

    def size(self) -> int:
        """Bytes that it has now."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def is_blank(self) -> bool:
        """Whether nothing was ever written to it: it is empty, or one hole."""
        try:
            os.lseek(self.fd, 0, os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def truncate(self, size: int) -> None:
        """Gives a file that size; what is new reads as zeroes."""
        os.ftruncate(self.fd, size)

    def read(self, offset: int, buf: memoryview) -> None:
        """Fills `buf`; EIO where the file ends before."""
        done = 0
        while done < len(buf):
            with buf[done:] as rest:
                count = os.preadv(self.fd, [rest], offset + done)
            if count == 0:
                raise OSError(errno.EIO, f"it ends at byte {offset + done}", str(self.path))
            done += count

    def write(self, offset: int, buf: memoryview, *, durable: bool = False) -> None:
        """Writes all of `buf`; with `durable` it is on the medium afterwards."""
        flags = os.RWF_DSYNC if durable else 0
        done = 0
        while done < len(buf):
            with buf[done:] as rest:
                done += os.pwritev(self.fd, [rest], offset + done, flags)

    def zero(self, offset: int, length: int, *, keep: bool = False) -> None:
        """Makes the range read as zeroes; it loses its storage where that is possible, unless `keep`."""
        if length == 0:
            return
        mode = _ZERO_RANGE if keep else _PUNCH_HOLE
        if mode not in self._unsupported:
            if _fallocate(self.fd, mode | _KEEP_SIZE, offset, length) == 0:
                return
            if (code := ctypes.get_errno()) not in _UNSUPPORTED:
                raise OSError(code, os.strerror(code), str(self.path))
            self._unsupported.add(mode)
        for start in range(0, length, len(_ZEROES)):
            self.write(offset + start, _ZEROES[: length - start])

    def sync(self) -> None:
        """What was written before is on the medium afterwards.

        Once that has failed it fails for good: the kernel may have dropped what it could not write, and would
        not say so again.
        """
        if self._lost:
            raise OSError(errno.EIO, "an earlier flush failed: what was written is not safe", str(self.path))
        try:
            os.fdatasync(self.fd)
        except OSError:
            self._lost = True
            raise

    def sync_name(self) -> None:
        """The same for the name of a new file."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _open(path: Path, read_only: bool, create: bool) -> int:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG if create else 0
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: check the path") from None
    if not mode:
        raise ConfigError(f"{path}: no such file: check the path, or create it")
    # Asked before it is opened: opening a FIFO or a tape drive does something to it.
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise ConfigError(f"{path}: is neither a regular file nor a block device")
    flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
    if create:
        flags |= os.O_CREAT
    elif stat.S_ISBLK(mode) and not read_only:
        # Without O_CREAT: the device is ours alone, and not mounted.
        flags |= os.O_EXCL
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        hint = "" if read_only else "; to only read it, ask for that (read_only)"
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}{hint}") from None


def _lock(path: Path, fd: int, read_only: bool) -> None:
    used = [_READ] if read_only else [_READ, _WRITE]
    unshared = [_WRITE, _RESIZE]
    ours = [_USED + bit for bit in used] + [_UNSHARED + bit for bit in unshared]
    theirs = [_UNSHARED + bit for bit in used] + [_USED + bit for bit in unshared]
    try:
        free = all(_try_lock(fd, byte) for byte in ours) and not any(_is_locked(fd, byte) for byte in theirs)
    except OSError as error:
        _log.warning(
            "%s: the file system has no locks (%s): a second writer is not noticed", path, error.strerror
        )
        return
    if not free:
        who = "writes to" if read_only else "uses"
        how = "work on a copy" if read_only else "let both only read it (read_only)"
        raise ConfigError(f"{path}: somebody else {who} it: stop that first, or {how}")


def _try_lock(fd: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(fd: int, byte: int) -> bool:
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))[0]
    return kind != fcntl.F_UNLCK
