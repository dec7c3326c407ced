"""What the guest's kernel complains about."""

from __future__ import annotations

import re

from tests.vm.rig.guest import Guest

WARNING = 4  # KERN_WARNING; lower is worse
_SUBJECT = re.compile(r"nvme|blk_update|I/O error|Buffer I/O|EXT4-fs|pcieport|vfio|BUG:|WARNING:|hung")
_FAULT = re.compile(r"BUG:|WARNING:|Oops|hung_task|blocked for more than")
# What `nvme reset` makes the driver say, at the level of a warning.
_ASKED_FOR = re.compile(r"nvme\d+: resetting controller$")


def complaints(guest: Guest) -> list[str]:
    """The kernel's warnings and errors so far that concern a drive, or the kernel's own health."""
    found: list[str] = []
    for line in guest.run("dmesg -r").lines:
        level = re.match(r"<(\d+)>", line)
        if level and int(level[1]) & 7 <= WARNING and _SUBJECT.search(line) and not _ASKED_FOR.search(line):
            found.append(line)
    return found


def faults(guest: Guest) -> list[str]:
    """What the kernel says about itself alone: for cases in which it has reason to complain about drives."""
    return [line for line in guest.run("dmesg -r").lines if _FAULT.search(line)]
