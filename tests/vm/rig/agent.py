"""The host's end of the guest's second serial port: scripts go in, their output and status come out."""

from __future__ import annotations

import base64
import itertools
import select
import socket
import time
from dataclasses import dataclass

from tests.vm.rig.errors import GuestError

READY = "@@READY"


@dataclass(frozen=True)
class Result:
    """What a script in the guest printed (both streams) and exited with."""

    rc: int
    out: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Agent:
    """Talks to the guest's init; every wait has a limit in seconds, and the end of QEMU ends it at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = b""
        self._tokens = itertools.count(1)

    def close(self) -> None:
        self._connection.close()

    def wait_ready(self, limit: float) -> None:
        """Waits until the guest's init takes scripts; what a dying guest printed before is dropped."""
        deadline = time.monotonic() + limit
        while not self._line(deadline, "the guest to start").endswith(READY):
            pass

    def send(self, script: str) -> str:
        """Hands a script over and gives the token that marks its output."""
        token = f"s{next(self._tokens)}"
        encoded = base64.b64encode(f". /lib/guest.sh\n{script}\n".encode()).decode()
        self._connection.sendall(f"{token} {encoded}\n".encode())
        return token

    def result(self, token: str, limit: float) -> Result:
        """Waits for the end of a script."""
        deadline = time.monotonic() + limit
        lines: list[str] = []
        begun = False
        while True:
            try:
                line = self._line(deadline, f"script {token}")
            except GuestError as error:
                raise GuestError(f"{error}; the script had printed:\n" + "\n".join(lines)) from None
            if line == f"@@BEGIN {token}":
                begun = True
            elif line.startswith(f"@@END {token} "):
                # The agent puts a newline before its marker whether or not the output ended in one.
                text = "\n".join(lines)
                return Result(int(line.split()[2]), text if text.endswith("\n") or not text else text + "\n")
            elif begun:
                lines.append(line)

    def _line(self, deadline: float, what: str) -> str:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"out of time waiting for {what}")
            if not select.select([self._connection], [], [], left)[0]:
                continue
            try:
                data = self._connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise GuestError(f"QEMU ended while waiting for {what}")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode(errors="replace").rstrip("\r")
