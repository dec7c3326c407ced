"""Commands on any vfio-user NVMe socket, as they are: what a `Drive` is built on.

Knows `nvmet_vdev.nvme` and the session of the extension module; no command but Abort.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from nvmet_vdev import _nvmet
from nvmet_vdev._nvmet import ConfigError, DeviceError
from nvmet_vdev.nvme import Command, Completion, NvmeStatusError, Status

__all__ = ["Buffer", "Passthrough", "Pending", "Registers", "bytes_of", "view_of"]

_ABORT = 0x08

Buffer = bytes | bytearray | memoryview


class Pending:
    """A command that was submitted. Dropped, its outcome is dropped as well."""

    def __init__(self, session: _nvmet.Session, command: Command, ticket: int, timeout: float) -> None:
        self.command = command
        self._session = session
        self._ticket = ticket
        self._timeout = timeout
        self._completion: Completion | None = None

    def done(self) -> bool:
        """Whether it has ended; never waits."""
        return self._completion is not None or self._session.done(self._ticket)

    def wait(self, timeout: float | None = None) -> Completion:
        """Waits `timeout` seconds (None: the drive's) for the completion, whatever its status.

        DeviceError when it does not come in time, and it may be waited for again; when the controller is
        reset meanwhile, fails, or closes the connection. From one thread at a time.
        """
        if self._completion is None:
            limit = self._timeout if timeout is None else timeout
            dw0, dw1, status, data = self._session.wait(self._ticket, limit)
            self._completion = Completion(dw0, Status.from_bits(status), data, dw1)
        return self._completion

    def check(self, timeout: float | None = None) -> Completion:
        """As `wait`; NvmeStatusError for a status that is no success."""
        completion = self.wait(timeout)
        if not completion.status.success:
            raise NvmeStatusError(self.command, completion)
        return completion

    def __del__(self) -> None:
        if self._completion is None:
            self._session.forget(self._ticket)


class Registers:
    """Controller properties in BAR0 (3.1.3).

    Written by hand, they change the controller under the driver's feet: `Drive.reset` brings both together
    again.
    """

    def __init__(self, session: _nvmet.Session) -> None:
        self._session = session

    @property
    def cap(self) -> int:
        """Controller Capabilities, 64 bits."""
        return self.read(0x00, 8)

    @property
    def vs(self) -> int:
        """Version: 0x20000 is 2.0.0."""
        return self.read(0x08)

    @property
    def cc(self) -> int:
        """Controller Configuration."""
        return self.read(0x14)

    @cc.setter
    def cc(self, value: int) -> None:
        self.write(0x14, value)

    @property
    def csts(self) -> int:
        """Controller Status: bit 0 RDY, bit 1 CFS, bits 3:2 SHST."""
        return self.read(0x1C)

    def read(self, offset: int, size: int = 4) -> int:
        """The register at `offset` of BAR0, `size` 4 or 8 bytes."""
        return self._session.register(offset, _wide(size))

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Writes the register at `offset` of BAR0, and returns when the device has it."""
        self._session.set_register(offset, value, _wide(size))


class Passthrough:
    """A controller that this process has attached to, and any command to it. The arguments are `Drive`'s."""

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        timeout: float = 10.0,
        depth: int = 128,
        interrupts: bool = True,
        doorbells: str = "auto",
        memory: int = 64 << 20,
    ) -> None:
        self.socket = os.fspath(socket)
        self.timeout = timeout
        self._session = _nvmet.Session(
            self.socket,
            timeout=timeout,
            depth=depth,
            interrupts=interrupts,
            doorbells=doorbells,
            memory=memory,
        )
        self.depth, self.max_transfer, self.doorbells = self._session.limits()
        self.registers = Registers(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.detach()
        except DeviceError:
            # The first error is the one that tells.
            if kind is None:
                raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.socket!r})"

    # Life

    def reset(self) -> None:
        """Clears CC.EN, waits for CSTS.RDY (CAP.TO at most), and enables the controller again (3.5.1).

        Commands in flight end with DeviceError. It may be called again when it failed, and after `shutdown`.
        """
        self._session.reset()

    def shutdown(self) -> None:
        """Announces a normal shutdown (CC.SHN) and waits until it is complete (3.6.1). `reset` ends it."""
        self._session.shutdown()

    def detach(self) -> None:
        """Shuts down, disables the controller, closes the connection even when it raises. Again: nothing."""
        self._session.detach()

    def close(self) -> None:
        """Closes the connection without a word, as when a virtual machine is killed. Again: nothing."""
        self._session.close()

    # Any command

    def submit(self, command: Command) -> Pending:
        """Sends a command and returns at once; waits `timeout` only for room in the queue."""
        return self.submit_many([command])[0]

    def submit_many(self, commands: Iterable[Command]) -> list[Pending]:
        """Sends commands, in their order, and waits only for room.

        Neighbours of one queue share a write of its doorbell as long as there is room: what fused commands
        need.
        """
        pending: list[Pending] = []
        for admin, group in itertools.groupby(commands, key=lambda command: command.admin):
            chosen = list(group)
            entries = [
                (command.entry(), bytes_of(command.data), _length(command.length)) for command in chosen
            ]
            tickets = self._session.submit(admin, entries, self.timeout)
            pending += map(self._pending, chosen, tickets)
        return pending

    def _pending(self, command: Command, ticket: int) -> Pending:
        return Pending(self._session, command, ticket, self.timeout)

    def wait(self, pending: Pending, timeout: float | None = None) -> Completion:
        """`pending.wait(timeout)`."""
        return pending.wait(timeout)

    def abort(self, pending: Pending) -> bool:
        """Sends Abort (5.1) for a command; whether the controller says that it aborted it.

        The command itself ends with a status as ever: Command Abort Requested if it was aborted. False
        without asking when it has ended already.
        """
        ticket = self._session.abort(pending._ticket)
        if ticket is None:
            return False
        return not self._pending(Command(_ABORT, admin=True), ticket).check().dw0 & 1

    def admin(
        self,
        opcode: int,
        *,
        nsid: int = 0,
        cdw10: int = 0,
        cdw11: int = 0,
        cdw12: int = 0,
        cdw13: int = 0,
        cdw14: int = 0,
        cdw15: int = 0,
        data: Buffer | None = None,
        length: int = 0,
        timeout: float | None = None,
    ) -> Completion:
        """Sends an admin command and waits for its completion, whatever its status. See `Command`."""
        dwords = (cdw10, cdw11, cdw12, cdw13, cdw14, cdw15)
        command = Command(opcode, nsid, *dwords, data=bytes_of(data), length=length, admin=True)
        return self.submit(command).wait(timeout)

    def io(
        self,
        opcode: int,
        *,
        nsid: int = 1,
        cdw10: int = 0,
        cdw11: int = 0,
        cdw12: int = 0,
        cdw13: int = 0,
        cdw14: int = 0,
        cdw15: int = 0,
        data: Buffer | None = None,
        length: int = 0,
        timeout: float | None = None,
    ) -> Completion:
        """Sends an I/O command and waits for its completion, whatever its status. See `Command`."""
        dwords = (cdw10, cdw11, cdw12, cdw13, cdw14, cdw15)
        command = Command(opcode, nsid, *dwords, data=bytes_of(data), length=length)
        return self.submit(command).wait(timeout)

    def run(self, commands: Iterable[Command]) -> list[Completion]:
        """Carries commands out, up to `depth` of them at once.

        All that were sent have ended when the first error status is raised, as NvmeStatusError.
        """
        completions: list[Completion] = []
        every = list(commands)
        for start in range(0, len(every), self.depth):
            batch = self.submit_many(every[start : start + self.depth])
            for pending in batch:
                pending.wait()
            completions += [pending.check() for pending in batch]
        return completions


def _wide(size: int) -> bool:
    if size not in (4, 8):
        raise ConfigError(f"a register of {size} bytes; use 4 or 8")
    return size == 8


def _length(length: int) -> int:
    if length < 0:
        raise ConfigError(f"length: {length} bytes; use 0 or more")
    return length


def view_of(buffer: Buffer) -> memoryview:
    """The bytes of a buffer. ConfigError for what has none, or not in one piece."""
    try:
        return memoryview(buffer).cast("B")
    except TypeError as error:
        raise ConfigError(f"data: {error}; use bytes, a bytearray or a contiguous memoryview") from None


def bytes_of(data: Buffer | None) -> bytes:
    """A copy; None stands for no bytes."""
    return b"" if data is None else bytes(view_of(data))
