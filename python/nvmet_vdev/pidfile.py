"""A pidfile that appears whole, once everything is ready, and goes when the process goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nvmet_vdev.errors import UsageError
from nvmet_vdev.seen import is_directory


def check(path: Path) -> None:
    """Fails before anything is started if a pidfile cannot be written at `path`."""
    if is_directory(path):
        raise UsageError(f"pidfile {path} is a directory; name a file")
    if not is_directory(path.parent):
        raise UsageError(f"pidfile {path}: no directory {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"pidfile {path}: {path.parent} is not writable; choose another --pidfile")


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[None]:
    """Holds a pidfile at `path` while the body runs; with None does nothing."""
    if path is None:
        yield
        return
    content = f"{os.getpid()}\n"
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            fresh.write_text(content)
            fresh.replace(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise UsageError(f"pidfile {path}: {error.strerror}; choose another --pidfile") from error
        yield
    finally:
        # Somebody else's pidfile stays: another instance may have replaced ours.
        with contextlib.suppress(OSError):
            if path.read_text() == content:
                path.unlink()
