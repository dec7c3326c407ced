"""The end of the process, and the child of a fork: what becomes of targets that still run.

At the end of the interpreter they are shut down, within a limit. In a child of `fork` they are forgotten:
their threads are not there, and their sockets and locks are the parent's.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from nvmet_vdev.errors import one_line
from nvmet_vdev.output import complain

LIMIT = 10.0
"""Seconds that the end of the process may be held up by all targets together."""


class Running(Protocol):
    """What is to be shut down."""

    def shutdown(self, timeout: float = ...) -> None:
        """Ends it, in `timeout` seconds at most."""


_running: weakref.WeakSet[Running] = weakref.WeakSet()
_afterwards: list[Callable[[], None]] = []


def afterwards(call: Callable[[], None]) -> Callable[[], None]:
    """Has `call` called when all targets are shut down; a decorator."""
    _afterwards.append(call)
    return call


def begin(target: Running) -> None:
    """`target` runs from now on."""
    _running.add(target)


def end(target: Running) -> None:
    """`target` has been shut down."""
    _running.discard(target)


def _at_exit() -> None:
    deadline = time.monotonic() + LIMIT
    for target in list(_running):
        try:
            target.shutdown(max(deadline - time.monotonic(), 0.0))
        except Exception as error:
            complain(one_line(str(error)))
    for call in _afterwards:
        call()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_running.clear)
