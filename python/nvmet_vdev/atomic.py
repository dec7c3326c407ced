"""A file that is replaced as a whole: whoever reads it, whenever the power fails, finds the old content or
the new one. And who does that in one directory, one after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["alone_in", "write"]

_LOCK_TRIES = 100
_LOCK_PAUSE = 0.01
_writing = threading.Lock()
"""The new file is called by the process: its threads write one after the other."""


def write(path: Path, content: bytes) -> None:
    """Makes `content` that of the file at `path`, mode 0600, on the medium. Raises OSError; the file is as it
    was then, or has the new content and may lose it with the power.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing, contextlib.ExitStack() as undo:
        # Of a process that had this number and was killed.
        fresh.unlink(missing_ok=True)
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


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keeps others who do the same out of `directory` in the body, if that can be had soon."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
