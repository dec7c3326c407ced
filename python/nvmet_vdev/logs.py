"""Log pages as values: health, errors, changed namespaces, asymmetric access, reservation notifications.

Knows layouts and names, and no drive. Sections are those of the NVM Express Base Specification 2.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.nvme import Status

__all__ = ["AnaGroup", "AnaLog", "ErrorEntry", "ReservationNotification", "SmartLog"]

_SMART = struct.Struct("<BHBBBB25x")
_SMART_TIMES = struct.Struct("<II8H")
_SMART_COUNTERS = 32
_SMART_AFTER_COUNTERS = 192
_ERROR = struct.Struct("<QHHHHQIB3xQ24x")
_ANA_HEADER = struct.Struct("<QH6x")
_ANA_GROUP = struct.Struct("<IIQB15x")
_NOTIFICATION = struct.Struct("<QBB2xI48x")

ANA_STATES = {1: "optimized", 2: "non-optimized", 3: "inaccessible", 4: "persistent-loss", 15: "change"}
"""Asymmetric Namespace Access states (8.1), in the words of nvmetcli."""
NOTIFICATIONS = {1: "registration-preempted", 2: "reservation-released", 3: "reservation-preempted"}
"""Types of a reservation notification (5.16.1.24); the bits of the mask (5.27.1.26) have their numbers."""


@dataclass(frozen=True, slots=True)
class SmartLog:
    """SMART / Health Information (5.16.1.3)."""

    critical_warning: int
    """Bits: 0 spare, 1 temperature, 2 reliability, 3 read-only, 4 backup of volatile memory, 5 PMR."""
    temperature: int
    """Kelvins."""
    spare: int
    """Percent."""
    spare_threshold: int
    """Percent."""
    percentage_used: int
    """Of the life that is expected; may exceed 100."""
    endurance_group_warning: int
    data_units_read: int
    """In thousands of 512 bytes, rounded up."""
    data_units_written: int
    """In thousands of 512 bytes, rounded up."""
    host_read_commands: int
    host_write_commands: int
    controller_busy_time: int
    """Minutes."""
    power_cycles: int
    power_on_hours: int
    unsafe_shutdowns: int
    media_errors: int
    error_log_entries: int
    """Ever made, not those that are there."""
    warning_temperature_time: int
    """Minutes."""
    critical_temperature_time: int
    """Minutes."""
    temperature_sensors: tuple[int, ...]
    """Kelvins, of 8 sensors; 0 where there is none."""

    @classmethod
    def from_bytes(cls, data: bytes) -> SmartLog:
        """From the 512 bytes of the page."""
        _long_enough("SMART / Health Information", data, 512)
        counters = [
            int.from_bytes(data[at : at + 16], "little")
            for at in range(_SMART_COUNTERS, _SMART_AFTER_COUNTERS, 16)
        ]
        warning, critical, *sensors = _SMART_TIMES.unpack_from(data, _SMART_AFTER_COUNTERS)
        fields = [*_SMART.unpack_from(data), *counters, warning, critical, tuple(sensors)]
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """An entry of Error Information (5.16.1.2)."""

    count: int
    """Number of the error since the controller exists."""
    sqid: int
    """FFFFh: not of a command."""
    cid: int
    """FFFFh: not of a command."""
    status: Status
    location: int
    """Parameter Error Location: byte in bits 7:0, bit in 10:8; FFFFh: no parameter."""
    lba: int
    """The first that has failed."""
    nsid: int
    vendor_log: int
    """A log page that says more, or 0."""
    command_specific: int

    @classmethod
    def from_bytes(cls, data: bytes) -> ErrorEntry:
        """From the 64 bytes of an entry."""
        _long_enough("an entry of Error Information", data, _ERROR.size)
        count, sqid, cid, status, *rest = _ERROR.unpack_from(data)
        return cls(count, sqid, cid, Status.from_bits(status >> 1), *rest)

    @classmethod
    def all_from_bytes(cls, data: bytes) -> list[ErrorEntry]:
        """The entries of a page that are in use, as they stand there: the newest first."""
        whole = len(data) - len(data) % _ERROR.size
        entries = [cls.from_bytes(data[at : at + _ERROR.size]) for at in range(0, whole, _ERROR.size)]
        return [entry for entry in entries if entry.count]


@dataclass(frozen=True, slots=True)
class AnaGroup:
    """An ANA group as its controller sees it (5.16.1.13)."""

    id: int
    state: str
    """`optimized`, `non-optimized`, `inaccessible`, `persistent-loss`, `change`; else the number."""
    nsids: tuple[int, ...]
    """Namespaces of the group; none when only groups were asked for."""
    change_count: int


@dataclass(frozen=True, slots=True)
class AnaLog:
    """Asymmetric Namespace Access (5.16.1.13)."""

    change_count: int
    groups: tuple[AnaGroup, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> AnaLog:
        """From the page. ConfigError when it ends before its last group does."""
        _long_enough("Asymmetric Namespace Access", data, _ANA_HEADER.size)
        change_count, number = _ANA_HEADER.unpack_from(data)
        groups, at = [], _ANA_HEADER.size
        for _ in range(number):
            _long_enough("Asymmetric Namespace Access", data, at + _ANA_GROUP.size)
            group, nsids, changes, state = _ANA_GROUP.unpack_from(data, at)
            at += _ANA_GROUP.size
            _long_enough("Asymmetric Namespace Access", data, at + 4 * nsids)
            members = struct.unpack_from(f"<{nsids}I", data, at)
            at += 4 * nsids
            name = ANA_STATES.get(state & 0xF, str(state & 0xF))
            groups.append(AnaGroup(group, name, members, changes))
        return cls(change_count, tuple(groups))

    def state(self, nsid: int) -> str | None:
        """The state of the group of a namespace; None: it is in no group."""
        return next((group.state for group in self.groups if nsid in group.nsids), None)


@dataclass(frozen=True, slots=True)
class ReservationNotification:
    """A page of the Reservation Notification log (5.16.1.24), which is one notification."""

    count: int
    """Number of the notification since the controller exists."""
    kind: str
    """`registration-preempted`, `reservation-released`, `reservation-preempted`; else the number."""
    available: int
    """Notifications that wait after this one, 255 at most."""
    nsid: int

    @classmethod
    def from_bytes(cls, data: bytes) -> ReservationNotification | None:
        """From the 64 bytes of the page; None for an empty one."""
        _long_enough("Reservation Notification", data, _NOTIFICATION.size)
        count, kind, available, nsid = _NOTIFICATION.unpack_from(data)
        return cls(count, NOTIFICATIONS.get(kind, str(kind)), available, nsid) if kind else None


def changed_namespaces(data: bytes) -> list[int]:
    """Changed Namespace List (5.16.1.5): the NSIDs; FFFFFFFFh alone stands for more than 1024."""
    nsids = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
    return list(nsids[: nsids.index(0)] if 0 in nsids else nsids)


def _long_enough(what: str, data: bytes, size: int) -> None:
    if len(data) < size:
        raise ConfigError(f"{what}: {len(data)} bytes, and {size} are needed")
