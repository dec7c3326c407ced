"""The listening socket, its file, and who is at the other end of a connection.

The rules are those of the drives' sockets (rust/nvmet-vfio-user/src/listener.rs): the file has its mode from
the moment it appears, since Linux takes it from the inode of the socket, and a file is removed only if it is
a socket that refuses connections, or the very inode that was bound here. Servers that start at the same time
in one directory are kept apart by a lock on the directory.

May know files and sockets; must not know what is said.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.atomic import alone_in
from nvmet_vdev.control import paths
from nvmet_vdev.seen import is_directory

MODE = 0o600
BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Peer:
    """Who has connected, as the kernel says (SO_PEERCRED; unix(7))."""

    pid: int
    uid: int
    gid: int

    @property
    def welcome(self) -> bool:
        """Whether that is this process's own user, or root."""
        return self.uid in (os.geteuid(), 0)


def peer(connection: socket.socket) -> Peer:
    """Who is at the other end of `connection`."""
    form = struct.Struct("iII")
    return Peer(*form.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)))


class Listener:
    """A socket that listens at `path`. Closing it removes its file, if that is still the same.

    Raises ConfigError, one line, if it cannot be had.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = paths.check(path)
        # The file is found again at the end, when the working directory may have changed.
        self._absolute = self.path.absolute()
        if not is_directory(self._absolute.parent):
            raise ConfigError(
                f"control socket {self.path}: no directory {self._absolute.parent}; "
                "create it or use another --control"
            )
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with alone_in(self._absolute.parent):
                os.fchmod(self.socket.fileno(), MODE)
                self._bind()
                found = self._absolute.lstat()
                self._inode = (found.st_dev, found.st_ino)
                # Until it listens every connection is refused.
                if stat.S_IMODE(found.st_mode) != MODE:
                    self._absolute.chmod(MODE)
                self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            raise ConfigError(
                f"control socket {self.path}: {error.strerror}; use another --control"
            ) from error
        except BaseException:
            self.socket.close()
            raise

    def _bind(self) -> None:
        try:
            self.socket.bind(os.fspath(self.path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            self._remove_stale()
            self.socket.bind(os.fspath(self.path))

    def _remove_stale(self) -> None:
        try:
            before = self._absolute.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(before.st_mode):
            raise ConfigError(
                f"control socket {self.path}: exists and is not a socket; remove it or use another --control"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            found = probe.connect_ex(os.fspath(self.path))
        if found == errno.ENOENT:
            return
        # Connected, or the backlog is full, or it may not be asked: in any case not known to be dead.
        after = self._absolute.lstat()
        if found != errno.ECONNREFUSED or (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            raise ConfigError(
                f"control socket {self.path}: another target is listening on it; "
                "stop it or use another --control"
            )
        self._absolute.unlink()

    def fileno(self) -> int:
        """Readable when somebody has connected."""
        return self.socket.fileno()

    def accept(self) -> socket.socket | None:
        """A connection that waits, not blocking; None if there is none.

        Raises OSError; too many open files is the one to expect.
        """
        try:
            connection, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return None
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Stops listening."""
        if self.socket.fileno() == -1:
            return
        with contextlib.suppress(OSError):
            found = self._absolute.lstat()
            if (found.st_dev, found.st_ino) == self._inode:
                self._absolute.unlink()
        self.socket.close()
