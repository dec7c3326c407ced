"""A drive that is no faster than allowed.

May know: commands, the clock. Must not know: the backend below.
"""

from __future__ import annotations

import math
import threading
import time

from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.backends.filter import Command, Filter, Readable
from nvmet_vdev.sizes import Size

__all__ = ["Rate"]


class Rate(Filter):
    """Limits commands and bytes per second (token buckets), with bursts.

    `iops` is commands a second of any kind, `bandwidth` bytes a second that are read, written or compared; 0
    is no limit, and one of the two is needed. After a pause as much goes through at once as `burst` seconds
    would allow. A command waits before it is carried out, in the order that commands come in, and is never
    refused.

        >>> drive = Rate(Ram(1 << 20), iops=1000, bandwidth=50 << 20, burst=0.1)

    On the command line: `rate?iops=1000&bandwidth=50M:disk.img`. Over a backend that is `thread_safe`
    commands wait beside each other; else those behind a waiting one wait too, which makes no difference to
    the rate."""

    def __init__(
        self, inner: Readable, *, iops: float = 0.0, bandwidth: Size = 0, burst: float = 1.0
    ) -> None:
        if not 0 <= iops < math.inf or bandwidth < 0 or not (iops or bandwidth):
            raise ConfigError(
                f"rate: iops={iops:g} and bandwidth={bandwidth}: one of them must be more than 0"
            )
        if not 0 <= burst < math.inf:
            raise ConfigError(f"rate: burst={burst:g}: it must be 0 seconds or more")
        super().__init__(inner)
        self._commands = _Bucket(iops, burst)
        self._bytes = _Bucket(bandwidth, burst)
        self._turn = threading.Lock()

    def handle(self, command: Command) -> bool:
        moved = command.length if command.buf is not None else 0
        with self._turn:
            now = time.monotonic()
            wait = max(self._commands.take(1, now), self._bytes.take(moved, now))
        if wait > 0:
            time.sleep(wait)
        return super().handle(command)


class _Bucket:
    """A token bucket that may be overdrawn: who overdraws it waits until it would be even again."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._most = rate * burst
        self._tokens = self._most
        self._filled: float | None = None

    def take(self, tokens: float, now: float) -> float:
        """Takes tokens out, and says how many seconds to wait for them."""
        if not self._rate:
            return 0.0
        if self._filled is not None:
            self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        self._tokens -= tokens
        return max(0.0, -self._tokens / self._rate)
