"""Whether the memory that may be locked (``RLIMIT_MEMLOCK``) is enough for the disks' io_uring."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from nvmet_vdev.sizes import format_size

RING_BYTES = 28 << 10
"""What the kernel charges for a ring: 8 KiB of submission entries and 20 KiB of indexes and completions. Each
worker has one for each disk."""

_CHARGED_FROM = (6, 14)
"""From this Linux on rings count as locked memory; before it, only buffers that are registered did."""
_CAP_IPC_LOCK = 14


def shortage(rings: int) -> str | None:
    """What to know about the limit if `rings` do not fit in it, else None."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    need = rings * RING_BYTES
    if limit == resource.RLIM_INFINITY or need <= limit:
        return None
    if _kernel() < _CHARGED_FROM or _may_lock_everything():
        return None
    return (
        f"RLIMIT_MEMLOCK is {format_size(limit)}, and io_uring wants {format_size(need)}, for each disk and "
        f"worker {format_size(RING_BYTES)}: some rings are small, and deep queues cost more system calls; "
        f"raise the limit beyond that (ulimit -l, or LimitMEMLOCK= of systemd)"
    )


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else _CHARGED_FROM


def _may_lock_everything() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_IPC_LOCK & 1)
    return False
