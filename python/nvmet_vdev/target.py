"""The target, driven from Python: subsystems, namespaces and controllers that come and go while it runs.

::

    from nvmet_vdev import Target

    with Target() as target:
        namespace = target.add_namespace("ram:1G")
        controller = target.listen("/run/user/1000/drive.sock")
        target.wait()

Every handle may be used from any thread. After the shutdown, and in a child of `fork`, handles refuse with
ConfigError; what is there in the child is the parent's, and stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from nvmet_vdev import _nvmet, identity, lifetime
from nvmet_vdev._nvmet import ConfigError, DeviceError
from nvmet_vdev.handles import Controller, ControllerOptions, NamespaceOptions, Subsystem
from nvmet_vdev.namespaces import Namespace
from nvmet_vdev.signals import Wakeup
from nvmet_vdev.stats import ControllerStats, TargetStats

__all__ = ["Event", "Target"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a controller."""

    kind: Literal["attached", "detached"]
    """A client (a virtual machine) has connected, or is gone."""
    controller: Controller
    """Where."""


class Target:
    """A running target: its threads, its subsystems and the sockets that their controllers are reached by.

    A context manager: it shuts down at the end of the block. `workers` threads, 1 to 1024, carry the data;
    with `cpus` they are pinned to these in turn. `wait` says how they wait for work: "adaptive" looks again
    for a while and then sleeps, "event" sleeps at once, "poll" never sleeps while a client is attached and
    takes all of a CPU for each worker. What works, but not as one may think (CPUs that no worker uses, more
    polling workers than CPUs), is logged as a warning.

    Raises ConfigError for values out of range, and where the system lacks the resources.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        cpus: Sequence[int] = (),
        wait: Literal["adaptive", "event", "poll"] | str = "adaptive",
    ) -> None:
        self._raw: _nvmet.Target | None = None
        self._lock = threading.RLock()
        self._subsystems: list[Subsystem] = []
        self._process = os.getpid()
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        # Whoever waits may do so in another thread: the descriptor lives as long as the object.
        weakref.finalize(self, os.close, self._ended).atexit = False
        self._raw = _nvmet.Target(workers=workers, cpus=cpus, wait=wait)
        lifetime.begin(self)

    def __repr__(self) -> str:
        return (
            f"<Target {'with' if self._raw is not None else 'shut down,'} {len(self._subsystems)} subsystems>"
        )

    @property
    def raw(self) -> _nvmet.Target:
        """The target in Rust; ConfigError after the shutdown."""
        raw = self._raw
        if raw is None:
            raise ConfigError("the target has been shut down; make another one")
        return raw

    @property
    def subsystems(self) -> tuple[Subsystem, ...]:
        """The subsystems, in the order in which they were added."""
        return tuple(self._subsystems)

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """The namespaces of all subsystems."""
        return tuple(namespace for subsystem in self.subsystems for namespace in subsystem.namespaces)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """The controllers of all subsystems."""
        return tuple(controller for subsystem in self.subsystems for controller in subsystem.controllers)

    def add_subsystem(
        self,
        *,
        serial: str | None = None,
        nqn: str | None = None,
        model: str = "nvmet-vdev",
        firmware: str | None = None,
        cntlid_min: int = 1,
        cntlid_max: int = 0xFFEF,
        shared: bool | None = None,
        subsystem_reset: bool | None = None,
        ieee_oui: int = 0,
    ) -> Subsystem:
        """Adds a subsystem without namespaces (NVMe Base 2.0, 3.1).

        `serial` has up to 20 printable ASCII characters, `model` 40, `firmware` 8 (the version of this
        package). Guests know a drive by `serial` and `nqn`: without `nqn` one is derived from `serial`, and
        without `serial` it is another drive at every start.

        Controllers get identifiers from `cntlid_min` to `cntlid_max`. `shared` says whether guests are told
        that there may be several controllers, with ANA (CMIC, NMIC); None: once there were. With
        `subsystem_reset` any guest may reset all controllers (NSSR; NVMe Base 2.0, 3.7.1); with False none
        may; None: those of its own host. `ieee_oui` is the vendor's OUI, 24 bits.

        Raises ConfigError for names that cannot be, and for an NQN that another subsystem has.
        """
        serial = serial if serial is not None else identity.any_serial()
        with self._lock:
            raw = self.raw.add_subsystem(
                serial=serial,
                nqn=nqn,
                model=model,
                firmware=firmware,
                cntlid_min=cntlid_min,
                cntlid_max=cntlid_max,
                shared=shared,
                subsystem_reset=subsystem_reset,
                ieee_oui=ieee_oui,
            )
            subsystem = Subsystem(self.raw, raw, serial)
            self._subsystems.append(subsystem)
        return subsystem

    def remove_subsystem(self, subsystem: Subsystem) -> None:
        """Removes a subsystem whose controllers are closed, with its namespaces.

        Raises ConfigError if it still has controllers, or is another target's.
        """
        with self._lock:
            raw = self.raw
            self._default(subsystem)
            raw.remove_subsystem(subsystem.raw)
            self._subsystems.remove(subsystem)
        subsystem._end(time.monotonic() + lifetime.LIMIT)

    def add_namespace(
        self, backend: Any, *, subsystem: Subsystem | None = None, **options: Unpack[NamespaceOptions]
    ) -> Namespace:
        """Adds a namespace to `subsystem`, else to the first one, which is made if there is none.

        `backend` and the other arguments are those of `Subsystem.add_namespace`.
        """
        return self._default(subsystem).add_namespace(backend, **options)

    def listen(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        subsystem: Subsystem | None = None,
        **options: Unpack[ControllerOptions],
    ) -> Controller:
        """Makes a controller of `subsystem`, else of the first one, which is made if there is none.

        `socket` and the other arguments are those of `Subsystem.listen`.
        """
        return self._default(subsystem).listen(socket, **options)

    def _default(self, subsystem: Subsystem | None) -> Subsystem:
        with self._lock:
            # Whatever comes first says that the target is gone.
            self.raw.fileno()
            if subsystem is None:
                return self._subsystems[0] if self._subsystems else self.add_subsystem()
            if subsystem not in self._subsystems:
                raise ConfigError(f"subsystem {subsystem.nqn} is of another target; use one of this target")
            return subsystem

    def stats(self) -> TargetStats:
        """The counters of all controllers now."""
        controllers = {controller.id: controller for controller in self.controllers}
        counted = self.raw.stats()
        return TargetStats(
            {
                controllers[number]: ControllerStats(**counters)
                for number, counters in counted.items()
                if number in controllers
            }
        )

    def fileno(self) -> int:
        """A descriptor that is readable while `next_event(0)` has something, for `select` and event loops."""
        return self.raw.fileno()

    def next_event(self, timeout: float | None = None) -> Event | None:
        """What happened next, waiting for it up to `timeout` seconds (None: for ever).

        None when the time is over or the target has been shut down. Signal handlers run while it waits.
        Events of controllers that were closed are left out.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (raw := self._raw) is not None:
            while (event := raw.next_event()) is not None:
                kind, number = event
                for controller in self.controllers:
                    if controller.id == number:
                        return Event(kind, controller)
            if not self._sleep(raw.fileno(), deadline):
                break
        return None

    def wait(self, timeout: float | None = None) -> bool:
        """Serves until the target is shut down, by another thread or a signal handler: True.

        False after `timeout` seconds. Ctrl-C raises KeyboardInterrupt at once, and the handlers of other
        signals run while it waits.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._raw is not None:
            # In a child of fork nobody will ever end it.
            self.raw.fileno()
            if not self._sleep(None, deadline):
                return self._raw is None
        return True

    def _sleep(self, fd: int | None, deadline: float | None) -> bool:
        """Sleeps until `fd` is readable, the target has ended, or a signal has come; False at `deadline`."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                poll.register(stack.enter_context(Wakeup()), select.POLLIN)
            # Rounded up: a wait that is cut short would be a busy one.
            return bool(poll.poll(None if left is None else int(left * 1000) + (left > 0)))

    def shutdown(self, timeout: float = 30.0) -> None:
        """Disconnects all clients, ends what runs, flushes and closes every backend and removes the sockets.

        Takes `timeout` seconds at most; raises DeviceError when that is not enough or a flush fails: data may
        then not be on the medium. A second call does nothing.
        """
        raw = self._raw
        if raw is None:
            return
        deadline = time.monotonic() + timeout
        try:
            raw.shutdown(timeout)
        except ConfigError:
            # A child of fork, or no number of seconds: nothing has happened.
            raise
        except BaseException:
            self._end(deadline)
            raise
        if left := self._end(deadline):
            raise DeviceError(
                f"the backend of {left[0]} was not closed within {timeout:g} s: it hangs, or has more to do"
            )

    def _end(self, deadline: float) -> list[str]:
        """Ends what the target had; the names of those whose backends are not closed by then."""
        lifetime.end(self)
        with self._lock:
            self._raw = None
            left = [name for subsystem in self._subsystems for name in subsystem._end(deadline)]
        os.eventfd_write(self._ended, 1)
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if exc_value is None:
            self.shutdown()
            return
        try:
            self.shutdown()
        except _nvmet.NvmetError as error:
            # The first error is the one that tells.
            exc_value.add_note(f"and the shutdown failed: {error}")

    def __del__(self) -> None:
        if getattr(self, "_raw", None) is None or os.getpid() != self._process:
            return
        warnings.warn(f"{self!r} was not shut down", ResourceWarning, stacklevel=2, source=self)
        with contextlib.suppress(_nvmet.NvmetError):
            self.shutdown(lifetime.LIMIT)
