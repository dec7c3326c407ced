"""Whether something is there, as far as this user may look: what he may not look at is not there, and whoever
opens it says why. `pathlib` raises instead.

May know paths. Must not know what they are for.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["exists", "forget", "is_directory"]


def exists(path: Path) -> bool:
    """Whether there is anything at `path`."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_directory(path: Path) -> bool:
    """Whether there is a directory at `path`."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def forget(path: Path) -> None:
    """Removes the file at `path`, if that can be done: what went wrong before is what is told."""
    with contextlib.suppress(OSError):
        path.unlink()
