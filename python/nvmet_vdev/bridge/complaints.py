"""What went wrong in a backend, told once for each place and counted always.

A backend that fails a million times fills no log; the counters of `Service.failures` tell how often.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections import Counter

from nvmet_vdev.backend import NvmeError
from nvmet_vdev.bridge.traits import where

log = logging.getLogger("nvmet_vdev.backend")


class _Fork:
    """Whether this process is a fork of the one that imported this."""

    happened = False

    def note(self) -> None:
        self.happened = True


fork = _Fork()
os.register_at_fork(after_in_child=fork.note)


class Complaints:
    """Of one backend."""

    def __init__(self, backend: object) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def raised(self, method: str, error: BaseException) -> None:
        """`method` has raised: OSError and NvmeError are answers, everything else a mistake to be logged."""
        if isinstance(error, OSError | NvmeError):
            with self._lock:
                self.counts[type(error).__name__] += 1
            return
        # Told of while somebody waits for an answer: nothing here may fail.
        try:
            self._mistake(method, error)
        except Exception:
            self._first(f"{type(error).__name__} in {method}")

    def _mistake(self, method: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        # The first is ours.
        place = (
            f"{frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else where(self._backend, method)
        )
        if self._first(f"{type(error).__name__} at {place}"):
            text = "".join(traceback.format_exception(error))
            log.error(
                "%s raised %s at %s; the guest gets Internal Error. Told once:\n%s",
                where(self._backend, method),
                type(error).__name__,
                place,
                text.rstrip(),
            )

    def misbehaved(self, method: str, what: str) -> None:
        """`method` did what it must not; `what` says it, and what to do."""
        if self._first(f"{method}: {what}"):
            with contextlib.suppress(Exception):
                log.error("%s %s. Told once.", where(self._backend, method), what)

    def _first(self, what: str) -> bool:
        with self._lock:
            self.counts[what] += 1
            return self.counts[what] == 1


def leave_fork(backend: object, method: str) -> None:
    """Ends this process, which a backend has forked: two processes must not serve one guest."""
    sys.stderr.write(
        f"nvmet-vdev: {where(backend, method)} has forked, and the child came back from it; "
        "it ends here: leave the child with os._exit or an exec\n"
    )
    sys.stderr.flush()
    os._exit(70)
