"""Counters of a target, as plain data. All of them only grow, from the start of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvmet_vdev.handles import Controller


@dataclass(frozen=True, slots=True)
class ControllerStats:
    """What the I/O queues of one controller did, over all its clients (NVMe Base 2.0, 5.16.1.3)."""

    reads: int = 0
    """Read and Compare commands completed."""
    writes: int = 0
    """Write commands completed; Write Zeroes carries no data and does not count."""
    bytes_read: int = 0
    """Bytes moved to the host by Read and Compare."""
    bytes_written: int = 0
    """Bytes moved from the host by Write."""
    completions: int = 0
    """Completions posted, of every command."""
    errors: int = 0
    """Completions with an error status."""
    media_errors: int = 0
    """Errors of the medium: Media and Data Integrity status other than Compare Failure."""
    interrupts: int = 0
    """Interrupts requested."""

    def __add__(self, other: ControllerStats) -> ControllerStats:
        both = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return ControllerStats(**both)


@dataclass(frozen=True)
class TargetStats:
    """Counters of a target at one moment."""

    controllers: Mapping[Controller, ControllerStats]
    """Of every controller that is there."""

    @property
    def total(self) -> ControllerStats:
        """The sum over all controllers."""
        return sum(self.controllers.values(), ControllerStats())
