"""Threads that carry out what may take long, so that the sockets' thread never does; and how they call back.

May know threads; must not know what is carried out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable


class Runner:
    """A thread that does one thing after the other, in the order in which they were given to it.

    It is made when there is something to do. At the end of the process nothing waits for it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Has `job` done; it must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def close(self, timeout: float) -> bool:
        """Ends the thread after what it does now; False if that takes more than `timeout` seconds."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class Bell:
    """A descriptor that any thread can make readable, at any time, even after its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable when somebody has rung."""
        return self._descriptor

    def ring(self) -> None:
        """Makes it readable."""
        with self._lock:
            # A number that was closed may be somebody else's by now.
            if self._descriptor != -1:
                os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """It is not readable until the next ring."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """The end; later rings do nothing."""
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1
