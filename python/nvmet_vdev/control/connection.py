"""One client: what it has sent and nobody has looked at, what it has not taken yet, and how it stands.

May know bytes, lines and one socket; must not know requests, other clients, or threads.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass, field
from typing import Literal

from nvmet_vdev.control.limits import Limits

CHUNK = 64 << 10
"""Bytes that are read at a time: nobody keeps the others waiting for long."""

Waits = Literal["rest of message", "reader"]


@dataclass(eq=False)
class Connection:
    """Of one client. Everything is done in one thread."""

    socket: socket.socket
    limits: Limits
    busy: bool = False
    """A message of it is being carried out."""
    ending: bool = False
    """Nothing is read any more; it is closed when it has taken its answers."""
    ended: bool = False
    """It has said that nothing more comes, or is gone. What came whole is still carried out."""
    deaf: bool = False
    """It takes no answers any more."""
    closed: bool = False
    waits: Waits | None = None
    """What the client, and nobody else, is waited for."""
    deadline: float = 0.0
    _input: bytearray = field(default_factory=bytearray)
    _lines: int = 0
    """Complete lines in `_input`."""
    _output: bytearray = field(default_factory=bytearray)
    _progress: bool = False

    def receive(self) -> None:
        """Reads once."""
        try:
            data = self.socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, self.deaf = b"", True
        if not data:
            self.ended = True
            # Whoever forgets the last newline, and half closes, has sent a message all the same.
            if self._input and not self._input.endswith(b"\n"):
                data = b"\n"
        self._input += data
        self._lines += data.count(b"\n")

    def take(self) -> bytes | None:
        """The next line that is not blank, if one is complete."""
        while self._lines:
            end = self._input.index(b"\n")
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            self._lines -= 1
            if line.strip():
                return line
        return None

    @property
    def waiting(self) -> bool:
        """Whether there is a complete line, or may be: blank ones count."""
        return self._lines > 0

    @property
    def oversized(self) -> bool:
        """Whether the line that comes in has too many bytes already."""
        return not self._lines and len(self._input) > self.limits.message

    def forget(self) -> None:
        """Drops what has not been carried out."""
        self._input.clear()
        self._lines = 0

    def answer(self, data: bytes) -> None:
        """Has `data` sent, what fits at once."""
        if not self.deaf:
            self._output += data
            self.flush()

    def flush(self) -> None:
        """Sends what the client takes now."""
        try:
            while self._output and not self.deaf:
                sent = self.socket.send(self._output[:CHUNK])
                del self._output[:sent]
                self._progress = True
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.deaf = True
        if self.deaf:
            self._output.clear()

    @property
    def unread(self) -> int:
        """Bytes of answers that the client has not taken."""
        return len(self._output)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for it."""
        return (
            (self.ended or self.ending)
            and not self.busy
            and not self._output
            and not (self._lines and not self.ending)
        )

    def interest(self) -> int:
        """What to watch the socket for."""
        # While it is busy, a line without an end may not grow either.
        room = self._lines < self.limits.queued and len(self._input) <= self.limits.message
        reads = room and not self.ended and not self.ending
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if self._output else 0)

    def watch_time(self, now: float) -> None:
        """Notes whether the client is waited for, and until when."""
        waits: Waits | None = None
        if self._output:
            waits = "reader"
        elif self._input and not self._lines and not self.busy and not self.ended and not self.ending:
            waits = "rest of message"
        if waits is not None and (waits != self.waits or (waits == "reader" and self._progress)):
            self.deadline = now + self.limits.patience
        self.waits = waits
        self._progress = False

    def close(self) -> None:
        """The end."""
        self.closed = True
        self.forget()
        self._output.clear()
        self.socket.close()
