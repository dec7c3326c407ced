"""Reservations: their commands, and their report as a value.

Knows layouts and names, and no drive. Sections are those of the NVM Express Base Specification 2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.nvme import Command, number

__all__ = [
    "RegisteredController",
    "ReservationReport",
    "ReservationType",
    "acquire",
    "register",
    "release",
    "report",
]

_REGISTER, _REPORT, _ACQUIRE, _RELEASE = 0x0D, 0x0E, 0x11, 0x15
_REGISTER_ACTIONS = {"register": 0, "unregister": 1, "replace": 2}
_ACQUIRE_ACTIONS = {"acquire": 0, "preempt": 1, "preempt-and-abort": 2}
_RELEASE_ACTIONS = {"release": 0, "clear": 1}
_PERSIST = {None: 0, False: 2, True: 3}
_IGNORE_KEY = 1 << 3
_EXTENDED = 1
_HEADER = struct.Struct("<IBHxxB14x")
_EXTENDED_HEADER_BYTES = 64
_REGISTRANT = struct.Struct("<HB5x8sQ")
_EXTENDED_REGISTRANT = struct.Struct("<HB5xQ16s32x")


class ReservationType(IntEnum):
    """RTYPE (7.2): who may still read and write."""

    NONE = 0
    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 2
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 4
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 5
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 6


@dataclass(frozen=True, slots=True)
class RegisteredController:
    """A controller whose host is registered (7.5)."""

    controller: int
    """CNTLID; FFFFh for one of those that are made when somebody connects."""
    host: bytes
    """Host Identifier: 16 bytes in the extended report, else 8."""
    key: int
    holder: bool


@dataclass(frozen=True, slots=True)
class ReservationReport:
    """Reservation Status (7.5)."""

    generation: int
    """Counts registrations and what ends them."""
    type: int
    """As `ReservationType`; 0: there is no reservation."""
    ptpl: bool
    """Whether it persists through power loss."""
    registrants: tuple[RegisteredController, ...]

    @classmethod
    def from_bytes(cls, data: bytes, *, extended: bool = True) -> ReservationReport:
        """From the data structure. ConfigError when it ends before its last registrant does."""
        size = size_of(data, extended=extended)
        if len(data) < size:
            raise ConfigError(f"Reservation Status: {len(data)} bytes, and {size} are needed")
        generation, kind, _, ptpl = _HEADER.unpack_from(data)
        start, entry = _layout(extended)
        registrants = []
        for at in range(start, size, entry.size):
            controller, status, first, second = entry.unpack_from(data, at)
            key, host = (first, second) if extended else (second, first)
            registrants.append(RegisteredController(controller, host, key, bool(status & 1)))
        return cls(generation, kind, ptpl == 1, tuple(registrants))


def size_of(data: bytes, *, extended: bool) -> int:
    """Bytes of a whole Reservation Status data structure, as the beginning of it tells."""
    if len(data) < _HEADER.size:
        raise ConfigError(f"Reservation Status: {len(data)} bytes, and {_HEADER.size} are needed")
    start, entry = _layout(extended)
    registrants: int = _HEADER.unpack_from(data)[2]
    return start + entry.size * registrants


def _layout(extended: bool) -> tuple[int, struct.Struct]:
    return (_EXTENDED_HEADER_BYTES, _EXTENDED_REGISTRANT) if extended else (_HEADER.size, _REGISTRANT)


def register(
    nsid: int, *, key: int, current_key: int, action: str, ignore_key: bool, persist: bool | None
) -> Command:
    """Reservation Register (7.3)."""
    cdw10 = _action(action, _REGISTER_ACTIONS) | _IGNORE_KEY * ignore_key | _PERSIST[persist] << 30
    return Command(_REGISTER, nsid, cdw10, data=_keys(current_key=current_key, key=key))


def acquire(nsid: int, *, key: int, type: int, action: str, preempt_key: int) -> Command:  # noqa: A002
    """Reservation Acquire (7.2)."""
    cdw10 = _action(action, _ACQUIRE_ACTIONS) | number("type", type, 8) << 8
    return Command(_ACQUIRE, nsid, cdw10, data=_keys(key=key, preempt_key=preempt_key))


def release(nsid: int, *, key: int, type: int, action: str) -> Command:  # noqa: A002
    """Reservation Release (7.4)."""
    cdw10 = _action(action, _RELEASE_ACTIONS) | number("type", type, 8) << 8
    return Command(_RELEASE, nsid, cdw10, data=_keys(key=key))


def report(nsid: int, length: int, *, extended: bool) -> Command:
    """Reservation Report (7.5) of `length` bytes, a multiple of 4."""
    return Command(_REPORT, nsid, length // 4 - 1, _EXTENDED * extended, length=length)


def _action(action: str, actions: Mapping[str, int]) -> int:
    if action not in actions:
        raise ConfigError(f"action: {action!r}; use one of {', '.join(actions)}")
    return actions[action]


def _keys(**keys: int) -> bytes:
    return b"".join(number(name, key).to_bytes(8, "little") for name, key in keys.items())
