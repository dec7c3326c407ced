"""A thread that has a manager keep its counters: now and then, when guests come and go, and at the end.

May know the manager. Must not know what it counts.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from nvmet_vdev._nvmet import NvmetError
from nvmet_vdev.manager.manager import Manager

__all__ = ["Keeping"]

PERIOD_SECONDS = 300.0
"""What a target that is killed may lose of its counters."""
END_SECONDS = 10.0
"""How long the end waits for a medium that takes nothing any more."""


class Keeping:
    """A context: counters are kept as long as it lasts, and once more at its end; nothing without a place."""

    def __init__(self, manager: Manager, *, period: float = PERIOD_SECONDS) -> None:
        self._manager = manager
        self._period = period
        self._due = threading.Event()
        self._over = False
        # Its files are all that it touches, and each of them is whole at any time.
        self._thread = threading.Thread(target=self._run, name="nvmet-keep", daemon=True)

    def soon(self) -> None:
        """Something has happened that is to be on the medium before long."""
        self._due.set()

    def _run(self) -> None:
        over = False
        while not over:
            self._due.wait(self._period)
            self._due.clear()
            # Looked at before: what happened while the last time was written is written as well.
            over = self._over
            self._keep()

    def _keep(self) -> None:
        try:
            self._manager.keep_counters()
        except NvmetError as error:
            _warn(str(error))

    def __enter__(self) -> Self:
        if self._manager.keeps_counters:
            # Where nothing can be kept, the start is the time to say so.
            self._manager.keep_counters()
            self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._over = True
        self._due.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
            if self._thread.is_alive():
                _warn("what was counted is not saved: the state directory does not answer")


def _warn(text: str) -> None:
    # Late, as all that most targets do without.
    import logging

    logging.getLogger(__name__).warning("%s", text)
