"""What nvme-cli prints, taken apart."""

from __future__ import annotations

import re


def status_of(said: str) -> tuple[int, int, bool]:
    """Type, code and Do Not Retry of the status that nvme-cli printed."""
    status = re.search(r"^NVMe status: .*\(0x([0-9a-f]+)\)$", said, re.MULTILINE)
    assert status, said
    value = int(status[1], 16)
    return value >> 8 & 0x7, value & 0xFF, bool(value & 0x4000)
