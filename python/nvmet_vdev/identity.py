"""Names that a drive keeps from one start to the next, made from what it is.

A guest recognises a drive by its serial number, its subsystem NQN and the UUID of each
namespace; if they changed at every start, mounts by id would break. They are made from the
disk's own identity: the resolved path of a file or block device, so two starts on one image
agree and two images differ. `ram:` and `null:` have no identity of their own and take the
socket's path, so that two of them in one guest still differ.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from nvmet_vdev.disks import memory_kind

_DOMAIN = uuid.UUID("6f5c7a0e-2f0b-5d53-9c0e-6e766d657476")


@dataclass(frozen=True)
class Identity:
    """What one subsystem and its namespaces are called."""

    serial: str
    """Serial Number (SN): 20 ASCII characters at most (NVMe Base 2.1, 5.1.13.2.1)."""
    nqn: str
    """NVM Subsystem NVMe Qualified Name (SUBNQN), in its UUID form (NVMe Base 2.1, 4.7)."""
    uuids: tuple[uuid.UUID, ...]
    """Namespace UUID for NSID 1, 2, … (NVMe Base 2.1, 4.7.1.4)."""


def derive(disks: list[str], socket: Path | None) -> Identity:
    """The identity of a drive made of `disks`, served on `socket` (None: an inherited one)."""
    names = [_name(disk, nsid, socket) for nsid, disk in enumerate(disks, start=1)]
    subsystem = _uuid("subsystem", *names)
    return Identity(
        serial=f"NV{subsystem.hex[:16].upper()}",
        nqn=f"nqn.2014-08.org.nvmexpress:uuid:{subsystem}",
        uuids=tuple(_uuid("namespace", name) for name in names),
    )


def _name(disk: str, nsid: int, socket: Path | None) -> str:
    if memory_kind(disk):
        return f"{disk}#{nsid}@{socket.absolute() if socket else ''}"
    return f"file:{Path(disk).resolve()}"


def _uuid(*parts: str) -> uuid.UUID:
    """A version 8 (vendor) UUID of `parts`; the length of each keeps ("a", "bc") from ("ab", "c")."""
    digest = hashlib.blake2b(digest_size=16, key=_DOMAIN.bytes)
    for part in parts:
        raw = part.encode(errors="surrogateescape")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    value = int.from_bytes(digest.digest(), "big")
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
