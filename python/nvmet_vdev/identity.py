"""Names that a drive keeps from one start to the next, made from what it is.

A guest recognises a drive by its serial number, its subsystem NQN and the UUID of each
namespace; if they changed at every start, mounts by id would break. They are made from the
disk's own identity: the resolved path of a file or block device, so two starts on one image
agree and two images differ. Filters that only pass through what is there change nothing about
that. All else has no identity that we know of: memory, and backends in Python. It takes its
spec, with the path of its code made absolute, its place, and the socket's path, so that the
same start gives the same names, and two of them in one guest still differ.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nvmet_vdev.grammar import BUILT_IN, Spec, as_spec
from nvmet_vdev.loading import is_file

_UUID_NQN = "nqn.2014-08.org.nvmexpress:uuid:"
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


def derive(disks: Sequence[str | Spec], socket: Path | None) -> Identity:
    """The identity of a drive made of `disks`, served on `socket` (None: an inherited one)."""
    names = [_name(as_spec(disk), nsid, socket) for nsid, disk in enumerate(disks, start=1)]
    subsystem = _uuid("subsystem", *names)
    return Identity(
        serial=f"NV{subsystem.hex[:16].upper()}",
        nqn=f"nqn.2014-08.org.nvmexpress:uuid:{subsystem}",
        uuids=tuple(_uuid("namespace", name) for name in names),
    )


def namespace(disk: Spec | None, nqn: str, nsid: int) -> uuid.UUID:
    """The UUID of a namespace on `disk`, in the subsystem called `nqn`: of the file alone, if it is one."""
    if disk is not None and disk.content.inner is None and disk.content.path is not None:
        return _uuid("namespace", _name(disk, nsid, None))
    return _uuid("namespace", nqn, str(nsid))


def host(nqn: str, socket: Path, identifier: uuid.UUID | None = None) -> str:
    """The NQN of whoever is attached to `socket`, of the subsystem called `nqn`: his `identifier`, if he has
    one, else what the target makes of an absolute path (rust/nvmet-core/src/target.rs).
    """
    if identifier is not None:
        return f"{_UUID_NQN}{identifier}"
    name = nqn.encode() + b"\0" + os.fsencode(socket.absolute())
    digest = hashlib.sha1(uuid.NAMESPACE_URL.bytes + name, usedforsecurity=False).digest()
    return f"{_UUID_NQN}{uuid.UUID(bytes=digest[:16], version=5)}"


def serial(nqn: str) -> str:
    """A serial number for the subsystem called `nqn`, always the same one."""
    return f"NV{_uuid('serial', nqn).hex[:16].upper()}"


def any_serial() -> str:
    """A serial number that no other drive has."""
    return f"NV{uuid.uuid4().hex[:16].upper()}"


def _name(disk: Spec, nsid: int, socket: Path | None) -> str:
    content = disk.content
    if content.inner is None and content.path is not None:
        return f"file:{content.path.resolve()}"
    return f"{_absolute(disk)}#{nsid}@{socket.absolute() if socket else ''}"


def _absolute(disk: Spec) -> Spec:
    """`disk` in words that mean the same in every directory, as far as we know where paths are."""
    if disk.inner is not None:
        return replace(disk, inner=_absolute(disk.inner))
    place, colon, name = disk.rest.rpartition(":") if disk.scheme == "python" else (disk.rest, "", "")
    if not disk.scheme or (disk.scheme in BUILT_IN and is_file(place)):
        return replace(disk, rest=f"{Path(place).resolve()}{colon}{name}")
    return disk


def _uuid(*parts: str) -> uuid.UUID:
    """A version 8 (vendor) UUID of `parts`; the length of each keeps ("a", "bc") from ("ab", "c")."""
    digest = hashlib.blake2b(digest_size=16, key=_DOMAIN.bytes)
    for part in parts:
        raw = part.encode(errors="surrogateescape")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    value = int.from_bytes(digest.digest(), "big")
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
