"""The handle of a namespace: what can be asked of it and done to it while hosts use it.

May know the subsystem's handle and what was opened for it. Must not know controllers or signals.
"""

from __future__ import annotations

import time
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nvmet_vdev import _nvmet
from nvmet_vdev._nvmet import ConfigError, DeviceError
from nvmet_vdev.model import Registrant, Reservation
from nvmet_vdev.stats import ControllerStats

if TYPE_CHECKING:
    from nvmet_vdev.handles import Subsystem
    from nvmet_vdev.opening import Opened

__all__ = ["Namespace"]


class Namespace:
    """A namespace: a backend with a number (NVMe Base 2.0, 3.2.1). Made by `Subsystem.add_namespace`."""

    def __init__(
        self,
        subsystem: Subsystem,
        target: _nvmet.Target,
        raw: _nvmet.Subsystem,
        nsid: int,
        opened: Opened,
    ) -> None:
        self._subsystem = subsystem
        self._alive: tuple[_nvmet.Target, _nvmet.Subsystem, Opened] | None = (target, raw, opened)
        self._nsid = nsid

    def __repr__(self) -> str:
        return f"<Namespace {self._nsid} of {self._subsystem.nqn}{'' if self._alive else ', removed'}>"

    @property
    def nsid(self) -> int:
        """Namespace identifier (NSID), 1 to 1024."""
        return self._nsid

    @property
    def subsystem(self) -> Subsystem:
        """What it belongs to."""
        return self._subsystem

    @property
    def size(self) -> int:
        """Size in bytes that guests see now."""
        return int(self._facts()["size"])

    @property
    def block_size(self) -> int:
        """Logical block size in bytes: 512 or 4096."""
        return int(self._facts()["block_size"])

    @property
    def read_only(self) -> bool:
        """Whether it was opened so that writes are refused."""
        return bool(self._facts()["read_only"])

    @property
    def uuid(self) -> uuid.UUID:
        """Namespace UUID (NVMe Base 2.0, 4.5.1.4)."""
        return uuid.UUID(bytes=self._facts()["uuid"])

    @property
    def nguid(self) -> bytes:
        """Namespace Globally Unique Identifier, 16 bytes; zero: none."""
        return bytes(self._facts()["nguid"])

    @property
    def eui64(self) -> bytes:
        """IEEE Extended Unique Identifier, 8 bytes; zero: none."""
        return bytes(self._facts()["eui64"])

    @property
    def description(self) -> str:
        """One line for people about the backend: kind, place and size."""
        return self._here()[2].storage.describe()

    @property
    def failures(self) -> dict[str, int]:
        """What went wrong in a backend in Python so far, and how often: by class for OSError and NvmeError,
        by class and place for other errors. Empty for other backends.
        """
        service = self._here()[2].service
        return service.failures if service is not None else {}

    def stats(self) -> ControllerStats:
        """Counters of what all controllers did on it; `interrupts` is 0."""
        return ControllerStats(**self._here()[1].namespace_stats(self._nsid))

    # --- who sees it

    @property
    def enabled(self) -> bool:
        """Whether guests see it."""
        return bool(self._facts()["enabled"])

    def enable(self) -> None:
        """Shows it to guests, which are told (Namespace Attribute Changed)."""
        self._here()[1].set_enabled(self._nsid, True)

    def disable(self, timeout: float = 10.0) -> None:
        """Hides it from guests, which are told, and waits until nothing of theirs runs on it.

        Commands that take more than `timeout` seconds are aborted, with Command Aborted due to Preempt and
        Abort. Raises DeviceError if the backend does not let go of one for as long again: it is hidden all
        the same.
        """
        _, raw, _ = self._here()
        raw.set_enabled(self._nsid, False)
        if not raw.drain(self._nsid, timeout):
            raise DeviceError(f"{self._name()} is hidden, but its backend has not ended what runs on it")

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """NQNs of the hosts that it is attached to; None: all."""
        hosts = self._facts()["hosts"]
        return None if hosts is None else tuple(hosts)

    def attach_to(self, hosts: Sequence[str] | None) -> None:
        """Attaches it to the hosts with these NQNs, or (None) to all; guests that it comes to or goes from
        are told.
        """
        self._here()[1].attach_to(self._nsid, hosts)

    # --- writes

    @property
    def write_protected(self) -> bool:
        """Whether writes are refused: opened so, protected by the operator, or by a guest (feature 84h)."""
        return bool(self._facts()["write_protected"])

    @property
    def protected(self) -> bool:
        """Whether the operator has write protected it."""
        return bool(self._facts()["protected"])

    def protect(self, on: bool = True) -> None:
        """Write protects it, or no more; guests are told and cannot change it (NVMe Base 2.0, 8.12).

        Writes in flight end as they will. What a guest has set with feature 84h stays.
        """
        self._here()[1].protect(self._nsid, on)

    # --- ANA

    @property
    def ana_group(self) -> int:
        """ANA Group Identifier (ANAGRPID), 1 to 1024."""
        return int(self._facts()["ana_group"])

    def set_ana_group(self, group: int) -> None:
        """Puts it into another ANA group, 1 to 1024; guests are told."""
        self._here()[1].set_ana_group(self._nsid, group)

    # --- reservations

    @property
    def reservations_enabled(self) -> bool:
        """Whether guests may reserve it (nvmet's `resv_enable`)."""
        return bool(self._facts()["reservations"])

    @property
    def persistent(self) -> bool:
        """Whether reservations can outlast the target (Persist Through Power Loss): there is a state file."""
        return bool(self._facts()["persistent"])

    def reservation(self) -> Reservation:
        """Who has registered, and who holds it."""
        raw = self._here()[1]
        generation, kind, ptpl, registrants = raw.reservation(self._nsid)
        controllers = raw.controllers()
        return Reservation(
            generation,
            kind,
            ptpl,
            tuple(
                Registrant(
                    uuid.UUID(bytes=host),
                    key,
                    holder,
                    tuple(cntlid for cntlid, _, other in controllers if other == host),
                )
                for host, key, holder in registrants
            ),
        )

    def clear_reservation(self, timeout: float = 30.0) -> None:
        """Releases the reservation and unregisters all hosts, which are told (Reservation Preempted).

        Raises ConfigError if its state file cannot be written, DeviceError after `timeout` seconds.
        """
        self._here()[1].clear_reservation(self._nsid, timeout)

    # --- size, end

    def resize(self, size: int | None = None) -> None:
        """Gives the backend, and with it the namespace, another `size` in bytes; guests are told.

        None takes over the size that the backend has got by itself: a file that was extended, a block device
        that was resized, `size` of a backend in Python. Commands in flight end as they will; those that reach
        behind a smaller end get LBA Out of Range from now on (NVM Command Set 1.1, 3.2).

        Raises ConfigError for a size that is no multiple of the block size, and if the backend refuses; all
        stays as it is then.
        """
        target, _, opened = self._here()
        target.resize(opened.storage, opened.prepare_resize(size))

    def remove(self, timeout: float = 0.0) -> bool:
        """Takes the namespace from its guests, which are told; commands in flight end as they will.

        The backend is closed when the last of these has ended. Waits up to `timeout` seconds until the target
        has let go of it; whether it has. What guests have not flushed may be lost if power fails.
        """
        subsystem = self._subsystem
        with subsystem._lock:
            _, raw, opened = self._here()
            gone = raw.remove_namespace(self._nsid, timeout)
            del subsystem._namespaces[self._nsid]
            self._alive = None
        opened.on_resize(None)
        return gone

    def _here(self) -> tuple[_nvmet.Target, _nvmet.Subsystem, Opened]:
        if self._alive is None:
            raise ConfigError(f"namespace {self._nsid} of {self._subsystem.nqn} has been removed")
        return self._alive

    def _facts(self) -> dict[str, Any]:
        facts = self._here()[1].namespace(self._nsid)
        if facts is None:
            raise ConfigError(f"namespace {self._nsid} of {self._subsystem.nqn} has been removed")
        return facts

    def _name(self) -> str:
        return f"namespace {self._nsid} of {self._subsystem.nqn}"

    def _end(self, deadline: float) -> bool:
        alive, self._alive = self._alive, None
        if alive is None or (service := alive[2].service) is None:
            return True
        service.on_resize = None
        return service.close(max(deadline - time.monotonic(), 0.0))


def resizes(namespace: Namespace) -> Callable[[], None]:
    """Has `namespace` follow its backend, which does not keep it alive."""
    reference = weakref.ref(namespace)

    def tell() -> None:
        there = reference()
        if there is not None and there._alive is not None:
            there.resize()

    return tell
