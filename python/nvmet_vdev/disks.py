"""What the word for a disk says about it; what it means in full is decided where it is opened."""

from __future__ import annotations

_MEMORY = ("ram", "null")


def memory_kind(disk: str) -> str | None:
    """`ram` or `null` for a disk that is no file, else None."""
    kind, colon, _ = disk.partition(":")
    return kind if colon and kind in _MEMORY else None
