"""A small NBD client: fixed newstyle, one command at a time, so that nbdkit can be compared with.

NBD's protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import socket
import struct
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Self

_MAGIC = 0x4E42444D41474943
_OPTION_MAGIC = 0x49484156454F5054
_REPLY_MAGIC = 0x3E889045565A9
_REQUEST, _SIMPLE, _STRUCTURED = 0x25609513, 0x67446698, 0x668E33EF
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT, _REP_ERROR = 1, 3, 4, 1 << 31
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_CMD_READ, _CMD_WRITE, _CMD_DISC, _CMD_FLUSH, _CMD_TRIM, _CMD_ZERO, _CMD_STATUS = 0, 1, 2, 3, 4, 6, 7
_CMD_FLAG_FUA, _CMD_FLAG_NO_HOLE = 1 << 0, 1 << 1
_CHUNK_DONE, _CHUNK_ERROR = 1 << 0, 1 << 15
_CHUNK_DATA, _CHUNK_STATUS = 1, 5


class Flags(IntFlag):
    """Transmission flags."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class NbdError(Exception):
    """The server's answer to a command: an errno of NBD's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"NBD error {number}")


class Client:
    """A connection to the default export of the server at `path`.

    With `extents`, structured replies and base:allocation are asked for.
    """

    def __init__(self, path: Path, *, extents: bool = False, patience: float = 60.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience)
        self.block_size: tuple[int, int, int] | None = None
        self.size = 0
        self.flags = Flags(0)
        try:
            self._socket.connect(str(path))
            self._negotiate(extents=extents)
        except BaseException:
            self._socket.close()
            raise

    def _negotiate(self, *, extents: bool) -> None:
        magic, option_magic, _ = struct.unpack(">QQH", self._take(18))
        assert (magic, option_magic) == (_MAGIC, _OPTION_MAGIC), "no fixed newstyle NBD server"
        self._socket.sendall(struct.pack(">I", 1))
        if extents:
            self._option(_OPT_STRUCTURED_REPLY, b"")
            query = b"base:allocation"
            self._option(_OPT_SET_META_CONTEXT, struct.pack(f">III{len(query)}s", 0, 1, len(query), query))
        for info in self._option(_OPT_GO, struct.pack(">IHH", 0, 1, _INFO_BLOCK_SIZE)):
            kind = int.from_bytes(info[:2], "big")
            if kind == _INFO_EXPORT:
                self.size, flags = struct.unpack(">QH", info[2:])
                self.flags = Flags(flags)
            elif kind == _INFO_BLOCK_SIZE:
                minimum, preferred, maximum = struct.unpack(">III", info[2:])
                self.block_size = (minimum, preferred, maximum)

    def _take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if not (more := self._socket.recv(count - len(data))):
                raise ConnectionError("the server closed the connection")
            data += more
        return bytes(data)

    def _option(self, option: int, data: bytes) -> list[bytes]:
        """Negotiates one option, and returns what the server said before its acknowledgement."""
        self._socket.sendall(struct.pack(">QII", _OPTION_MAGIC, option, len(data)) + data)
        said: list[bytes] = []
        while True:
            magic, _, reply, length = struct.unpack(">QIII", self._take(20))
            assert magic == _REPLY_MAGIC
            payload = self._take(length)
            if reply == _REP_ACK:
                return said
            if reply & _REP_ERROR:
                raise ConnectionError(f"option {option} was refused: {reply:#x} {payload!r}")
            assert reply in (_REP_INFO, _REP_META_CONTEXT)
            said.append(payload)

    def _command(self, command: int, offset: int, length: int, *, flags: int = 0, data: bytes = b"") -> bytes:
        header = struct.pack(">IHHQQI", _REQUEST, flags, command, 1, offset, length)
        self._socket.sendall(header + data)
        (magic,) = struct.unpack(">I", self._take(4))
        if magic == _SIMPLE:
            error, _ = struct.unpack(">IQ", self._take(12))
            if error:
                raise NbdError(error)
            return self._take(length) if command == _CMD_READ else b""
        assert magic == _STRUCTURED
        chunk_flags, kind, _, count = struct.unpack(">HHQI", self._take(16))
        payload = self._take(count)
        assert chunk_flags & _CHUNK_DONE, "nbdkit sends one chunk"
        if kind & _CHUNK_ERROR:
            raise NbdError(int.from_bytes(payload[:4], "big"))
        # The offset of data, the id of the context.
        return payload[8:] if kind == _CHUNK_DATA else payload[4:] if kind == _CHUNK_STATUS else b""

    def read(self, offset: int, length: int) -> bytes:
        return self._command(_CMD_READ, offset, length)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self._command(_CMD_WRITE, offset, len(data), flags=_CMD_FLAG_FUA * fua, data=data)

    def flush(self) -> None:
        self._command(_CMD_FLUSH, 0, 0)

    def trim(self, offset: int, length: int) -> None:
        self._command(_CMD_TRIM, offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool, fua: bool = False) -> None:
        flags = _CMD_FLAG_FUA * fua | _CMD_FLAG_NO_HOLE * (not may_trim)
        self._command(_CMD_ZERO, offset, length, flags=flags)

    def extents(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """(offset, length, type); the server need not tell of all of the range."""
        found = []
        for count, kind in struct.iter_unpack(">II", self._command(_CMD_STATUS, offset, length)):
            found.append((offset, count, kind))
            offset += count
        return found

    def close(self) -> None:
        """Says good-bye and waits for the server to have closed; again, it does nothing."""
        if self._socket.fileno() == -1:
            return
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _CMD_DISC, 1, 0, 0))
        while self._socket.recv(4096):
            pass
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._socket.close()
