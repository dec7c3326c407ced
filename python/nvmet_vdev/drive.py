"""An NVMe driver for Python: a `Drive` on any vfio-user NVMe socket.

It attaches as a guest's driver does and sends what it is told to, right or wrong: made for tests of
controllers. docs/drive.md is the manual.

Knows `nvmet_vdev.admin` and below; no target.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence

from nvmet_vdev import reservations
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.admin import ALL_NAMESPACES, Administered
from nvmet_vdev.nvme import AsyncEvent, Command, IdentifyNamespace, NvmeStatusError, number
from nvmet_vdev.passthrough import Buffer, view_of
from nvmet_vdev.reservations import ReservationReport

_FLUSH, _WRITE, _READ, _COMPARE, _WRITE_ZEROES, _DATASET_MANAGEMENT = 0x00, 0x01, 0x02, 0x05, 0x08, 0x09
_COMPARE_FAILURE = (2, 0x85)
_FUA, _DEAC = 1 << 30, 1 << 25
_MOST_BLOCKS = 1 << 16
"""Logical blocks of one command: NLB has 16 bits, 0's based."""
_REPORT_BYTES = 4096
"""Enough for a report of 63 controllers, in its larger form."""
_NAMESPACES_CHANGED = (2, 0)


def attach(
    socket: str | os.PathLike[str],
    *,
    timeout: float = 10.0,
    depth: int = 128,
    interrupts: bool = True,
    doorbells: str = "auto",
    memory: int = 64 << 20,
) -> Drive:
    """A `Drive` on the controller behind `socket`; the arguments are those of `Drive`."""
    return Drive(
        socket, timeout=timeout, depth=depth, interrupts=interrupts, doorbells=doorbells, memory=memory
    )


class Drive(Administered):
    """An NVMe controller that this process has attached to and enabled, with one I/O queue.

    `socket` is that of a vfio-user server, or a directory with a socket `cntrl`. `timeout` in seconds bounds
    every answer and is the default of all waits. Up to `depth` I/O commands are in flight. With `interrupts`
    waits sleep on MSI-X vectors 0 and 1, else they poll. `doorbells` is "auto", "shadow", "mapped" or
    "trapped". `memory` bytes are shared with the device, for queues and for the data of the commands in
    flight.

    A context manager: it detaches at the end of the block. Dropped without that, the connection ends without
    a word, as with a virtual machine that is killed.

    Errors: ConfigError for what can never work; NvmeStatusError for an error status, except from `admin`,
    `io`, `submit` and `wait`, which hand it out; DeviceError for no answer in time, a fatal status (CSTS.CFS)
    and a lost connection.

    Threads: all methods may be called from any thread at the same time; commands of several threads are in
    flight together. `reset` and `shutdown` keep the others waiting. No wait holds the GIL, and Ctrl-C ends
    any: commands that were sent stay in flight then, and a reset, shutdown or detach goes on by itself.
    """

    _known: dict[int, IdentifyNamespace] | None = None

    def reset(self) -> None:
        """Clears CC.EN, waits for CSTS.RDY (CAP.TO at most), and enables the controller again (3.5.1).

        Commands in flight end with DeviceError. It may be called again when it failed, and after `shutdown`.
        """
        self._known = None
        super().reset()

    # Namespaces

    def identify_namespace(self, nsid: int = 1) -> IdentifyNamespace:
        """Identify Namespace (CNS 00h), with the identification descriptors (CNS 03h) where there are any.

        ConfigError for a namespace that is not active: the controller has no data for it.
        """
        found = self._identify(nsid)
        if found is None:
            raise ConfigError(f"namespace {nsid} is not active; active are {self.active_namespaces()}")
        return found

    def _identify(self, nsid: int) -> IdentifyNamespace | None:
        data = self.identify(0, nsid)
        try:
            descriptors = self.identify(3, nsid)
        except NvmeStatusError:
            # They came with NVMe 1.3.
            descriptors = b""
        return IdentifyNamespace.from_bytes(nsid, data, descriptors) if any(data) else None

    def active_namespaces(self) -> list[int]:
        """Identifiers of the active namespaces (CNS 02h), ascending."""
        found: list[int] = []
        while True:
            after = found[-1] if found else 0
            page = struct.unpack("<1024I", self.identify(2, after))
            for nsid in page:
                # The list ascends and ends with zero; anything else would lead in a circle.
                if nsid <= after or nsid >= ALL_NAMESPACES - 1:
                    return found
                found.append(nsid)
                after = nsid

    @property
    def namespaces(self) -> tuple[IdentifyNamespace, ...]:
        """The active namespaces, as they were when they were looked at last: see `rescan`."""
        return tuple(self._scanned().values())

    def rescan(self) -> tuple[IdentifyNamespace, ...]:
        """Asks for the active namespaces again.

        It is done by itself after a reset, and after a notice from `next_event` that namespaces have changed.
        """
        self._known = None
        return self.namespaces

    def _scanned(self) -> dict[int, IdentifyNamespace]:
        known = self._known
        if known is None:
            found = {nsid: self._identify(nsid) for nsid in self.active_namespaces()}
            # One may go between the list and the question.
            self._known = known = {nsid: one for nsid, one in found.items() if one}
        return known

    def _block_size(self, nsid: int) -> int:
        """That of an active namespace. Others get some size: to refuse them is the controller's part."""
        if nsid not in self._scanned():
            self._known = None
        found = self._scanned().get(nsid)
        return found.block_size if found else 512

    # Data

    def read(self, lba: int, blocks: int, nsid: int = 1) -> bytes:
        """Reads logical blocks from `lba` on, by as many commands as `max_transfer` makes necessary."""
        return b"".join(part.data for part in self.run(self._reads(lba, blocks, nsid)))

    def read_into(self, lba: int, buffer: bytearray | memoryview, nsid: int = 1) -> None:
        """Reads as many logical blocks as fit into `buffer` exactly."""
        view = view_of(buffer)
        if view.readonly:
            raise ConfigError("read_into: the buffer is read-only; use a bytearray or a writable memoryview")
        view[:] = self.read(lba, self._blocks(len(view), nsid), nsid)

    def read_many(self, ranges: Iterable[tuple[int, int]], nsid: int = 1) -> list[bytes]:
        """Reads ranges of `(lba, blocks)`, each with one command or more, up to `depth` of them in flight."""
        parts = [self._reads(lba, blocks, nsid) for lba, blocks in ranges]
        done = iter(self.run(command for commands in parts for command in commands))
        return [b"".join(next(done).data for _ in commands) for commands in parts]

    def write(self, lba: int, data: Buffer, fua: bool = False, nsid: int = 1) -> None:
        """Writes whole logical blocks from `lba` on; `fua`: they are on the medium when it returns."""
        self.run(self._outs(_WRITE, lba, data, nsid, _FUA if fua else 0))

    def compare(self, lba: int, data: Buffer, nsid: int = 1) -> bool:
        """Whether the logical blocks from `lba` on hold `data`, as the controller sees it (Compare)."""
        try:
            self.run(self._outs(_COMPARE, lba, data, nsid, 0))
        except NvmeStatusError as error:
            if error.status.code == _COMPARE_FAILURE:
                return False
            raise
        return True

    def flush(self, nsid: int = 1) -> None:
        """Brings what was written to the medium; `nsid` may be FFFFFFFFh for all namespaces."""
        self._one(Command(_FLUSH, nsid))

    def write_zeroes(
        self, lba: int, blocks: int, nsid: int = 1, *, deallocate: bool = False, fua: bool = False
    ) -> None:
        """Makes blocks read as zeroes; with `deallocate` they may lose their storage (DEAC)."""
        flags = (_FUA if fua else 0) | (_DEAC if deallocate else 0)
        self.run(
            _blocks(_WRITE_ZEROES, nsid, at, count, flags) for at, count in _parts(lba, blocks, _MOST_BLOCKS)
        )

    def deallocate(self, ranges: Sequence[tuple[int, int]], nsid: int = 1) -> None:
        """Deallocates ranges of `(lba, blocks)`, 1 to 256 of them, by one Dataset Management command."""
        if not 1 <= len(ranges) <= 256:
            raise ConfigError(f"deallocate: {len(ranges)} ranges; one command takes 1 to 256")
        data = b"".join(
            struct.pack("<IIQ", 0, number("blocks", n, 32), number("lba", lba)) for lba, n in ranges
        )
        self._one(Command(_DATASET_MANAGEMENT, nsid, cdw10=len(ranges) - 1, cdw11=1 << 2, data=data))

    def _reads(self, lba: int, blocks: int, nsid: int) -> list[Command]:
        size = self._block_size(nsid)
        return [
            _blocks(_READ, nsid, at, count, length=count * size)
            for at, count in _parts(lba, blocks, self._most(size))
        ]

    def _outs(self, opcode: int, lba: int, data: Buffer, nsid: int, flags: int) -> Iterator[Command]:
        view = view_of(data)
        blocks = self._blocks(len(view), nsid)
        size = self._block_size(nsid)
        for at, count in _parts(lba, blocks, self._most(size)):
            start = (at - lba) * size
            yield _blocks(opcode, nsid, at, count, flags, data=bytes(view[start : start + count * size]))

    def _most(self, block_size: int) -> int:
        """Logical blocks of a command that carries data."""
        return max(1, min(self.max_transfer // block_size, _MOST_BLOCKS))

    def _blocks(self, size: int, nsid: int) -> int:
        block_size = self._block_size(nsid)
        blocks, rest = divmod(size, block_size)
        if rest:
            raise ConfigError(
                f"{size} bytes are no whole blocks of namespace {nsid}: {block_size} bytes each"
            )
        return blocks

    # Reservations

    def reservation_register(
        self,
        nsid: int = 1,
        *,
        key: int = 0,
        current_key: int = 0,
        action: str = "register",
        ignore_key: bool = False,
        persist: bool | None = None,
    ) -> None:
        """Reservation Register (7.3) with `key` (NRKEY), which "unregister" does not look at.

        `action` is "register", "unregister" or "replace"; the last two tell the key that there is
        (`current_key`), or are told to `ignore_key` (IEKEY). `persist` changes whether reservations survive a
        loss of power (CPTPL).
        """
        self._one(
            reservations.register(
                nsid,
                key=key,
                current_key=current_key,
                action=action,
                ignore_key=ignore_key,
                persist=persist,
            )
        )

    def reservation_acquire(
        self,
        nsid: int = 1,
        *,
        key: int,
        type: int,  # noqa: A002
        action: str = "acquire",
        preempt_key: int = 0,
    ) -> None:
        """Reservation Acquire (7.2) by the host that is registered with `key` (CRKEY).

        `type` is one of `ReservationType`. `action` is "acquire", or "preempt" or "preempt-and-abort" of the
        registrants with `preempt_key`; the latter aborts their commands before it completes.
        """
        self._one(reservations.acquire(nsid, key=key, type=type, action=action, preempt_key=preempt_key))

    def reservation_release(
        self,
        nsid: int = 1,
        *,
        key: int,
        type: int = 0,  # noqa: A002
        action: str = "release",
    ) -> None:
        """Reservation Release (7.4): "release" of a reservation of this `type`, or "clear", of everybody."""
        self._one(reservations.release(nsid, key=key, type=type, action=action))

    def reservation_report(self, nsid: int = 1, *, extended: bool = True) -> ReservationReport:
        """Reservation Report (7.5), asked for again with more room while there are more registrants.

        The controller answers in the form of this host's identifier: `extended` (EDS) for 128 bits.
        """
        size = _REPORT_BYTES
        while True:
            data = self._one(reservations.report(nsid, size, extended=extended)).data
            needed = reservations.size_of(data, extended=extended)
            if needed <= size:
                return ReservationReport.from_bytes(data, extended=extended)
            size = needed

    # Events

    def next_event(self, timeout: float | None = None) -> AsyncEvent:
        """Waits `timeout` seconds (None: the drive's) for an asynchronous event; DeviceError for none.

        From the first call on, one Asynchronous Event Request is kept outstanding. Events that the controller
        has told stay in order until they are taken, but for a reset.
        """
        event = super().next_event(timeout)
        if (event.type, event.info) == _NAMESPACES_CHANGED:
            self._known = None
        return event


def _parts(lba: int, blocks: int, most: int) -> Iterator[tuple[int, int]]:
    """A range in parts of at most `most` blocks."""
    if blocks < 1:
        raise ConfigError(f"{blocks} blocks; use at least 1")
    number("lba", lba)
    for done in range(0, blocks, most):
        yield lba + done, min(most, blocks - done)


def _blocks(
    opcode: int,
    nsid: int,
    lba: int,
    blocks: int,
    flags: int = 0,
    *,
    data: bytes | None = None,
    length: int = 0,
) -> Command:
    """A command with SLBA and NLB, as Read and Write have them (NVM Command Set 1.0, 3.2)."""
    low, high = lba & 0xFFFF_FFFF, lba >> 32
    return Command(opcode, nsid, low, high, flags | blocks - 1, data=data, length=length)
