"""Waiting for a signal or for the target, with no polling: an idle process uses no CPU.

Python runs its handlers on the main thread between two bytecodes, which a thread that sleeps
in a system call never reaches. So a signal also writes one byte into a socket pair
(`signal.set_wakeup_fd`), and the main thread sleeps on that and on the target's event fd.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM)


class Wakeup:
    """While open, every signal that Python handles makes the descriptor readable: `poll` returns, handlers
    run.

    Only the main thread may have it; where signals wake somebody else already (an event loop does so),
    their descriptor stays, and this one tells nothing.
    """

    def __enter__(self) -> Wakeup:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if self._before != -1:
            signal.set_wakeup_fd(self._before)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before == -1:
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader.fileno()

    def tell(self, number: int) -> None:
        """As if the signal `number` had come; from any thread, and after the end too."""
        # Full: it is readable. Closed: nobody waits.
        with contextlib.suppress(OSError):
            self._writer.send(bytes([number]))

    def numbers(self) -> bytes:
        """The signals that have come since the last call; the descriptor is not readable then."""
        with contextlib.suppress(BlockingIOError):
            return self._reader.recv(4096)
        return b""


class StopSignals:
    """While open, SIGINT and SIGTERM are remembered instead of ending the process.

    `release` puts the default action back, so that a second signal ends a shutdown that
    takes too long, at once and with a status that is not zero.
    """

    def __enter__(self) -> StopSignals:
        self._received = False
        self._interrupts = False
        self._wakeup = Wakeup().__enter__()
        for number in STOP:
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._wakeup.__exit__()

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """In the body a stop signal raises KeyboardInterrupt: code of others runs, and may not return."""
        self._interrupts = True
        try:
            yield
        except BaseException:
            # Whatever the interrupted code has made of it.
            if self._received:
                raise KeyboardInterrupt from None
            raise
        finally:
            self._interrupts = False

    def release(self) -> None:
        """Gives SIGINT and SIGTERM back their default action."""
        for number in STOP:
            signal.signal(number, signal.SIG_DFL)

    def stop(self) -> None:
        """As if a stop signal had come; from any thread."""
        self._wakeup.tell(signal.SIGTERM)

    def wait(self, other_fd: int) -> bool:
        """Sleeps until a stop signal came (True) or `other_fd` is readable (False)."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(other_fd, select.POLLIN)
        while not self._received:
            ready = {fd for fd, _ in poll.poll()}
            if self._wakeup.fileno() in ready:
                # Other signals than ours may have come too (SIGWINCH, SIGCHLD).
                self._received |= any(number in STOP for number in self._wakeup.numbers())
            elif other_fd in ready:
                return False
        return True

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True
        if self._interrupts:
            raise KeyboardInterrupt
