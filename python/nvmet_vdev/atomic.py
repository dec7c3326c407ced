"""A file that is replaced as a whole: whoever reads it, whenever the power fails, finds the old content or
the new one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["write"]


def write(path: Path, content: bytes) -> None:
    """Makes `content` that of the file at `path`, mode 0600, on the medium. Raises OSError; the file is as it
    was then, or has the new content and may lose it with the power.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    # Of a process that had this number and was killed.
    fresh.unlink(missing_ok=True)
    with contextlib.ExitStack() as undo:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(fresh.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        undo.pop_all()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
