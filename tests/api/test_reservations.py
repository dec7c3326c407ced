"""Reservations as a driver of the target sees them: hosts, each with a controller or two, on one namespace.

The table of what is allowed to whom is that of the specification (NVM Express Base 2.0, 8.19), cell by cell.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from nvmet_vdev import Command, DeviceError, Drive, NvmeStatusError, Subsystem, Target, attach
from nvmet_vdev.logs import ReservationNotification
from nvmet_vdev.reservations import RegisteredController, ReservationType

BLOCK = 512
NSID = 1
CONFLICT = "Reservation Conflict"
PATIENCE = 60.0
TYPES = [kind for kind in ReservationType if kind]
ALL_REGISTRANTS = (
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)
EXCLUSIVE = (ReservationType.WRITE_EXCLUSIVE, ReservationType.EXCLUSIVE_ACCESS)


def hostid(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_DNS, name)


@dataclass(frozen=True)
class Shared:
    """A subsystem with one namespace, and drives on controllers of it: as many hosts as are asked for."""

    subsystem: Subsystem
    directory: Path
    stack: ExitStack

    def drive(self, host: str, number: int = 0) -> Drive:
        """A drive of a host, on a controller of its own."""
        socket = self.directory / f"{host}{number}"
        self.subsystem.listen(socket, hostnqn=f"nqn.2024-01.com.example:{host}", hostid=hostid(host))
        return self.stack.enter_context(attach(socket))


@pytest.fixture
def shared(nvmet_target: Target, nvmet_directory: Path) -> Iterator[Shared]:
    subsystem = nvmet_target.add_subsystem(nqn="nqn.2024-01.com.example:reserved")
    subsystem.add_namespace("ram:16M", nsid=NSID)
    with ExitStack() as stack:
        yield Shared(subsystem, nvmet_directory, stack)


@contextlib.contextmanager
def fails(status: str) -> Iterator[None]:
    """The block ends with this status."""
    with pytest.raises(NvmeStatusError) as caught:
        yield
    assert caught.value.status.name == status


# The table


READS = {
    "Read": Command(0x02, NSID, length=BLOCK),
    "Compare": Command(0x05, NSID, data=bytes(BLOCK)),
    "Verify": Command(0x0C, NSID),
}
WRITES = {
    "Write": Command(0x01, NSID, data=bytes(BLOCK)),
    "Write Zeroes": Command(0x08, NSID),
    "Write Uncorrectable": Command(0x04, NSID),
    "Dataset Management": Command(0x09, NSID, cdw11=4, data=bytes(4) + (1).to_bytes(4, "little") + bytes(8)),
    "Flush": Command(0x00, NSID),
}
ROLES = ("holder", "its other controller", "registrant", "stranger")


def allowed(kind: ReservationType, role: str, *, write: bool) -> bool:
    """A cell of the table: whether a read or a write is carried out."""
    if role in ("holder", "its other controller"):
        return True
    if role == "registrant" and kind not in EXCLUSIVE:
        return True
    # What an exclusive access keeps out, and a write exclusive only from writing.
    return not write and kind in (
        ReservationType.WRITE_EXCLUSIVE,
        ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    )


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name.lower())
def test_every_command_of_everybody_is_carried_out_or_refused_as_the_table_says(
    shared: Shared, kind: ReservationType
) -> None:
    drives = dict(
        zip(ROLES, (shared.drive(*one) for one in (("a", 0), ("a", 1), ("b", 0), ("c", 0))), strict=True)
    )
    known = {name for name, command in (READS | WRITES).items() if _known(drives["holder"], command)}
    assert {"Read", "Compare", "Write", "Write Zeroes", "Dataset Management", "Flush"} <= known
    drives["holder"].reservation_register(NSID, key=1)
    drives["registrant"].reservation_register(NSID, key=2)
    drives["holder"].reservation_acquire(NSID, key=1, type=kind)
    wrong = []
    for role, drive in drives.items():
        for commands, write in ((READS, False), (WRITES, True)):
            for name in known & set(commands):
                status = drive.submit(commands[name]).wait().status
                expected = "Successful Completion" if allowed(kind, role, write=write) else CONFLICT
                if status.name != expected:
                    wrong.append(f"{role}: {name}: {status}")
    assert wrong == []


def _known(drive: Drive, command: Command) -> bool:
    return drive.submit(command).wait().status.name != "Invalid Opcode"


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name.lower())
def test_reservation_commands_while_somebody_holds_it_need_a_registration(
    shared: Shared, kind: ReservationType
) -> None:
    holder, registrant, stranger = (shared.drive(host) for host in "abc")
    holder.reservation_register(NSID, key=1)
    registrant.reservation_register(NSID, key=2)
    holder.reservation_acquire(NSID, key=1, type=kind)
    for action in ("acquire", "preempt", "preempt-and-abort"):
        with fails(CONFLICT):
            stranger.reservation_acquire(NSID, key=3, type=kind, action=action, preempt_key=1)
    for action in ("release", "clear"):
        with fails(CONFLICT):
            stranger.reservation_release(NSID, key=3, type=kind, action=action)
    other = TYPES[TYPES.index(kind) - 1]
    with fails(CONFLICT):
        holder.reservation_acquire(NSID, key=1, type=other)
    # To hold what one holds is no conflict; of all registrants everybody is a holder.
    holder.reservation_acquire(NSID, key=1, type=kind)
    if kind in ALL_REGISTRANTS:
        registrant.reservation_acquire(NSID, key=2, type=kind)
    else:
        with fails(CONFLICT):
            registrant.reservation_acquire(NSID, key=2, type=kind)
        registrant.reservation_release(NSID, key=2, type=kind)
    assert stranger.reservation_report(NSID).type == kind
    stranger.reservation_register(NSID, key=3)


# Register


def keys(drive: Drive) -> dict[str, int]:
    """Keys by host."""
    names = {hostid(name).bytes: name for name in "abc"}
    return {names[one.host]: one.key for one in drive.reservation_report(NSID).registrants}


def test_a_registration_is_of_the_host_and_all_its_controllers_show_it(shared: Shared) -> None:
    first, second, other = shared.drive("a", 0), shared.drive("a", 1), shared.drive("b")
    first.reservation_register(NSID, key=0x1122334455667788)
    report = other.reservation_report(NSID)
    assert report.registrants == tuple(
        RegisteredController(controller, hostid("a").bytes, 0x1122334455667788, False)
        for controller in (1, 2)
    )
    # It is there for the second controller too: another key is a conflict, the same one is none.
    with fails(CONFLICT):
        second.reservation_register(NSID, key=7)
    second.reservation_register(NSID, key=0x1122334455667788)
    second.reservation_register(NSID, current_key=0x1122334455667788, action="unregister")
    assert first.reservation_report(NSID).registrants == ()


def test_a_key_is_replaced_by_who_knows_it_or_says_that_it_does_not_matter(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    a.reservation_register(NSID, key=1)
    with fails(CONFLICT):
        a.reservation_register(NSID, key=5, current_key=9, action="replace")
    a.reservation_register(NSID, key=5, current_key=1, action="replace")
    assert keys(a) == {"a": 5}
    a.reservation_register(NSID, key=6, current_key=99, action="replace", ignore_key=True)
    assert keys(a) == {"a": 6}
    with fails(CONFLICT):
        a.reservation_register(NSID, current_key=5, action="unregister")
    with fails(CONFLICT):
        b.reservation_register(NSID, current_key=6, action="unregister")
    a.reservation_register(NSID, action="unregister", ignore_key=True)
    assert keys(a) == {}


def test_a_holder_that_unregisters_gives_the_reservation_back(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    for kind in TYPES:
        a.reservation_register(NSID, key=1)
        b.reservation_register(NSID, key=2)
        a.reservation_acquire(NSID, key=1, type=kind)
        a.reservation_register(NSID, current_key=1, action="unregister")
        # With all registrants the others hold it still.
        still = kind if kind in ALL_REGISTRANTS else 0
        assert b.reservation_report(NSID).type == still
        b.reservation_register(NSID, current_key=2, action="unregister")
        assert a.reservation_report(NSID).type == 0


def test_the_generation_counts_registrations_preemptions_and_clears_alone(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    steps: list[tuple[int, Callable[[], None]]] = [
        (1, lambda: a.reservation_register(NSID, key=1)),
        (1, lambda: b.reservation_register(NSID, key=2)),
        (1, lambda: b.reservation_register(NSID, key=3, current_key=2, action="replace")),
        (0, lambda: a.reservation_acquire(NSID, key=1, type=1)),
        (0, lambda: a.reservation_release(NSID, key=1, type=1)),
        (1, lambda: a.reservation_acquire(NSID, key=1, type=1, action="preempt", preempt_key=3)),
        (1, lambda: a.reservation_release(NSID, key=1, action="clear")),
        (1, lambda: b.reservation_register(NSID, key=2)),
        (1, lambda: b.reservation_register(NSID, current_key=2, action="unregister")),
    ]
    before = a.reservation_report(NSID).generation
    for number, (more, step) in enumerate(steps):
        step()
        after = a.reservation_report(NSID).generation
        assert after == before + more, f"step {number}"
        before = after
    with fails(CONFLICT):
        b.reservation_release(NSID, key=2, action="clear")
    assert a.reservation_report(NSID).generation == before


# Acquire, release


def test_preempt_takes_a_reservation_and_unregisters_who_had_the_key(shared: Shared) -> None:
    a, b, c = (shared.drive(host) for host in "abc")
    for drive, key in ((a, 1), (b, 2), (c, 2)):
        drive.reservation_register(NSID, key=key)
    b.reservation_acquire(NSID, key=2, type=ReservationType.WRITE_EXCLUSIVE)
    a.reservation_acquire(NSID, key=1, type=ReservationType.EXCLUSIVE_ACCESS, action="preempt", preempt_key=2)
    report = c.reservation_report(NSID)
    assert (report.type, keys(c)) == (ReservationType.EXCLUSIVE_ACCESS, {"a": 1})
    assert [one.holder for one in report.registrants] == [True]
    for loser in (b, c):
        with fails(CONFLICT):
            loser.read(0, 1)


def test_preempt_of_a_key_that_holds_nothing_only_unregisters(shared: Shared) -> None:
    a, b, c = (shared.drive(host) for host in "abc")
    for drive, key in ((a, 1), (b, 2), (c, 3)):
        drive.reservation_register(NSID, key=key)
    b.reservation_acquire(NSID, key=2, type=ReservationType.WRITE_EXCLUSIVE)
    a.reservation_acquire(NSID, key=1, type=ReservationType.WRITE_EXCLUSIVE, action="preempt", preempt_key=3)
    assert (a.reservation_report(NSID).type, keys(a)) == (1, {"a": 1, "b": 2})
    with fails(CONFLICT):
        a.reservation_acquire(NSID, key=1, type=1, action="preempt", preempt_key=77)


def test_a_release_of_another_type_is_refused_and_of_nothing_is_no_error(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    a.reservation_register(NSID, key=1)
    b.reservation_register(NSID, key=2)
    a.reservation_release(NSID, key=1, type=1)
    a.reservation_acquire(NSID, key=1, type=1)
    with fails("Invalid Field in Command"):
        a.reservation_release(NSID, key=1, type=2)
    with fails(CONFLICT):
        a.reservation_release(NSID, key=9, type=1)
    b.reservation_release(NSID, key=2, type=1)
    assert b.reservation_report(NSID).type == 1
    b.reservation_release(NSID, key=2, action="clear")
    assert keys(a) == {}


# Notifications


def told(drive: Drive) -> list[tuple[str, int]]:
    """All notifications that wait: what, and how many come after it."""
    found: list[ReservationNotification] = []
    while (one := drive.reservation_notification()) is not None:
        found.append(one)
    return [(one.kind, one.available) for one in found]


def test_hosts_are_told_what_others_did_by_an_event_and_in_the_log(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    b.enable_events()
    for drive, key in ((a, 1), (b, 2)):
        drive.reservation_register(NSID, key=key)
    a.reservation_acquire(NSID, key=1, type=ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert told(b) == []
    a.reservation_release(NSID, key=1, type=ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    event = b.next_event(PATIENCE)
    assert (event.name, event.log_page) == ("Reservation Log Page Available", 0x80)
    assert told(b) == [("reservation-released", 0)]
    a.reservation_acquire(NSID, key=1, type=1, action="preempt", preempt_key=2)
    a.reservation_register(NSID, current_key=1, action="unregister")
    assert b.next_event(PATIENCE).name == "Reservation Log Page Available"
    assert told(b) == [("registration-preempted", 0)]
    assert told(a) == []


def test_what_is_masked_is_not_told(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    assert b.reservation_notification_mask(NSID) == frozenset()
    b.set_reservation_notification_mask(["reservation-released"], NSID)
    assert b.reservation_notification_mask(NSID) == {"reservation-released"}
    for drive, key in ((a, 1), (b, 2)):
        drive.reservation_register(NSID, key=key)
    a.reservation_acquire(NSID, key=1, type=3)
    a.reservation_release(NSID, key=1, type=3)
    with pytest.raises(DeviceError):
        b.next_event(0)
    assert told(b) == []
    a.reservation_release(NSID, key=1, action="clear")
    assert told(b) == [("reservation-preempted", 0)]


# Life


def test_a_reset_or_the_loss_of_a_controller_changes_nothing(shared: Shared) -> None:
    a, b = shared.drive("a"), shared.drive("b")
    a.reservation_register(NSID, key=1)
    a.reservation_acquire(NSID, key=1, type=1)
    a.reset()
    with fails(CONFLICT):
        b.write(0, bytes(BLOCK))
    a.write(0, bytes(BLOCK))
    a.close()
    with fails(CONFLICT):
        b.write(0, bytes(BLOCK))


def test_a_host_with_an_identifier_of_128_bits_reads_the_extended_report(shared: Shared) -> None:
    a = shared.drive("a")
    a.reservation_register(NSID, key=1)
    with fails("Host Identifier Inconsistent Format"):
        a.reservation_report(NSID, extended=False)


def test_a_namespace_takes_more_than_a_thousand_registrants(shared: Shared) -> None:
    hosts = 1024
    drives = {"a": shared.drive("a")}
    for number in range(1, hosts):
        socket = shared.directory / "s"
        controller = shared.subsystem.listen(
            socket, hostnqn=f"nqn.2024-01.com.example:h{number}", hostid=hostid(f"h{number}"), queues=1
        )
        with attach(socket, memory=4 << 20, depth=4) as drive:
            drive.reservation_register(NSID, key=number + 1)
        controller.close()
    drives["a"].reservation_register(NSID, key=1)
    report = drives["a"].reservation_report(NSID)
    assert sorted(one.key for one in report.registrants) == list(range(1, hosts + 1))
