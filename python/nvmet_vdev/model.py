"""Values of a subsystem that several virtual machines share: hosts, ANA states, reservations, health.

Plain data with the specification's names. Must not know the target.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from nvmet_vdev.stats import ControllerStats

__all__ = [
    "ANA_STATES",
    "AnaState",
    "ErrorLogEntry",
    "Health",
    "Host",
    "Lifetime",
    "Registrant",
    "Reservation",
]

AnaState = Literal["optimized", "non-optimized", "inaccessible", "persistent-loss", "change"]
"""State of an ANA group (NVMe Base 2.0, 8.1.3), in nvmet's words."""
ANA_STATES: tuple[str, ...] = get_args(AnaState)


@dataclass(frozen=True, slots=True)
class Host:
    """The host that a controller belongs to: who its guest is to reservations."""

    nqn: str
    """Host NVMe Qualified Name (HOSTNQN; NVMe Base 2.0, 4.5)."""
    id: uuid.UUID
    """Host Identifier (HOSTID; NVMe Base 2.0, 5.27.1.25), never zero."""


@dataclass(frozen=True, slots=True)
class Registrant:
    """A host that has registered with a namespace (NVMe Base 2.0, 8.19.3)."""

    host: uuid.UUID
    """Its Host Identifier."""
    key: int
    """Its reservation key, 64 bits."""
    holder: bool
    """Whether it holds the reservation, alone or with all other registrants."""
    controllers: tuple[int, ...]
    """Controller Identifiers of its controllers in the subsystem now."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Who has registered with a namespace and who holds it (NVMe Base 2.0, 7.5)."""

    generation: int
    """Generation (GEN): rises with registrations, preemptions and Clear."""
    type: int
    """Reservation Type (RTYPE), 1 to 6; 0 without a reservation."""
    ptpl: bool
    """Persist Through Power Loss State (PTPLS): it outlasts the target."""
    registrants: tuple[Registrant, ...]
    """By Host Identifier."""


@dataclass(frozen=True, slots=True)
class Health:
    """What SMART says of a subsystem that nobody counts (NVMe Base 2.0, 5.16.1.3)."""

    temperature: int = 313
    """Composite Temperature in kelvins, 0 to 65535."""
    spare: int = 100
    """Available Spare in percent."""
    spare_threshold: int = 10
    """Available Spare Threshold in percent: below it there is a critical warning."""
    percentage_used: int = 0
    """Percentage Used, 0 to 255."""
    reliability_degraded: bool = False
    """The critical warning that the reliability is degraded."""


@dataclass(frozen=True, slots=True)
class ErrorLogEntry:
    """An entry of the Error Information log (NVMe Base 2.0, 5.16.1.2)."""

    count: int
    """Error Count: 1 for the first error of the controller."""
    sqid: int
    """Submission Queue Identifier; FFFFh if it was no command's error."""
    cid: int
    """Command Identifier; FFFFh likewise."""
    status: int
    """Status field of the completion, 15 bits: SC in bits 7:0, SCT in bits 10:8, CRD, M, DNR."""
    lba: int
    """First logical block of the command."""
    nsid: int
    """Namespace Identifier of the command."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What SMART has counted over the life of a controller, over restarts if it is given back."""

    stats: ControllerStats = field(default_factory=ControllerStats)
    """Commands and bytes."""
    power_cycles: int = 0
    """Clients that attached."""
    power_on_seconds: int = 0
    """Seconds that it was served for."""
    unsafe_shutdowns: int = 0
    """Clients that left an enabled controller without a shutdown notification."""
    in_use: bool = False
    """Whether a client is there that has not shut it down: an end of the process would be unsafe to it."""
    error_log_entries: int = 0
    """Errors so far."""
    error_log: bytes = b""
    """Entries of the Error Information log, newest first, 64 bytes each."""

    @classmethod
    def of(cls, counters: Mapping[str, int], error_log: bytes) -> Lifetime:
        """From counters by name, as `counters` gives them."""
        others = ("power_cycles", "power_on_seconds", "unsafe_shutdowns", "error_log_entries")
        stats = ControllerStats(
            **{name: value for name, value in counters.items() if name in ControllerStats.__slots__}
        )
        return cls(
            stats,
            **{name: counters.get(name, 0) for name in others},
            in_use=bool(counters.get("in_use", 0)),
            error_log=error_log,
        )

    @property
    def counters(self) -> dict[str, int]:
        """All counters by name."""
        stats = {name: getattr(self.stats, name) for name in ControllerStats.__slots__}
        return stats | {
            "power_cycles": self.power_cycles,
            "power_on_seconds": self.power_on_seconds,
            "unsafe_shutdowns": self.unsafe_shutdowns,
            "error_log_entries": self.error_log_entries,
        }

    @property
    def errors(self) -> tuple[ErrorLogEntry, ...]:
        """The error log, newest first."""
        whole = len(self.error_log) - len(self.error_log) % 64
        return tuple(
            ErrorLogEntry(count, sqid, cid, status >> 1, lba, nsid)
            for count, sqid, cid, status, lba, nsid in struct.iter_unpack(
                "<QHHHxxQI36x", self.error_log[:whole]
            )
        )
